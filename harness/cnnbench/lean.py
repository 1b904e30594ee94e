"""The quick way to read a record's line: what tables show of it, and nothing else.

Most of a line is samples, training curves and the like, of which tables show at most how many there are. What says the
same in many lines, such as the plan, is taken apart once and then shared. A line that is not plainly a sound record of
the present schema is none for this way: whoever reads it in full says what is wrong with it, or finds that nothing is.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, TypedDict, cast

import msgspec
from msgspec import Meta, Raw

from cnnbench.migrations import SCHEMA
from cnnbench.record_fields import FIELDS, has_escaped_surrogates

_Whole = Annotated[int, Meta(ge=-(10**15), le=10**15)]
_Number = _Whole | Annotated[float, Meta(ge=-1e90, le=1e90)]
"""Well within what ``json_checks`` lets pass, all of a list together too."""
_Ends = Annotated[list[_Number], Meta(min_length=2, max_length=2)]
_DIGITS: Final = b"0123456789.,-+eE"


class _Sampling(TypedDict, total=False):
    samples_ms: Raw
    stopped: str
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
    schema: Literal[2]
    key: str
    arm: str
    role: str
    status: str
    seed: _Whole
    reference: str | None
    dataset: str | None
    changes: str | None
    budget: str | None
    device: str | None
    reason: str | None
    workers: _Whole | None
    metrics: dict[str, _Number | None] | None
    methods: Raw
    suite: Raw
    planned: Raw
    design: Raw
    measure: Raw
    statistics: Raw
    environment: Raw
    settings: Raw
    details: _Details | None


_NEEDED: Final = ("schema", "key", "arm", "role", "status", "seed")
_SHARED: Final = ("suite", "planned", "design", "measure", "statistics", "environment", "settings", "methods")
_SHARED_DETAILS: Final = ("noise", "noise_energy")


class LeanReader:
    """Reads lines of one file; what they share is one object in all their records."""

    def __init__(self) -> None:
        assert SCHEMA == 2, "what is read here has to be looked through again"
        self._decoder = msgspec.json.Decoder(_Line)
        self._known: dict[tuple[str, bytes], Any] = {}
        self._last: dict[str, tuple[bytes, Any]] = {}
        self._words: dict[str, str] = {}

    def record(self, line: bytes) -> dict[str, Any] | None:
        """A line's record as far as tables need it, or None where it is to be read in full.

        ``samples_ms`` of a latency only has its length, and a confusion matrix is the total of its images.
        """
        if has_escaped_surrogates(line):
            return None
        try:
            line.decode()  # what is passed over is looked at as JSON, and not as UTF-8
            record = cast("dict[str, Any]", self._decoder.decode(line))
            if any(name not in record for name in _NEEDED):
                return None
            for name in _SHARED:
                if name in record:
                    record[name] = self._shared(name, record[name])
            for name in ("arm", "role", "status", "reference", "dataset", "changes", "budget", "device"):
                if (text := record.get(name)) is not None:
                    record[name] = self._words.setdefault(text, text)
            if details := record.get("details"):
                self._lighten(details)
        except (_UnfitError, msgspec.MsgspecError, ValueError, RecursionError):  # of UTF-8 too
            return None
        return record

    def _lighten(self, details: dict[str, Any]) -> None:
        for name in _SHARED_DETAILS:
            if name in details:
                details[name] = self._shared(name, details[name])
        if (energy := details.get("energy")) and "intensity" in energy:
            energy["intensity"] = self._shared("intensity", energy["intensity"])
        for sampling in (details.get("latency") or {}).values():
            if "stopped" not in sampling or "samples_ms" not in sampling:
                raise _UnfitError
            sampling["samples_ms"] = range(_count(bytes(sampling["samples_ms"])))
            sampling["stopped"] = self._words.setdefault(sampling["stopped"], sampling["stopped"])
        if confusion := details.get("confusion"):
            if any(len(row) != len(confusion) for row in confusion):
                raise _UnfitError
            details["confusion"] = [[sum(map(sum, confusion))]]

    def _shared(self, name: str, raw: Raw) -> Any:
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


class _UnfitError(Exception):
    """A line to be read in full."""


def _count(numbers: bytes) -> int:
    """How many numbers a list has, from its text."""
    if numbers.translate(None, _DIGITS).strip() != b"[]":
        raise _UnfitError
    return numbers.count(b",") + 1 if len(numbers) > 2 else 0
