"""Words for people: text that is safe to print, durations, lists."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_NAME: Final = 1_000
"""Characters of an arm's name and the like: tables pad every row to the longest, and HTML and SVG repeat it."""
_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?) *(h|min|m|s)? *")
_MOST_SECONDS = 366 * 24 * 3600.0
"""Of a duration that somebody means."""


_MOST_SEEDS = 10_000
"""Of a range: they are listed."""


def printable(text: str) -> str:
    """One line without control characters: names come from files, and must not steer a terminal.

    White space of any kind becomes one space; what has no glyph (controls, lone surrogates) becomes U+FFFD.
    """
    text = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cf", "Cs"} and c != "\u200d" else c for c in text)


def cut(text: str, most: int) -> str:
    """Text of at most so many characters; of a longer one the beginning, and how long it is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters in all)"


def unsteered(text: str) -> str:
    """Text of several lines that can't steer a terminal: line breaks and tabs stay, other controls become U+FFFD."""
    return "".join(
        "\ufffd" if c not in "\n\t\u200d" and unicodedata.category(c) in {"Cc", "Cf", "Cs"} else c for c in text
    )


def csv_cell(value: object) -> object:
    """A value for a cell of CSV: text on one line, and behind an apostrophe where spreadsheets would see a formula.

    Each character stays, or is replaced by one: names that differ in their spaces are different names.
    """
    if not isinstance(value, str):
        return value
    text = "".join(" " if c.isspace() else printable(c) for c in value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


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


def seconds_of(text: str) -> float:
    """A duration as people write it: ``90m``, ``2h``, ``1h30m``, ``45s``; a plain number counts minutes.

    Raises:
        ValueError: it is none, not above 0, above a year, or names a unit twice or after a smaller one.
    """
    rest, total = text.strip().lower(), 0.0
    expected = f"expected a duration such as 90m, 2h or 1h30m (a plain number is minutes), got {text!r}"
    if not rest:
        raise ValueError(expected)
    alone, least = True, float("inf")
    while rest:
        part = _PART.match(rest)
        if part is None or (part[2] is None and not (alone and part.end() == len(rest))):
            raise ValueError(expected)
        unit = _UNITS[part[2] or "m"]
        if unit >= least:
            raise ValueError(expected)
        total, least = total + float(part[1]) * unit, unit
        rest, alone = rest[part.end() :], False
    if not 0 < total <= _MOST_SECONDS:
        raise ValueError(f"expected at most a year, got {text!r}" if total > 0 else expected)
    return total


def listed(items: Iterable[object], most: int = 10, between: str = ", ") -> str:
    """Items with commas between; of a long list the first ones and how many more there are."""
    words = [str(item) for item in items]
    shown = between.join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"


def seed_range(text: str) -> tuple[int, ...]:
    """Seeds that are written as a range, such as ``5-9``, both ends among them; none of any other text."""
    first, dash, last = text.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and int(last) - int(first) < _MOST_SEEDS:
        return tuple(range(int(first), int(last) + 1))
    return ()


def seeds_text(seeds: Iterable[int]) -> str:
    """Seeds for people, runs of them as ranges: ``seed 3``, ``seeds 0-4, 7``."""
    runs: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"seed{'s' * (len(runs) > 1 or any(len(run) > 1 for run in runs))} {listed(words)}"


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
