"""One temporary folder for a run: whatever its processes leave in theirs goes with it.

Workers that are killed can't tidy up: folders of libraries, of compilers and of ``multiprocessing`` would stay. Theirs
lie in this one, which ends with the process that runs. It holds the folder for as long as it lives, so that one whose
process was killed is known by nobody's holding it: the next run removes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.locks import hold_folder, same

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "cnnbench-run-"
MARK = ".cnnbench"
"""A file in each such folder: a folder that merely has such a name is somebody's own."""
_LONGEST = 70
"""Characters of its path: sockets lie in folders of folders for temporary files, and take 103 where 32 are theirs."""


def run_folder() -> Path:
    """This process's folder for temporary files, made at the first call and removed when the process ends."""
    return _folder_of(os.getpid())  # a forked child has one of its own


@cache
def _folder_of(_process: int) -> Path:
    from multiprocessing.util import Finalize

    _clear()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        descriptor = hold_folder(folder, wait=True)  # kept open: the process's end lets go of it
        if descriptor is None or same(folder, descriptor):
            break
        os.close(descriptor)
    (folder / MARK).touch()
    # After multiprocessing has removed its own folder, which lies in this one and must be there until then.
    Finalize(None, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=-200)
    return folder


def _clear() -> None:
    """Remove the folders of runs that are no more."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if left.is_symlink() or not (left / MARK).is_file():
            continue
        if (descriptor := hold_folder(left, wait=False)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(descriptor)


def settings() -> dict[str, str]:
    """Environment variables for processes of the run; none where sockets could not be made in its folder."""
    folder = str(run_folder())
    return {"TMPDIR": folder} if len(os.fsencode(folder)) <= _LONGEST else {}


@contextmanager
def kept_together() -> Iterator[None]:
    """In the block, and for processes started there, temporary files lie in the run's folder, if sockets could too."""
    if not (folder := settings().get("TMPDIR")):
        yield
        return
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable
