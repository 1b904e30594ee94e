"""codecarbon, offline: the source for what has no counter that is read directly."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from cnnbench.meters.base import Component, EnergyMeter, Reading

if TYPE_CHECKING:
    from cnnbench.devices import Device
    from cnnbench.meters.base import Method, Scope

JOULES_PER_KWH = 3.6e6


class CodecarbonMeter(EnergyMeter):
    """codecarbon, offline: it writes no file, opens no connection and logs nothing.

    Without RAPL it estimates the CPU as assumed power x load x time, for this process alone, so that workers that train
    at the same time are not billed for each other. Counters know no processes: RAPL counts the machine and NVML the
    GPU, which each component's ``scope`` says. With RAPL, main memory is what the counters' DRAM domain holds and no
    assumed power is added for it.

    The tracker is made when the first task starts (about a second) and kept. Only while a task runs does it have a
    thread, which wakes once a second.

    Args:
        by_load: estimate the CPU by its load even where codecarbon finds a counter of its own.
    """

    def __init__(self, *, by_load: bool = False) -> None:
        self._by_load = by_load
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
                self._tracker = _offline_tracker(device, by_load=self._by_load)
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
            components = _components(self._tracker, data, self._device_kind, seconds)
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


def _offline_tracker(device: Device, *, by_load: bool) -> Any:
    """A tracker whose every way out is closed, whatever the user's own codecarbon configuration says."""
    import codecarbon

    # Importing codecarbon sets its logger's level, and the constructor speaks before it reads ``log_level``.
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {} if device.index is None else {"gpu_ids": [_physical_index(device.index)]}
    return codecarbon.OfflineEmissionsTracker(
        country_iso_code="USA",  # one is required; only its grams of CO2 depend on it, which nobody reads
        tracking_mode="process",
        rapl_include_dram=True,
        force_mode_cpu_load=by_load,
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


def _components(tracker: Any, data: Any, device_kind: str, seconds: float) -> dict[str, Component]:
    """What a task's data says, with the method of each part as far as the tracker tells."""
    sources = _sources(tracker)
    joules = {
        "cpu": float(data.cpu_energy) * JOULES_PER_KWH,
        "gpu": float(data.gpu_energy) * JOULES_PER_KWH,
        "ram": float(data.ram_energy) * JOULES_PER_KWH,
    }
    if power := float(getattr(data, "ram_power", 0.0) or 0.0):
        # A constant power: over the task's own time, not over the 10 to 30 ms more that codecarbon takes to start and
        # stop, which differ from window to window and would look like energy of the model's.
        joules["ram"] = power * seconds
    if device_kind not in {"cuda", "mps"}:
        del joules["gpu"]  # somebody else's
    if sources.get("cpu", ("unknown",))[0] == "measured":
        del joules["ram"]
    unknown: tuple[Method, Scope] = ("unknown", "machine")
    return {name: Component(amount, *sources.get(name, unknown), "codecarbon") for name, amount in joules.items()}


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
