"""Records of one suite on several datasets to one sheet: average ranks, typical differences, and verdicts counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cnnbench.contrasts import primary_of
from cnnbench.judged import difference_text
from cnnbench.numerals import MISSING, number, scale
from cnnbench.sheets import Cell, Column, Sheet
from cnnbench.stats import aggregate as figures
from cnnbench.stats.effects import improvement
from cnnbench.stats.multiplicity import holm
from cnnbench.stats.power import ALPHA, seeds_for_sign_flip
from cnnbench.text import listed, printable
from cnnbench.verdicts import kind_of, levels, looks_of, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.stats.aggregate import Friedman
    from cnnbench.stats.intervals import Estimate
    from cnnbench.stats.verdicts import Verdict

_SEED: Final = 0
"""Of the generator behind bootstraps and permutations: a sheet made again is the same to the last digit."""
_FEWEST: Final = 5
"""With fewer datasets Nemenyi's critical difference, an asymptotic one, is not told."""
_VERDICTS: Final[tuple[Verdict, ...]] = ("better", "worse", "equivalent", "unresolved")


@dataclass(frozen=True)
class Overall:
    """One arm over all datasets.

    Attributes:
        arm: its name.
        role: ``baseline``, ``arm`` or ``placebo``.
        rank: average over the datasets on which all arms have values, 1 the best; None for the placebo.
        difference: interquartile mean of the differences from the reference of the same dataset and seed, with the
            interval over seeds; of logarithms for times. None for the baseline.
        wins: share of datasets and seeds where it beats its reference, ties half, with its interval.
        p: that its differences on datasets of the kind are symmetric about zero, corrected (Holm); None where so few
            datasets decide nothing.
        counts: number of datasets by verdict.
    """

    arm: str
    role: str
    rank: float | None
    difference: Estimate | None
    wins: Estimate | None
    p: float | None
    counts: Mapping[Verdict, int]


@dataclass(frozen=True)
class Aggregate:
    """All datasets of a run together, in the primary metric.

    Attributes:
        quantity: the metric.
        datasets: labels, in the suite's order.
        ranked: those that ranks are taken from.
        rows: arms in the planned order.
        friedman: whether ranks differ; None for fewer than two ranked datasets.
        critical: Nemenyi's critical difference of average ranks; None for few datasets.
        tested: most datasets on which an arm has differences.
        needed: so many datasets it takes for a p over datasets.
    """

    quantity: Quantity
    datasets: tuple[str, ...]
    ranked: tuple[str, ...]
    rows: tuple[Overall, ...]
    friedman: Friedman | None
    critical: float | None
    tested: int = 0
    needed: int = 0


def aggregate(by_dataset: Mapping[str, TrialSet]) -> Aggregate | None:
    """What all datasets of a run say together.

    Args:
        by_dataset: trials by the dataset's label, at least one, of one suite.

    Returns:
        None where the primary metric has no better direction.
    """
    first = next(iter(by_dataset.values()))
    quantity = primary_of(first)
    if quantity.better == "neither":
        return None
    rng = np.random.default_rng(_SEED)
    scores = {label: {arm: levels(trials, arm, quantity) for arm in first.arms} for label, trials in by_dataset.items()}
    competing = [arm for arm in first.arms if first.roles[arm] != "placebo"]
    means = {label: _means(found, competing) for label, found in scores.items()}
    ranked = {label: row for label, row in means.items() if np.isfinite(row).all()}
    ranks = figures.ranks(np.array(list(ranked.values())), higher=quantity.better == "higher") if ranked else None
    judged = [verdicts(trials, [quantity]).judgements.get(quantity.key, {}) for trials in by_dataset.values()]
    differences = {
        arm: [found[arm] - found[reference] for found in scores.values()]
        for arm in first.arms
        if (reference := first.references[arm]) is not None and reference in first.arms
    }
    tested = {arm: [row.mean() for row in _present(own)] for arm, own in differences.items() if arm in competing}
    most, needed = max(map(len, tested.values()), default=0), seeds_for_sign_flip(len(tested)) if tested else 0
    p_values = _over_datasets(tested, rng) if tested and most >= needed else {}
    rows = []
    for arm in first.arms:
        own = differences.get(arm)
        rows.append(
            Overall(
                arm=arm,
                role=first.roles[arm],
                rank=None if ranks is None or arm not in competing else float(ranks[:, competing.index(arm)].mean()),
                difference=None if own is None else figures.iqm_interval(_present(own), rng),
                wins=None
                if own is None
                else improvement(np.concatenate([np.empty(0), *_present(own)]), quantity.better),
                p=p_values.get(arm),
                counts=Counter(found[arm].verdict for found in judged if arm in found),
            )
        )
    return Aggregate(
        quantity=quantity,
        datasets=tuple(by_dataset),
        ranked=tuple(ranked),
        rows=tuple(rows),
        friedman=None if ranks is None else figures.friedman(ranks, rng),
        critical=figures.critical_difference(len(competing), len(ranked)) if len(ranked) >= _FEWEST else None,
        tested=most,
        needed=needed,
    )


def sheet(by_dataset: Mapping[str, TrialSet]) -> Sheet | None:
    """The aggregate as a sheet. Takes and gives None as ``aggregate`` does."""
    found = aggregate(by_dataset)
    if found is None:
        return None
    timed = kind_of(found.quantity) == "timed"
    estimates = [row.difference for row in found.rows if row.difference]
    shown = scale(found.quantity, (estimate.mean for estimate in estimates))
    unit, factor = ("×", 1.0) if timed else ("pp" if shown.unit == "%" else shown.unit, shown.factor)
    label = f"{'ratio' if timed else 'Δ'} {found.quantity.label}"

    def difference(row: Overall) -> Cell:
        if row.difference is None:
            return Cell("" if row.role == "baseline" else MISSING)
        text, order = difference_text(row.difference, factor, logarithmic=timed)
        return Cell(text, order=order)

    def wins(row: Overall) -> Cell:
        if row.wins is None:
            return Cell("" if row.role == "baseline" else MISSING)
        return _figure(100 * row.wins.mean, 0)

    columns = [
        Column("arm", "", tuple(Cell(printable(row.arm)) for row in found.rows)),
        Column("rank", "", tuple(_figure(row.rank, 2) for row in found.rows), hint="average over datasets, 1 is best"),
        Column(label, unit, tuple(map(difference, found.rows)), hint="interquartile mean over datasets and seeds"),
        Column("wins", "%", tuple(map(wins, found.rows))),
    ]
    for verdict in _VERDICTS:
        counts = tuple(_figure(row.counts[verdict], 0) if row.role == "arm" else Cell("") for row in found.rows)
        columns.append(Column(verdict, "", counts, hint=f"number of datasets where the arm is {verdict}"))
    if any(row.p is not None for row in found.rows):
        p = tuple(Cell(_p(row.p), order=row.p) if row.p is not None else Cell("") for row in found.rows)
        columns.append(Column("p", "", p, hint="over datasets, corrected"))
    caption = f"{found.quantity.label} on {len(found.datasets)} datasets: {listed(map(printable, found.datasets))}."
    return Sheet("aggregate", "All datasets", caption, tuple(columns), tuple(_notes(found, by_dataset)))


def _notes(found: Aggregate, by_dataset: Mapping[str, TrialSet]) -> Iterator[str]:
    timed = kind_of(found.quantity) == "timed"
    yield (
        f"{'ratio' if timed else 'Δ'}: every {'ratio to' if timed else 'difference from'} the reference on the same "
        "dataset and seed, and of all these the mean without the lowest and the highest quarter. ± is half a 95 % "
        "bootstrap interval over the seeds of each dataset: what other seeds would give on these datasets, not what "
        "other datasets would."
    )
    yield "wins: share of datasets and seeds where the arm beats its reference, ties counted half."
    if found.friedman is not None:
        p = found.friedman.p
        df, f = found.friedman.df, found.friedman.f
        on = f"{len(found.ranked)} datasets"
        told = (
            "the ranks agree on all datasets"
            if np.isinf(f)
            else f"F({df[0]}, {df[1]}) = {number(f, 2)} (Iman and Davenport)"
        )
        yield (
            f"Ranks are of means over seeds, on {on}. Friedman test: {told}, p {_p(p, '= ')} by permutation: "
            f"the arms' ranks {'differ' if p <= ALPHA else 'are not shown to differ'} on these {on}."
        )
    if found.critical is not None and found.friedman is not None and found.friedman.p <= ALPHA:
        yield f"Average ranks that lie {number(found.critical, 2)} apart differ (Nemenyi, 5 %)."
    if left_out := [label for label in found.datasets if label not in found.ranked]:
        yield f"Left out of the ranks, as some arm shares no seed with the others: {listed(map(printable, left_out))}."
    arms = sum(row.role == "arm" for row in found.rows)
    if found.tested < found.needed:
        n = found.tested
        yield (
            f"{n} datasets can't show that an arm would be better on others: with {arms} arm{'s' * (arms > 1)} that "
            f"takes at least {found.needed} (Wilcoxon's signed-rank test, Holm). What is said here is of these {n}."
        )
    elif any(row.p is not None for row in found.rows):
        yield "p: Wilcoxon's signed-rank test over datasets of each arm against its reference, corrected (Holm)."
    if any(map(looks_of, by_dataset.values())):
        yield "Seeds were added to arms that were still unresolved; verdicts allow for that, all else here does not."


def _means(scores: Mapping[str, NDArray[np.float64]], arms: Sequence[str]) -> NDArray[np.float64]:
    """Mean of each arm over the seeds that all of them have; nan where there is none."""
    stacked = np.stack([scores[arm] for arm in arms])
    common = stacked[:, np.isfinite(stacked).all(axis=0)]
    return common.mean(axis=1) if common.shape[1] else np.full(len(arms), np.nan)


def _present(strata: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    finite = [row[np.isfinite(row)] for row in strata]
    return [row for row in finite if row.size]


def _over_datasets(means: Mapping[str, list[float]], rng: np.random.Generator) -> dict[str, float]:
    """Corrected p of each arm over the datasets' mean differences."""
    return dict(zip(means, holm([figures.signed_rank(row, rng) for row in means.values()]), strict=True))


def _p(value: float, equals: str = "") -> str:
    return f"{equals}{number(value, 3)}" if value >= 0.001 else "< 0.001"


def _figure(value: float | None, decimals: int) -> Cell:
    return Cell(MISSING) if value is None else Cell(number(value, decimals), order=value)
