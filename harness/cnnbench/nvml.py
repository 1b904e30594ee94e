"""One NVIDIA GPU as its driver sees it: clock, temperature, what holds the clock down, and the energy counter.

NVML is asked through ``nvidia-ml-py``, which comes with codecarbon. Whatever a GPU or driver does not tell is None;
nothing here raises.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnbench.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.devices import Device

# Bits of nvmlDeviceGetCurrentClocksEventReasons (NVML reference, "Clocks Event Reasons"). Idle, the user's own clock
# settings, sync boost and display clocks are left out: they hold for all arms alike and are no sign of trouble.
_THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment.

    Attributes:
        clock_mhz: of the streaming multiprocessors.
        temperature_c: of the chip, in degrees Celsius.
        throttles: what holds the clock below what was asked for, e.g. ``power cap``; None where it is not told.
    """

    clock_mhz: int | None
    temperature_c: int | None
    throttles: tuple[str, ...] | None


class Gpu:
    """One GPU. Made by ``find``.

    Args:
        nvml: the module ``pynvml``, initialized.
        handle: NVML's handle of the GPU.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def state(self) -> GpuState:
        """Clock, temperature and throttle reasons now."""
        nvml, handle = self._nvml, self._handle
        bits = _told(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return GpuState(
            clock_mhz=_told(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            temperature_c=_told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            throttles=None if bits is None else tuple(name for bit, name in _THROTTLES.items() if bits & bit),
        )

    def energy_joules(self) -> float | None:
        """Energy of the whole GPU since its driver was loaded; None before Volta, and wherever there is no counter."""
        millijoules = _told(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if millijoules is None else millijoules / 1000

    def memory_free_mib(self) -> float | None:
        """Memory that no process has, in MiB."""
        found = _told(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle).free)
        return None if found is None else found / 2**20

    def takes_several(self) -> bool:
        """Whether several processes may compute on it at once: its compute mode is the default one."""
        nvml = self._nvml
        return bool(_told(lambda: nvml.nvmlDeviceGetComputeMode(self._handle) == nvml.NVML_COMPUTEMODE_DEFAULT))


def find(device: Device) -> Gpu | None:
    """The GPU behind a torch device, found by its UUID: torch and NVML do not count GPUs in the same order.

    Returns:
        None where the device is no NVIDIA GPU, is a part of one (MIG), or NVML is not there.
    """
    if device.kind != "cuda":
        return None
    uuid = _told(lambda: str(torch.cuda.get_device_properties(device.torch).uuid))
    return None if uuid is None else find_by_uuid(uuid)


def find_by_uuid(uuid: str) -> Gpu | None:
    """The GPU with this UUID (``GPU-`` before it or not); None where NVML does not know it."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()  # counted by the driver; it stays open as long as the process
        return Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}"))
    except Exception:  # noqa: BLE001 - no package, no driver, no such GPU: NVML has an error class for each
        return None


def _told(ask: Callable[[], Any]) -> Any:
    """An answer of NVML's, or None where it has none."""
    try:
        return ask()
    except Exception:  # noqa: BLE001 - "not supported" among many; a missing fact may never cost a measurement
        return None
