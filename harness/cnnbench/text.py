"""Words for people: text that is safe to print, durations, lists."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Iterable


def printable(text: str) -> str:
    """One line without control characters: names come from files, and must not steer a terminal.

    White space of any kind becomes one space; what has no glyph (controls, lone surrogates) becomes U+FFFD.
    """
    text = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cf", "Cs"} and c != "\u200d" else c for c in text)


def escaped(text: str) -> str:
    """Printable text that Markdown shows as it is, also within a table."""
    return re.sub(r"([\\`*_{}\[\]<>|~&$#])", r"\\\1", printable(text))


def duration(seconds: float) -> str:
    """A duration in its largest two units, e.g. ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{whole} s"


def listed(items: Iterable[object], most: int = 10, between: str = ", ") -> str:
    """Items with commas between; of a long list the first ones and how many more there are."""
    words = [str(item) for item in items]
    shown = between.join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"


def seed_range(text: str) -> tuple[int, ...]:
    """Seeds that are written as a range, such as ``5-9``, both ends among them; none of any other text."""
    first, dash, last = text.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        return tuple(range(int(first), int(last) + 1))
    return ()


def named(names: Iterable[str], most: int = 10) -> str:
    """Names listed; with semicolons between where a name has a comma of its own, as those of a grid's arms do."""
    words = list(names)
    return listed(words, most, "; " if any(", " in word for word in words) else ", ")


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most ``width`` terminal cells, of which wide characters take two.

    Breaks at spaces, and inside a word that is wider than a line; lines after the first begin with ``indent``.
    """
    width = max(width, len(indent) + 2)
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line.strip() else line + word
        if cell_len(joined) <= width:
            line = joined
            continue
        if line.strip():
            lines.append(line)
            line = indent
        for character in word:
            if cell_len(line + character) > width:
                lines.append(line)
                line = indent
            line += character
    return [*lines, line]
