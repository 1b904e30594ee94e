"""Lines of a record file: what each says, and what is wrong with it.

A line is strict JSON in UTF-8; of several with one ``key`` the last counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cnnbench.errors import StoreError
from cnnbench.json_checks import shown
from cnnbench.migrations import SCHEMA, migrated
from cnnbench.record_fields import fault_of, unicode_fault

_REQUIRED: Final[Mapping[str, type]] = {"key": str, "arm": str, "role": str, "seed": int, "status": str}
_ALIKE: Final = ("suite", "planned", "design", "environment")
"""What records of one run have in common."""

Record = dict[str, Any]


@dataclass(frozen=True)
class LineProblem:
    """A line that was set aside.

    Attributes:
        line: 1-based line number.
        message: what is wrong with it.
    """

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True)
class Records:
    """What a record file holds.

    Attributes:
        path: the file.
        records: the last record of each key, in the order of the file.
        problems: lines set aside.
    """

    path: Path
    records: tuple[Record, ...]
    problems: tuple[LineProblem, ...] = ()


def parse(path: Path, lines: Iterable[bytes], *, every: bool, lean: bool = False) -> Records:
    """What lines hold.

    Args:
        path: of their file, for messages.
        lines: each with its end.
        every: also those that a later one with their key replaces.
        lean: only what tables show of them.

    Raises:
        StoreError: one is of a newer schema.
    """
    kept: dict[str | int, Record] = {}
    problems: list[LineProblem] = []
    quick = _quick_reader() if lean else None
    loads = _loader()
    shared: dict[str, Any] = {}
    for number, line in enumerate(lines, start=1):
        if quick is not None and (light := quick(line)) is not None:
            name = number if every else light["key"]
            kept.pop(name, None)
            kept[name] = light
            continue
        if not line.strip():
            continue
        try:
            record = loads(line)
            fault = fault_in(record)
            if not fault and record["schema"] <= SCHEMA:
                record = migrated(record)
                fault = fault_of(record) or unicode_fault(line, record)
        except (ValueError, RecursionError):  # JSON and UTF-8 errors are both ValueErrors
            torn = not line.endswith(b"\n")  # whatever was written whole ends with a newline
            fault = "torn: the writer was stopped here; its trial runs again" if torn else "not JSON"
            record = {}
        if not fault and record["schema"] > SCHEMA:
            raise StoreError(
                f"{path}:{number}: record of schema {record['schema']}, and this cnnbench reads up to {SCHEMA}: "
                "pip install --upgrade cnnbench"
            )
        if fault:
            problems.append(LineProblem(number, fault))
            continue
        _share(record, shared)
        name = number if every else record["key"]
        kept.pop(name, None)  # so that the order is that of the lines which count
        kept[name] = record
    return Records(path, tuple(kept.values()), tuple(problems))


def as_line(record: Mapping[str, Any]) -> bytes:
    """A record as its line in the file; numbers that are not finite are null."""
    text = json.dumps(_strict(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate (from an undecodable path in an error message) has no UTF-8 form.
    return text.encode("utf-8", "replace") + b"\n"


def modern(data: bytes) -> bytes:
    """A record file with its lines of earlier schemas as they are written today; all others as they are."""
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines):
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if not fault_in(record) and record["schema"] < SCHEMA:
                lines[number] = as_line(migrated(record))
    return b"".join(lines)


def _loader() -> Callable[[bytes], Any]:
    """``json.loads``, with a shorter way for what is plainly JSON, which takes a fifth of the time."""
    import msgspec

    decode = msgspec.json.Decoder().decode

    def loads(line: bytes) -> Any:
        try:
            line.decode()
            return decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # perhaps 1e999 or NaN
            return json.loads(line)

    return loads


def _share(record: Record, last: dict[str, Any]) -> None:
    """What says the same as in an earlier record becomes one object: of a large run, most of its memory."""
    for name in _ALIKE:
        if record.get(name) is None:
            continue
        if last.get(name) == record[name]:
            record[name] = last[name]
        last[name] = record[name]


def _quick_reader() -> Callable[[bytes], Record | None]:
    from cnnbench.lean import LeanReader

    return LeanReader().record


def fault_in(record: object) -> str:
    """Why something is not a record, or an empty string."""
    if not isinstance(record, dict):
        return "not a record: expected a JSON object"
    schema = record.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        return f"not a record: schema is {shown(schema)}, expected a whole number from 1"
    if schema > SCHEMA:
        return ""  # its fields are not ours to judge
    for name, kind in _REQUIRED.items():
        value = record.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"not a record: {name} is {shown(value)}, expected {kind.__name__}"
    return ""


def _strict(value: Any) -> Any:
    """Plain data that strict JSON can carry: numpy's scalars and arrays unwrapped, numbers not finite as None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):
        return _strict(value.tolist())
    return str(value) if isinstance(value, Path) else value
