"""The life of a worker process: take a task, perform it, say what became of it, until the parent closes the pipe."""

from __future__ import annotations

import faulthandler
import gc
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch._dynamo  # noqa: F401 - optimizers import it at first use: better once, in the fork server

import cnnbench.stages.bench  # noqa: F401 - the fork server imports torch and the stages through here, once
from cnnbench.execute.guard import Guard
from cnnbench.execute.interface import Epoch, Task
from cnnbench.execute.process import BEGUN, CUT_OFF, DUMP, LEAVING, Loading, Start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection


def main(pipe: Connection[Any, Any], begin: Start, output: Connection[Any, Any] | None) -> None:
    """Serve tasks from ``pipe``.

    Args:
        pipe: the parent's tasks come in; epochs and outcomes go out.
        begin: what the parent says.
        output: where stdout and stderr go.
    """
    from cnnbench.execute.cache import worn_out
    from cnnbench.execute.children import end_leftovers
    from cnnbench.execute.heap import keep_freed_memory
    from cnnbench.execute.local import end_with_parent
    from cnnbench.execute.perform import perform
    from cnnbench.plugins import PluginHost
    from cnnbench.stages.bench import Bench

    _settle(begin, output)
    inbox: queue.SimpleQueue[Task] = queue.SimpleQueue()
    end_with_parent(pipe, inbox, begin.folder)
    if hasattr(os, "register_at_fork"):  # a child that a technique forks must not keep it open when this process ends
        os.register_at_fork(after_in_child=pipe.close)
    send = _sender(pipe)
    host = PluginHost.discover(begin.without, lambda plugin: send(Loading(plugin)), begin.local)
    bench = Bench(host.registry)
    guard = Guard(Path(begin.folder))
    own = os.getpid()
    gc.freeze()  # what torch has made on import stays for good: a collection, and memory takes one, need not look at it
    spoiled = False
    while not spoiled:
        task = _next(inbox)
        send(BEGUN)
        if not task.own_process:  # one that tells of memory should find it as the system gives it
            keep_freed_memory()

        def tell(progress: Mapping[str, Any], key: str = task.key) -> None:
            if os.getpid() != own:  # a child that a technique forked, which must not speak for its parent
                os._exit(0)
            send(Epoch(key, progress))

        outcomes = perform(task, bench, tell, (BaseException,), guard)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        spoiled = guard.spoiled or worn_out(Path(begin.folder))
        if spoiled:
            send(LEAVING)
        send(outcomes)
    end_leftovers()


def _sender(pipe: Connection[Any, Any]) -> Callable[[Any], None]:
    """What says something to the parent, and ends this process where a technique has closed the connection."""
    posix = os.name == "posix"  # elsewhere a pipe has no number that another file may come to have
    ours = os.fstat(pipe.fileno()) if posix else None

    def send(what: Any) -> None:
        try:
            if ours is not None and not os.path.samestat(os.fstat(pipe.fileno()), ours):
                os._exit(CUT_OFF)  # what lies there now takes words in silence
            pipe.send(what)
        except OSError:
            os._exit(CUT_OFF)

    return send


def _next(inbox: queue.SimpleQueue[Task]) -> Task:
    """The next task. Freed memory is kept for one that comes at once, and only while the machine has enough."""
    from cnnbench.execute.heap import IDLE_SECONDS, SHORT_MIB, give_back_freed_memory
    from cnnbench.execute.room import free_mib

    if free_mib() >= SHORT_MIB:
        with suppress(queue.Empty):
            return inbox.get(timeout=IDLE_SECONDS)
    give_back_freed_memory()
    return inbox.get()


def _settle(begin: Start, output: Connection[Any, Any] | None) -> None:
    """Become a process of one's own: group, output, working directory, and children's children too."""
    from cnnbench.execute.children import adopt_orphans

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    if hasattr(os, "setsid"):
        os.setsid()
    adopt_orphans()
    with suppress(OSError):  # where the system runs out of memory all the same, it should end this process first
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if output is None:
        os.dup2(2, 1)  # what a technique prints must not end up in the table that stdout is redirected for
    else:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        output.close()
    faulthandler.enable(file=2, all_threads=True)
    if DUMP is not None:
        faulthandler.register(DUMP, file=2, all_threads=True)
    sys.path[:] = begin.path
    os.chdir(begin.folder)
    keep_progress_bars_local()


def keep_progress_bars_local() -> None:
    """Give tqdm, which torch imports where it is installed, a lock of this process alone.

    Its own is shared between processes, and lies in the system until its maker ends in an orderly way: a worker does
    not, and Python's resource tracker would complain of it after the table. torch shows bars (hidden ones too) when it
    exports a network or converts one to int8.
    """
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None:
        tqdm.tqdm.set_lock(threading.RLock())
