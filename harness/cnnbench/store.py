"""Records on disk: ``records.jsonl`` in a results folder, one finished trial a line, only ever appended to.

A line is strict JSON in UTF-8. Of several lines with one ``key`` the last counts. Killing the writer tears at most the
line that it was writing: readers pass over a torn last line, and the next append starts on a new one. This module
needs neither torch nor pandas, so records can be read wherever they are published.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from cnnbench.errors import StoreError
from cnnbench.record_fields import fault_of
from cnnbench.registry import nearest

SCHEMA: Final = 1
"""Version of the record format that this module writes, and the newest that it reads."""

FILE: Final = "records.jsonl"
_RUN_LOCK: Final = ".run.lock"
_REQUIRED: Final[Mapping[str, type]] = {"key": str, "arm": str, "role": str, "seed": int, "status": str}

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


class Store:
    """The record file of one results folder.

    Args:
        folder: the results folder; made by the first ``append`` or ``exclusive``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._running = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record, on disk when this returns; safe beside other processes that append.

        Numbers that are not finite become null: JSON has no others.

        Raises:
            StoreError: the file can't be written.
            ValueError: the record lacks a required field, or has another schema version than ``SCHEMA``.
        """
        record = {"schema": SCHEMA, **record}
        fault = _fault(record)
        if fault or record["schema"] != SCHEMA:
            raise ValueError(f"not a record of schema {SCHEMA}: {fault or record['schema']}")
        data = as_line(record)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+", buffering=0) as file, _locked(file):
                _write_whole(file, data if _ends_with_newline(file) else b"\n" + data)
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"{self.path}: can't be written: {error.strerror or error}") from error

    def keep(self, name: str, content: bytes) -> None:
        """Put a file beside the records, such as the suite that they come from; an earlier one of its name goes.

        Raises:
            StoreError: it can't be written.
        """
        write(self.folder / name, content)

    def read(self) -> Records:
        """All records; none where the file does not exist yet.

        Raises:
            StoreError: the file can't be read, or was written by a newer cnnbench.
        """
        return _read(self.path)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder for one run against all other processes; the lock ends with this one, however it ends.

        Raises:
            StoreError: another run holds it; says which.
        """
        if self._running:
            raise StoreError(f"{self.folder}: this run holds the folder already")
        path = self.folder / _RUN_LOCK
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = _held(path)
        except OSError as error:
            raise StoreError(f"{path}: can't be locked: {error.strerror or error}") from error
        if file is None:
            raise StoreError(
                f"{self.folder}: another run is writing here ({_holder(path)}): wait for it to end, or choose another "
                "folder with --results"
            )
        self._running = True
        try:
            yield
        finally:
            self._running = False
            with suppress(OSError):  # elsewhere than on POSIX an open file can't be removed; it does no harm
                path.unlink()
            file.close()


def as_line(record: Mapping[str, Any]) -> bytes:
    """A record as its line in the file; numbers that are not finite are null."""
    text = json.dumps(_strict(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate (from an undecodable path in an error message) has no UTF-8 form.
    return text.encode("utf-8", "replace") + b"\n"


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder where there is none.

    Raises:
        StoreError: it can't be written.
    """
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: can't be written: {error.strerror or error}") from error


def open_results(path: Path, *, every: bool = False) -> Records:
    """The records of a published or a running experiment.

    Args:
        path: a folder with ``records.jsonl``, or such a file by any name.
        every: also those that a later one with their key has replaced.

    Raises:
        StoreError: nothing there, or no records in it; names the nearest place that has some.
    """
    if path.is_dir():
        if not (path / FILE).exists():
            raise StoreError(f"{path}: no {FILE} in this folder{_elsewhere(path)}")
        path = path / FILE
    elif not path.exists():
        raise StoreError(f"{path}: no such folder or file{_elsewhere(path)}")
    found = _read(path, every=every)
    if not found.records:
        damage = f"; {found.problems[0]}" if found.problems else ""
        raise StoreError(f"{path}: holds no complete record{damage}")
    return found


def _read(path: Path, *, every: bool = False) -> Records:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Records(path, ())
    except OSError as error:
        raise StoreError(f"{path}: can't be read: {error.strerror or error}") from error
    return _parse(path, data, every=every)


def _elsewhere(path: Path) -> str:
    """A hint at results near a path that has none: inside it, else beside it."""
    if path.is_dir():
        inside = sorted(file.parent for file in path.glob(f"*/{FILE}"))
        return f": did you mean {', '.join(map(str, inside[:5]))}?" if inside else ": 'cnnbench run' makes one"
    try:
        beside = {entry.name for entry in path.parent.iterdir() if (entry / FILE).exists() or entry.suffix == ".jsonl"}
    except OSError:
        return f": nor is there {path.parent}"
    hint = nearest(path.name, beside)
    return f": {hint}" if hint else ": 'cnnbench run' makes one"


def _parse(path: Path, data: bytes, *, every: bool) -> Records:
    kept: dict[str | int, Record] = {}
    problems: list[LineProblem] = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            fault = _unreadable(record)
        except (ValueError, RecursionError):  # JSON and UTF-8 errors are both ValueErrors
            torn = number == len(lines)  # whatever was written whole ends with a newline
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
        name = number if every else record["key"]
        kept.pop(name, None)  # so that the order is that of the lines which count
        kept[name] = record
    return Records(path, tuple(kept.values()), tuple(problems))


def _fault(record: object) -> str:
    """Why something is not a record, or an empty string."""
    if not isinstance(record, dict):
        return "not a record: expected a JSON object"
    schema = record.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        return f"not a record: schema is {schema!r}, expected a whole number from 1"
    if schema > SCHEMA:
        return ""  # its fields are not ours to judge
    for name, kind in _REQUIRED.items():
        value = record.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"not a record: {name} is {value!r}, expected {kind.__name__}"
    return ""


def _unreadable(record: object) -> str:
    """Why a line is not a record that a reader can rely on, or an empty string."""
    fault = _fault(record)
    return fault if fault or not isinstance(record, dict) or record["schema"] > SCHEMA else fault_of(record)


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


def _ends_with_newline(file: IO[bytes]) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _write_whole(file: IO[bytes], data: bytes) -> None:
    """One write; more only where the system takes less than it was given (a nearly full disk)."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 62  # locks are on ranges of bytes: one that no data ever reaches

    @contextmanager
    def _locked(file: IO[bytes]) -> Iterator[None]:
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    @contextmanager
    def _locked(file: IO[bytes]) -> Iterator[None]:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Said, not left to closing: a child forked meanwhile by another thread has the descriptor too.
            fcntl.flock(file, fcntl.LOCK_UN)

    def _try_lock(file: IO[bytes]) -> bool:
        # lockf, not flock: workers forked by a run that is killed must not go on holding its folder.
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _held(path: Path) -> IO[bytes] | None:
    """The run lock's file, locked and signed, or None where another process holds it."""
    while True:
        file = path.open("ab+", buffering=0)
        try:
            if not _try_lock(file):
                file.close()
                return None
            if _same(path, file):
                file.truncate(0)
                file.write(f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC".encode())
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _same(path: Path, file: IO[bytes]) -> bool:
    """Whether an open file is still the one at its path: its last holder may have removed it before we locked it."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip() or "it has just begun"
    except OSError:
        return "it gives no name"
