"""Energy meters: joules by component, each with how it was obtained.

``measured`` is a hardware counter (RAPL, NVML), ``estimated`` an assumed power times time, ``unknown`` what the source
does not tell. A meter never costs a trial: where it fails, the reading is empty and says why.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cnnbench.devices import Device

Method = Literal["measured", "estimated", "unknown"]
Scope = Literal["process", "machine", "device"]

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Component:
    """Energy of one part of the machine.

    Attributes:
        joules: over the task.
        method: how it was obtained.
        scope: whose work it holds: this ``process`` alone; the whole ``machine``, other workers' included; or the
            ``device``, whoever used it.
    """

    joules: float
    method: Method
    scope: Scope


@dataclass(frozen=True)
class Reading:
    """What a meter says of one task.

    Attributes:
        components: by name: ``cpu``, ``gpu``, ``ram``; empty where the meter failed.
        seconds: wall time of the task.
        note: why there are no components, or what they leave out.
    """

    components: Mapping[str, Component] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""

    @property
    def joules(self) -> float:
        """Sum over the components."""
        return sum(component.joules for component in self.components.values())

    @property
    def method(self) -> Method:
        """Of the sum: as weak as the weakest component that adds anything to it."""
        return weakest({name: c.joules for name, c in self.components.items()}, self.components)

    def plain(self) -> dict[str, Any]:
        """The components as JSON-ready data."""
        return {name: asdict(component) for name, component in self.components.items()}


def weakest(amounts: Mapping[str, float], components: Mapping[str, Component]) -> Method:
    """Method of a sum of ``amounts``: estimated if any that is not 0 is estimated, else unknown if any is."""
    methods = {components[name].method for name, amount in amounts.items() if amount != 0}
    if not methods:  # nothing but zeros: what they are made of decides
        methods = {component.method for component in components.values()}
    ranked: tuple[Method, ...] = ("estimated", "unknown", "measured")
    return next((method for method in ranked if method in methods), "unknown")


class Task:
    """A piece of work being metered.

    Attributes:
        reading: what the meter said; empty until the work has ended.
    """

    def __init__(self) -> None:
        self.reading = Reading()


class EnergyMeter(ABC):
    """A source of energy figures for one process; one task at a time."""

    @abstractmethod
    def start(self, device: Device) -> None:
        """Begin a task on a device. Does not raise where the source fails: the reading will say so."""

    @abstractmethod
    def stop(self) -> Reading:
        """End the task. Between tasks a meter runs nothing in the background."""

    def close(self) -> None:  # noqa: B027 - most meters hold nothing
        """Let go of the source; the meter is not used again."""

    @contextmanager
    def task(self, device: Device) -> Iterator[Task]:
        """Meter a block; its energy is in the yielded task once the block has ended."""
        task = Task()
        self.start(device)
        try:
            yield task
        finally:
            task.reading = self.stop()


class CodecarbonMeter(EnergyMeter):
    """codecarbon, offline: it writes no file, opens no connection and logs nothing.

    Without RAPL it estimates the CPU as assumed power x load x time, for this process alone, so that workers that train
    at the same time are not billed for each other. Counters know no processes: RAPL counts the machine and NVML the
    GPU, which each component's ``scope`` says. With RAPL, main memory is what the counters' DRAM domain holds and no
    assumed power is added for it.

    The tracker is made when the first task starts (about a second) and kept. Only while a task runs does it have a
    thread, which wakes once a second.
    """

    def __init__(self) -> None:
        self._tracker: Any = None
        self._made_for = ""
        self._device_kind = "cpu"
        self._failure = ""
        self._began = 0.0

    def start(self, device: Device) -> None:
        """Begin a task."""
        self._failure = ""
        self._device_kind = device.kind
        try:
            if self._tracker is None or self._made_for != str(device):
                self._tracker = _offline_tracker(device)
                self._made_for = str(device)
            self._tracker.start_task()
        except Exception as error:  # noqa: BLE001 - it probes hardware in many ways; none may cost the trial
            self._fail(error)
        self._began = time.perf_counter()

    def stop(self) -> Reading:
        """End the task and read it."""
        seconds = time.perf_counter() - self._began
        if self._failure:
            return Reading(seconds=seconds, note=self._failure)
        try:
            data = self._tracker.stop_task()
            components = _components(self._tracker, data, self._device_kind)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
            return Reading(seconds=seconds, note=self._failure)
        note = "energy: of the host alone; no source here sees a TPU" if self._device_kind in {"tpu", "xla"} else ""
        return Reading(components, seconds, note)

    def close(self) -> None:
        """Forget the tracker."""
        self._tracker = None

    def _fail(self, error: Exception) -> None:
        text = " ".join(str(error).split())
        self._failure = f"energy: codecarbon failed: {type(error).__name__}{': ' if text else ''}{text[:200]}"
        self._tracker = None  # the next task tries again with a new one


def _offline_tracker(device: Device) -> Any:
    """A tracker whose every way out is closed, whatever the user's own codecarbon configuration says."""
    import codecarbon

    # Importing codecarbon sets its logger's level, and the constructor speaks before it reads ``log_level``.
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {} if device.index is None else {"gpu_ids": [_physical_index(device.index)]}
    return codecarbon.OfflineEmissionsTracker(
        country_iso_code="USA",  # one is required; only grams of CO2 depend on it, which nobody reads here
        tracking_mode="process",
        rapl_include_dram=True,
        pue=1.0,
        allow_multiple_runs=True,
        log_level="critical",
        output_methods=[],
        emissions_endpoint="",
        electricitymaps_api_token="",
        **options,
    )


def _physical_index(index: int) -> int:
    """Position among all GPUs of the machine, as NVML counts them, from torch's among the visible ones."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return int(visible[index]) if index < len(visible) and visible[index].strip().isdecimal() else index


def _components(tracker: Any, data: Any, device_kind: str) -> dict[str, Component]:
    """What a task's data says, with the method of each part as far as the tracker tells."""
    sources = _sources(tracker)
    joules = {
        "cpu": float(data.cpu_energy) * JOULES_PER_KWH,
        "gpu": float(data.gpu_energy) * JOULES_PER_KWH,
        "ram": float(data.ram_energy) * JOULES_PER_KWH,
    }
    if device_kind not in {"cuda", "mps"}:
        del joules["gpu"]  # somebody else's
    if sources.get("cpu", ("unknown",))[0] == "measured":
        del joules["ram"]
    unknown: tuple[Method, Scope] = ("unknown", "machine")
    return {name: Component(amount, *sources.get(name, unknown)) for name, amount in joules.items()}


def _sources(tracker: Any) -> dict[str, tuple[Method, Scope]]:
    """Method and scope of each component. They are in private fields alone, so none of them is relied on."""
    found: dict[str, tuple[Method, Scope]] = {}
    for part in getattr(tracker, "_hardware", None) or ():
        kind = type(part).__name__
        if kind == "CPU":
            mode = getattr(part, "_mode", None)
            if mode in {"intel_rapl", "windows_emi", "intel_power_gadget"}:
                found["cpu"] = ("measured", "machine")
            elif mode == "cpu_load":
                found["cpu"] = ("estimated", "process")
            elif mode == "constant":
                found["cpu"] = ("estimated", "machine")
        elif kind == "GPU":
            devices = getattr(getattr(part, "devices", None), "devices", None) or ()
            counted = bool(devices) and all(getattr(d, "last_energy", None) is not None for d in devices)
            found["gpu"] = ("measured" if counted else "estimated", "device")
        elif kind == "RAM":
            found["ram"] = ("estimated", "process")
        elif kind == "AppleSiliconChip":  # powermetrics: the system's own model of its chip
            found[str(getattr(part, "chip_part", "")).lower()] = ("estimated", "machine")
    return found
