"""Where a key stands in a TOML text. ``tomllib`` keeps no positions, and a mistake without its line is hard to find."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Place = tuple[str | int, ...]
"""Keys and list indices from the top of the file to a value."""

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_KEY = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[A-Za-z0-9_-]+')
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'',
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dotted(place: Place) -> str:
    """The place as people write it: ``arms."group norm".augmentation[1].pixels``."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{key}" if text else key
    return text


def lines_of(text: str) -> dict[Place, int]:
    """The 1-based line of every key and list item of a valid TOML text."""
    scanner = _Scanner(text)
    with suppress(ValueError, RecursionError):  # a syntax newer than this scanner: what was found so far still helps
        scanner.document()
    return scanner.lines


def line_of(lines: Mapping[Place, int], place: Place) -> int:
    """The line of ``place``, else of what encloses it, else 0."""
    for end in range(len(place), 0, -1):
        if place[:end] in lines:
            return lines[place[:end]]
    return 0


class _Scanner:
    """Walks a TOML text once and notes where each key starts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Place, int] = {}
        self._starts = [0, *(m.end() for m in re.finditer("\n", text))]
        self._items: dict[Place, int] = {}  # arrays of tables: index of the item being filled

    def document(self) -> None:
        prefix: Place = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text.startswith("[", self.at):
                prefix = self._header()
            else:
                self._pair(prefix)
            self._skip(_BLANK)

    def _header(self) -> Place:
        start, many = self.at, self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        *parents, last = self._keys()
        self.at += 2 if many else 1
        place: Place = ()
        for key in parents:
            place = self._note((*place, key), start)
            if place in self._items:
                place = (*place, self._items[place])
        place = self._note((*place, last), start)
        if many:
            self._items[place] = self._items.get(place, -1) + 1
            place = self._note((*place, self._items[place]), start)
        return place

    def _pair(self, prefix: Place) -> None:
        start = self.at
        place = prefix
        for key in self._keys():
            place = self._note((*place, key), start)
        self._expect("=")
        self._value(place)

    def _value(self, place: Place) -> None:
        if self.text.startswith("[", self.at):
            self._list(place)
        elif self.text.startswith("{", self.at):
            self._table(place)
        elif _STRING.match(self.text, self.at):
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _list(self, place: Place) -> None:
        self._expect("[")
        index = 0
        while not self.text.startswith("]", self.at):
            self._value(self._note((*place, index), self.at))
            index += 1
            self._separator("]")
        self.at += 1

    def _table(self, place: Place) -> None:
        self._expect("{")
        while not self.text.startswith("}", self.at):
            self._pair(place)
            self._separator("}")
        self.at += 1

    def _separator(self, closing: str) -> None:
        self._skip(_BLANK)
        if not self.text.startswith(closing, self.at):
            self._expect(",")

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            match = _KEY.match(self.text, self.at)
            if match is None:
                raise ValueError(f"no key at {self.at}")
            self.at = match.end()
            raw = match.group()
            keys.append(str(tomllib.loads(f"k = {raw}")["k"]) if raw[0] in "\"'" else raw)
            if not _DOT.match(self.text, self.at):
                self._skip(_BLANK)
                return keys
            self._skip(_DOT)

    def _note(self, place: Place, start: int) -> Place:
        self.lines.setdefault(place, bisect_right(self._starts, start))
        return place

    def _expect(self, char: str) -> None:
        if not self.text.startswith(char, self.at):
            raise ValueError(f"no {char!r} at {self.at}")
        self.at += 1
        self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
