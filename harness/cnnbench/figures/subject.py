"""What the figures of one table are drawn from, and the words for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.columns import spread
from cnnbench.figures.canvas import Key
from cnnbench.figures.style import LOOKS
from cnnbench.frame import by_dataset
from cnnbench.judged import difference_text
from cnnbench.numerals import Scale, factor, number, scale, significant, with_interval
from cnnbench.quantities import is_ratio, ratio_beside
from cnnbench.text import listed, printable
from cnnbench.verdicts import kind_of, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.stats.intervals import Estimate
    from cnnbench.stats.verdicts import Judgement
    from cnnbench.tables import Measured, Row, Table

ORDER = ("better", "worse", "equivalent", "unresolved")


@dataclass(frozen=True)
class Subject:
    """One table with the trials behind it.

    Attributes:
        table: of one dataset.
        trials: those that the table shows.
        primary: the quantity that decides.
        shown: how it is displayed.
        margin: the difference in it that would not matter, in the recorded unit (of times relative to the reference's);
            None where the suite states none.
        tail: end of every figure's key; empty unless the run has several datasets.
    """

    table: Table
    trials: TrialSet
    primary: Quantity
    shown: Scale
    margin: float | None
    tail: str = ""

    @property
    def unit(self) -> str:
        """Of differences in the primary quantity."""
        return "pp" if self.shown.unit == "%" else self.shown.unit

    @property
    def ratios(self) -> bool:
        """Whether differences in the primary quantity are judged as ratios, by their logarithms."""
        return kind_of(self.primary) == "timed"

    @property
    def on(self) -> str:
        """`` on NAME`` where the run has several datasets; else empty."""
        return f" on {printable(self.table.dataset)}" if self.table.dataset else ""

    def values(self, arm: str, key: str) -> dict[int, float]:
        """A quantity of one arm by seed, in the recorded unit; of trials that are ok alone."""
        found = {}
        for record in self.trials.of(arm):
            value = (record.get("metrics") or {}).get(key)
            if record["status"] == "ok" and isinstance(value, int | float):
                found[int(record["seed"])] = float(value)
        return found


def subjects(tables: Sequence[Table], records: Sequence[Mapping[str, Any]]) -> list[Subject]:
    """One for each table.

    Args:
        tables: of a report, one for each dataset.
        records: that the report was made from.
    """
    trials = by_dataset(records)
    made = []
    for place, table in enumerate(tables):
        mine = trials.get(table.dataset) or next(iter(trials.values()))
        primary = next(quantity for quantity in table.quantities if quantity.key == table.primary)
        means = (row.measured[primary.key].value for row in table.rows)
        shown = scale(primary, (value.mean for value in means if value))
        margin = verdicts(mine, [primary]).margins.get(primary.key)
        tail = f"-{place + 1}-{slug(table.dataset)}" if len(tables) > 1 else ""
        made.append(Subject(table, mine, primary, shown, margin, tail))
    return made


def slug(text: str) -> str:
    """Letters, digits and hyphens, for file names and ids."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def axis(label: str, unit: str) -> str:
    """An axis's label with its unit."""
    return f"{label} [{unit}]" if unit else label


def deciding(row: Row, quantity: Quantity) -> Measured:
    """Where the difference in a quantity stands: its own column, of a latency that of the ratio, if there is one."""
    ratio = ratio_beside(quantity)
    beside = row.measured.get(ratio.key) if ratio else None
    return beside if beside is not None and beside.value is not None else row.measured[quantity.key]


def change(estimate: Estimate | None, quantity: Quantity, times: float) -> str:
    """A difference (or ratio) with half its interval, as in tables.

    Args:
        estimate: in the recorded unit.
        quantity: that it is of.
        times: displayed value = recorded value x times.
    """
    if estimate is None:
        return ""
    mean, half = estimate.mean * times, spread(estimate) * times
    if is_ratio(quantity):
        return f"×{with_interval(mean, half) if half else factor(mean)}"
    return with_interval(mean, half, signed=True) if half else number(mean, significant([mean], 3), signed=True)


def contrast(subject: Subject, judgement: Judgement) -> str:
    """A judged difference in the primary quantity with its unit, as in tables; of times as a ratio.

    Args:
        subject: whose.
        judgement: of an effect or a step; of logarithms where the quantity is a time.
    """
    if judgement.difference is None:
        return ""
    if subject.ratios:
        return f"×{difference_text(judgement.difference, 1.0, logarithmic=True)[0]}"
    return f"{change(judgement.difference, subject.primary, subject.shown.factor)} {subject.unit}".rstrip()


def verdict(measured: Measured) -> str:
    """The verdict's word; empty where nothing was judged."""
    return measured.judgement.verdict if measured.judgement else ""


def findings(subject: Subject) -> str:
    """Which arms differ from their reference and how, in words: for those who do not see the figure."""
    quantity, groups = subject.primary, dict[str, list[str]]()
    ratio = ratio_beside(quantity)
    for row in subject.table.rows:
        if row.role != "arm":
            continue
        measured = deciding(row, quantity)
        if measured.difference is None and ratio is not None:
            told = change(measured.value, ratio, 1.0)
        else:
            told = f"{change(measured.difference, quantity, subject.shown.factor)} {subject.unit}".strip()
        name = printable(row.arm)
        groups.setdefault(verdict(measured), []).append(f"{name} ({told})" if told else name)
    parts = [f"{word}: {listed(groups[word], 40)}" for word in ORDER if word in groups]
    if not parts:
        return f"No arm is judged in {quantity.label}."
    reference = subject.trials.baseline
    return f"Against {printable(reference) if reference else 'their references'}, {'; '.join(parts)}."


def numbers(counts: Iterable[int]) -> str:
    """How many seeds estimates are of: ``n = 5``, or the range where they differ."""
    known = [count for count in counts if count]
    if not known:
        return "n = 0"
    low, high = min(known), max(known)
    return f"n = {low}" if low == high else f"n = {low} {'or' if high == low + 1 else 'to'} {high}"


def verdict_keys(present: Iterable[str]) -> list[Key]:
    """The legend of those verdicts that are drawn."""
    drawn = set(present)
    return [
        Key(word, look.colour, marker=look.marker, hollow=look.hollow) for word, look in LOOKS.items() if word in drawn
    ]
