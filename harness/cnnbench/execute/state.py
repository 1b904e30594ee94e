"""What a process holds that every task shares: read before a task, compared and put back after it.

Each ``Part`` is one such thing. What has no way back (``write`` is None) makes the process unfit for further tasks.
"""

from __future__ import annotations

import faulthandler
import gc
import locale
import os
import random
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from cnnbench.execute import firstuse
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.seeds import Streams


_RESOURCE: Any = import_module("resource") if os.name == "posix" else None
_TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)]
_SHOWN = (bool, int, torch.dtype, torch.device)


@dataclass(frozen=True)
class Part:
    """One thing that tasks share.

    Attributes:
        name: for people.
        read: its value; nothing that a task does later changes what was read.
        write: sets it; None where nothing can.
        stays: what should be there after a task, given what was before and what is: what libraries set at their first
            use stays.
        mild: where it can't be put back, what was measured stands all the same; the process takes no further task.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object] | None
    stays: Callable[[Any, Any], Any] = lambda before, _: before
    mild: bool = False

    def told(self, before: Any, after: Any) -> str:
        """What changed, in a few words."""
        if isinstance(before, dict) and isinstance(after, dict):
            names = sorted(str(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key))
            return f"{self.name} ({listed(names, 5)})"
        return f"{self.name} ({before} to {after})" if isinstance(before, _SHOWN) else self.name


def _environment(wanted: Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _default_device(wanted: torch.device) -> None:
    torch.set_default_device(None if wanted.type == "cpu" else wanted)


def working_folder() -> str | None:
    """Where the process is; None where that was removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - text, and None where it was removed
    except OSError:
        return None


def enter(path: str | None) -> None:
    """Go there; a technique may have removed it."""
    if path is not None:
        Path(path).mkdir(parents=True, exist_ok=True)
        os.chdir(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _handlers() -> dict[str, Any]:
    """Python's signal handlers; only the main thread may set them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number.name: signal.getsignal(number) for number in signal.Signals}


def _handle(wanted: Mapping[str, Any]) -> None:
    for name, handler in wanted.items():
        number = signal.Signals[name]
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _cores() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def _bind(wanted: frozenset[int]) -> None:
    if wanted:
        os.sched_setaffinity(0, wanted)


_HOOKED = tuple(map(import_module, ("torch.nn.modules.module", "torch.optim.optimizer")))


def _hooks() -> dict[str, Any]:
    """Hooks on every module and every optimizer."""
    return {
        name: dict(value)
        for home in _HOOKED
        for name, value in vars(home).items()
        if name.startswith("_global_") and isinstance(value, dict)
    }


def _hook(wanted: Mapping[str, Any]) -> None:
    for home in _HOOKED:
        for name in wanted.keys() & vars(home).keys():
            table = vars(home)[name]
            table.clear()
            table.update(wanted[name])


def _modes() -> list[Any]:
    """Modes that stand between Python and torch's operations, and gradient bookkeeping that was not left."""
    functions = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    entered = [*functions, *_get_current_dispatch_mode_stack()]
    return [torch.is_inference_mode_enabled(), *map(id, entered)]


def _deterministic(wanted: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(wanted[0], warn_only=wanted[1])


_SMALLEST = sys.float_info.min


def _flushes() -> bool:
    """Whether numbers below the smallest normal one count as 0 here: torch can set it, and does not tell."""
    return _SMALLEST / 2 == 0


_FP32 = tuple((home, kind) for home in ("cuda", "mkldnn") for kind in ("matmul", "conv", "rnn", "all"))


_COMMON: tuple[tuple[str, Callable[[], Any], Callable[[Any], object]], ...] = (
    ("products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    ("cudnn", torch._C._get_cudnn_allow_tf32, torch._C._set_cudnn_allow_tf32),  # noqa: SLF001
)


def _precision() -> dict[str, Any]:
    """How exactly float32 is computed with, in each library; common settings can't be read where they disagree."""
    found: dict[str, Any] = {
        f"{home}.{kind}": torch._C._get_fp32_precision_getter(home, kind)  # noqa: SLF001
        for home, kind in (*_FP32, ("generic", "all"))
    }
    for name, read, _ in _COMMON:
        with suppress(RuntimeError):
            found[name] = read()
    return found


def _compute(wanted: Mapping[str, Any]) -> None:
    for name, _, write in _COMMON:
        if name in wanted:
            write(wanted[name])
    for name, value in wanted.items():
        home, _, kind = name.partition(".")
        if kind and torch._C._get_fp32_precision_getter(home, kind) != value:  # noqa: SLF001
            torch._C._set_fp32_precision_setter(home, kind, value)  # noqa: SLF001


_ATTENTION = ("flash", "mem_efficient", "math", "cudnn")
_Cuda: Any = torch.backends.cuda


def _attention() -> dict[str, bool]:
    """Which implementations of attention torch may choose."""
    return {kind: getattr(_Cuda, f"{kind}_sdp_enabled")() for kind in _ATTENTION}


def _attend(wanted: Mapping[str, bool]) -> None:
    for kind, on in wanted.items():
        getattr(_Cuda, f"enable_{kind}_sdp")(on)


def _attribute(home: Any, name: str, stays: Callable[[Any, Any], Any] = lambda before, _: before) -> Part:
    words = f"{home.__name__}.{name}"
    return Part(words, lambda: getattr(home, name), lambda value: setattr(home, name, value), stays)


_Backends: Any = torch.backends


def _alarms() -> tuple[bool, ...]:
    """Which timers will send a signal."""
    return tuple(signal.getitimer(timer)[0] > 0 for timer in _TIMERS)


def _silence(wanted: tuple[bool, ...]) -> None:
    for timer, runs in zip(_TIMERS, wanted, strict=True):
        if not runs:
            signal.setitimer(timer, 0)


def _limits() -> dict[str, tuple[int, int]]:
    """The system's limits, soft and hard, by name."""
    names = [name for name in dir(_RESOURCE) if name.startswith("RLIMIT_")]
    return {name: _RESOURCE.getrlimit(getattr(_RESOURCE, name)) for name in names}


def _limit(wanted: dict[str, tuple[int, int]]) -> None:
    for name, pair in wanted.items():  # a hard limit that was lowered can't be raised again: that raises
        _RESOURCE.setrlimit(getattr(_RESOURCE, name), pair)


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else 0


def _be_nice(wanted: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, wanted)  # what was raised needs rights to be lowered again


def _tell_faults(on: bool) -> None:
    """Have Python print its stack when compiled code ends the process, as a worker does from its start."""
    if on:
        faulthandler.enable(file=2, all_threads=True)
    else:
        faulthandler.disable()


PARTS: tuple[Part, ...] = (
    Part("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Part("torch's default device", torch.get_default_device, _default_device),
    Part("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Part("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Part("torch's number of threads between operations", torch.get_num_interop_threads, None),
    Part("torch's anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    Part(
        "torch's deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _deterministic,
    ),
    Part("torch's precision of float32", _precision, _compute),
    Part("torch's flushing of denormal numbers", _flushes, torch.set_flush_denormal),
    Part("torch's choice of attention", _attention, _attend),
    *(_attribute(_Backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
    *(_attribute(_Backends.mkldnn, name) for name in ("enabled", "deterministic")),
    _attribute(_Backends.quantized, "engine"),
    Part(
        "torch's autocast on CPU",
        lambda: torch.is_autocast_enabled("cpu"),
        lambda on: torch.set_autocast_enabled("cpu", on),
    ),
    Part("hooks on every module or optimizer", _hooks, _hook),
    Part("modes around torch's operations", _modes, None),
    Part("the environment", lambda: dict(os.environ), _environment, firstuse.variables),
    Part("the working directory", working_folder, enter),
    Part("the umask", _umask, os.umask),
    Part("sys.path", lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path), firstuse.places),
    *(_attribute(sys, name, firstuse.hook) for name in ("stdin", "stdout", "stderr", "excepthook")),
    Part("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, firstuse.depth),
    Part("signal handlers", _handlers, _handle, firstuse.handlers),
    Part("alarms that are set", _alarms, _silence, lambda before, now: tuple(map(min, before, now))),
    Part("limits on what it may use", _limits, _limit),
    Part("the cores that it may use", _cores, _bind),
    Part("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Part("garbage collection's thresholds", gc.get_threshold, lambda wanted: gc.set_threshold(*wanted)),
    Part("the niceness", _niceness, _be_nice, mild=True),
    Part("faulthandler", faulthandler.is_enabled, _tell_faults),
    Part("NumPy's handling of errors", np.geterr, lambda kinds: np.seterr(**kinds)),
    Part("the locale", lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
)
"""In the order in which they are put back: a mode of torch's default device is gone before modes are looked at."""


def seed_all(streams: Streams) -> None:
    """Start the global generators of Python, NumPy and torch (CPU) from streams of the trial's own.

    Techniques should draw from what they are handed. Those that draw from a global generator all the same then draw
    alike in every run, whatever ran before in the process.
    """
    random.seed(streams.number("python"))
    np.random.seed(streams.number("numpy") % 2**32)
    torch.default_generator.manual_seed(streams.number("torch"))


def generators() -> tuple[Any, ...]:
    """The states of the global generators."""
    return random.getstate(), np.random.get_state(), torch.random.get_rng_state()


def set_generators(states: tuple[Any, ...]) -> None:
    """Put them back."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.random.set_rng_state(states[2])
