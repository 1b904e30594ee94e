"""What else went on while latency or energy was taken: other work, stolen time, falling clocks, heat.

Two readings, one at each end, and nothing in between: a thread that watched would be noise itself. Nothing is judged
here; the table says what is too much (``cnnbench.notices``). Whatever a system does not tell is None.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from cnnbench import nvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cnnbench.devices import Device


@dataclass(frozen=True)
class _Counters:
    """Totals since some start, for the cores that this process may use.

    Attributes:
        seconds: wall time.
        busy: CPU seconds of all work, this process's included.
        counted: CPU seconds of all kinds, idle ones included: how alive the counters are.
        own: CPU seconds of this process and all that it started.
        steal: CPU seconds that the hypervisor gave to others.
        cores: their number.
        throttles: times that a core or its package was too hot; None where it is not told.
    """

    seconds: float
    busy: float
    counted: float
    own: float
    steal: float | None
    cores: int
    throttles: int | None = None


class NoiseWatch:
    """Notes what else the machine did during a ``with`` block.

    Args:
        device: where the measured models run.
        proc, sys: where Linux keeps its files.
        clock: seconds, only ever growing.

    Attributes:
        details: after the block, JSON-ready: ``seconds``; ``cores`` that the process may use; ``others_percent``, CPU
            time that others took of them, and ``steal_percent``, what the hypervisor took, both in percent of one core
            (so up to 100 x ``cores``); ``involuntary_switches`` of the process; ``cpu_mhz``, the fastest core's clock,
            and ``load_average`` over a minute, both at start and end; ``throttle_events``, how often the CPU was too
            hot. On CUDA also ``gpu_mhz`` and ``gpu_celsius`` at start and end, and ``gpu_throttles``, what held the
            GPU's clock down at either. None where the system does not tell.
        remarks: none; the table says it.
    """

    def __init__(
        self,
        device: Device,
        *,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.details: dict[str, Any] = {}
        self.remarks: tuple[str, ...] = ()
        self._proc = proc
        self._sys = sys
        self._clock = clock
        self._gpu = nvml.find(device)
        self._cuda = device.kind == "cuda"

    def __enter__(self) -> Self:
        self._load = _load_average()
        self._switches = _involuntary_switches()
        self._counters = self._count()
        self._mhz = self._cpu_mhz()
        self._gpu_state = self._gpu.state() if self._gpu else None
        return self

    def __exit__(self, *_: object) -> None:
        # Clocks fall as soon as the work ends: they are read first, as at the start they are read last.
        gpu, mhz = self._gpu.state() if self._gpu else None, self._cpu_mhz()
        after, switches, load = self._count(), _involuntary_switches(), _load_average()
        self.details = {
            **_shares(self._counters, after),
            "involuntary_switches": None if switches is None else switches - (self._switches or 0),
            "cpu_mhz": _both(self._mhz, mhz),
            "load_average": _both(self._load, load),
        }
        if self._cuda:
            self.details |= _gpu_details(self._gpu_state, gpu)

    def _count(self) -> _Counters | None:
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            if (self._proc / "stat").exists():
                return _count_on_linux(self._proc, self._sys, self._clock())
            return _count_elsewhere(self._clock())
        return None

    def _cpu_mhz(self) -> float | None:
        """Clock of the fastest core that this process may use: the others idle along while one thread works."""
        folders = (self._sys / f"devices/system/cpu/cpu{cpu}/cpufreq" for cpu in _usable())
        clocks = [khz / 1000 for folder in folders if (khz := _number(folder / "scaling_cur_freq"))]
        if not clocks:
            clocks = list(_clocks_of_cpuinfo(self._proc / "cpuinfo"))
        if not clocks and not (self._proc / "stat").exists():
            with suppress(Exception):  # psutil fails in several ways where the system has no such call
                clocks = [float(psutil.cpu_freq().current)]
        return max(clocks, default=None)


def _count_on_linux(proc: Path, sys: Path, now: float) -> _Counters:
    """From ``/proc/stat`` (proc(5): user, nice, system, idle, iowait, irq, softirq, steal, in clock ticks)."""
    cpus = _usable()
    tick = 1 / os.sysconf("SC_CLK_TCK")
    busy = counted = steal = 0.0
    for line in (proc / "stat").read_text("ascii", "replace").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cpus:
            user, nice, system, idle, iowait, irq, softirq, stolen = (int(field) * tick for field in fields[:8])
            busy += user + nice + system + irq + softirq
            steal += stolen
            counted += user + nice + system + idle + iowait + irq + softirq + stolen
    return _Counters(now, busy, counted, _own_ticks(proc) * tick, steal, len(cpus), _heat_events(sys, cpus))


def _own_ticks(proc: Path) -> int:
    """CPU time of this process, of the children that it has waited for, and of all descendants that live."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in proc.glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            fields = path.read_text("utf-8", "replace").rpartition(")")[2].split()  # a name may hold anything
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    total = 0
    for pid, own in ticks.items():
        ancestor, seen = pid, set[int]()
        while ancestor != os.getpid() and ancestor in parents and ancestor not in seen:
            seen.add(ancestor)
            ancestor = parents[ancestor]
        total += own if ancestor == os.getpid() else 0
    return total


def _heat_events(sys: Path, cpus: set[int]) -> int | None:
    """Times that the usable cores and their packages were throttled; Intel's kernel driver counts them."""
    folders = (sys / f"devices/system/cpu/cpu{cpu}/thermal_throttle" for cpu in cpus)
    counts = [_number(folder / f"{part}_throttle_count") for folder in folders for part in ("core", "package")]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def _count_elsewhere(now: float) -> _Counters:
    """As far as psutil goes: all cores, and no heat."""
    times = psutil.cpu_times()
    kinds = {name: float(value) for name, value in times._asdict().items()}
    busy = sum(kinds.get(name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    me = psutil.Process()
    own = 0.0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):  # it ended meanwhile
            own += sum(process.cpu_times()[:4])
    return _Counters(now, busy, busy + kinds.get("idle", 0.0), own, kinds.get("steal"), psutil.cpu_count() or 1)


def _shares(before: _Counters | None, after: _Counters | None) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": None, "cores": None}
    found |= {"others_percent": None, "steal_percent": None, "throttle_events": None}
    if before is None or after is None:
        return found
    seconds = after.seconds - before.seconds
    found |= {"seconds": seconds, "cores": after.cores}
    if before.throttles is not None and after.throttles is not None:
        found["throttle_events"] = after.throttles - before.throttles
    # Sandboxes show counters that stand still: they say nothing, and not that the machine is quiet.
    if seconds > 0 and after.counted - before.counted > seconds * after.cores / 2:
        # Both are counted in ticks, and not at the same instant: a little below zero is zero.
        others = (after.busy - before.busy) - (after.own - before.own)
        found["others_percent"] = max(0.0, 100 * others / seconds)
        if before.steal is not None and after.steal is not None:
            found["steal_percent"] = max(0.0, 100 * (after.steal - before.steal) / seconds)
    return found


def _gpu_details(before: nvml.GpuState | None, after: nvml.GpuState | None) -> dict[str, Any]:
    if before is None or after is None:
        return {"gpu_mhz": None, "gpu_celsius": None, "gpu_throttles": None}
    told = [state.throttles for state in (before, after) if state.throttles is not None]
    return {
        "gpu_mhz": _both(before.clock_mhz, after.clock_mhz),
        "gpu_celsius": _both(before.temperature_c, after.temperature_c),
        "gpu_throttles": list(dict.fromkeys(name for names in told for name in names)) if told else None,
    }


def _usable() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _involuntary_switches() -> int | None:
    """How often the system took a core from a thread of this process."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _load_average() -> float | None:
    try:
        return psutil.getloadavg()[0]  # type: ignore[no-any-return]
    except OSError:
        return None


def _clocks_of_cpuinfo(path: Path) -> Iterator[float]:
    """MHz of each usable core; x86 alone has it."""
    cpus, number = _usable(), -1
    with suppress(OSError, ValueError):
        for line in path.read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "processor":
                number = int(value)
            elif key.strip() == "cpu MHz" and number in cpus:
                yield float(value)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _both(start: float | None, end: float | None) -> list[float] | None:
    return None if start is None or end is None else [start, end]
