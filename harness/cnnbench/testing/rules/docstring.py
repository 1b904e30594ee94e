"""The rule about a technique's docstring, which is its documentation."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import TYPE_CHECKING

from cnnbench.registry import nearest
from cnnbench.testing.rule import Broken, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnbench.testing.subject import Subject

LONGEST_SUMMARY = 120
"""Characters of the first line, which `cnnbench list` shows."""
_ENTRY = re.compile(r" {4}(\w+(?:, \w+)*)(?: \([^)]*\))?:")


def _docstring(subject: Subject) -> None:
    cls = subject.entry.cls
    text = inspect.cleandoc(cls.__doc__ or "")
    summary, _, rest = text.partition("\n")
    if not re.search(r"[.!?]$", summary) or len(summary) > LONGEST_SUMMARY:
        raise Broken(f"its first line is no short sentence of its own: {summary!r:.80}")
    if not rest.partition("\nAttributes:")[0].strip():
        raise Broken(
            "it ends after its first line: nothing says where the technique comes from, or why and when to use it"
        )
    options = [field.name for field in fields(cls) if field.init]
    for name in options:
        if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            raise Broken(f"it does not say what option {name!r} is")
    for name in _attributes(rest):
        if not hasattr(cls, name) and name not in options:
            hint = nearest(name, options) if options else "it has no options"
            raise Broken(f"it documents {name!r}, which is no option: {hint}")


def _attributes(text: str) -> Iterator[str]:
    """Names that an ``Attributes:`` section explains."""
    _, _, section = text.partition("Attributes:\n")
    for line in section.splitlines():
        if line and not line.startswith(" "):
            return
        if found := _ENTRY.match(line):
            yield from found[1].split(", ")


RULES: tuple[Rule, ...] = (
    Rule(
        "docstring",
        "its docstring has a sentence as its first line, then its source or reason, and names every option",
        "write the first line for `cnnbench list`, then the source, and each option under `Attributes:`",
        _docstring,
        at="",
    ),
)
