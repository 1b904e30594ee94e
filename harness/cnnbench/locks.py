"""Locks on files and folders that end with the process that holds them, however it ends."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def same(path: Path, descriptor: int) -> bool:
    """Whether what is open is still what lies at its path: it may have been removed or replaced meanwhile."""
    try:
        there, here = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 62  # locks are on ranges of bytes: one that no data ever reaches

    @contextmanager
    def locked(file: IO[bytes]) -> Iterator[None]:
        """Hold a file against other writers; waits for them."""
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

    def try_lock(file: IO[bytes]) -> bool:
        """Hold a file for this process until it is closed; False where another process holds it."""
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def hold_folder(path: Path, *, wait: bool) -> int | None:  # noqa: ARG001 - folders can't be opened there
        """No folder can be held on this system."""
        return None

else:
    import fcntl

    @contextmanager
    def locked(file: IO[bytes]) -> Iterator[None]:
        """Hold a file against other writers; waits for them."""
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Said, not left to closing: a child forked meanwhile by another thread has the descriptor too.
            fcntl.flock(file, fcntl.LOCK_UN)

    def try_lock(file: IO[bytes]) -> bool:
        """Hold a file for this process until it is closed; False where another process holds it."""
        # lockf, not flock: workers forked by a run that is killed must not go on holding its folder.
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def hold_folder(path: Path, *, wait: bool) -> int | None:
        """Hold a folder; None where that can't be done, be it that another process holds it.

        Args:
            path: the folder.
            wait: for whoever holds it.

        Returns:
            A descriptor to close: that lets go of it.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or on a file system without such locks
            os.close(descriptor)
            return None
        return descriptor


def held(path: Path) -> IO[bytes] | None:
    """A lock file, locked and signed, or None where another process holds it."""
    while True:
        file = path.open("ab+", buffering=0)
        try:
            if not try_lock(file):
                file.close()
                return None
            if same(path, file.fileno()):
                file.truncate(0)
                file.write(f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC".encode())
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def holder(path: Path) -> str:
    """Who holds a lock file, in words."""
    try:
        return path.read_text("utf-8", "replace").strip() or "it has just begun"
    except OSError:
        return "it gives no name"
