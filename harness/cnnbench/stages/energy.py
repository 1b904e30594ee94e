"""Energy of training and of inference, from a meter's readings.

Inference is repeated for windows of time; the energy of an idle window of the same length just before is subtracted,
and the rest divided by the images. The figure is the median over the windows, all of which are kept. It may come out
negative where a network's work drowns in the machine's noise; that is kept too, and noted.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.meters import weakest
from cnnbench.stages.subject import make_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.devices import Device
    from cnnbench.meters import Component, EnergyMeter, Reading
    from cnnbench.types import EnergyOptions

    Call = Callable[[torch.Tensor], torch.Tensor]

SHORT_WINDOW = 0.1
"""Seconds; enough for an estimate, which knows nothing beyond time."""
LONG_WINDOW = 2.0
"""Seconds; hardware counters change about ten times a second."""
WARMUP_CALLS = 3


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


def training_energy(reading: Reading) -> EnergyFigures:
    """Joules of a training from the meter's reading over it; nothing is subtracted."""
    notes = [reading.note] if reading.note else []
    if not reading.components:
        return EnergyFigures(notes=notes)
    return EnergyFigures(
        metrics={"energy_train_j": reading.joules},
        methods={"energy_train_j": reading.method},
        details={"energy_train": reading.plain()},
        notes=notes,
    )


def inference_energy(
    call: Call,
    inputs: torch.Tensor,
    meter: EnergyMeter,
    options: EnergyOptions,
    device: Device,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> EnergyFigures:
    """Millijoules an image, above idle.

    Args:
        call: maps model inputs [n, C, H, W] to logits.
        inputs: model inputs [N, C, H, W] to draw batches from.
        meter: the source.
        options: number and length of windows, batch size.
        device: where the model lives.
        clock: seconds.
        sleep: how to idle.
    """
    batches = make_batches(inputs.to(device.torch), options.batch_size)
    with torch.inference_mode():
        for batch in batches[:WARMUP_CALLS]:
            call(batch)
        device.synchronize()
        length = options.window_seconds or SHORT_WINDOW
        idle = _idle(meter, device, length, sleep)
        if options.window_seconds is None and any(c.method != "estimated" for c in idle.components.values()):
            length = LONG_WINDOW
            idle = _idle(meter, device, length, sleep)
        if not idle.components:
            return EnergyFigures(notes=[idle.note or "energy: the meter read nothing"])
        windows: list[tuple[Reading, int]] = []
        for _ in range(max(3, options.windows)):
            images = 0
            with meter.task(device) as task:
                until = clock() + length
                while images == 0 or clock() < until:
                    call(batches[images // options.batch_size % len(batches)])
                    images += options.batch_size
                    device.synchronize()
            windows.append((task.reading, images))
    return _figures(idle, windows, length)


def _idle(meter: EnergyMeter, device: Device, seconds: float, sleep: Callable[[float], None]) -> Reading:
    with meter.task(device) as task:
        sleep(seconds)
    return task.reading


def _figures(idle: Reading, windows: Sequence[tuple[Reading, int]], length: float) -> EnergyFigures:
    failed = next((reading for reading, _ in windows if not reading.components), None)
    if failed is not None:
        return EnergyFigures(notes=[failed.note or "energy: the meter read nothing"])
    nets = [{name: (j / images) * 1e3 for name, j in _above(reading, idle).items()} for reading, images in windows]
    totals = [sum(net.values()) for net in nets]
    figure = statistics.median(totals)
    parts: dict[str, Component] = dict(windows[0][0].components)
    amounts = {name: max((abs(net[name]) for net in nets), default=0.0) for name in parts}
    notes = list(dict.fromkeys(reading.note for reading, _ in windows if reading.note))
    if figure <= 0:
        notes.append("energy: inference did not rise above the idle machine")
    return EnergyFigures(
        metrics={"energy_inference_mj": figure},
        methods={"energy_inference_mj": weakest(amounts, parts)},
        details={
            "energy": {
                "windows_mj": totals,
                "components_mj": {name: statistics.median(net[name] for net in nets) for name in parts},
                "methods": {name: part.method for name, part in parts.items()},
                "scopes": {name: part.scope for name, part in parts.items()},
                "images": [images for _, images in windows],
                "window_seconds": length,
                "idle_watts": {n: c.joules / idle.seconds for n, c in idle.components.items()},
            }
        },
        notes=notes,
    )


def _above(reading: Reading, idle: Reading) -> dict[str, float]:
    """Joules of each component above what the idle machine would have used in the same time."""
    return {
        name: part.joules
        - (idle.components[name].joules / idle.seconds if name in idle.components else 0) * reading.seconds
        for name, part in reading.components.items()
    }
