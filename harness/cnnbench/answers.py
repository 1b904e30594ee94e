"""The answer to a run's question: of all datasets together, of each table, and of what its design can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnbench.aggregate import aggregate
from cnnbench.answer import answer, primary_of, within
from cnnbench.claims import Claim, most, quoting, told
from cnnbench.contrasts import families
from cnnbench.frame import by_dataset
from cnnbench.judged import difference_text
from cnnbench.numerals import number, scale
from cnnbench.stats.power import seeds_for_sign_flip
from cnnbench.verdicts import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.aggregate import Aggregate, Overall
    from cnnbench.contrasts import Effect
    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.stats.intervals import Estimate
    from cnnbench.tables import Report, Table


@dataclass(frozen=True)
class Answers:
    """What a run answers.

    Attributes:
        overall: over its datasets; empty where it has one.
        by_table: label of the dataset, empty where there is one, and what its table says, in the report's order.
    """

    overall: str
    by_table: tuple[tuple[str, str], ...]

    @property
    def lines(self) -> list[str]:
        """Each as a text of its own, those of tables after their dataset's label."""
        own = [f"{dataset}: {said}" if dataset else said for dataset, said in self.by_table]
        return [self.overall, *own] if self.overall else own


def answers_of(report: Report, records: Sequence[Mapping[str, Any]]) -> Answers:
    """The answers of a run.

    Args:
        report: made from the records.
        records: in the order of the file.

    Raises:
        UsageError: there are no records.
    """
    trials = by_dataset(records)
    pairs = zip(report.tables, trials.values(), strict=True)
    own = tuple(
        (table.dataset, " ".join(filter(None, (answer(table), of_design(table, there))))) for table, there in pairs
    )
    together = aggregate(trials) if len(trials) > 1 else None
    return Answers(_overall(together) if together else "", own)


def of_design(table: Table, trials: TrialSet) -> str:
    """What the verdicts on main effects and interactions, or on steps, say; empty where the table of arms says it all.

    Args:
        table: of the trials.
        trials: of one dataset.
    """
    primary = primary_of(table)
    said = []
    for family, effects in families(trials, table.quantities).items():
        if len(effects) < 2 and family != "interactions":  # an arm's own difference
            continue
        if not all(primary.key in effect.judgements for effect in effects):
            continue
        if family == "interactions":
            said.append(_interactions(effects, primary, within(table)))
        elif family == "steps":
            claims = told(_claims(effects, primary), primary, within(table), "steps")
            said.append(f"Each step beside the one before: {claims[0].lower()}{claims[1:]}.")
        elif ":" in effects[0].name and len({effect.name.partition(":")[0] for effect in effects}) > 1:
            claims = told(_claims(effects, primary), primary, within(table), "changes")
            said.append(f"Main effects, averaged over the other axes: {claims[0].lower()}{claims[1:]}.")
    return " ".join(said)


def _claims(effects: Sequence[Effect], primary: Quantity) -> list[Claim]:
    shown = quoting(effect.name for effect in effects)
    claims = []
    for effect in effects:
        found = effect.judgements[primary.key]
        difference = found.difference
        moved = f" {_how(primary)} {_amount(difference, primary).lstrip('+−')}" if difference else ""
        size = abs(difference.mean) if difference else 0.0
        claims.append(Claim(shown(effect.name), found.verdict if found.n else "silent", moved, size, found.n))
    return claims


def _interactions(effects: Sequence[Effect], primary: Quantity, reach: str) -> str:
    """``1 of 4 interactions is shown (... beyond what each change does alone); the others stay undecided``."""
    shown = quoting(effect.name for effect in effects)
    found = [(effect, effect.judgements[primary.key]) for effect in effects]
    moved = [(effect, one) for effect, one in found if one.verdict in {"better", "worse"} and one.difference]
    equal = sum(one.verdict == "equivalent" for _, one in found)
    rest = len(effects) - len(moved) - equal
    parts = []
    if moved:
        amounts = most(
            [f"{shown(effect.name)} {_amount(one.difference, primary)}" for effect, one in moved if one.difference]
        )
        verb = "is" if len(moved) == 1 else "are"
        count = f"{len(moved)} of {len(effects)} interactions {verb}" if len(effects) > 1 else "The interaction is"
        parts.append(f"{count} shown ({amounts} beyond what each change does alone)")
    if equal:
        who = _who(equal, len(effects), first=not parts)
        parts.append(f"{who} {'adds' if equal == 1 else 'add'} nothing that matters{reach and f' ({reach})'}")
    if rest:
        who = "the others" if parts and rest > 1 else "the other" if parts else _who(rest, len(effects), first=True)
        parts.append(f"{who} {'stays' if rest == 1 else 'stay'} undecided")
    return f"{'; '.join(parts)}."


def _who(count: int, of: int, *, first: bool) -> str:
    if not first:
        return str(count)
    if of == 1:
        return "The interaction"
    if count == of:
        return "Both interactions" if of == 2 else f"All {of} interactions"
    return f"{count} of {of} interactions"


def _overall(found: Aggregate) -> str:
    """The arms over all datasets, and what this says of others."""
    arms = [row for row in found.rows if row.role == "arm"]
    if not any(row.difference for row in arms):
        return ""
    shown = quoting(row.arm for row in found.rows)
    n = len(found.datasets)
    items = [f"{shown(row.arm)} {_over(row, found)}" for row in arms if row.difference]
    needed = seeds_for_sign_flip(len(arms))
    others = (
        f"Nothing follows for other datasets: with {len(arms)} arm{'s' * (len(arms) > 1)} that takes at least {needed}."
        if n < needed
        else "p: whether datasets of this kind differ alike, corrected."
    )
    what = "ratio" if kind_of(found.quantity) == "timed" else "change"
    return (
        f"Over {n} datasets, the interquartile mean {what} of {found.quantity.label} is: {'; '.join(items)}. {others}"
    )


def _over(row: Overall, found: Aggregate) -> str:
    """``+0.30 ± 0.20 pp (better on 1, unresolved on 3)``."""
    assert row.difference is not None
    told_of = [f"{verdict} on {count}" for verdict, count in row.counts.items() if count]
    p = [f"p {'< 0.001' if row.p < 0.001 else number(row.p, 3)}"] if row.p is not None else []
    said = ", ".join([*sorted(told_of), *p])
    return _amount(row.difference, found.quantity) + (f" ({said})" if said else "")


def _amount(difference: Estimate, quantity: Quantity) -> str:
    """``+0.8 ± 0.3 pp``; of times the ratio behind logarithms, ``×1.12 ± 0.03``."""
    if kind_of(quantity) == "timed":
        return f"×{difference_text(difference, 1.0, logarithmic=True)[0]}"
    shown = scale(quantity, [difference.mean])
    unit = "pp" if shown.unit == "%" else shown.unit
    return f"{difference_text(difference, shown.factor)[0]} {unit}".rstrip()


def _how(quantity: Quantity) -> str:
    return "to" if kind_of(quantity) == "timed" else "by"
