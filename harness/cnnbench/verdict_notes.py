"""Notes on verdicts: what decides them, within which margins, from how many seeds, and what has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.columns import text_columns
from cnnbench.inference import Inference
from cnnbench.numerals import factor, number, significant
from cnnbench.quantities import is_ratio
from cnnbench.ratios import FEWEST_SEEDS
from cnnbench.stats.power import seeds_for_sign_flip
from cnnbench.stats.verdicts import LEVEL
from cnnbench.text import listed, named, printable
from cnnbench.verdicts import Kind, kind_of, looks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.stats.verdicts import Judgement
    from cnnbench.tables import Row, Table

_PERCENT = f"{100 * LEVEL:g} %"
_WHY_NONE: dict[Kind, str] = {
    "apart": "trainings and preparations are not interleaved, so an effect can't be told from a drift of the machine",
    "energy": "only what was measured on both sides is judged; estimates tell no more than times do",
    "percentile": "pairing does not free percentiles of disturbances",
    "undirected": "no direction is better",
    "timed": "the records hold no paired ratio",
}


def verdict_notes(trials: TrialSet, table: Table) -> Iterator[str]:
    """All that is to be said of verdicts.

    Args:
        trials: what the table shows.
        table: without notes yet.
    """
    inference = Inference.from_plain(trials.heading.get("statistics"))
    tested = {q: found for q in table.quantities if not is_ratio(q) and (found := _tested(table, q))}
    if tested:
        yield from _rule(trials, table, tested, inference)
        yield from _margins(table, tested)
        yield from _sign_flip(tested, inference, looks_of(trials))
        yield from _few_seeds(table, tested)
    yield from _none(table)
    if any(m.strong for row in table.rows for m in row.measured.values()):
        yield (
            "Marked (* in a terminal, else bold): may be the best of its column, since no other arm is shown to be "
            f"better (one-sided paired tests and sign tests at {_PERCENT}, Bonferroni); arms with too few seeds for "
            "that, and the placebo, are left aside."
        )


def placebo_notes(table: Table) -> Iterator[str]:
    """The noise of the run in figures; and a warning where a placebo differs, as if it had an effect."""
    for place, row in enumerate(table.rows):
        if row.role != "placebo":
            continue
        noise = "; ".join(_noise(table, place))
        yield (
            f"{printable(row.arm)}: the baseline again with other random numbers. "
            + (f"Noise of this run: {noise}." if noise else "Its differences are the run's own noise.")
        )
        judged = [q for q in table.quantities if not is_ratio(q) and kind_of(q) != "exact" and _judged(row, q)]
        differ = [f"{q.label} ({_p(j.p)})" for q in judged if (j := _judged(row, q)) and _claims(j)]
        if differ:
            yield (
                f"Warning: {printable(row.arm)} differs in {listed(differ)} by its own test, of {_count(len(judged))} "
                f"judged. Chance alone does that to {_PERCENT} of them; take differences of that size for noise."
            )


def _noise(table: Table, place: int) -> Iterator[str]:
    """A placebo's difference in the primary quantity, and its ratios, as the table shows them."""
    primary = next(q.label for q in table.quantities if q.key == table.primary)
    ratios = {q.label for q in table.quantities if is_ratio(q)}
    for column in text_columns(table):
        cell = column.cells[place]
        if cell.order is not None and (column.label == f"Δ {primary}" or column.label in ratios):
            unit = column.unit if column.unit != "×" else ""
            yield " ".join(filter(None, (column.label, cell.text, unit)))


def _rule(
    trials: TrialSet, table: Table, tested: dict[Quantity, list[Judgement]], inference: Inference
) -> Iterator[str]:
    counts = sorted({len(found) for found in tested.values()})
    if counts == [0]:
        return
    arms = f"the {counts[0]} arms" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} arms"
    test = "paired t test" if inference.test == "t" else "exact sign-flip test"
    if inference.correction == "holm":
        family = f"Holm-adjusted over {arms} of each metric"
    else:
        family = f"Benjamini-Hochberg-adjusted (false discovery rate) over {arms} of each metric"
    if counts == [1]:
        family = "one arm, so nothing to adjust"
    apart = ", the placebo apart" if any(row.role == "placebo" for row in table.rows) else ""
    looks = looks_of(trials)
    if looks:
        test = f"sequential {test}, looking at {listed(looks)} seeds,"
    yield (
        f"Verdicts (▲ better, ▼ worse, ≈ equivalent): {test} against the reference, {family}, at {_PERCENT}{apart}. "
        "Unresolved, or no sign: the seeds do not decide, which is not equality."
    )
    if looks:
        yield (
            f"The {_PERCENT} hold if the looks were fixed before the first seed; after raising most_seeds, or "
            "--seeds N on top, they do not."
        )


def _margins(table: Table, tested: dict[Quantity, list[Judgement]]) -> Iterator[str]:
    labels: dict[str, list[str]] = {}
    for quantity in tested:
        if quantity.key in table.margins:
            labels.setdefault(_size(quantity, table.margins[quantity.key]), []).append(quantity.label)
    if labels:
        said = ", ".join(f"{size} ({listed(names)})" for size, names in labels.items())
        yield (
            f"≈: shown to be within {said} of the reference, by two one-sided tests, adjusted likewise; also "
            "where a difference that small is real."
        )


def _size(quantity: Quantity, margin: float) -> str:
    if kind_of(quantity) == "timed":
        return f"{100 * margin:.2g} %"
    shown = margin * quantity.factor
    unit = "pp" if quantity.unit == "%" else quantity.unit
    return f"{number(shown, significant([shown], 1))} {unit}".rstrip()


def _sign_flip(tested: dict[Quantity, list[Judgement]], inference: Inference, looks: tuple[int, ...]) -> Iterator[str]:
    """From how many seeds the sign-flip test can decide anything; and where it does not bear out the t test."""
    arms = max(len(found) for found in tested.values())
    # An arm that a look decided has few seeds since it needed no more.
    seeds = looks[-1] if looks else max(judgement.n for found in tested.values() for judgement in found)
    needed = seeds_for_sign_flip(arms if inference.correction == "holm" else 1, looking=bool(looks))
    over = f"over {arms} arms" if arms > 1 else "of one arm"
    if looks:
        over += " and the looks at them"
    if inference.test == "sign-flip":
        if seeds < needed:
            yield f"Nothing can be decided here: {over} the sign-flip test reaches {_PERCENT} from {needed} seeds on."
    elif seeds < needed:
        yield f"The sign-flip test, which assumes least, could decide {over} from {needed} seeds on."


def _few_seeds(table: Table, tested: dict[Quantity, list[Judgement]]) -> Iterator[str]:
    timed = [q for q in tested if kind_of(q) == "timed" and min(j.n for j in tested[q]) < FEWEST_SEEDS]
    if timed:
        counts = {row.arm: j.n for row in table.rows for q in timed if row.role == "arm" and (j := _judged(row, q))}
        few = [printable(arm) for arm, n in counts.items() if n < FEWEST_SEEDS]
        whose = f" ({named(few)})" if len(few) < len(counts) else ""
        labels = _capital(listed(q.label for q in timed))
        yield f"{labels}: fewer than {FEWEST_SEEDS} seeds decide nothing{whose}."
    primary = next(q for q in table.quantities if q.key == table.primary)
    if kind_of(primary) == "exact":
        return
    lost = [
        f"{printable(row.arm)} ({j.n} of {row.planned})"
        for row in table.rows
        if row.role == "arm" and (j := row.measured[primary.key].judgement) and j.n < row.planned
    ]
    if lost:
        yield f"Verdicts over the seeds that are there, which may be the lucky ones: {named(lost)}."


def _none(table: Table) -> Iterator[str]:
    """Which columns have no verdict, and why."""
    why: dict[str, list[str]] = {}
    for q in table.quantities:
        compared = any(m.difference for m in (row.measured[q.key] for row in table.rows))
        if compared and not is_ratio(q) and not any(_judged(row, q) for row in table.rows):
            why.setdefault(_WHY_NONE.get(kind_of(q), ""), []).append(q.label)
    for reason, labels in why.items():
        if reason:
            yield f"No verdict on {listed(labels)}: {reason}."


def _tested(table: Table, quantity: Quantity) -> list[Judgement]:
    """The family of a quantity that has noise."""
    if kind_of(quantity) == "exact":
        return []
    return [j for row in table.rows if row.role != "placebo" and (j := _judged(row, quantity))]


def _judged(row: Row, quantity: Quantity) -> Judgement | None:
    return row.measured[quantity.key].judgement


def _claims(judgement: Judgement) -> bool:
    return judgement.verdict in {"better", "worse"}


def _p(value: float | None) -> str:
    return "p < 0.001" if value is None or value < 1e-3 else f"p = {factor(value)}"


def _count(number_: int) -> str:
    return f"{number_} metric" if number_ == 1 else f"{number_} metrics"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
