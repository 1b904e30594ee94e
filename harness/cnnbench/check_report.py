"""What ``cnnbench check`` says: of each technique what it keeps, what it breaks and how to mend it, and the sum."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, get_args

from cnnbench.failures import indented
from cnnbench.slots import SLOTS
from cnnbench.testing.finding import Status
from cnnbench.text import listed, printable, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cnnbench.registry import Entry
    from cnnbench.testing.finding import Finding
    from cnnbench.testing.rule import Rule

WIDTH = 80
_STATUSES: tuple[Status, ...] = get_args(Status)


def technique(entry: Entry, findings: Sequence[Finding], *, short: bool, more: Sequence[str] = ()) -> str:
    """One technique: a line on what it keeps, then each rule that it breaks, waives or could not be held to.

    Args:
        entry: the technique.
        findings: one for each rule.
        short: among many others, so that neither what it keeps nor what is not for it is named.
        more: lines on it beside the rules.
    """
    card = entry.card
    of = {status: [one for one in findings if one.status == status] for status in _STATUSES}
    head = "breaks" if of["broken"] else "keeps"
    count = f"{len(of['broken'])} of {len(findings)}" if of["broken"] else str(len(of["kept"]))
    lines = [f"{card.slot} {card.name} {head} {count} rule{'s' * (len(findings) > 1)}"]
    if of["kept"] and not short:
        lines += _paragraph(f"kept: {listed((one.rule.name for one in of['kept']), len(findings))}")
    for one in of["broken"]:
        lines += _broken(one)
    for status in ("waived", "not checked", *(() if short else ("not applicable",))):
        for text, names in _by_text(of[status]).items():
            lines += _paragraph(f"{status}: {listed(names, len(findings))}: {text}")
    lines += [part for line in more for part in _paragraph(line)]
    return "\n".join(lines)


def _by_text(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Names of rules by why they are not looked at: often one reason for many."""
    found: dict[str, list[str]] = {}
    for one in findings:
        found.setdefault(printable(one.text), []).append(one.rule.name)
    return found


def _broken(one: Finding) -> list[str]:
    rows = [("rule", one.rule.holds), ("found", one.text), ("where", one.place), ("fix", one.fix)]
    lines = _paragraph(f"BROKEN {one.rule.name}")
    for word, text in rows:
        if text:
            lines += _within(f"{word}: {text}", "    ")
    if one.trace:
        lines += [f"    {line}" for line in indented(one.trace.rstrip()).splitlines()]
    return lines


def summary(findings: Sequence[Finding], techniques: int) -> str:
    """The sum, on one line."""
    counts = Counter(one.status for one in findings)
    worst = len({one.technique for one in findings if one.status == "broken"})
    parts = [f"{counts[status]:,} {status}" for status in _STATUSES if counts[status]]
    many = f"{techniques} technique{'s' * (techniques > 1)}"
    fine = "every rule is kept" if set(counts) == {"kept"} else "no rule is broken"
    verdict = f"{worst} of {many} break{'s' * (worst == 1)} a rule" if worst else f"{many}: {fine}"
    return f"{verdict} ({', '.join(parts)})"


def rules(kit: Sequence[Rule]) -> str:
    """The rules of the kit, each with what it asks and how to mend what breaks it."""
    lines: list[str] = []
    for rule in kit:
        slots = [slot for slot in SLOTS if slot in rule.slots]
        where = "every slot" if len(slots) == len(SLOTS) else listed(slots, len(SLOTS))
        lines += _within(f"{rule.name} ({where}{'' if rule.waivable else '; can not be waived'})", "")
        lines += [*_paragraph(rule.holds), *_paragraph(f"fix: {rule.fix}"), ""]
    return "\n".join([*lines, f"{len(kit)} rules"])


def _paragraph(text: str) -> list[str]:
    return _within(text, "  ")


def _within(text: str, indent: str) -> list[str]:
    """Lines that begin with an indent, those after the first with two spaces more."""
    return [f"{indent}{line}" for line in wrapped(printable(text), WIDTH - len(indent), "  ")]
