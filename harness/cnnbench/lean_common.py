"""What the lines of a record file have in common, such as the plan: most of each, and taken apart once.

It is cut out of the next lines before they are taken apart. What is cut out is a member of the record, or several in a
row, just as they stood in a line that was read whole; a word stands for the first of them. Nobody who wrote the file
can have guessed the word. The record must have it where the member was: should what was cut out have stood within an
inner object, or should the record have one of the members twice, the word is missing or not alone, and the line is read
whole.
"""

from __future__ import annotations

import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal, Required, TypedDict, cast

import msgspec

from cnnbench.record_fields import has_escaped_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Decode = Callable[[bytes], Any]

_MOST_CHANGES: Final = 4
"""A part that changed more often within a file is not what its lines have in common."""
_PROBE: Final = 48
"""Bytes of a part by which its place is found; no long word is quick to search."""


class Common:
    """What the lines of one file have in common.

    Args:
        fields: types of a record's fields by name, those that may be common are ``msgspec.Raw``.

    Attributes:
        others: names of the fields that would be ``msgspec.Raw`` in what ``record`` gives.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.others: Sequence[str] = ()
        self._fields = fields
        self._word, self._never = secrets.token_hex(8), secrets.token_hex(8)
        self._quoted = f'"{self._word}"'.encode()
        self._texts: dict[str, bytes] = {}
        self._values: dict[str, Any] = {}
        self._changes: Counter[str] = Counter()
        self._first: list[tuple[bytes, bytes]] = []  # how a run of members begins, and all of it
        self._last: list[tuple[bytes, bytes]] = []  # those behind the longest part that is not common, backwards
        self._decode: Decode | None = None

    def record(self, line: bytes) -> dict[str, Any] | None:
        """The record of a line, with the values of what is common; None where the line has to be read whole."""
        if self._decode is None:
            return None
        parts, behind = [], []
        start, end = 0, len(line)
        for head, run in self._first:
            at = line.find(run[:_PROBE], start)
            if at < 0 or not line.startswith(run, at):
                return None
            parts.append(line[start : at + len(head)])
            start = at + len(run)
        for head, run in self._last:
            at = line.rfind(run[:_PROBE], start, end)
            if at < 0 or not line.startswith(run, at, end):
                return None
            behind.append(line[at + len(run) : end])
            end = at + len(head)
        parts.append(line[start:end])
        parts += reversed(behind)
        try:
            record = decoded(self._quoted.join(parts), self._decode)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        record |= self._values
        return record

    def learn(self, line: bytes, texts: Mapping[str, bytes], values: Mapping[str, Any]) -> None:
        """Take what a line has for common, but for what has changed too often.

        Args:
            line: that was read whole.
            texts: of its fields that may be common, in their order.
            values: of these fields.
        """
        gone = self._texts.keys() - texts.keys()
        self._changes.update(gone)
        self._changes.update(name for name, text in texts.items() if self._texts.get(name, text) != text)
        common = {name: text for name, text in texts.items() if self._changes[name] <= _MOST_CHANGES}
        if common == self._texts and list(common) == list(self._texts):
            return
        self._texts, self._values = common, {name: values[name] for name in common}
        runs, fields = list[tuple[bytes, bytes]](), dict(self._fields)
        for name, text in common.items():
            head = b',"%b":' % name.encode()
            if runs and runs[-1][1] + head + text in line:
                runs[-1] = runs[-1][0], runs[-1][1] + head + text
                fields[name] = Literal[self._never]  # it is there, and nowhere else
            else:
                runs.append((head, head + text))
                fields[name] = Required[Literal[self._word]]  # known at run time alone
        self._first, self._last = _halves(line, runs)
        self.others = [name for name, kind in fields.items() if kind is msgspec.Raw]
        make = cast("Any", TypedDict)
        self._decode = msgspec.json.Decoder(make("_Rest", fields, total=False)).decode


def _halves(
    line: bytes, runs: Sequence[tuple[bytes, bytes]]
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Runs before the longest part of a line that is not common, and those behind it, backwards: nobody searches it."""
    starts = [line.find(run) for _, run in runs]
    ends = [0, *(start + len(run) for start, (_, run) in zip(starts, runs, strict=True))]
    gaps = [start - end for start, end in zip([*starts, len(line)], ends, strict=True)]
    longest = gaps.index(max(gaps))
    return list(runs[:longest]), list(reversed(runs[longest:]))


def decoded(line: bytes, decode: Decode) -> dict[str, Any]:
    """A line's record.

    Raises:
        ValueError: it is no UTF-8, or may hold text that is no Unicode.
        msgspec.MsgspecError: it is no JSON, or no record of the decoder's type.
    """
    if has_escaped_surrogates(line):
        raise ValueError("may hold text that is no Unicode")
    if not line.isascii():
        line.decode()  # what is passed over is looked at as JSON, and not as UTF-8
    return cast("dict[str, Any]", decode(line))
