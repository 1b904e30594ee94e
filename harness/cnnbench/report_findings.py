"""What a report concludes, as HTML: the answer, the arms by verdict, and what the run cannot decide."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cnnbench.answer import answer, change, judgement
from cnnbench.columns import mark
from cnnbench.report_html import Section, bullets, element, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.tables import Row, Table

VERDICTS: Final[Mapping[str, str]] = {"better": "▲", "worse": "▼", "equivalent": "≈", "unresolved": "○"}
"""Every verdict with its sign: neither colour nor shape alone tells them apart."""


def badge(verdict: str) -> str:
    """A verdict as a word with its sign."""
    sign = element("span", VERDICTS[verdict], aria_hidden="true")
    return element("span", f"{sign} {verdict}", class_=f"badge {verdict}")


def conclusion(table: Table) -> str:
    """The answer as a paragraph, and the arms by verdict below it."""
    where = f"{element('strong', text(f'On {table.dataset}:'))} " if table.dataset else ""
    said = re.sub(r" (?=[±%])|(?<=±) ", "\u00a0", text(answer(table)))  # numbers stay on one line with their units
    lead = element("p", where + re.sub(r"(?<=\d) (?=pp\b)", "\u00a0", said), class_="lead")
    return lead + _board(table)


def limits(tables: Sequence[Table]) -> Section:
    """What the run cannot decide: open comparisons, and what no number of seeds would change."""
    opened = [item for table in tables for item in _open(table)]
    said = [item for table in tables for item in _beyond(table)]
    parts = []
    if opened:
        parts.append(
            element("p", "Open comparisons, with the 95 % interval of what was seen. More seeds may decide them.")
        )
        parts.append(bullets(opened))
    else:
        parts.append(element("p", "Every comparison with a verdict on the primary quantity is decided."))
    parts += [element("p", "Whatever the number of seeds:"), bullets(dict.fromkeys(said))]
    return Section("limits", "What this run cannot decide", "\n".join(parts))


def _board(table: Table) -> str:
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        found = judgement(row, table) if row.role == "arm" else None
        if found is not None:
            groups.setdefault(found.verdict, []).append(row)
    if not groups:
        return ""
    items = []
    for verdict in VERDICTS:
        rows = groups.get(verdict, [])
        if rows:
            arms = bullets(_arm(table, row) for row in rows)
            items.append(f"<div>{element('dt', badge(verdict))}{element('dd', arms)}</div>")
    return element("dl", "\n".join(items), class_="board")


def _arm(table: Table, row: Row) -> str:
    moved = change(row, table)
    return element("span", text(row.arm)) + (element("span", text(moved), class_="moved") if moved else "")


def _open(table: Table) -> Iterator[str]:
    """Comparisons whose verdict is open, the primary quantity's first."""
    where = f" on {table.dataset}" if table.dataset else ""
    for row in table.rows:
        found = judgement(row, table)
        if row.role == "arm" and found is not None and found.verdict == "unresolved":
            label = next(q.label for q in table.quantities if q.key == table.primary)
            beside = row.reference or "its reference"
            seen = change(row, table)
            count = "1 seed" if found.n == 1 else f"{found.n} seeds"
            yield f"{element('strong', text(row.arm))}{text(where)}: {text(label)} against {text(beside)}, " + text(
                f"{seen}, {count}" if seen else count
            )
    for quantity in table.quantities:
        rows = [
            row.arm
            for row in table.rows
            if row.role == "arm" and quantity.key != table.primary and _unresolved(row, quantity.key)
        ]
        if rows:
            yield f"{element('strong', text(quantity.label))}{text(where)}: {text(', '.join(rows))}"


def _unresolved(row: Row, key: str) -> bool:
    found = row.measured[key].judgement
    return found is not None and found.verdict == "unresolved"


def _beyond(table: Table) -> Iterator[str]:
    """What the design of the run leaves out."""
    yield (
        "How another test set would answer: seeds vary initialization, data order, augmentation and the validation "
        "split, never the test split."
    )
    yield (
        "Other datasets, budgets, widths and recipes. Short trainings favour techniques that speed up their beginning; "
        "regularizers and strong augmentation need long ones."
    )
    stages = {quantity.stage for quantity in table.quantities}
    if "latency" in stages:
        yield "Latency on other machines, threads, runtimes and batch sizes than those stated here."
    if any(q.key.startswith(("train_seconds", "energy_train", "co2_train")) for q in table.quantities):
        yield (
            "Whether a technique makes training itself cheaper: trainings take no turns, so that the machine's drift "
            "cannot be told from an effect."
        )
    methods = [measured.method for row in table.rows for measured in row.measured.values() if measured.value]
    if any("est." in mark(method) for method in methods):
        yield (
            "Energy and CO2 beyond time: values marked est. were not measured. They are an assumed power × time, carry "
            "no information beyond it, and earn no verdict."
        )
    if not any(row.role == "placebo" for row in table.rows):
        yield "How much of a difference is chance alone, seen by eye: the run has no placebo."
    if table.primary not in table.margins:
        yield "That two arms are equal: the suite states no margin within which a difference would not matter."
