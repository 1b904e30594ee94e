"""What torch_xla asks for beyond an ordinary device.

It computes nothing at once: operations gather in a graph, which is compiled and run when somebody looks at a value or
says so. A loop that never says so makes one graph of all its steps, and an output that nobody holds is never computed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def hardware() -> str:
    """What torch_xla drives, e.g. ``TPU`` or ``CPU``; empty where it is not installed or finds nothing.

    Takes no device: a TPU belongs to the first process that does.
    """
    if importlib.util.find_spec("torch_xla") is None:
        return ""
    try:
        return str(importlib.import_module("torch_xla.runtime").device_type() or "")
    except (ImportError, RuntimeError):  # built for another torch, or no accelerator answers
        return ""


def version() -> str:
    """Of the installed torch_xla."""
    return importlib.metadata.version("torch_xla")


def run_graph() -> None:
    """Send what has gathered to the device, and go on without waiting for it."""
    _package().sync()


def finish() -> None:
    """Send what has gathered to the device, and wait until it is done."""
    run_graph()
    _model().wait_device_ops()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch_xla draw from ``seed`` within the context, as it keeps a state apart from torch's.

    Does nothing in a process that has not taken an XLA device.
    """
    package = sys.modules.get("torch_xla")
    if package is None or not package._XLAC._xla_runtime_is_initialized():  # noqa: SLF001 - there is no public way
        yield
        return
    before = _model().get_rng_state()
    _model().set_rng_state(seed)
    try:
        yield
    finally:
        _model().set_rng_state(before)


def _package() -> Any:
    return importlib.import_module("torch_xla")


def _model() -> Any:
    return importlib.import_module("torch_xla.core.xla_model")
