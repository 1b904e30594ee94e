"""The end of what a worker has printed, and where it was when it was ended: for the record of a trial that failed.

A worker's stdout and stderr come to its parent through a pipe, of which the parent keeps the end alone. A technique
that floods them fills neither the terminal nor the disk; what fills the pipe waits.
"""

from __future__ import annotations

import os
import re
import sysconfig
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

KEPT_BYTES = 64 * 1024
"""What is kept; as much as a pipe of Linux holds."""
MOST_LINES, MOST_LETTERS = 20, 300
"""Of the log in a record."""

_DUMP = re.compile(r"^(Fatal Python error: |(Current t|T)hread 0x)", re.MULTILINE)
_THREADS = re.compile(r"^(?:Current t|T)hread 0x.*\n", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)
_ENTRY = str(Path("execute", "worker.py"))
_STDLIB = sysconfig.get_path("stdlib") + os.sep


class LastWords:
    """What a worker has printed of late.

    Args:
        pipe: where it comes in; None where nothing does.
    """

    def __init__(self, pipe: Connection[Any, Any] | None = None) -> None:
        self.pipe = pipe
        self.full = False
        self._kept = b""

    def clear(self) -> None:
        """Forget what was printed before: another task begins."""
        self.drain()
        self._kept = b""

    def read(self) -> None:
        """Take in what is there, once; ``full`` says whether the pipe was."""
        self.full = False
        if self.pipe is None or not wait([self.pipe], 0):
            return
        data = b""
        with suppress(OSError):
            data = os.read(self.pipe.fileno(), KEPT_BYTES)
        if not data:
            self.close()
            return
        self.full = len(data) == KEPT_BYTES
        self._kept = (self._kept + data)[-KEPT_BYTES:]

    def drain(self, seconds: float = 0.0) -> None:
        """Take in what is there, and what comes within some seconds; of a flood, no more than a few times the pipe."""
        for _ in range(4):
            if self.pipe is None or not wait([self.pipe], seconds):
                return
            self.read()

    def close(self) -> None:
        """Read no more."""
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None

    @property
    def lines(self) -> list[str]:
        """The last lines, shortened, without what Python printed of its end."""
        text = _DUMP.split(self._text)[0]
        lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]  # a progress bar's last state
        return [line[:MOST_LETTERS] for line in lines if line][-MOST_LINES:]

    @property
    def stack(self) -> str | None:
        """The main thread's stack as Python printed it when it was ended, the innermost call first."""
        blocks = _THREADS.split(self._text)[1:]
        return next((block.split("\n\n")[0] for block in reversed(blocks) if _ENTRY in block), None)

    @property
    def place(self) -> str | None:
        """File and line of the innermost call that is neither torch's nor Python's own."""
        own = [frame for frame in _FRAME.findall(self.stack or "") if not _of_others(frame[0])]
        return f"{PurePath(own[0][0]).name}, line {own[0][1]}" if own else None

    @property
    def _text(self) -> str:
        return self._kept.decode(errors="replace")


def _of_others(file: str) -> bool:
    """Whether a file is torch's, NumPy's or Python's own."""
    _, installed, package = file.partition(f"site-packages{os.sep}")
    if installed:
        return package.startswith((f"torch{os.sep}", f"numpy{os.sep}"))
    return file.startswith(("<", _STDLIB))
