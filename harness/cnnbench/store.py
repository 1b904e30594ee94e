"""Records on disk: ``records.jsonl`` in a results folder, one finished trial a line, only ever appended to.

A line is strict JSON in UTF-8. Of several lines with one ``key`` the last counts. Killing the writer tears at most the
line that it was writing: readers pass over a torn last line, and the next append starts on a new one. A run moves lines
that can't be read to ``records.damaged`` beside it. It answers for what it has recorded: where the folder is removed
under its hands, it writes that again. This module needs neither torch nor pandas, so records can be read wherever they
are published.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final

from cnnbench.bulk import no_collection
from cnnbench.durable import append, clear_scratch, write
from cnnbench.errors import StoreError
from cnnbench.locks import held, holder, locked, same
from cnnbench.migrations import SCHEMA
from cnnbench.paths import check_readable, folder_fault
from cnnbench.record_fields import fault_of
from cnnbench.record_lines import Records, as_line, fault_in, parse
from cnnbench.registry import nearest
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

FILE: Final = "records.jsonl"
DAMAGED: Final = "records.damaged"
"""Where lines that can't be read are kept, as they were."""
_RUN_LOCK: Final = ".run.lock"
_BUFFER: Final = 1 << 18
"""Bytes read at once: a line has thousands, which come in pieces with the usual buffer."""
_ATTEMPTS: Final = 100
"""A folder that is removed again and again, just as it was made, is no place to write."""


class Store:
    """The record file of one results folder.

    Args:
        folder: the results folder; made by the first ``append`` or ``exclusive``.
        warn: is told, in a line each, what was found damaged or removed, and mended.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None] = lambda _: None) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._warn = warn
        self._lock: IO[bytes] | None = None
        self._mine: dict[str, Mapping[str, Any]] = {}  # by key, in the order of their last lines
        self._beside: dict[str, bytes] = {}
        self._known: tuple[int, int, int] | None = None  # device, inode, size as this run has left the file

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record, on disk when this returns; safe beside other processes that append.

        Numbers that are not finite become null: JSON has no others.

        Raises:
            StoreError: the file can't be written; it is as it was before.
            ValueError: the record has another schema version than ``SCHEMA``, or reading would set it aside: a field
                is missing or of another type.
        """
        record = {"schema": SCHEMA, **record}
        if record["schema"] != SCHEMA:
            raise ValueError(f"not a record of schema {SCHEMA}: {record['schema']}")
        if fault := fault_in(record) or fault_of(json.loads(as_line(record))):
            raise ValueError(f"not a record of schema {SCHEMA}: {fault.removeprefix('not a record: ')}")
        self._put(record)
        self.hold(record)

    def hold(self, record: Mapping[str, Any]) -> None:
        """Take a record that is on disk as one that this run answers for; nothing outside of a run."""
        if self._lock is not None:
            self._mine.pop(record["key"], None)
            self._mine[record["key"]] = record

    def restore(self) -> None:
        """Write again what this run answers for, if it was removed meanwhile.

        Raises:
            StoreError: it can't be written.
        """
        if self._mine:
            self._put(None)

    def keep(self, name: str, content: bytes) -> None:
        """Put a file beside the records, such as the suite that they come from; an earlier one of its name goes.

        Raises:
            StoreError: it can't be written.
        """
        write(self.folder / name, content)
        if self._lock is not None:
            self._beside[name] = content

    def read(self) -> Records:
        """All records; none where the file does not exist yet. A run sets aside what is damaged, and tells so.

        Raises:
            StoreError: the file can't be read, or was written by a newer cnnbench.
        """
        self.restore()
        found = _read(self.path)
        if self._lock is not None:
            if found.problems:
                return self._set_aside(found)
            if found.records:
                self._note(self.path.stat())
        return found

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder for one run against all other processes; the lock ends with this one, however it ends.

        Raises:
            StoreError: another run holds it, and says which; or it can't be written in.
        """
        if self._lock is not None:
            raise StoreError(f"{self.folder}: this run holds the folder already")
        self._lock = self._taken()
        try:
            yield
        finally:
            self._let_go(self._lock)
            self._lock, self._known = None, None
            self._mine, self._beside = {}, {}

    def _taken(self) -> IO[bytes]:
        """The folder's lock, held by this run; what it could not write there is told now, before any work."""
        path = self.folder / _RUN_LOCK
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if there := self.path.exists():
                check_readable(self.path)
            file = held(path)
            if file is not None and there:
                self.path.open("ab").close()
        except OSError as error:
            if fault := folder_fault(self.folder):
                raise StoreError(fault) from error
            raise StoreError(f"{self.folder}: can't be written in: {error.strerror or error}") from error
        if file is None:
            raise StoreError(
                f"{self.folder}: another run is writing here ({holder(path)}): wait for it to end, or choose another "
                "folder with --results"
            )
        clear_scratch(self.folder)
        return file

    def _let_go(self, lock: IO[bytes]) -> None:
        path = self.folder / _RUN_LOCK
        with lock, suppress(OSError):  # elsewhere than on POSIX an open file can't be removed; it does no harm
            if same(path, lock.fileno()):
                path.unlink()

    def _put(self, record: Mapping[str, Any] | None) -> None:
        """Append a record, if any, after all others of this run where the file was removed or cut short."""
        data = b"" if record is None else as_line(record)
        try:
            with self._opened() as file:
                if self._removed(file):
                    data = b"".join(as_line(one) for one in self._mine.values()) + data
                    self._warn(
                        f"{self.path} was removed while this run was writing: what the run knows was written again, "
                        f"{len(self._mine)} records"
                    )
                if data:
                    append(file, data)
                self._note(os.fstat(file.fileno()))
        except OSError as error:
            remedy = "" if self._lock is None else "; finished work is kept, the same command goes on from here"
            raise StoreError(f"{self.path}: can't be written: {error.strerror or error}{remedy}") from error

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """The record file, locked against other writers, and still the one at its path."""
        for _ in range(_ATTEMPTS):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = self.path.open("ab+", buffering=0)
            except FileNotFoundError:  # the folder was removed in between
                continue
            with file, locked(file):
                if same(self.path, file.fileno()):
                    yield file
                    return
        raise FileNotFoundError(None, "its folder is removed again and again")

    def _removed(self, file: IO[bytes]) -> bool:
        """Whether the file is not what this run has left; the run's hold on the folder is then taken again."""
        if self._lock is not None and not same(self.folder / _RUN_LOCK, self._lock.fileno()):
            before, self._lock = self._lock, self._taken()
            before.close()
            for name, content in self._beside.items():
                write(self.folder / name, content)
        there = os.fstat(file.fileno())
        known = self._known
        return known is not None and ((there.st_dev, there.st_ino) != known[:2] or there.st_size < known[2])

    def _note(self, there: os.stat_result) -> None:
        """Remember the file as it is now."""
        if self._lock is not None:
            self._known = (there.st_dev, there.st_ino, there.st_size)

    def _set_aside(self, found: Records) -> Records:
        """Move what can't be read to ``DAMAGED``. Where that is not possible it stays: readers pass over it.

        What is moved is on disk at its new place before it leaves the old one. A line that another process was writing
        when this one looked is whole by now.

        Returns:
            What the file holds.
        """
        try:
            with self._opened() as file:
                file.seek(0)
                data = file.read()
                lines = data.split(b"\n")
                found = parse(self.path, io.BytesIO(data), every=False)
                damaged = {problem.line for problem in found.problems}
                if not damaged:
                    self._note(os.fstat(file.fileno()))
                    return found
                with (self.folder / DAMAGED).open("ab+", buffering=0) as aside:
                    text = b"".join(lines[number - 1] + b"\n" for number in sorted(damaged))
                    append(aside, text)
                sound = [line for number, line in enumerate(lines, 1) if line and number not in damaged]
                write(self.path, b"".join(line + b"\n" for line in sound))
            self._note(self.path.stat())
        except (OSError, StoreError):
            kept = ""
        else:
            kept = f"; kept in {DAMAGED}"
        self._warn(f"warning: {self.path}: {listed(f'{problem}' for problem in found.problems)}{kept}")
        return found


def open_results(path: Path, *, every: bool = False, lean: bool = False) -> Records:
    """The records of a published or a running experiment.

    Args:
        path: a folder with ``records.jsonl``, or such a file by any name.
        every: also those that a later one with their key has replaced.
        lean: only what tables show of them, see ``lean``; many times as fast where there are many.

    Raises:
        StoreError: nothing there, or no records in it; names the nearest place that has some.
    """
    if path.is_dir():
        if not (path / FILE).exists():
            raise StoreError(f"{path}: no {FILE} in this folder{_elsewhere(path)}")
        path = path / FILE
    elif not path.exists():
        raise StoreError(f"{path}: no such folder or file{_elsewhere(path)}")
    found = _read(path, every=every, lean=lean)
    if not found.records:
        damage = f"; {found.problems[0]}" if found.problems else ""
        raise StoreError(f"{path}: holds no complete record{damage}")
    return found


def _read(path: Path, *, every: bool = False, lean: bool = False) -> Records:
    try:
        check_readable(path)
        with path.open("rb", buffering=_BUFFER) as file, no_collection():
            return parse(path, file, every=every, lean=lean)
    except FileNotFoundError:
        return Records(path, ())
    except OSError as error:
        raise StoreError(f"{path}: can't be read: {error.strerror or error}") from error


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
