"""A constant power, as the suite gives it, times time: an estimate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cnnbench.meters.base import Component, EnergyMeter, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.devices import Device


class ConstantMeter(EnergyMeter):
    """So many watts for as long as work lasts. The watts are what the work adds to the idle machine.

    Args:
        watts: by component; ``machine`` for all of it.
        clock: seconds.
    """

    def __init__(self, watts: Mapping[str, float], clock: Callable[[], float] = time.perf_counter) -> None:
        self._watts = dict(watts)
        self._clock = clock
        self._began = 0.0

    def start(self, device: Device) -> None:  # noqa: ARG002 - the same power wherever the work is done
        """Begin a task."""
        self._began = self._clock()

    def stop(self) -> Reading:
        """Watts times seconds."""
        seconds = self._clock() - self._began
        return Reading(
            {
                name: Component(watts * seconds, "estimated", "machine", "assumed power", above_idle=True)
                for name, watts in self._watts.items()
            },
            seconds,
        )
