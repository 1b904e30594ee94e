"""Counters for the parts of the machine that have one, and an estimate for the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cnnbench import nvml
from cnnbench.meters import rapl
from cnnbench.meters.base import Component, EnergyMeter, Reading
from cnnbench.meters.counters import Counter, CounterFault, Watch, update_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cnnbench.devices import Device

RESETS = 3
"""A counter that was reset so often is given up."""
UPDATES = 20
"""A counter that is silent for so many of its updates, and for a second, stands still."""


def find_counters(device: Device, powercap: Path = rapl.POWERCAP) -> list[Counter]:
    """Every energy counter that is read directly: RAPL's, and NVML's for an NVIDIA GPU."""
    counters = list(rapl.find(powercap).counters)
    gpu = nvml.find(device)
    if gpu is not None and gpu.energy_joules() is not None:
        counters.append(Counter("gpu", str(device), "NVML", "device", _reader(gpu)))
    return counters


def _reader(gpu: nvml.Gpu) -> Callable[[], float]:
    def read() -> float:
        joules = gpu.energy_joules()
        if joules is None:
            raise OSError("the driver does not answer")
        return joules

    return read


class CountingMeter(EnergyMeter):
    """Counters where there are any; an estimate for the CPU, its memory, or the GPU where there is none.

    Before its first use each counter is polled for its update interval. One that stands still, then or over a task, or
    that vanishes, is given up: the task's reading is empty and says so, and later tasks take the estimate in its place.
    A counter that was reset costs the task's reading alone. Main memory is never estimated beside a counted CPU: an
    assumed constant power would make an estimate of the whole sum and tell nothing.

    Args:
        estimator: for what no counter counts; None leaves it out.
        find: the counters for a device.
        clock: seconds.
    """

    def __init__(
        self,
        estimator: EnergyMeter | None,
        find: Callable[[Device], Sequence[Counter]] = find_counters,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._estimator = estimator
        self._find = find
        self._clock = clock
        self._prepared_for = ""
        self._counters: list[Counter] = []
        self._intervals: dict[str, float] = {}
        self._resets: dict[str, int] = {}
        self._given_up: dict[str, str] = {}
        self._watch: Watch | None = None
        self._estimating = False
        self._failure = ""
        self._began = 0.0
        self._device_kind = "cpu"

    def start(self, device: Device) -> None:
        """Begin a task."""
        self._failure = ""
        self._watch = None
        self._device_kind = device.kind
        if self._prepared_for != str(device):
            self._prepare(device)
        self._estimating = self._estimator is not None and bool(self._uncounted())
        if self._estimating and self._estimator is not None:
            self._estimator.start(device)
        try:
            self._watch = Watch(self._counters, self._clock)
        except CounterFault as fault:
            self._fail(fault)
        self._began = self._clock()

    def stop(self) -> Reading:
        """End the task and read it."""
        seconds = self._clock() - self._began
        parts: dict[str, Component] = {}
        slowest = max(self._intervals.values(), default=None)
        try:
            if self._watch is not None:
                for counter, joules in zip(self._counters, self._watch.stop(self._still_after()), strict=True):
                    before = parts[counter.component].joules if counter.component in parts else 0.0
                    parts[counter.component] = Component(before + joules, "measured", counter.scope, counter.source)
        except CounterFault as fault:
            self._fail(fault)
        estimate = self._estimator.stop() if self._estimating and self._estimator is not None else Reading()
        if self._failure:
            return Reading(seconds=seconds, note=self._failure)
        if self._estimating and not estimate.components:
            return Reading(seconds=seconds, note=estimate.note)
        missing = self._uncounted()
        parts |= {
            name: part
            for name, part in estimate.components.items()
            # The estimator may have found the very counter that has been given up here.
            if name in missing and not (part.method == "measured" and name in self._given_up)
        }
        notes = [*self._given_up.values(), estimate.note.removeprefix("energy: "), *self._left_out(parts)]
        note = "; ".join(filter(None, notes))
        return Reading(parts, seconds, f"energy: {note}" if note else "", slowest if self._counters else None)

    def close(self) -> None:
        """Let go of the estimator."""
        if self._estimator is not None:
            self._estimator.close()

    def _prepare(self, device: Device) -> None:
        """Find the counters for a device and see how often each is updated."""
        self._prepared_for = str(device)
        self._counters = list(self._find(device))
        self._intervals, self._resets, self._given_up = {}, {}, {}
        for counter in list(self._counters):
            if counter.component in self._given_up:
                continue
            try:
                self._intervals[counter.label] = update_interval(counter, self._clock)
            except CounterFault as fault:
                self._give_up(fault)

    def _uncounted(self) -> set[str]:
        """Components of the machine that an estimate has to stand in for."""
        counted = {counter.component for counter in self._counters}
        host = set() if counted & {"cpu", "machine"} else {"cpu", "ram"}
        return (host | ({"gpu"} if self._device_kind in {"cuda", "mps"} else set())) - counted

    def _left_out(self, parts: dict[str, Component]) -> Iterator[str]:
        wanted = {"cpu": "the CPU", "ram": "main memory", "gpu": "the GPU"}
        if self._device_kind not in {"cuda", "mps"}:
            del wanted["gpu"]
        if "machine" in parts:
            del wanted["cpu"], wanted["ram"]
        absent = [text for name, text in wanted.items() if name not in parts]
        if absent:
            yield f"without {' and '.join(absent)}, which nothing here counts"

    def _still_after(self) -> float:
        return max(1.0, UPDATES * max(self._intervals.values(), default=0.0))

    def _fail(self, fault: CounterFault) -> None:
        self._failure = f"energy: {fault}"
        label = fault.counter.label
        self._resets[label] = self._resets.get(label, 0) + 1
        if fault.lasting or self._resets[label] >= RESETS:
            self._give_up(fault)

    def _give_up(self, fault: CounterFault) -> None:
        """Do without a component's counters; a sum over some of its sockets would be wrong."""
        component = fault.counter.component
        self._given_up[component] = f"{fault} and is not used"
        for counter in [c for c in self._counters if c.component == component]:
            self._counters.remove(counter)
            self._intervals.pop(counter.label, None)
