"""Seeds of one arm trained together: the loop of ``stages.train`` over a stack of networks.

Each seed keeps its own order of images, augmentation, validation and history, drawn from its own streams; forward pass,
backward pass and the optimizer's step are made once for all. A seed's weights equal those of training it by itself
within float error, not bit for bit: a kernel for several networks adds up in another order.

What can't be stacked is found out before the first step: ``obstacle`` says why, and the seeds are then trained one by
one.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from cnnbench.slots import REGULARIZER_METHODS
from cnnbench.stages.stacking import Stack
from cnnbench.stages.train import batch_bounds, validate
from cnnbench.technique import card_of
from cnnbench.types import Batch, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from cnnbench.seeds import Streams
    from cnnbench.slots import Observer
    from cnnbench.stages.train import Procedure

ELEMENTWISE = frozenset(
    {
        *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad),
        *(torch.optim.Adadelta, torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam),
    }
)
"""Optimizers that treat each value of a parameter by itself, so that a stack of parameters is one more parameter."""
STACKABLE = frozenset({"prepare", "targets"})
"""What a regularizer may do in a stack; the rest sees one network's own weights or gradients."""


@dataclass(frozen=True)
class Seat:
    """One seed's place in a stack.

    Attributes:
        model: built and not trained yet, on the device.
        how: the procedure, with the seed's own data.
        streams: the seed's.
        observers: told of each epoch.
    """

    model: nn.Module
    how: Procedure
    streams: Streams
    observers: tuple[Observer, ...] = ()


class Feed:
    """Draws one seed's batches as ``stages.train.fit`` draws them.

    Args:
        seat: the seed's.
    """

    def __init__(self, seat: Seat) -> None:
        self._how = seat.how
        self._order = seat.streams.generator("order")
        self._draws = seat.streams.generator("augmentation", seat.how.device.draws)
        self._one_hot = torch.eye(seat.how.splits.num_classes, device=seat.how.device.torch)
        self._targets = [r for r in seat.how.regularizers if hasattr(r, "targets")]
        self._rows = torch.empty(0, dtype=torch.int64)

    def shuffle(self) -> None:
        """Begin an epoch."""
        count = len(self._how.splits.train_images)
        self._rows = torch.randperm(count, generator=self._order).to(self._how.device.torch)

    def batch(self, start: int, stop: int) -> Batch:
        """The images of places ``start`` to ``stop`` of the epoch's order, augmented."""
        splits, chosen = self._how.splits, self._rows[start:stop]
        x = splits.train_images[chosen].float().div_(255)
        targets = self._one_hot[splits.train_labels[chosen]]
        for augmentation in self._how.augmentations:
            x, targets = augmentation(x, targets, self._draws)
        for regularizer in self._targets:
            targets = regularizer.targets(targets)
        return Batch(x, self._how.input(x), targets)


def stacked_batch(
    feeds: Sequence[Feed], start: int, stop: int, *, channels_last: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next batch of all seeds: inputs [N, K, C, H, W] and targets [K, N, classes].

    In memory seeds lie beside each other within an image, as channels that ``channels_last`` puts after height and
    width: K networks' convolution is one of K groups of channels.
    """
    drawn = [feed.batch(start, stop) for feed in feeds]
    targets = torch.stack([batch.targets for batch in drawn])
    if channels_last:
        rows = torch.stack([batch.inputs.permute(0, 2, 3, 1) for batch in drawn], 3)
        return rows.permute(0, 3, 4, 1, 2), targets
    return torch.stack([batch.inputs for batch in drawn], 1), targets


def fit_stacked(seats: Sequence[Seat]) -> list[list[Progress] | None]:
    """Train the models of all seats in place, in one loop, and leave them in eval mode.

    Args:
        seats: those for which ``obstacle`` found nothing.

    Returns:
        For each seat one ``Progress`` an epoch; None where an epoch's loss was not finite, which ended that seed's
        part and nobody else's.
    """
    how = seats[0].how
    for seat in seats:
        seat.model.to(memory_format=how.memory_format)
    stack = Stack([seat.model for seat in seats], how)
    optimizer = how.optimizer(stack.module)
    rates = [group["lr"] for group in optimizer.param_groups]
    feeds = [Feed(seat) for seat in seats]
    batches = batch_bounds(len(how.splits.train_images), how.batch_size)
    total_steps = how.epochs * len(batches)
    history: list[list[Progress] | None] = [[] for _ in seats]
    step = 0
    for epoch in range(how.epochs):
        stack.module.train()
        for seat, feed in zip(seats, feeds, strict=True):
            for observer in seat.observers:
                observer.before_epoch(seat.model, epoch, how.epochs)
            feed.shuffle()
        losses: list[torch.Tensor] = []
        for start, stop in batches:
            inputs, targets = stacked_batch(feeds, start, stop, channels_last=how.channels_last)
            factor = how.schedule(step, total_steps)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.zero_grad(set_to_none=True)
            each, _ = stack(inputs, targets)
            each.sum().backward()  # type: ignore[no-untyped-call] # each seed's gradient is its own loss's alone
            optimizer.step()
            losses.append(each.detach().clone())  # a CUDA graph overwrites what it returned
            how.device.flush()
            step += 1

        stack.write_back()
        rate = optimizer.param_groups[0]["lr"]
        means = torch.stack(losses).mean(0).tolist()
        for index in [index for index, known in enumerate(history) if known is not None]:
            if math.isfinite(means[index]):
                _note(seats[index], history[index], Progress(epoch, how.epochs, step, means[index], None, None, rate))
            else:
                history[index] = None
                stack.park(index, optimizer)
        if all(known is None for known in history):
            break
    for seat in seats:
        seat.model.eval()
    return history


def _note(seat: Seat, history: list[Progress] | None, trained: Progress) -> None:
    """Validate one seed's model, and tell of its epoch."""
    assert history is not None
    loss, accuracy = validate(seat.model, seat.how)
    history.append(replace(trained, validation_loss=loss, validation_accuracy=accuracy))
    for observer in seat.observers:
        observer.after_epoch(seat.model, history[-1])


def obstacle(seats: Sequence[Seat]) -> str | None:
    """Why these seats can't be trained as one stack, for people; None where they can.

    The models, their procedures and streams are left as they are.
    """
    how = seats[0].how
    for regularizer in how.regularizers:
        if any(hasattr(regularizer, name) for name in REGULARIZER_METHODS if name not in STACKABLE):
            return f"regularizer {card_of(regularizer).name!r} looks at the weights or gradients of one network"
    if len({len(seat.how.splits.train_images) for seat in seats}) > 1:
        return "the seeds have different numbers of training images"
    shapes = [[(name, value.shape, value.dtype) for name, value in s.model.state_dict().items()] for s in seats]
    if any(other != shapes[0] for other in shapes):
        return "the seeds' networks have different shapes"
    return _of_optimizer(seats) or _of_layers(seats)


def _of_optimizer(seats: Sequence[Seat]) -> str | None:
    """Whether the optimizer takes a stack of parameters for what it is."""
    how, model = seats[0].how, seats[0].model
    alone = how.optimizer(model)
    if type(alone) not in ELEMENTWISE:
        return f"optimizer {type(alone).__name__} is not known to treat each weight by itself"
    stack = Stack([model], replace(how, compiled=False)).module
    if _groups(alone, model) != _groups(how.optimizer(stack), stack):
        return "the optimizer treats parameters by their shape"
    return None


def _groups(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[dict[str, object]]:
    """Options of an optimizer's groups with the names of their parameters."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{**group, "params": [names.get(id(p)) for p in group["params"]]} for group in optimizer.param_groups]


PROBE_IMAGES = 8
"""Images of a batch that is sent through the stack and through each network by itself."""
AGREEMENT: Mapping[str, float] = {"fp32": 0.02, "bf16": 0.1}
"""Largest difference between the two, as a share of the largest value: rounding of TF32 passes, another network not."""


def _of_layers(seats: Sequence[Seat]) -> str | None:
    """Whether a batch in training mode comes out of the stack as it comes out of each network by itself."""
    how = replace(seats[0].how, compiled=False)  # which is for one shape, and this is another
    models = [deepcopy(seat.model).train() for seat in seats]
    stack = Stack(models, how)
    feeds = [Feed(seat) for seat in seats]
    for feed in feeds:
        feed.shuffle()
    before = torch.get_rng_state()
    inputs, targets = stacked_batch(feeds, 0, min(PROBE_IMAGES, how.batch_size), channels_last=how.channels_last)
    try:
        with torch.no_grad():
            _, together = stack(inputs, targets)
    except RuntimeError as error:
        if "randomness" in str(error):
            return "its layers draw at random in training"
        return f"torch.func.vmap: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}"
    plain = [_plain_state(model) for model in models]
    with torch.no_grad(), how.device.autocast(how.precision):
        apart = torch.stack([model(inputs[:, index]).float() for index, model in enumerate(models)])
    if not torch.equal(before, torch.get_rng_state()):
        return "it draws from torch's own generator in training"
    if plain != [_plain_state(model) for model in models]:
        return "its layers keep a state that is no tensor"
    buffers = [torch.stack(parts) for parts in zip(*([*model.buffers()] for model in models), strict=True)]
    pairs = [(together, apart), *zip(stack.module.buffers(), buffers, strict=True)]
    if not all(_agree(one, other, AGREEMENT[how.precision]) for one, other in pairs):
        return "a batch comes out of the stack otherwise than out of each network by itself"
    return None


def _agree(one: torch.Tensor, other: torch.Tensor, share: float) -> bool:
    """Whether values differ by no more than a share of the largest; where both are not finite they are alike."""
    one, other = one.double().nan_to_num(), other.double().nan_to_num()
    return one.numel() == 0 or bool((one - other).abs().max() <= share * other.abs().max() + 1e-6)


def _plain_state(model: nn.Module) -> list[dict[str, object]]:
    """Numbers and words that the model's layers hold beside tensors."""
    kinds = (bool, int, float, str)
    return [{k: v for k, v in vars(layer).items() if isinstance(v, kinds)} for layer in model.modules()]
