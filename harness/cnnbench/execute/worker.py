"""The life of a worker process: take a task, perform it, say what became of it, until the parent closes the pipe."""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import torch._dynamo  # noqa: F401 - optimizers import it at first use: better once, in the fork server

import cnnbench.stages.bench  # noqa: F401 - the fork server imports torch and the stages through here, once
from cnnbench.execute.interface import Epoch, Task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection


def main(pipe: Connection[Any, Any], path: list[str]) -> None:
    """Serve tasks from ``pipe``.

    Args:
        pipe: the parent's tasks come in; epochs and outcomes go out.
        path: the parent's ``sys.path``, so that techniques are found here as they were there.
    """
    from cnnbench.execute.local import BEGUN, end_with_parent
    from cnnbench.execute.perform import perform
    from cnnbench.plugins import PluginHost
    from cnnbench.stages.bench import Bench

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.dup2(2, 1)  # what a technique prints must not end up in the table that stdout is redirected for
    sys.path[:] = path
    _keep_progress_bars_local()
    inbox: queue.SimpleQueue[Task] = queue.SimpleQueue()
    end_with_parent(pipe, inbox)
    bench = Bench(PluginHost.discover().registry)
    gc.freeze()  # what torch has made on import stays for good: a collection, and memory takes one, need not look at it
    while True:
        task = inbox.get()
        pipe.send(BEGUN)

        def tell(progress: Mapping[str, Any], key: str = task.key) -> None:
            pipe.send(Epoch(key, progress))

        pipe.send(perform(task, bench, tell, faults=(BaseException,)))


def _keep_progress_bars_local() -> None:
    """Give tqdm, which torch imports where it is installed, a lock of this process alone.

    Its own is shared between processes, and lies in the system until its maker ends in an orderly way: a worker does
    not, and Python's resource tracker would complain of it after the table. torch shows bars (hidden ones too) when it
    exports a network or converts one to int8.
    """
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None:
        tqdm.tqdm.set_lock(threading.RLock())
