"""What a report concludes, as HTML: the answer, the arms by verdict, and what the run cannot decide."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cnnbench.answer import change, judged, primary_of
from cnnbench.claims import seeds_in_words
from cnnbench.columns import mark
from cnnbench.quantities import is_ratio
from cnnbench.report_html import Section, breakable, bullets, element, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.tables import Row, Table

VERDICTS: Final[Mapping[str, str]] = {"better": "▲", "worse": "▼", "equivalent": "≈", "unresolved": "○"}
"""Every verdict with its sign: neither colour nor shape alone tells them apart."""


def coloured(table: str) -> str:
    """A table's HTML with its verdicts in their colours."""
    return re.sub(rf"(<td[^>]*>)({'|'.join(VERDICTS)})(?=[ <])", r'\1<span class="\2">\2</span>', table)


def badge(verdict: str) -> str:
    """A verdict as a word with its sign."""
    sign = element("span", VERDICTS[verdict], aria_hidden="true")
    return element("span", f"{sign} {verdict}", class_=f"badge {verdict}")


def conclusion(table: Table, said: str) -> str:
    """A table's answer as a paragraph, and the arms by verdict below it."""
    where = f"{element('strong', text(f'On {table.dataset}:'))} " if table.dataset else ""
    lead = element("p", where + kept(text(said)), class_="lead")
    return lead + _board(table)


def kept(said: str) -> str:
    """Text whose numbers stay on one line with their intervals and units."""
    return re.sub(r"(?<=\d) (?=[±%]|pp\b)|(?<=±) ", "\u00a0", said)


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
    primary = primary_of(table)
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        found = judged(row, primary) if row.role == "arm" else None
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
    moved = change(table, row, primary_of(table))
    return element("span", breakable(row.arm)) + (element("span", text(moved), class_="moved") if moved else "")


def _open(table: Table) -> Iterator[str]:
    """Comparisons whose verdict is open, by quantity, with what was seen."""
    where = f" on {table.dataset}" if table.dataset else ""
    for quantity in table.quantities:
        if is_ratio(quantity):  # its latency's
            continue
        arms, seeds = [], []
        for row in table.rows:
            found = judged(row, quantity)
            if row.role == "arm" and found is not None and found.verdict == "unresolved":
                seen = change(table, row, quantity)
                arms.append(f"{text(row.arm)}{f' ({kept(text(seen))})' if seen else ''}")
                seeds.append(found.n)
        if arms:
            yield f"{element('strong', text(quantity.label + where))}, {seeds_in_words(seeds)}: {'; '.join(arms)}"


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
