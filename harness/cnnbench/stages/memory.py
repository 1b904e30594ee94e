"""Peak memory of a block of work, in MiB above the level before it, and what to make of running out of it."""

from __future__ import annotations

import ctypes
import gc
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from cnnbench.stages.subject import make_batches

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from cnnbench.devices import Device
    from cnnbench.stages.serve import Served

MIB = 1024 * 1024
SAMPLING_SECONDS = 0.005


class PeakMemory:
    """Context manager that tells the peak once its block has ended.

    - CUDA: torch's allocator statistics; what the caching allocator merely holds in reserve does not count.
    - CPU, also through xla: the process's resident set. Linux keeps its peak itself, which can be reset; elsewhere, or
      where that is forbidden, a thread reads the present value every 5 ms and may miss a shorter peak. Memory that the
      process had freed but not given back would hide a peak, so it is given back first, where the C library can.
    - mps: what torch has allocated on the device, which keeps no peak: a thread reads it every 5 ms.
    - TPU: nothing is known.

    Attributes:
        peak_mib: the peak in MiB above the level before the block; None where nothing is known, or before its end.
        method: ``allocator``, ``allocator sampled``, ``resident peak``, ``resident sampled``,
            or ``unknown``.
    """

    def __init__(self, device: Device, proc: Path = Path("/proc/self")) -> None:
        """Prepare.

        Args:
            device: where the work runs.
            proc: this process's folder in Linux's process file system.
        """
        self.peak_mib: float | None = None
        self.method = "unknown"
        self._device = device
        self._proc = proc
        self._sampler: _Sampler | None = None
        self._before = 0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self._device.in_host_memory:
            _give_back()
            self._before = _resident()
            if self._reset_peak():
                self.method = "resident peak"
            else:
                self.method = "resident sampled"
                self._sampler = _Sampler(_resident)
        elif (allocated := self._device.reset_memory_peak()) is not None:
            self.method = "allocator"
            self._before = allocated
        elif (allocated := self._device.memory_allocated()) is not None:
            self.method = "allocator sampled"
            self._before = allocated
            self._sampler = _Sampler(lambda: self._device.memory_allocated() or 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        peak = self._peak()
        if peak is not None:
            self.peak_mib = max(0, peak - self._before) / MIB

    def _peak(self) -> int | None:
        if self._sampler is not None:
            return self._sampler.stop()
        return _high_water(self._proc) if self.method == "resident peak" else self._device.memory_peak()

    def _reset_peak(self) -> bool:
        """Set Linux's record of the peak back to the present; whether that worked."""
        try:
            (self._proc / "clear_refs").write_text("5")
        except OSError:
            return False
        return _high_water(self._proc) is not None


def inference_memory(served: Served, batch_size: int, device: Device) -> dict[str, float]:
    """What a model holds between calls and what a call adds to it, in MiB.

    ``memory_weights_mib`` is the bytes of its tensors or of the runtime's own file; ``memory_activations_mib`` the peak
    of one call above the level before, the model having been called before, so that what is set up once is not counted;
    ``memory_inference_mib`` their sum. Empty where the device tells nothing.

    Args:
        served: ready to be called.
        batch_size: images of the call.
        device: where it is served.
    """
    (batch,) = make_batches(served.subject.inputs, batch_size, most=1)
    with device.inference():
        outputs = served.subject.call(batch)  # held: a lazy device computes nothing that nobody holds
        device.synchronize()
        del outputs
        with PeakMemory(device) as memory:
            outputs = served.subject.call(batch)
            device.synchronize()
        del outputs
    if memory.peak_mib is None:
        return {}
    weights = served.weights_bytes / MIB
    return {
        "memory_inference_mib": weights + memory.peak_mib,
        "memory_weights_mib": weights,
        "memory_activations_mib": memory.peak_mib,
    }


def ran_out(error: BaseException) -> bool:
    """Whether an error says that the device or the machine has no more memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    signs = ("DefaultCPUAllocator: can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in signs)


def reached_mib(device: Device) -> float | None:
    """The most that was held so far: on CUDA by the allocator, on CPU by this process."""
    peak = device.memory_peak()
    if peak is None and device.in_host_memory:
        peak = _high_water(Path("/proc/self"))
    return None if peak is None else peak / MIB


def own_mib() -> float:
    """What this process holds in memory now, in MiB, without what it shares with others, such as libraries."""
    process = psutil.Process()
    try:
        return float(process.memory_full_info().uss) / MIB
    except (psutil.Error, AttributeError):  # not told on every system
        return float(process.memory_info().rss) / MIB


class _Sampler:
    """Reads an amount of memory again and again in a thread of its own."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._done = threading.Event()
        self._peak = read()
        self._thread = threading.Thread(target=self._run, daemon=True, name="cnnbench-memory")
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(SAMPLING_SECONDS):
            self._peak = max(self._peak, self._read())

    def stop(self) -> int:
        """End the thread; the highest value that it saw."""
        self._done.set()
        self._thread.join()
        return max(self._peak, self._read())


def _high_water(process: Path) -> int | None:
    """Linux's record of a process's peak, in bytes."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else None


def _resident() -> int:
    """Bytes of the process in memory now."""
    return int(psutil.Process().memory_info().rss)


def _give_back() -> None:
    """Return freed memory to the system, so that using it again shows; glibc only."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library, or none by that way
        return
