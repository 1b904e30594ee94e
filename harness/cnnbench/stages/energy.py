"""Energy of training and of inference, from a meter's readings.

Inference is repeated for windows of time, each right after an idle window of the same length whose power is subtracted;
the rest is divided by the images. Models take turns: in each round every one of them has its two windows. The figure is
the median over the windows, all of which are kept. It may come out negative where a network's work drowns in the
machine's noise; that is kept too, and noted.
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cnnbench.meters.base import weakest
from cnnbench.stages.subject import make_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from cnnbench.devices import Device
    from cnnbench.meters.base import Component, EnergyMeter, Reading
    from cnnbench.stages.subject import Subject
    from cnnbench.types import EnergyOptions

SHORT_WINDOW = 0.1
"""Seconds; enough for an estimate, which knows nothing beyond time."""
LONG_WINDOW = 2.0
"""Seconds; the least where a counter is read ..."""
UPDATES = 20
"""... and so many updates of the slowest counter, so that one more or less is at most a twentieth."""
SETTLING = 0.5
"""Seconds between work and the idle window after it, where a counter is read."""
WARMUP_CALLS = 3
ATTEMPTS = 3
"""All windows are taken again where the meter failed in one of them: it may count by another source from then on."""


@dataclass(frozen=True)
class EnergyFigures:
    """Energy for a record.

    Attributes:
        metrics: keyed as in ``cnnbench.quantities``; empty where the meter failed.
        methods: ``measured``, ``estimated`` or ``unknown``, by the same keys.
        details: components, windows and scopes.
        notes: why a figure is absent or odd.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def training_energy(reading: Reading, side_by_side: int = 1, on_device: int = 1) -> EnergyFigures:
    """Joules of a training from the meter's reading over it; nothing is subtracted.

    Args:
        reading: over the training.
        side_by_side: trainings that may have run at the same time. A counter of the whole machine then holds the work
            of all, and what it measured is marked ``shared``.
        on_device: those of them on the same device; likewise for the device's counter.
    """
    notes = [reading.note] if reading.note else []
    if not reading.components:
        return EnergyFigures(notes=notes)
    beside = {"machine": side_by_side, "device": on_device}
    shared = reading.method == "measured" and any(beside.get(p.scope, 1) > 1 for p in reading.components.values())
    return EnergyFigures(
        metrics={"energy_train_j": reading.joules},
        methods={"energy_train_j": "shared" if shared else reading.method},
        details={"energy_train": {"components": reading.plain(), "seconds": reading.seconds}},
        notes=notes,
    )


def inference_energy(
    subjects: Mapping[str, Subject],
    meter: EnergyMeter,
    options: EnergyOptions,
    device: Device,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    shuffle: random.Random | None = None,
) -> dict[str, EnergyFigures | Exception]:
    """Millijoules an image, above idle, of models that take turns.

    Args:
        subjects: the models, by name.
        meter: the source.
        options: number and length of windows, batch size.
        device: where the models live.
        clock: seconds.
        sleep: how to idle.
        shuffle: draws the order of each round; None for the same draws every time.

    Returns:
        By name, in the order of ``subjects``: the figures, or what the call raised, which ended its part in the rounds.
    """
    draw = shuffle or random.Random(0)  # noqa: S311 - the order of turns
    session = _Session(subjects, meter, options, device, clock, sleep, draw)
    with device.inference():
        return session.run()


class _MeterFailed(Exception):  # noqa: N818 - passes between the functions of this module alone
    """The meter had nothing to say of a window."""


@dataclass(frozen=True)
class _Window:
    """One window of inference with the idle one before it.

    Attributes:
        idle, busy: what the meter said of each.
        images: number of images in the busy one.
    """

    idle: Reading
    busy: Reading
    images: int

    def net(self) -> dict[str, float]:
        """Millijoules an image of each component, above what the idle machine would have used in the same time."""
        power = self.idle_watts()
        seconds = self.busy.seconds
        parts = self.busy.components.items()
        return {n: (part.joules - power.get(n, 0.0) * seconds) / self.images * 1e3 for n, part in parts}

    def idle_watts(self) -> dict[str, float]:
        """Of each component that draws any when nothing is done."""
        parts = self.idle.components.items()
        return {n: part.joules / self.idle.seconds for n, part in parts if not part.above_idle}


class _Session:
    """Models that take turns, and what became of each."""

    def __init__(
        self,
        subjects: Mapping[str, Subject],
        meter: EnergyMeter,
        options: EnergyOptions,
        device: Device,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        shuffle: random.Random,
    ) -> None:
        self._subjects = subjects
        self._meter = meter
        self._options = options
        self._device = device
        self._clock = clock
        self._sleep = sleep
        self._shuffle = shuffle
        self._batches: dict[str, list[torch.Tensor]] = {}
        self._raised: dict[str, Exception] = {}

    def run(self) -> dict[str, EnergyFigures | Exception]:
        """All rounds; again where the meter failed."""
        for name in self._subjects:
            self._guard(name, self._warm_up, name)
        notes: list[str] = []
        taken: dict[str, list[_Window]] = {}
        length = 0.0
        for _ in range(ATTEMPTS):
            try:
                length, counted = self._window_length()
                taken = self._rounds(length, SETTLING if counted else 0.0)
            except _MeterFailed as failure:
                notes.append(str(failure))
            else:
                break
        return {
            name: self._raised[name] if name in self._raised else _figures(taken.get(name, ()), length, notes)
            for name in self._subjects
        }

    def _guard(self, name: str, work: Callable[..., None], *given: Any) -> None:
        """Do a model's part; what it raises ends its part alone."""
        try:
            work(*given)
        except _MeterFailed:
            raise
        except Exception as error:  # noqa: BLE001 - a runtime is another's code: anything may come out
            self._raised[name] = error

    def _warm_up(self, name: str) -> None:
        subject = self._subjects[name]
        batches = make_batches(subject.inputs.to(self._device.torch), self._options.batch_size)
        outputs = [subject.call(batches[i % len(batches)]) for i in range(WARMUP_CALLS)]
        self._device.synchronize()
        del outputs
        self._batches[name] = batches

    def _window_length(self) -> tuple[float, bool]:
        """Seconds of a window, and whether anything but an estimate is read."""
        short = self._idle(SHORT_WINDOW)
        counted = any(part.method != "estimated" for part in short.components.values())
        long_enough = max(LONG_WINDOW, UPDATES * (short.interval or 0.0)) if counted else SHORT_WINDOW
        return self._options.window_seconds or long_enough, counted

    def _rounds(self, length: float, settling: float) -> dict[str, list[_Window]]:
        taken: dict[str, list[_Window]] = {name: [] for name in self._subjects}
        for _ in range(max(3, self._options.windows)):
            order = [name for name in self._subjects if name not in self._raised]
            self._shuffle.shuffle(order)
            for name in order:
                self._sleep(settling)
                idle = self._idle(length)
                self._guard(name, self._busy, name, idle, length, taken[name])
        return taken

    def _idle(self, seconds: float) -> Reading:
        with self._meter.task(self._device) as task:
            self._sleep(seconds)
        return _whole(task.reading)

    def _busy(self, name: str, idle: Reading, length: float, taken: list[_Window]) -> None:
        """Take a window of inference: whole calls, until the time is up."""
        call, batches, size = self._subjects[name].call, self._batches[name], self._options.batch_size
        calls = 0
        with self._meter.task(self._device) as task:
            until = self._clock() + length
            while calls == 0 or self._clock() < until:
                outputs = call(batches[calls % len(batches)])  # held: a lazy device skips what nobody holds
                calls += 1
                self._device.synchronize()
                del outputs
        busy = _whole(task.reading)
        if busy.components.keys() != idle.components.keys():
            raise _MeterFailed("energy: the meter's components changed between windows")
        taken.append(_Window(idle, busy, calls * size))


def _whole(reading: Reading) -> Reading:
    if not reading.components:
        raise _MeterFailed(reading.note or "energy: the meter read nothing")
    return reading


def _figures(windows: Sequence[_Window], length: float, failures: Sequence[str]) -> EnergyFigures:
    """What a model's windows come to; nothing but the notes where there are none."""
    if not windows:
        return EnergyFigures(notes=list(dict.fromkeys(failures)))
    nets = [window.net() for window in windows]
    totals = [sum(net.values()) for net in nets]
    figure = statistics.median(totals)
    last = windows[-1].busy
    parts: Mapping[str, Component] = last.components
    amounts = {name: max(abs(net[name]) for net in nets) for name in parts}
    idle = [window.idle_watts() for window in windows]
    notes = [*failures, *(window.busy.note for window in windows if window.busy.note)]
    if figure <= 0:
        notes.append("energy: inference did not rise above the idle machine")
    return EnergyFigures(
        metrics={"energy_inference_mj": figure},
        methods={"energy_inference_mj": weakest(amounts, parts)},
        details={
            "energy": {
                "windows_mj": totals,
                "range_mj": [min(totals), max(totals)],
                "components_mj": {name: statistics.median(net[name] for net in nets) for name in parts},
                "methods": {name: part.method for name, part in parts.items()},
                "scopes": {name: part.scope for name, part in parts.items()},
                "sources": {name: part.source for name, part in parts.items()},
                "images": [window.images for window in windows],
                "window_seconds": length,
                "update_seconds": last.interval,
                "idle_watts": {name: statistics.median(watts[name] for watts in idle) for name in idle[0]},
            }
        },
        notes=list(dict.fromkeys(notes)),
    )
