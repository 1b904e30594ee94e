"""A session: models that are measured together, in turns, in one process that does nothing else.

What one member does wrong costs itself alone: it leaves, and the others go on. Only a member that ends the process
takes the session with it; the scheduler then runs each by itself.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.host_memory import free_bytes
from cnnbench.stages.energy import inference_energy
from cnnbench.stages.latency import measure_latency
from cnnbench.stages.noise import NoiseWatch
from cnnbench.stages.pinning import bound_to_cores
from cnnbench.types import EnergyOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cnnbench.devices import Device
    from cnnbench.meters.base import EnergyMeter
    from cnnbench.stages.serve import Served
    from cnnbench.types import LatencyOptions

    Prepare = Callable[[Path], Served]
    Result = dict[str, Any] | BaseException

TOGETHER = frozenset({"latency", "energy"})
"""Kinds of stages that are measured in sessions."""
MEMORY_SHARE = 1 / 8
"""Of the free memory that the model files of one session may come to: runtimes hold copies, and calls need room."""


@dataclass(frozen=True)
class Member:
    """A stage that is measured together with others.

    Attributes:
        key: of the stage.
        task: its plain data; see ``plan.Stage.task``.
        model: file of the model that it measures.
    """

    key: str
    task: Mapping[str, Any]
    model: Path

    @property
    def serving(self) -> tuple[str, str]:
        """What is served, and by which runtime: equal for latency and energy of one arm."""
        return str(self.model), repr(self.task["settings"]["techniques"].get("runtime"))


@dataclass
class Shelf:
    """Served models, kept from one session to the next of the same models: making one ready may mean to compile it."""

    _ready: dict[tuple[str, str], tuple[tuple[int, ...], Served, ExitStack]] = field(default_factory=dict)

    def get(self, member: Member, batch_sizes: tuple[int, ...], prepare: Prepare) -> Served:
        """The member's model, made ready for these batch sizes unless it is already."""
        kept = self._ready.get(member.serving)
        if kept is not None and set(batch_sizes) <= set(kept[0]):
            return kept[1]
        self._drop(member.serving)
        with ExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory(prefix="cnnbench-", ignore_cleanup_errors=True))
            served = prepare(Path(folder))
            stack.callback(served.close)
            self._ready[member.serving] = (batch_sizes, served, stack.pop_all())
        return served

    def keep_only(self, members: Sequence[Member]) -> None:
        """Let go of all others."""
        for serving in self._ready.keys() - {member.serving for member in members}:
            self._drop(serving)

    def close(self) -> None:
        """Let go of everything."""
        self.keep_only(())

    def _drop(self, serving: tuple[str, str]) -> None:
        kept = self._ready.pop(serving, None)
        if kept is not None:
            kept[2].close()


def measure_together(
    members: Sequence[Member],
    serve: Callable[[Member], Served],
    device: Device,
    latency: LatencyOptions,
    meter: EnergyMeter | None,
    told: Callable[[BaseException], BaseException],
    faults: tuple[type[BaseException], ...],
) -> dict[str, Result]:
    """Measure all members, which are of one kind; the result of each by its key, or what it raised.

    Args:
        members: latency stages, or energy stages.
        serve: makes a member's model ready.
        device: where they are served.
        latency: how latency is taken.
        meter: for energy stages.
        told: what to make of an error before it becomes a result.
        faults: what costs a member alone; anything else goes through.
    """
    found: dict[str, Result] = {}
    served: dict[str, Served] = {}
    for member in members:
        try:
            served[member.key] = serve(member)
        except faults as error:  # a runtime is another's code: anything may come out
            found[member.key] = told(error)
    taken = _latencies(members, served, device, latency) if meter is None else _energies(members, served, device, meter)
    return found | {key: told(one) if isinstance(one, BaseException) else one for key, one in taken.items()}


def _latencies(
    members: Sequence[Member], served: Mapping[str, Served], device: Device, options: LatencyOptions
) -> dict[str, Result]:
    subjects = {key: one.subject for key, one in served.items()}
    pairs = {m.key: m.task["reference"] for m in members if m.key in subjects and m.task.get("reference") in subjects}
    with NoiseWatch(device) as watch:
        taken = measure_latency(subjects, device, options, pairs, shuffle=_turns(members))
    noise = {**watch.details, "measured_together": len(subjects)}
    return {
        key: figures
        if isinstance(figures, BaseException)
        else {
            "metrics": {**served[key].metrics, **figures.metrics},
            "details": {"latency": figures.details, "noise": noise},
            "notes": served[key].notes,
        }
        for key, figures in taken.items()
    }


def _energies(
    members: Sequence[Member], served: Mapping[str, Served], device: Device, meter: EnergyMeter
) -> dict[str, Result]:
    subjects = {key: one.subject for key, one in served.items()}
    options = EnergyOptions(**members[0].task["energy"])
    # As latency is taken: on the cores that its threads are bound to.
    binding = bound_to_cores(torch.get_num_threads()) if device.kind == "cpu" else nullcontext()
    with binding, NoiseWatch(device) as watch:
        taken = inference_energy(subjects, meter, options, device, shuffle=_turns(members))
    noise = {**watch.details, "measured_together": len(subjects)}
    return {
        key: figures
        if isinstance(figures, BaseException)
        else {
            "metrics": figures.metrics,
            "methods": figures.methods,
            "details": {**figures.details, "noise_energy": noise},
            "notes": [*served[key].notes, *figures.notes],
        }
        for key, figures in taken.items()
    }


def _turns(members: Sequence[Member]) -> random.Random:
    """Draws the order of turns: one for each seed."""
    task = members[0].task
    return random.Random(f"{task['seed']} {task['family']}")  # noqa: S311 - no secret


def parts(members: Sequence[Member], free: int | None = None) -> Iterator[list[Member]]:
    """Members in parts whose models fit into memory together; those that others are compared with are in each.

    Args:
        members: of one session.
        free: bytes; None for what can be had here.
    """
    room = (free_bytes() if free is None else free) * MEMORY_SHARE
    wanted = {member.task.get("reference") for member in members}
    common = [member for member in members if member.key in wanted]
    others = [member for member in members if member.key not in wanted]
    room -= sum(_size(member) for member in common)
    part: list[Member] = []
    for member in others:
        if part and sum(map(_size, part)) + _size(member) > room:
            yield common + part
            part = []
        part.append(member)
    if part or common:
        yield common + part


def _size(member: Member) -> int:
    try:
        return member.model.stat().st_size
    except OSError:
        return 0  # what is missing is told when it is served
