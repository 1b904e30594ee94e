"""Which seeds of an arm are trained in one stack, how many at once, and what each is charged."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from torch.autograd.graph import saved_tensors_hooks

from cnnbench.errors import TrialError, words_of
from cnnbench.stages.stacked import PROBE_IMAGES, Feed, Seat, fit_stacked, obstacle
from cnnbench.stages.stacking import LossOf
from cnnbench.surgery import fold_for_inference
from cnnbench.types import Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch
    from torch import nn

    from cnnbench.seeds import Streams
    from cnnbench.slots import Observer
    from cnnbench.stages.build import Builder

    Keep = Callable[[Path], dict[str, Any]]

MEMORY_SHARE = 1 / 2
"""Of the memory that is free for a worker, what a stack may come to by the estimate."""
COPIES = 6
"""Of a seed's weights: its own, those in the stack, gradient, two states of an optimizer, and one in passing."""
NOTE = "the seeds were trained together: training time and energy are each seed's share"


class Apart(TrialError):  # noqa: N818 - reads as what happened
    """Seeds have to be trained one by one; the text says why."""


@dataclass(frozen=True)
class Entrant:
    """A seed that is to be trained in a stack.

    Attributes:
        seat: its model, built and not trained, with all that trains it.
        input: its input normalization.
        notes: remarks for the record.
    """

    seat: Seat
    input: nn.Module
    notes: list[str]


class Work(Protocol):
    """A training stage at work, as far as a stack has to do with it."""

    @property
    def entrant(self) -> Entrant:
        """This seed, built; raises ``Apart`` where it can't be trained in a stack."""

    def check_data(self) -> None:
        """Raise if a technique wrote into the seed's data."""

    def at_once(self, seeds: int) -> int:
        """How many of these seeds to train in one stack; raises ``Apart`` where that is one."""

    def metered(self) -> AbstractContextManager[Any]:
        """Take what a block of training costs: metrics, methods, details and notes of a dataclass."""

    def keep(self, trained: Trained, cost: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Leave a model that was trained in a stack in a folder; the stage's result, with its share of the cost."""


def train_in_parts(
    keys: Sequence[str], work_of: Callable[[str], Work], faults: tuple[type[BaseException], ...]
) -> dict[str, Keep | str]:
    """Train seeds in stacks, each as large as there is memory for.

    Args:
        keys: of their stages.
        work_of: makes a stage's work.
        faults: what means that seeds have to be trained one by one; anything else that is raised goes through.

    Returns:
        By key: what keeps the result in a folder and returns it, or why the seed is to be trained by itself.
    """
    found: dict[str, Keep | str] = {}
    left = list(keys)
    while left:
        part = left
        try:
            first = work_of(left[0])
            part = left[: first.at_once(len(left))]
            works = [first, *map(work_of, part[1:])]
            found.update(zip(part, _train(works), strict=True))
        except Apart as error:
            found.update(dict.fromkeys(part, str(error)))
        except faults as error:  # whose fault it is shows when each is trained by itself
            found.update(dict.fromkeys(part, words_of(error)))
        left = left[len(part) :]
    return found


def _train(works: Sequence[Work]) -> list[Keep | str]:
    """Train seeds in one stack: for each what keeps its result, or why it is to be trained by itself."""
    with works[0].metered() as cost:
        trained = train_entrants([work.entrant for work in works])
    for work in works:
        work.check_data()
    share = share_of(asdict(cost), len(works))
    return [
        "its loss was not finite beside the other seeds" if one is None else partial(work.keep, one, share)
        for work, one in zip(works, trained, strict=True)
    ]


def enter(builder: Builder, streams: Streams, observers: tuple[Observer, ...]) -> Entrant:
    """Build one seed's model.

    Raises:
        Apart: a strategy wraps its training.
    """
    strategies = builder.settings.techniques.get("strategy", ())
    if strategies:
        raise Apart(f"strategy {strategies[0].name!r} wraps each training")
    notes: list[str] = []
    input_module = builder.input_module()
    run = builder.run(input_module, streams, notes=notes)
    return Entrant(Seat(run.build(streams), run.how, streams, observers), input_module, notes)


def train_entrants(entrants: Sequence[Entrant]) -> list[Trained | None]:
    """Train all in one loop; None for a seed whose loss was not finite.

    Raises:
        Apart: they can't be stacked.
    """
    seats = [entrant.seat for entrant in entrants]
    reason = obstacle(seats)
    if reason is not None:
        raise Apart(reason)
    trained: list[Trained | None] = []
    for seat, history in zip(seats, fit_stacked(seats), strict=True):
        if history is None:
            trained.append(None)
        else:
            fold_for_inference(seat.model)
            trained.append(Trained(seat.model, history))
    return trained


def part_of(seeds: int, seat: Seat, free: int | None, workers: int) -> int:
    """How many of some seeds to train at once: parts of equal size, each within the memory that there is.

    Args:
        seeds: all that are due.
        seat: one of them.
        free: bytes free on the device; None where it doesn't tell, which is taken for enough.
        workers: trainings that share them.

    Raises:
        Apart: there is room for one alone.
    """
    if free is None:
        return seeds
    most = int(free * MEMORY_SHARE / max(1, workers) // bytes_of(seat))
    if most < 2:
        raise Apart("there is memory for one at a time")
    parts = -(-seeds // most)
    return -(-seeds // parts)


def bytes_of(seat: Seat) -> int:
    """Estimate of what one seed takes in a stack: weights, data, and twice what a step keeps for its backward pass."""
    how = seat.how
    tensors = [*seat.model.parameters(), *seat.model.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    data = sum(images.numel() for images in (how.splits.train_images, how.splits.validation_images))
    feed = Feed(seat)
    feed.shuffle()
    batch = feed.batch(0, min(PROBE_IMAGES, how.batch_size))
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        LossOf(deepcopy(seat.model).train(), how)(batch.inputs, batch.targets)
    return COPIES * weights + data + 2 * sum(kept.values()) * how.batch_size // len(batch.inputs)


def share_of(cost: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """Each seed's part of what a stack's training cost.

    Memory is left out: what one training by itself would take is not known from it.

    Args:
        cost: metrics, methods, details and notes of the whole.
        seeds: trained in it.
    """
    metrics = {key: value / seeds for key, value in cost["metrics"].items() if key != "memory_train_mib"}
    methods = {key: "shared" if method == "measured" else method for key, method in cost["methods"].items()}
    details = {**cost["details"], "stacked": {"seeds": seeds, "seconds": cost["metrics"]["train_seconds"]}}
    if "energy_train" in details:
        energy = details["energy_train"]
        parts = {name: {**part, "joules": part["joules"] / seeds} for name, part in energy["components"].items()}
        details["energy_train"] = {**energy, "components": parts, "seconds": energy["seconds"] / seeds}
    return {"metrics": metrics, "methods": methods, "details": details, "notes": [*cost["notes"], NOTE]}
