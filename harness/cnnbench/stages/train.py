"""The training loop, and the run that strategies wrap.

``fit`` reads top to bottom. Everything random in it comes from the trial's named streams, so that changing one
technique leaves the draws of all others as they were; on CPU two runs of one trial give identical weights. Losses stay
on the device until the epoch's end: no step waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, get_args

import torch
import torch.nn.functional as F

from cnnbench.errors import BrokenContract, Diverged, Unsupported
from cnnbench.seeds import Streams
from cnnbench.slots import REGULARIZER_METHODS, Observer, StrategyKind, TrainingRun
from cnnbench.stages.compiled import compiled
from cnnbench.surgery import fold_for_inference
from cnnbench.technique import card_of
from cnnbench.types import Batch, Progress, Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from cnnbench.data import Splits
    from cnnbench.devices import Device
    from cnnbench.slots import Augmentation, Loss, Optimizer, Schedule, Strategy
    from cnnbench.types import Choice, DataOptions

EVALUATION_BATCH = 250
"""Images a forward pass outside training; results do not depend on it. Of 1000 the activations leave a CPU's caches."""
LEAST_RECALIBRATION_BATCH = 64


@dataclass(frozen=True)
class Procedure:
    """How to train: the recipe and the arm's techniques, made and ready.

    Attributes:
        splits: uint8 images and int64 labels on the device.
        input: maps float images in 0..1 to model inputs.
        augmentations, regularizers: used in order.
        optimizer, schedule, loss: the recipe's.
        epochs, batch_size, precision, channels_last: the recipe's.
        device: where everything lives.
        compiled: the model's passes go through ``torch.compile``.
    """

    splits: Splits
    input: nn.Module
    augmentations: Sequence[Augmentation]
    regularizers: Sequence[Any]
    optimizer: Optimizer
    schedule: Schedule
    loss: Loss
    epochs: int
    batch_size: int
    precision: str
    channels_last: bool
    device: Device
    compiled: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images and weights in the loop."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def fit(  # noqa: PLR0915 - it reads top to bottom
    model: nn.Module,
    how: Procedure,
    streams: Streams,
    *,
    observers: Sequence[Observer] = (),
    loss: Callable[[Batch, torch.Tensor], torch.Tensor] | None = None,
) -> list[Progress]:
    """Train ``model`` in place and leave it in eval mode.

    Args:
        model: the classifier, on the device.
        how: the procedure.
        streams: ``order``, ``augmentation``, ``dropout`` and ``gradients`` are drawn from.
        observers: called around each epoch and after each step; one that returns True after an epoch ends the training.
        loss: ``(batch, logits) -> scalar`` in place of the procedure's loss.

    Returns:
        One ``Progress`` an epoch.

    Raises:
        Diverged: an epoch's loss is not finite.
    """
    images, labels, device = how.splits.train_images, how.splits.train_labels, how.device
    model.to(memory_format=how.memory_format)
    one_hot = torch.eye(how.splits.num_classes, device=device.torch)
    optimizer = how.optimizer(model)
    rates = [group["lr"] for group in optimizer.param_groups]
    batches = batch_bounds(len(images), how.batch_size)
    total_steps = how.epochs * len(batches)
    # A technique that is absent costs nothing in the loop: its list is empty.
    acts = {name: [r for r in how.regularizers if hasattr(r, name)] for name in REGULARIZER_METHODS}
    step_observers = [o for o in observers if type(o).after_step is not Observer.after_step]
    order = streams.generator("order")
    draws = streams.generator("augmentation", device.draws)
    noise = streams.generator("gradients", device.draws)
    forward = compiled(model, device) if how.compiled else model

    def backward(batch: Batch) -> torch.Tensor:
        """Gradients of the whole loss at the present weights; returns the loss, detached."""
        forget_gradients(optimizer)  # before the forward pass, which has their memory then
        with device.autocast(how.precision):
            logits = forward(batch.inputs)
        logits = logits.float()  # losses and penalties in full precision: autocast would round their sums
        value = loss(batch, logits) if loss is not None else how.loss(logits, batch.targets)
        for regularizer in acts["penalty"]:
            value = value + regularizer.penalty(model, logits)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    history: list[Progress] = []
    step = 0
    with streams.default_generator("dropout"):
        for epoch in range(how.epochs):
            model.train()
            begins = [*(r.epoch for r in acts["epoch"]), *(o.before_epoch for o in observers)]
            for tell in begins:
                tell(model, epoch, how.epochs)
            rows = torch.randperm(len(images), generator=order).to(device.torch)
            parts = [rows[start:stop] for start, stop in batches]
            device.flush()
            losses: list[torch.Tensor] = []
            for chosen in parts:
                x = images[chosen].float().div_(255)
                targets = one_hot[labels[chosen]]
                for augmentation in how.augmentations:
                    x, targets = augmentation(x, targets, draws)
                for regularizer in acts["targets"]:
                    targets = regularizer.targets(targets)
                batch = Batch(x, how.input(x).contiguous(memory_format=how.memory_format), targets)

                factor = how.schedule(step, total_steps)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
                losses.append(backward(batch))
                for regularizer in acts["perturb"]:
                    state = regularizer.perturb(model)
                    backward(batch)
                    regularizer.restore(model, state)
                for regularizer in acts["gradients"]:
                    regularizer.gradients(model, noise, step)
                optimizer.step()
                for regularizer in acts["weights"]:
                    regularizer.weights(model, optimizer.param_groups[0]["lr"])
                for observer in step_observers:
                    observer.after_step(model, step)
                device.flush()
                step += 1

            train_loss = float(torch.stack(losses).mean())
            if not math.isfinite(train_loss):
                before = [asdict(progress) for progress in history]
                raise Diverged(f"training loss is {train_loss} in epoch {epoch + 1} of {how.epochs}", before)
            validation_loss, validation_accuracy = validate(model, how)
            progress = Progress(
                epoch=epoch,
                epochs=how.epochs,
                step=step,
                train_loss=train_loss,
                validation_loss=validation_loss,
                validation_accuracy=validation_accuracy,
                learning_rate=optimizer.param_groups[0]["lr"],
            )
            history.append(progress)
            stops = [observer.after_epoch(model, progress) for observer in observers]  # every one is told
            if any(stops):
                break
    model.eval()
    return history


def forget_gradients(optimizer: torch.optim.Optimizer) -> None:
    """``zero_grad``, without the reports to profilers and compilers that cost a small network more than its step."""
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:  # it has one of its own
        optimizer.zero_grad(set_to_none=True)
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def batch_bounds(count: int, size: int) -> list[tuple[int, int]]:
    """Start and stop of each batch of an epoch.

    A last batch of one image is dropped where the others are larger: batch statistics of a single sample are undefined.
    """
    bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
    return bounds[:-1] if count > size and count % size == 1 else bounds


def model_inputs(images: torch.Tensor, input_module: nn.Module) -> torch.Tensor:
    """Model inputs from uint8 images [N, C, H, W], as evaluation and calibration use them."""
    with torch.no_grad():  # not inference mode: a compressor may take gradients on calibration images
        parts = [input_module(part.float().div_(255)) for part in torch.split(images, EVALUATION_BATCH)]
        return torch.cat(parts)


def calibration_inputs(images: torch.Tensor, input_module: nn.Module, streams: Streams, count: int) -> torch.Tensor:
    """Model inputs from ``count`` (or all, if fewer) of uint8 images [N, C, H, W], a choice that the streams fix."""
    rows = torch.randperm(len(images), generator=streams.generator("calibration"))[:count]
    return model_inputs(images[rows.to(images.device)], input_module)


def validate(model: nn.Module, how: Procedure) -> tuple[float | None, float | None]:
    """Cross-entropy in nats and top-1 accuracy on the validation split; None where it is empty. Sets eval mode."""
    images, labels = how.splits.validation_images, how.splits.validation_labels
    model.eval()
    if len(images) == 0:
        return None, None
    loss = torch.zeros((), device=how.device.torch)
    correct = torch.zeros((), device=how.device.torch)
    parts = list(zip(torch.split(images, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True))
    how.device.flush()
    with how.device.inference(), how.device.autocast(how.precision):
        for x, y in parts:
            logits = model(how.input(x.float().div_(255)).contiguous(memory_format=how.memory_format)).float()
            loss += F.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
            how.device.flush()
    return float(loss) / len(labels), float(correct) / len(labels)


def recalibrate(model: nn.Module, how: Procedure) -> None:
    """Recompute batch-norm statistics of ``model`` as averages over the training split, in place; sets eval mode.

    All else is in eval mode: the statistics are for inference, where dropout draws nothing. Batches are mixed, whatever
    the order of the file (of images sorted by class, variance within a batch would lack that between classes), of
    nearly equal size, and large enough for their variance to mean something. A split of a single image changes nothing.
    """
    model.eval()
    images = how.splits.train_images
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    if not norms or len(images) < 2:
        return
    order = torch.randperm(len(images), generator=Streams(0, "recalibration").generator("order")).to(images.device)
    batches = torch.tensor_split(order, max(1, len(images) // max(how.batch_size, LEAST_RECALIBRATION_BATCH)))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    how.device.flush()
    with torch.no_grad():
        for rows in batches:
            model(how.input(images[rows].float().div_(255)))
            how.device.flush()
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@dataclass(frozen=True)
class Run:
    """The innermost training run: build a model from scratch and fit it.

    Attributes:
        build: makes a fresh model on the device from a trial's streams.
        how: the procedure.
        streams: the trial's.
        elsewhere: makes the same run on another dataset, from the streams given.
        observers: told of every fit, beside those that strategies bring.
    """

    build: Callable[[Streams], nn.Module]
    how: Procedure
    streams: Streams
    elsewhere: Callable[[Choice, DataOptions, int, Streams], TrainingRun]
    observers: tuple[Observer, ...] = ()

    @property
    def epochs(self) -> int:
        """Planned epochs."""
        return self.how.epochs

    @property
    def schedule(self) -> Schedule:
        """The recipe's."""
        return self.how.schedule

    def fit(self, *observers: Observer, member: int = 0, schedule: Schedule | None = None) -> Trained:
        """Build and train; ``member`` > 0 draws from streams of its own."""
        streams = self.streams.member(member)
        model = self.build(streams)
        how = self.how if schedule is None else replace(self.how, schedule=schedule)
        history = fit(model, how, streams, observers=(*self.observers, *observers))
        return Trained(model, history)

    def recalibrate(self, model: nn.Module) -> None:
        """Recompute batch-norm statistics of ``model`` as averages over the training split, in place."""
        recalibrate(model, self.how)

    def on(self, dataset: Choice, data: DataOptions, epochs: int) -> TrainingRun:
        """The same run on another dataset."""
        return self.elsewhere(dataset, data, epochs, self.streams)

    def of_member(self, index: int) -> Run:
        """The same run drawing everything from streams of the member's own."""
        return replace(self, streams=self.streams.member(index))


class Nestable(TrainingRun, Protocol):
    """A run that strategies can be put around."""

    def of_member(self, index: int) -> Nestable:
        """The same run drawing everything from streams of the member's own; 0 changes nothing."""


@dataclass(frozen=True)
class _Around:
    """A run that leaves everything but ``fit`` to the run within."""

    inner: Nestable

    @property
    def epochs(self) -> int:
        return self.inner.epochs

    @property
    def schedule(self) -> Schedule:
        return self.inner.schedule

    def recalibrate(self, model: nn.Module) -> None:
        self.inner.recalibrate(model)

    def on(self, dataset: Choice, data: DataOptions, epochs: int) -> TrainingRun:
        return self.inner.on(dataset, data, epochs)

    def of_member(self, index: int) -> Self:
        return replace(self, inner=self.inner.of_member(index))


@dataclass(frozen=True)
class _Wrapped(_Around):
    """A run with a strategy around it, which is again a run."""

    strategy: Strategy

    def fit(self, *observers: Observer, member: int = 0, schedule: Schedule | None = None) -> Trained:
        trained: object = self.strategy(_Bound(self.inner.of_member(member), observers, schedule))
        if not isinstance(trained, Trained):
            name = card_of(self.strategy).name
            raise BrokenContract(f"strategy {name!r} returned {type(trained).__name__}, expected a Trained")
        return trained


@dataclass(frozen=True)
class _Bound(_Around):
    """A run that always brings an outer strategy's observers and schedule."""

    observers: tuple[Observer, ...]
    own_schedule: Schedule | None

    @property
    def schedule(self) -> Schedule:
        return self.own_schedule or self.inner.schedule

    def fit(self, *observers: Observer, member: int = 0, schedule: Schedule | None = None) -> Trained:
        return self.inner.fit(*self.observers, *observers, member=member, schedule=schedule or self.own_schedule)


def train(run: Nestable, strategies: Sequence[Strategy]) -> Trained:
    """Run with the strategies around it, the first of the list outermost.

    What the model computes for training alone is folded away, so that whatever follows meets an ordinary network.

    Raises:
        Unsupported: in that order one of them would undo what another did.
    """
    _check_nesting(strategies)
    for strategy in reversed(strategies):
        run = _Wrapped(run, strategy)
    trained = run.fit()
    fold_for_inference(trained.model)
    return trained


def _check_nesting(strategies: Sequence[Strategy]) -> None:
    kinds = get_args(StrategyKind)
    known = [(kinds.index(s.acts_on), card_of(s).name) for s in strategies if hasattr(s, "acts_on")]
    names = [name for _, name in known]
    in_order = [name for _, name in sorted(known, key=lambda entry: entry[0])]
    if names != in_order:
        raise Unsupported(f"strategies act from the outside in: write {in_order}, not {names}")
    for kind, doing in (("weights", "decide which weights a training ends with"), ("members", "train several models")):
        several = [name for number, name in known if number == kinds.index(kind)]
        if len(several) > 1:
            raise Unsupported(f"{' and '.join(several)} each {doing}: name one of them")
