"""Main effects, interactions and steps as sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cnnbench.contrasts import families, interplays, judged_quantities, primary_of
from cnnbench.frame import PENDING
from cnnbench.inference import Inference
from cnnbench.judged import difference_cell, verdict_cell
from cnnbench.numerals import scale
from cnnbench.sheets import Cell, Column, Sheet
from cnnbench.text import listed, printable
from cnnbench.verdicts import kind_of, levels, looks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.contrasts import Effect, Family, Interplay
    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity

_TITLES: Final[Mapping[Family, str]] = {
    "effects": "Main effects",
    "interactions": "Interactions",
    "steps": "Steps",
}
_CAPTIONS: Final[Mapping[Family, str]] = {
    "effects": "What each change does by itself, averaged over all levels of the other axes, within each seed.",
    "interactions": (
        "How much more one change does together with another than without it: the difference of two differences, "
        "averaged over all levels of the other axes, within each seed. Around zero the two changes simply add up."
    ),
    "steps": "What each step does beyond the step before it, within each seed.",
}
_FIRST: Final[Mapping[Family, str]] = {"effects": "change", "interactions": "changes", "steps": "step"}
_MOST_ARMS: Final = 5
"""So many arms are named in a note; of more their number is told."""


def sheets(trials: TrialSet, columns: Sequence[Quantity]) -> tuple[Sheet, ...]:
    """What the design of a run can tell beside the table of arms; empty for runs without such a design.

    Args:
        trials: of one dataset.
        columns: the quantities of its table.
    """
    judged = judged_quantities(trials, columns)
    return tuple(_sheet(trials, judged, family, rows) for family, rows in families(trials, columns).items())


def interactions(trials: TrialSet) -> tuple[Interplay, ...]:
    """Every pair of axes of a factorial design in the primary metric, for plots; empty for other runs."""
    return interplays(trials, primary_of(trials))


def _sheet(trials: TrialSet, judged: Sequence[Quantity], family: Family, rows: Sequence[Effect]) -> Sheet:
    seeds = len(trials.seeds)
    first, *others = judged
    used = [row.judgements[first.key].n for row in rows]
    columns = [
        Column(_FIRST[family], "", tuple(Cell(printable(row.name)) for row in rows)),
        Column("seeds", "", tuple(Cell(f"{n}/{seeds}", order=n) for n in used), hint="with all arms that it takes"),
        _differences(rows, first, sign=False),
        Column("verdict", "", tuple(verdict_cell(row.judgements[first.key]) for row in rows)),
        *(_differences(rows, quantity, sign=True) for quantity in others),
    ]
    notes = tuple(_notes(trials, first, family, rows))
    return Sheet(family, _TITLES[family], _CAPTIONS[family], tuple(columns), notes)


def _differences(rows: Sequence[Effect], quantity: Quantity, *, sign: bool) -> Column:
    found = [row.judgements[quantity.key] for row in rows]
    if kind_of(quantity) == "timed":
        cells = [difference_cell(judgement, 1.0, logarithmic=True, sign=sign) for judgement in found]
        return Column(f"ratio {quantity.label}", "×", tuple(cells))
    shown = scale(quantity, (judgement.difference.mean for judgement in found if judgement.difference))
    unit = "pp" if shown.unit == "%" else shown.unit
    return Column(f"Δ {quantity.label}", unit, tuple(difference_cell(one, shown.factor, sign=sign) for one in found))


def _notes(trials: TrialSet, primary: Quantity, family: Family, rows: Sequence[Effect]) -> Iterator[str]:
    inference = Inference.from_plain(trials.heading.get("statistics"))
    test = {"t": "the paired t test", "sign-flip": "the exact sign-flip test"}[inference.test]
    correction = {"holm": "Holm", "benjamini-hochberg": "Benjamini and Hochberg"}[inference.correction]
    number = f", corrected ({correction}) over these {len(rows)} of one metric" if len(rows) > 1 else ""
    yield f"Verdicts are by {test} over seeds{number}. ± is half a 95 % interval, not corrected."
    if family == "effects" and len({row.name.partition(":")[0] for row in rows}) > 1:
        yield "Where changes interact, a main effect is an average that may hold beside no level of another axis."
    if family == "interactions":
        yield "better: together the changes gain more, or lose less, than what each does alone adds up to; worse: less."
    if looks_of(trials):
        yield "Seeds were added to arms that were still unresolved; verdicts and intervals allow for that."
    yield from _missing(trials, primary, rows)


def _missing(trials: TrialSet, primary: Quantity, rows: Sequence[Effect]) -> Iterator[str]:
    """Which arms lack which seeds."""
    lacking = []
    for arm in dict.fromkeys(arm for row in rows for arm in row.arms):
        have = np.isfinite(levels(trials, arm, primary))
        planned = trials.seeds_of(arm)
        without = [seed for seed, there in zip(trials.seeds, have, strict=True) if seed in planned and not there]
        if without:
            statuses = {str((trials.records.get((arm, seed)) or {}).get("status", PENDING)) for seed in without}
            why = listed(sorted(statuses - {"ok"}) or ["no value"])
            lacking.append(f"{printable(arm)} lacks seed{'s' * (len(without) > 1)} {listed(map(str, without))} ({why})")
    if lacking:
        more = [f"{len(lacking) - _MOST_ARMS} more arms lack some"] if len(lacking) > _MOST_ARMS else []
        yield f"Left out of what needs it, a seed that an arm lacks: {'; '.join([*lacking[:_MOST_ARMS], *more])}."
