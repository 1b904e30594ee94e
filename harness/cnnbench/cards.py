"""Techniques for people: ``cnnbench list`` and ``cnnbench show``."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from dataclasses import fields
from itertools import groupby
from typing import TYPE_CHECKING

from cnnbench.errors import UsageError
from cnnbench.registry import nearest
from cnnbench.slots import SLOTS
from cnnbench.types import DataOptions, Recipe

if TYPE_CHECKING:
    from cnnbench.options import Option
    from cnnbench.registry import Entry, Registry


_PLACES = {
    **dict.fromkeys(("optimizer", "schedule", "loss"), "in [recipe]"),
    **dict.fromkeys(("model", "dataset"), "at the top of a suite"),
}
"""Where a suite names techniques of slots that are not set in arms."""
_IDIOMS = {
    "chain": "a list is one, first to last: compressor = [..., ...]",
}
"""What the field has a word for and a suite spells without one."""


def listing(registry: Registry, slot: str | None = None) -> str:
    """Techniques by slot, one line each, with the distribution that each comes from.

    Raises:
        UsageError: there is no such slot.
    """
    if slot is not None and slot not in SLOTS:
        known = any(entry.card.name == slot for entry in registry)
        hint = f"it is a technique, see cnnbench show {slot}" if known else nearest(slot, SLOTS)
        raise UsageError(f"unknown slot {slot!r}: {hint}")
    entries = [entry for entry in registry if slot in (None, entry.card.slot)]
    if not entries:
        return f"no techniques in slot {slot}" if slot else "no techniques: is a plugin installed?"
    width = max(len(entry.card.name) for entry in entries)
    columns = shutil.get_terminal_size().columns
    lines: list[str] = []
    for name, members in groupby(entries, key=lambda e: e.card.slot):
        lines += ["", f"{name}: {SLOTS[name].summary}"]
        for entry in members:
            owner = "" if entry.owner.distribution == "cnnbench" else f"  [{entry.owner.distribution}]"
            room = columns - width - 4 - len(owner)
            summary = textwrap.shorten(_plain(entry.summary), max(room, 20), placeholder=" ...")
            lines.append(f"  {entry.card.name:<{width}}  {summary:<{max(room, 20)}}{owner}".rstrip())
    lines += ["", f"{len(entries)} techniques; those without a [distribution] come with cnnbench itself"]
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
        raise UsageError(f"unknown technique {name!r}: {_elsewhere(registry, name)}")
    return found


def _elsewhere(registry: Registry, name: str) -> str:
    """What a name that is no technique is, or what was meant by it."""
    if name in SLOTS:
        return f"it is a slot, see cnnbench list {name}"
    if name in _IDIOMS:
        return _IDIOMS[name]
    recipe = {field.name: f"it is a key of the recipe: [recipe] {field.name} = ..." for field in fields(Recipe)}
    keys = recipe | {
        field.name: f"it is an option of every dataset: dataset = {{ ..., {field.name} = ... }}"
        for field in fields(DataOptions)
    }
    if name in keys:
        return keys[name]
    names = {entry.card.name for entry in registry}
    hint = nearest(name, names | (keys.keys() - SLOTS.keys()))
    other = next((text for key, text in keys.items() if key not in names and hint.endswith(f"{key!r}?")), "")
    return f"{hint} {other}".strip() or "cnnbench list has them all"


def card_text(registry: Registry, name: str) -> str:
    """All that is known of a technique: options with types and defaults, then its documentation.

    Raises:
        UsageError: there is no such technique.
    """
    return "\n\n".join(_card(entry, registry) for entry in find(registry, name))


def _card(entry: Entry, registry: Registry) -> str:
    from cnnbench.options import options_of

    card = entry.card
    head = f"{card.slot} {card.name}  ({entry.owner}, {entry.cls.__module__})"
    fields = options_of(entry.cls).values()
    options = ["options:"] if fields else ["no options"]
    width = max((len(field.name) for field in fields), default=0)
    for field in fields:
        default = "required" if field.required else f"default {_default(field, registry)}"
        options.append(f"  {field.name:<{width}}  {field.expects}; {default}")
    needs = [f"needs {need.module}: {need.install}" for need in card.requires]
    required = [f"{field.name} = ..." for field in fields if field.required]
    value = f'{{ name = "{card.name}", {", ".join(required)} }}' if required else f'"{card.name}"'
    usage = f"{_PLACES.get(card.slot, 'in [baseline] or an arm')}: {card.slot} = {value}"
    body = _plain(inspect.cleandoc(entry.cls.__doc__ or ""))
    return "\n".join([head, "=" * len(head), "", *options, *needs, usage, "", body])


def _default(field: Option, registry: Registry) -> str:
    from cnnbench.options import default_of, format_value

    return format_value(field.plain(default_of(field, registry)), field, registry)


def _plain(text: str) -> str:
    """Docstring markup for the terminal: double backquotes go."""
    return re.sub(r"``(.*?)``", r"\1", text)
