"""The quick way to read a record's line: what tables show of it, and nothing else.

Most of a line is samples, training curves and the like, of which tables show at most how many there are. What says the
same in many lines, such as the plan, is taken apart once and then shared, see ``lean_common``. A line that is not
plainly a sound record of the present schema is none for this way: whoever reads it in full says what is wrong with it,
or finds that nothing is.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, Required, TypedDict, get_type_hints

import msgspec
from msgspec import Meta, Raw

from cnnbench.lean_common import Common, decoded
from cnnbench.migrations import SCHEMA
from cnnbench.record_fields import FIELDS, LONGEST_CHANGES
from cnnbench.text import LONGEST_NAME

_Whole = Annotated[int, Meta(ge=-(10**15), le=10**15)]
_Seed = Annotated[int, Meta(ge=0, le=10**15)]
_Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
_Number = _Whole | Annotated[float, Meta(ge=-1e90, le=1e90)]
"""Well within what ``json_checks`` lets pass, all of a list together too."""
_Ends = Annotated[list[_Number], Meta(min_length=2, max_length=2)]
_DIGITS: Final = b"0123456789.-"


class _Sampling(TypedDict, total=False):
    samples_ms: Raw
    stopped: Required[str]
    steady: bool | None
    interval_ms: _Ends | None
    ratio: Annotated[list[_Number], Meta(min_length=3, max_length=3)] | None
    threads: _Whole | None
    cpus: list[_Whole] | None


class _Energy(TypedDict, total=False):
    range_mj: _Ends | None
    intensity: Raw


class _Details(TypedDict, total=False):
    notes: list[str] | None
    confusion: list[list[Annotated[int, Meta(ge=0, le=10**12)]]] | None
    latency: dict[str, _Sampling] | None
    energy: _Energy | None
    noise: Raw
    noise_energy: Raw


class _Line(TypedDict, total=False):
    schema: Required[Literal[2]]
    key: Required[_Name]
    suite: Raw
    arm: Required[_Name]
    role: Required[_Name]
    reference: _Name | None
    dataset: Raw
    changes: Annotated[str, Meta(max_length=LONGEST_CHANGES)] | None
    planned: Raw
    design: Raw
    measure: Raw
    statistics: Raw
    budget: Raw
    seed: Required[_Seed]
    reason: str | None
    metrics: dict[str, _Number | None] | None
    methods: Raw
    details: _Details | None
    status: Required[_Name]
    workers: _Whole | None
    settings: Raw
    device: Raw
    environment: Raw


_SHARED_DETAILS: Final = ("noise", "noise_energy")
_WORDS: Final = ("arm", "role", "reference", "changes", "status")


class LeanReader:
    """Reads lines of one file; what they share is one object in all their records."""

    def __init__(self) -> None:
        assert SCHEMA == 2, "what is read here has to be looked through again"
        self._fields = get_type_hints(_Line, include_extras=True)
        self._shared_fields = [name for name, hint in self._fields.items() if hint is Raw]
        self._decode = msgspec.json.Decoder(_Line).decode
        self._common = Common(self._fields)
        self._known: dict[tuple[str, bytes], Any] = {}
        self._last: dict[str, tuple[bytes, Any]] = {}
        self._words: dict[str | None, str | None] = {}
        self._counts: dict[bytes, range] = {b"[]": range(1)}
        self._totals: dict[int, list[list[int]]] = {}

    def record(self, line: bytes) -> dict[str, Any] | None:
        """A line's record as far as tables need it, or None where it is to be read in full.

        ``samples_ms`` of a latency only has its length, and a confusion matrix is the total of its images.
        """
        try:
            record = self._common.record(line)
            if record is None:
                record = self._whole(line)
            else:
                for name in self._common.others:
                    if name in record:
                        record[name] = self._shared(name, record[name])
            words = self._words
            for name in _WORDS:
                if name in record:
                    word = record[name]
                    record[name] = words.setdefault(word, word)
            if details := record.get("details"):
                self._lighten(details)
        except (_UnfitError, msgspec.MsgspecError, ValueError, RecursionError):  # of UTF-8 too
            return None
        return record

    def _whole(self, line: bytes) -> dict[str, Any]:
        """The record of a line that differs from those before in what they have in common."""
        record = decoded(line, self._decode)
        texts = {name: bytes(raw) for name, raw in record.items() if name in self._shared_fields}
        shared = {name: self._shared(name, text) for name, text in texts.items()}
        self._common.learn(line, texts, shared)
        record |= shared
        return record

    def _lighten(self, details: dict[str, Any]) -> None:
        for name in _SHARED_DETAILS:
            if name in details:
                details[name] = self._shared(name, details[name])
        if (energy := details.get("energy")) and "intensity" in energy:
            energy["intensity"] = self._shared("intensity", energy["intensity"])
        for sampling in (details.get("latency") or {}).values():
            if "samples_ms" not in sampling:
                raise _UnfitError
            sampling["samples_ms"] = self._counted(bytes(sampling["samples_ms"]))
            stopped = sampling["stopped"]
            sampling["stopped"] = self._words.setdefault(stopped, stopped)
        if confusion := details.get("confusion"):
            if {*map(len, confusion)} != {len(confusion)}:
                raise _UnfitError
            total = sum(map(sum, confusion))
            details["confusion"] = self._totals.setdefault(total, [[total]])

    def _shared(self, name: str, raw: Raw | bytes) -> Any:
        """What a part of a line holds; checked when it is met first."""
        text = bytes(raw)
        last, value = self._last.get(name, (b"", None))
        if text == last:  # by far the quickest way to know a long one
            return value
        if (name, text) not in self._known:
            value = json.loads(text)
            whole = {"energy": {name: value}} if name == "intensity" else {name: value}
            fault = FIELDS[name](value) if name in FIELDS else FIELDS["details"](whole)
            if value is not None and fault:
                raise _UnfitError
            self._known[name, text] = value
        self._last[name] = text, self._known[name, text]
        return self._known[name, text]

    def _counted(self, numbers: bytes) -> range:
        """As long as a list of numbers, from its text."""
        if numbers == b"[]":
            return range(0)
        commas = numbers.translate(None, _DIGITS)
        if commas not in self._counts:
            count = len(msgspec.json.decode(numbers, type=list[_Number]))  # whatever else may stand there
            if commas.strip(b"[,]"):
                return range(count)
            self._counts[commas] = range(count)
        return self._counts[commas]


class _UnfitError(Exception):
    """A line to be read in full."""
