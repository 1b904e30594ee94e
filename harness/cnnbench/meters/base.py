"""What every energy meter gives: joules by component, each with how it was obtained.

``measured`` is a hardware counter (RAPL, NVML), ``estimated`` an assumed power times time, ``unknown`` what the source
does not tell. A meter never costs a trial: where it fails, the reading is empty and says why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cnnbench.devices import Device

Method = Literal["measured", "estimated", "unknown"]
Scope = Literal["process", "machine", "device"]


@dataclass(frozen=True)
class Component:
    """Energy of one part of the machine.

    Attributes:
        joules: over the task.
        method: how it was obtained.
        scope: whose work it holds: this ``process`` alone; the whole ``machine``, other workers' included; or the
            ``device``, whoever used it.
        source: where it comes from, for people: ``RAPL``, ``NVML``, ``codecarbon``, ``assumed power``.
        above_idle: the joules are what the work adds to the idle machine; there is no idle power to subtract.
    """

    joules: float
    method: Method
    scope: Scope
    source: str = ""
    above_idle: bool = False


@dataclass(frozen=True)
class Reading:
    """What a meter says of one task.

    Attributes:
        components: by name: ``cpu``, ``gpu``, ``ram``, or ``machine`` for all of it; empty where the meter failed: a
            part of them would be a wrong sum.
        seconds: wall time of the task.
        note: why there are no components, or what they leave out.
        interval: seconds between two updates of the slowest counter among them; None where nothing counts.
    """

    components: Mapping[str, Component] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""
    interval: float | None = None

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
