"""What a suite's seeds can show, before anything runs: the smallest effect they detect, and how many an effect takes.

How far paired differences vary is taken from earlier records of the suite; that figure is itself uncertain, and so is
all that follows from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cnnbench.contrasts import contrasts_of, differences
from cnnbench.frame import by_dataset
from cnnbench.numerals import number, significant
from cnnbench.quantities import quantities
from cnnbench.stats.power import (
    ALPHA,
    MOST,
    effective_df,
    pooled_spread,
    sd_interval,
    seeds_for_sign_flip,
    seeds_needed,
    smallest_effect,
    smallest_p,
)
from cnnbench.verdicts import kind_of, pair_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cnnbench.contrasts import Family
    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.stats.power import Spread
    from cnnbench.suite import Arm, Suite

_QUICK: Final = 3
"""Seeds of a quick look."""
_UNEVEN: Final = 4
"""Where a comparison varies so many times as much as the median one, the pooled spread speaks for neither."""
_BY: Final = {"holm": " (Holm)", "benjamini-hochberg": " if no other differs (Benjamini-Hochberg)"}
_NAMES: Final[Mapping[Family, str]] = {"effects": "main effect", "interactions": "interaction", "steps": "step"}


@dataclass(frozen=True)
class Asked:
    """What the arithmetic is done for.

    Attributes:
        quantity: the primary one.
        seeds: planned, or the most that there may be.
        effect: the difference to be found, in the recorded unit, of times as a logarithm; None where none is stated.
        said: where the effect was stated.
        flips: the sign-flip test decides.
        adaptive: the seeds are the most that an arm may get.
    """

    quantity: Quantity
    seeds: int
    effect: float | None
    said: str
    flips: bool
    adaptive: bool

    @property
    def unit(self) -> str:
        """What differences are told in."""
        if kind_of(self.quantity) == "timed":
            return " %"
        return " pp" if self.quantity.unit == "%" else f" {self.quantity.unit}".rstrip()

    def figure(self, value: float) -> str:
        """A difference for people, without its unit."""
        shown = 100 * math.expm1(value) if kind_of(self.quantity) == "timed" else value * self.quantity.factor
        return number(shown, significant([shown], 2))


def seed_lines(
    suite: Suite,
    arms: Sequence[Arm],
    records: Sequence[Mapping[str, Any]],
    effect: float | None = None,
    *,
    adaptive: bool = False,
) -> list[str]:
    """The seed arithmetic of a suite in lines.

    Args:
        suite: what is planned.
        arms: its arms, as far as they would run.
        records: earlier ones of the suite, in the order of the file.
        effect: the difference in the primary metric to be found, in the recorded unit, of times as a share; None for
            the suite's margin.
        adaptive: the suite's seeds are the most that an arm may get; what looks cost a sign-flip test is counted in.
    """
    seeds = len(suite.seeds)
    compared = sum(arm.role == "arm" for arm in arms)
    if not compared:
        return [f"seeds: {seeds}; one arm alone is compared with nothing"]
    floor = seeds_for_sign_flip(compared, looking=adaptive)
    level = _percent(ALPHA / compared)
    reaches = (
        ""
        if seeds >= floor
        else f"; with {seeds} its p is {_percent(smallest_p(seeds, looking=adaptive))} at the least"
    )
    several = f"{compared} comparisons; the clearest has" if compared > 1 else "one comparison; it has"
    where = "on each dataset, " if len(suite.datasets) > 1 else ""
    lines = [
        f"seeds: {where}{seeds} for {several} to reach p ≤ {level}{_BY[suite.inference.correction] * (compared > 1)}",
        f"  an exact sign-flip test can from {floor} paired seeds on{reaches}",
    ]
    quantity = quantities([suite.measure.primary], suite.measure.latency.batch_sizes)[0]
    kind = kind_of(quantity)
    if kind in {"apart", "percentile", "undirected"}:
        return [*lines, f"  {quantity.label} gets no verdict, from however many seeds"]
    if kind == "exact":
        return [*lines, f"  {quantity.label} has hardly any noise: one seed tells it"]
    asked = _asked(suite, quantity, effect, adaptive=adaptive)
    earlier = list(by_dataset(records).values()) if records else []
    known_of_arms = _of_arms(earlier, quantity, "arm")
    label = f"{compared} arm{'s' * (compared > 1)}"
    if known_of_arms is None and (known_of_arms := _of_arms(earlier, quantity, "placebo")):
        label += ", taken to vary as the placebo does"
    lines += _family(label, compared, known_of_arms, asked)
    unknown = ""
    if suite.design is not None and compared == len(suite.arms):
        sizes = [len(axis.levels) for axis in suite.design.axes]
        for family, members in contrasts_of(suite.design.kind, sizes).items():
            known = pooled_spread([differences(trials, family, quantity) for trials in earlier])
            label = f"{len(members)} {_NAMES[family]}{'s' * (len(members) > 1)}"
            lines += _family(label, len(members), known, asked)
            unknown = unknown if known else "no earlier records tell yet, as they have not the whole design"
    if known_of_arms is None:
        low, high = sd_interval(1, len(suite.datasets) * effective_df((_QUICK - 1) * compared, compared))
        within = f"to within {number(low, 1)} to {number(high, 1)} times"
        unknown = f"no earlier records of this suite tell; a quick look with {_QUICK} seeds would, {within}"
    elif records[-1].get("suite", {}).get("sha256") != suite.sha256:
        lines.append("  the earlier records are of another version of the suite's file")
    return [*lines, f"  SD: how far these differences in {quantity.label} vary, which {unknown}"] if unknown else lines


def _asked(suite: Suite, quantity: Quantity, effect: float | None, *, adaptive: bool) -> Asked:
    said = "--effect"
    if effect is None:
        said = "the suite's margin"
        effect = suite.measure.margin.get(suite.measure.primary)
        if kind_of(quantity) == "timed":  # a margin in milliseconds is no share until the times are known
            said, effect = "latency.precision", suite.measure.latency.precision
    if effect is not None and kind_of(quantity) == "timed":
        effect = math.log1p(effect)
    return Asked(quantity, len(suite.seeds), effect, said, suite.inference.test == "sign-flip", adaptive)


def _of_arms(earlier: Sequence[TrialSet], quantity: Quantity, role: str) -> Spread | None:
    """The spread of paired differences of the arms of a role, pooled; those of one reference are a group."""
    groups: list[list[NDArray[np.float64]]] = []
    for trials in earlier:
        for reference in dict.fromkeys(trials.references.values()):
            arms = [a for a in trials.arms if trials.references[a] == reference and trials.roles[a] == role]
            if reference is not None and arms:
                groups.append([_paired(trials, arm, quantity) for arm in arms])
    return pooled_spread(groups)


def _paired(trials: TrialSet, arm: str, quantity: Quantity) -> NDArray[np.float64]:
    """Arm minus reference by seed, as it is judged; of times the logarithm of the ratio that was paired by rounds."""
    pair = pair_of(trials, arm, quantity)
    return np.zeros(0) if pair is None else pair[0] - pair[1]


def _family(label: str, comparisons: int, known: Spread | None, asked: Asked) -> Iterator[str]:
    """What the seeds detect in one family, in its spread's unit where that is known, and how many an effect takes."""
    floor = seeds_for_sign_flip(comparisons, looking=asked.adaptive) if asked.flips else 2  # a t test needs two
    n = f"{asked.seeds} seeds detect" if asked.seeds > 1 else "1 seed detects"
    if known is None:
        detected = smallest_effect(1.0, asked.seeds, comparisons)
        what = f"{number(detected, significant([detected], 2))} SD" if asked.seeds >= floor else "nothing"
        yield f"  {label}: at 80 % power {n} {what}"
        return
    figure, unit = asked.figure, asked.unit
    vary = f"{_between(*map(figure, _ends(known)))}{unit} (SD), by {known.differences} earlier ones"
    yield f"  {label}: paired differences in {asked.quantity.label} vary by {vary}"
    detects = "nothing"
    if asked.seeds >= floor:
        detects = _between(*(figure(smallest_effect(sd, asked.seeds, comparisons)) for sd in _ends(known))) + unit
    takes = ""
    if asked.effect is not None:
        counts = [seeds_needed(asked.effect, sd, comparisons) for sd in _ends(known)]
        words = [f"more than {MOST}" if count is None else str(max(count, floor)) for count in counts]
        takes = f"; {figure(asked.effect)}{unit} ({asked.said}) takes {_between(*words)}"
    yield f"    at 80 % power {n} {detects}{takes}"
    if known.widest > _UNEVEN * known.typical:
        own = f"half of them vary by less than {figure(known.typical)}{unit}, one by {figure(known.widest)}{unit}"
        few = seeds_needed(asked.effect, known.typical, comparisons) if asked.effect is not None else None
        typical = f"; at {figure(known.typical)}{unit} it takes {max(few, floor)}" if few else ""
        yield f"    they are uneven: {own}{typical}"


def _ends(spread: Spread) -> tuple[float, float, float]:
    return spread.sd, spread.low, spread.high


def _between(middle: str, low: str, high: str) -> str:
    return middle if low == high else f"{middle} ({low} to {high})"


def _percent(share: float) -> str:
    return f"{number(100 * share, significant([100 * share], 2))} %"
