"""Ctrl-C: told from code that merely raises ``KeyboardInterrupt``, and held back from what it would break."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether the signal of Ctrl-C came within the block, where that can be known.

    Signals are the main thread's: elsewhere, and where the handler is not Python's, the function says yes. Where the
    signal is ignored it says no.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as where a shell started this in the background
        yield lambda: False
        return
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield lambda: True
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)


@contextmanager
def held_back() -> Iterator[None]:
    """Lets Ctrl-C wait for the end of the block, in the main thread: for seconds at most.

    Compiled code that calls Python while it is loaded may end the process by ``abort`` where that raises. To block the
    signal would not do: another thread takes it then, and the handler runs in the main one all the same.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[0])
