"""Techniques for people: ``cnnbench list`` and ``cnnbench show``."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING

from cnnbench.errors import UsageError
from cnnbench.registry import nearest
from cnnbench.slots import SLOTS

if TYPE_CHECKING:
    from cnnbench.registry import Entry, Registry


def listing(registry: Registry, slot: str | None = None) -> str:
    """Techniques by slot, one line each, with the distribution that each comes from.

    Raises:
        UsageError: there is no such slot.
    """
    if slot is not None and slot not in SLOTS:
        raise UsageError(f"unknown slot {slot!r}: {nearest(slot, SLOTS)}")
    entries = [entry for entry in registry if slot in (None, entry.card.slot)]
    if not entries:
        return f"no techniques in slot {slot}" if slot else "no techniques: is a plugin installed?"
    width = max(len(entry.card.name) for entry in entries)
    columns = shutil.get_terminal_size().columns
    lines: list[str] = []
    for name, members in groupby(entries, key=lambda e: e.card.slot):
        lines += ["", f"{name}: {SLOTS[name].summary}"]
        for entry in members:
            owner = f"  [{entry.owner.distribution}]"
            room = columns - width - 4 - len(owner)
            summary = textwrap.shorten(_plain(entry.summary), max(room, 20), placeholder=" ...")
            lines.append(f"  {entry.card.name:<{width}}  {summary:<{max(room, 20)}}{owner}".rstrip())
    return "\n".join(lines[1:])


def find(registry: Registry, name: str) -> list[Entry]:
    """The techniques called ``name`` or ``slot/name``; one name may stand in several slots.

    Raises:
        UsageError: there is none; names the nearest.
    """
    slot, _, short = name.rpartition("/")
    if slot:
        return [registry.get(slot, short)]
    found = [entry for entry in registry if entry.card.name == short]
    if not found:
        raise UsageError(f"unknown technique {name!r}: {nearest(name, {e.card.name for e in registry})}".rstrip(": "))
    return found


def card_text(registry: Registry, name: str) -> str:
    """All that is known of a technique: options with types and defaults, then its documentation.

    Raises:
        UsageError: there is no such technique.
    """
    return "\n\n".join(_card(entry, registry) for entry in find(registry, name))


def _card(entry: Entry, registry: Registry) -> str:
    from cnnbench.options import describe_options

    card = entry.card
    head = f"{card.slot} {card.name}  ({entry.owner}, {entry.cls.__module__})"
    rows = describe_options(entry.cls, registry)
    options = ["options:"] if rows else ["options: none"]
    width = max((len(row.name) for row in rows), default=0)
    options += [
        f"  {row.name:<{width}}  {row.expects}{f', default {row.default}' if row.default else ', required'}"
        for row in rows
    ]
    needs = [f"needs {need.module}: pip install 'cnnbench[{need.extra}]'" for need in card.requires]
    usage = f'in a suite: {card.slot} = "{card.name}"'
    body = _plain(inspect.cleandoc(entry.cls.__doc__ or ""))
    return "\n".join([head, "=" * len(head), "", *options, *needs, usage, "", body])


def _plain(text: str) -> str:
    """Docstring markup for the terminal: double backquotes go."""
    return re.sub(r"``(.*?)``", r"\1", text)
