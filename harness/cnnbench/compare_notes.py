"""What stands under a comparison: what its figures mean, what decided, and what else differs between the runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.compare import LEVEL, SAME_CODE, SAME_NETWORK
from cnnbench.notices import noise_notes
from cnnbench.pairs import VERSIONS
from cnnbench.ratios import FEWEST_SEEDS
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.compare import Comparison, Result
    from cnnbench.frame import TrialSet


def notes(result: Result, names: tuple[str, str]) -> Iterator[str]:
    """The notes in order, a sentence or a list each.

    Args:
        result: what to tell about.
        names: where the two runs came from, before and after.
    """
    yield f"Before: {_run(result.before, names[0])}. After: {_run(result.after, names[1])}."
    yield from _tolerances(result.comparisons)
    yield from _statistics(result.comparisons)
    yield from _fewer_seeds(result)
    yield from _timings(result.comparisons)
    yield from _differences(result)
    yield from _one_sided(result)
    yield from _noise(result)


def _run(run: TrialSet, name: str) -> str:
    suite = run.heading.get("suite") or {}
    environment = run.heading.get("environment") or {}
    facts = [str(suite.get("name") or ""), f"revision {environment['revision']}" if "revision" in environment else ""]
    facts += [str(run.heading.get("started") or "")[:10], _numbered(len(run.seeds), "seed"), f"in {name}"]
    return printable(", ".join(fact for fact in facts if fact))


def _tolerances(comparisons: Sequence[Comparison]) -> Iterator[str]:
    decided = {one.metric: one.tolerance.text for one in comparisons if one.tolerance}
    if decided:
        same: dict[str, list[str]] = {}
        for metric, text in decided.items():
            same.setdefault(text, []).append(metric)
        yield f"Tolerances: {'; '.join(f'{listed(metrics)} {text}' for text, metrics in same.items())}."
    shown = list(dict.fromkeys(one.metric for one in comparisons if one.verdict == "shown only"))
    if shown:
        yield f"Shown only, as no tolerance decides: {listed(map(printable, shown))}."


def _statistics(comparisons: Sequence[Comparison]) -> Iterator[str]:
    tested = sum(one.p is not None for one in comparisons)
    if tested:
        yield (
            "Differences are after − before in the same seeds, each with its own 95 % interval. Verdicts hold "
            f"at {100 * LEVEL:g} % for all {_numbered(tested, 'comparison')} together (Holm)."
        )
    few = {len(one.evidence.pairs) for one in comparisons if one.evidence and one.p is not None}
    if few and min(few) == 2:
        yield "From two seeds an interval is wide: only large differences show. Run three or more."
    bare = list(dict.fromkeys(one.metric for one in comparisons if one.reason.endswith("no interval")))
    if bare:
        yield f"Without an interval nothing is called of {listed(map(printable, bare))}: run three seeds or more."


def _fewer_seeds(result: Result) -> Iterator[str]:
    """Where seeds that both runs have planned are not in a comparison: missing, damaged, failed, or of another kind."""
    fewer: dict[tuple[str, int, int], list[str]] = {}
    for one in result.comparisons:
        before, after = result.before.seeds_of(one.arm), result.after.seeds_of(one.arm)
        planned = len(set(before) & set(after))
        if one.evidence and len(one.evidence.pairs) < planned:
            fewer.setdefault((one.arm, len(one.evidence.pairs), planned), []).append(one.metric)
    if fewer:
        which = "; ".join(
            f"{printable(arm)} {have} of {planned} ({listed(map(printable, metrics), 3)})"
            for (arm, have, planned), metrics in fewer.items()
        )
        yield f"From fewer seeds than planned: {which}."


def _timings(comparisons: Sequence[Comparison]) -> Iterator[str]:
    if any(one.evidence and one.evidence.logarithmic for one in comparisons):
        yield "Times before and after are geometric means over seeds."
    if any(one.evidence and one.evidence.beside for one in comparisons):
        yield (
            "Beside: how the ratio to that arm moved, each taken within its own run, which cancels what the machine "
            "did to both. It decides where that arm's code is the same in both runs; else the arm's own time must have "
            "moved as well."
        )
    short = [
        one
        for one in comparisons
        if one.evidence and one.evidence.logarithmic and one.p is not None and len(one.evidence.pairs) < FEWEST_SEEDS
    ]
    if short:
        yield (
            f"Latency from fewer than {FEWEST_SEEDS} seeds: the interval is that of the samples, and blind to what "
            "varies from one process to the next."
        )
    yield from _by_themselves(comparisons)
    if any(one.reason == SAME_CODE for one in comparisons):
        yield (
            f"{SAME_CODE.capitalize()}: code, versions, settings and machine have one key in both runs, so a "
            "difference is the machine's that day."
        )
    if any(one.reason == SAME_NETWORK for one in comparisons):
        yield (
            f"{SAME_NETWORK.capitalize()}: its code, weights, settings and torch are the same in both runs. What "
            "measures it changed, or what it is compared with: a difference is theirs or the machine's that day."
        )


def _by_themselves(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """A warning where no ratio could take the machine out."""
    own: dict[str, dict[str, None]] = {}
    for one in comparisons:
        if one.by_itself:
            own.setdefault(one.metric, {})[one.arm] = None
    if own:
        which = "; ".join(f"{metric} of {listed(map(printable, arms))}" for metric, arms in own.items())
        yield (
            f"No ratio decides here, the figure by itself does: {which}. All seeds of a run share the machine's state "
            "of that day, and the interval is blind to it. Where a figure moved, measure the earlier code again: if "
            "that moves too, it was the machine."
        )


def _differences(result: Result) -> Iterator[str]:
    """What differs in versions, options and paths: told, not refused."""
    pairs = [pair for some in result.arms.values() for pair in some]
    found: dict[str, None] = {}
    for pair in pairs:
        old, new = _environment(pair.before), _environment(pair.after)
        for name in VERSIONS:
            if old.get(name) != new.get(name) and (name in old or name in new):
                found[f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}"] = None
    if found:
        yield f"Other versions: {listed(map(printable, found))}."
    gained: dict[str, None] = {}
    for arm, some in result.arms.items():
        for pair in some[:1]:
            if not pair.another_experiment:
                gained.update(dict.fromkeys(f"{arm}: {text}" for text in pair.options_of_one_side()))
    if gained:
        yield f"Compared all the same, though one side knows them alone: {listed(map(printable, gained))}."


def _environment(record: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = record.get("environment") or {}
    return found


def _one_sided(result: Result) -> Iterator[str]:
    before, after = result.before, result.after
    if gone := [arm for arm in before.arms if arm not in after.arms]:
        yield f"Arms only before: {listed(map(printable, gone))}."
    if new := [arm for arm in after.arms if arm not in before.arms]:
        yield f"Arms only after: {listed(map(printable, new))}."
    if set(before.seeds) != set(after.seeds):
        shared = [seed for seed in after.seeds if seed in before.seeds]
        yield f"Compared over the seeds that both have: {listed(shared) or 'none'}."


def _noise(result: Result) -> Iterator[str]:
    """What disturbed the timings of either run: they are worth less then than their intervals say."""
    if any(one.quantity.stage in {"latency", "energy"} for one in result.comparisons):
        for name, run in (("Before", result.before), ("After", result.after)):
            yield from (f"{name}: {text}" for text in noise_notes(run))


def _numbered(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
