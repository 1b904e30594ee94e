"""Results of stages on disk, one folder a key.

A stage's worker fills a folder of its own and renames it into place as its last act, so a result is there in full or
not at all, whenever a process is killed. Only ``ok`` is kept: failures run again. A worker holds the folder that it
fills for as long as it lives; what nobody holds was left by one that was killed, and the next run removes it.

Nothing is forced to the disk here: files that a power cut has cut short have wrong sizes, and such a result counts
as none. It costs its stage again, and no record.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cnnbench.errors import CnnbenchError, TrialError, UsageError, words_of
from cnnbench.locks import hold_folder, same

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

RESULT = "result.json"
_LITTLE: Final = 1 << 16
"""Bytes that a disk must take for whatever went wrong on it to have another cause."""
_ENOUGH: Final = 1 << 24
"""Likewise where what went wrong sounds as if it were full: what did not fit may be large."""
_OF_PROCESS: Final = frozenset({errno.EFBIG, errno.EMFILE})
"""Errors that come of limits of the process that has them: the disk is well."""
_OVER_LIMIT: Final = "a technique lowered its limits, or left files open"
_FILES: Final = 64
"""How many files a task must be able to open beside those that are open already."""


class CacheError(CnnbenchError):
    """The cache, and not the stage, is why a result can't be kept.

    Attributes:
        removed: the folder was removed meanwhile: the stage may run again. Otherwise nothing can be kept at all.
    """

    def __init__(self, message: str, *, removed: bool) -> None:
        super().__init__(message)
        self.removed = removed


class Barred(CacheError):  # noqa: N818 - reads as what happened
    """This process, and not the cache, is why nothing can be written: it has reached its own limits."""


def default_cache() -> Path:
    """Where results of stages are kept when nobody says otherwise: ``CNNBENCH_CACHE`` or the user's cache folder."""
    named = os.environ.get("CNNBENCH_CACHE")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("cnnbench", appauthor=False) / "stages"


class StageCache:
    """Folders of results by stage key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folder, and clear it of what workers left that were killed.

        Raises:
            UsageError: it can't be made, or not be written in.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            _try(self.root, _LITTLE)
            for left in self.root.glob("*/.*-*-*"):
                if left.is_dir() and (descriptor := hold_folder(left, wait=False)) is not None:
                    shutil.rmtree(left, ignore_errors=True)
                    os.close(descriptor)
        except OSError as error:
            raise UsageError(
                f"cache folder {self.root} can't be written in: {error.strerror}; choose another with --cache"
            ) from error

    def folder(self, key: str) -> Path:
        """Where the result of ``key`` is, or would be."""
        return self.root / key[:2] / key

    def result(self, key: str) -> dict[str, Any] | None:
        """The result of ``key``, or None where there is none, or files beside it are no longer as they were left."""
        return _read(self.folder(key))

    def among(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that have a result; folders are listed, so that looking for what is not there is cheap."""
        there: dict[str, frozenset[str]] = {}
        found: set[str] = set()
        for key in keys:
            if (names := there.get(key[:2])) is None:
                names = there[key[:2]] = _names(self.root / key[:2])
            if key in names and self.result(key) is not None:
                found.add(key)
        return found

    def forget(self, key: str) -> None:
        """Remove the result of ``key``, if any."""
        shutil.rmtree(self.folder(key), ignore_errors=True)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A new folder to write results into; it becomes ``folder`` if the block ends well, and vanishes otherwise.

    Raises:
        CacheError: the block failed, or its result can't be kept, because the cache is full, read-only or removed.
        Barred: likewise, because this process has reached its own limits.
    """
    scratch: Path | None = None
    descriptor: int | None = None
    try:
        scratch, descriptor = _scratch(folder)
        yield scratch
        if _gone(scratch, descriptor):
            raise FileNotFoundError(errno.ENOENT, "removed", str(scratch))
        _put(scratch, folder)
    except TrialError:
        raise
    except Exception as error:
        removed = scratch is not None and _gone(scratch, descriptor)
        fault = _fault(folder.parent.parent, error, removed=removed)
        if fault is None:
            raise
        raise fault from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _scratch(folder: Path) -> tuple[Path, int | None]:
    """A folder of this process's own beside ``folder``, and what holds it."""
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=_scratch_prefix(folder, os.getpid()), dir=folder.parent))
        descriptor = hold_folder(scratch, wait=True)
        if descriptor is None or same(scratch, descriptor):
            return scratch, descriptor
        os.close(descriptor)  # another run, just starting, took it for one that was left behind


def _put(scratch: Path, folder: Path) -> None:
    """Move a filled folder to its place."""
    try:
        scratch.rename(folder)
    except OSError:
        if _read(folder) is None:  # not another run that was faster, but what is left of a result
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)


def _gone(scratch: Path, descriptor: int | None) -> bool:
    """Whether a folder was removed, be it that whoever writes into it has made it again."""
    return not scratch.exists() if descriptor is None else not same(scratch, descriptor)


def _fault(root: Path, error: Exception, *, removed: bool) -> CacheError | None:
    """What is wrong with the cache, or with this process, after something was raised over it, if anything is."""
    if removed:
        return CacheError(f"cache folder {root} was removed while it was in use", removed=True)
    try:
        _try(root, _ENOUGH if _sounds_full(error) else _LITTLE)
    except FileNotFoundError:
        return CacheError(f"cache folder {root} was removed while it was in use", removed=True)
    except OSError as refused:
        if refused.errno in _OF_PROCESS:
            return Barred(f"its process may not write files any more: {refused.strerror}; {_OVER_LIMIT}", removed=False)
        return CacheError(f"cache folder {root} can't be written in: {refused.strerror or refused}", removed=False)
    return None


def _sounds_full(error: BaseException) -> bool:
    """Whether an exception comes of a disk that takes no more: torch and others have their own words for it."""
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    return full or "No space left" in words_of(error) or _of_writer(error)


def _of_writer(error: BaseException) -> bool:
    """Whether torch could not write a file; it does not say why."""
    words = words_of(error)  # its text is another's code
    return "PytorchStreamWriter" in words or ("inline_container.cc" in words and "unexpected pos" in words)


def likely_cause(error: BaseException) -> str | None:
    """Where something raised may come of limits that are no longer there, what to look for."""
    if isinstance(error, OSError) and error.errno in _OF_PROCESS:
        return _OVER_LIMIT
    return f"a disk was full, or {_OVER_LIMIT}" if _of_writer(error) else None


def _try(folder: Path, size: int) -> None:
    """Write some bytes into a folder, which vanish at once.

    Raises:
        OSError: it takes no file, or not as much.
    """
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(0, size, _LITTLE):
            if file.write(bytes(_LITTLE)) < _LITTLE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def worn_out(folder: Path) -> bool:
    """Whether this process may no longer write a file, or open as many as a task needs, whatever the disk takes.

    Args:
        folder: where it is tried.
    """
    opened: list[int] = []
    try:
        for _ in range(_FILES):
            opened.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 - those that were opened must be known
        _try(folder, _LITTLE)
    except OSError as error:
        return error.errno in _OF_PROCESS
    finally:
        for one in opened:
            os.close(one)
    return False


def clear_scratch(folder: Path, process: int) -> None:
    """Remove what a process that is no more, or about to end, left behind while filling ``folder``."""
    for scratch in folder.parent.glob(f"{_scratch_prefix(folder, process)}*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch_prefix(folder: Path, process: int) -> str:
    return f".{folder.name[:8]}-{process}-"


def write_result(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write a stage's result as strict JSON, after the files that belong to it.

    Returns:
        The result as reading it gives it: plain data, that any other process knows too.

    Raises:
        ValueError: a number in it is not finite.
    """
    files = {file.name: file.stat().st_size for file in folder.iterdir()}
    text = json.dumps({"files": files, "result": result}, allow_nan=False)
    (folder / RESULT).write_text(text, encoding="utf-8")
    plain: dict[str, Any] = json.loads(text)["result"]
    return plain


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in os.scandir(folder))
    except OSError:
        return frozenset()


def _read(folder: Path) -> dict[str, Any] | None:
    """The result in a folder, if it is whole: a cleaner of caches may have taken a file, or a full disk its end."""
    try:
        kept = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in kept["files"].items())
        result: dict[str, Any] = kept["result"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if whole else None
