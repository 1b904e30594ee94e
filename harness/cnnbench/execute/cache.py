"""Results of stages on disk, one folder a key.

A stage's worker fills a folder of its own and renames it into place as its last act, so a result is there in full or
not at all, whenever a process is killed. Only ``ok`` is kept: failures run again.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

RESULT = "result.json"


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
        """Make the folder.

        Raises:
            UsageError: it can't be made, or not be written in.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
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
    """A new folder to write results into; it becomes ``folder`` if the block ends well, and vanishes otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=_scratch_prefix(folder, os.getpid()), dir=folder.parent))
    try:
        yield scratch
        try:
            scratch.rename(folder)
        except OSError:
            if _read(folder) is None:  # not another run that was faster, but what is left of a result
                shutil.rmtree(folder, ignore_errors=True)
                scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def clear_scratch(folder: Path, process: int) -> None:
    """Remove what a process that is no more, or about to end, left behind while filling ``folder``."""
    for scratch in folder.parent.glob(f"{_scratch_prefix(folder, process)}*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch_prefix(folder: Path, process: int) -> str:
    return f".{folder.name[:8]}-{process}-"


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write a stage's result as strict JSON, after the files that belong to it.

    Raises:
        ValueError: a number in it is not finite.
    """
    files = {file.name: file.stat().st_size for file in folder.iterdir()}
    (folder / RESULT).write_text(json.dumps({"files": files, "result": result}, allow_nan=False), encoding="utf-8")


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
