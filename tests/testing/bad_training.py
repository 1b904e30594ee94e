"""Techniques that break one rule of the kit each, and twins that keep them all: augmentations to datasets.

``BAD`` has for each rule a technique that breaks it and nothing else, and a few words of what is then said of it.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le

from cnnbench import hookimpl, technique
from cnnbench.execute.inline import InlineExecutor
from cnnbench.types import ImageData

if TYPE_CHECKING:
    from decimal import Decimal


def shaded(images, factors):
    """Each image times its own factor."""
    return images * factors.view(-1, 1, 1, 1)


@technique("augmentation", "good_shade", no_op={"depth": 0.0})
class Shade:
    """Darken each image by a share of its own.

    A reason.

    Attributes:
        depth: the largest share.
    """

    depth: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, images, targets, generator):
        draws = torch.rand(len(images), generator=generator, device=images.device)
        return shaded(images, 1 - self.depth * draws), targets


@technique("augmentation", "waivers", waives={"gray-or-colour": "it sees no images"})
class Waivers(Shade):
    """Darken.

    A reason; depth is a share.
    """


@technique("augmentation", "docstring")
class Docstring(Shade):
    """Darken.

    A reason, and nothing of its option.
    """


@technique("augmentation", "annotations")
class Annotations:
    """Darken.

    By depth, for a reason.
    """

    depth: Decimal = 0.5

    __call__ = Shade.__call__


@technique("augmentation", "options")
class Options:
    """Darken.

    By depth, for a reason.
    """

    depth: Annotated[float, Gt(0)]

    __call__ = Shade.__call__


@technique("augmentation", "refusals")
class Refusals:
    """Darken.

    By depth, for a reason.
    """

    depth: Any = 0.5

    __call__ = Shade.__call__


@technique("augmentation", "refusals_by_assert")
class RefusalsByAssert(Shade):
    """Darken.

    By depth, for a reason.
    """

    def __post_init__(self):
        assert self.depth > 0


@technique("augmentation", "toml")
class Toml:
    """Darken.

    By depths, for a reason.
    """

    depths: tuple[float | None, ...] = (None, 0.5)

    def __call__(self, images, targets, generator):
        return Shade(self.depths[1])(images, targets, generator)


@technique("augmentation", "usable")
class Usable:
    """Darken.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images / 2


@technique("augmentation", "state_as_found")
class StateAsFound:
    """Darken.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        torch.manual_seed(0)
        return images / 2, targets


@technique("augmentation", "one_thread")
class OneThread:
    """Darken.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        torch.set_num_threads(1)
        return images / 2, targets


@technique("augmentation", "seeds_all")
class SeedsAll:
    """Darken.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        torch.manual_seed(0)
        return shaded(images, torch.rand(len(images), device=images.device)), targets


@technique("augmentation", "double_images")
class DoubleImages(Shade):
    """Darken.

    By depth, for a reason.
    """

    def __call__(self, images, targets, generator):
        images, targets = super().__call__(images, targets, generator)
        return images.double(), targets


@technique("augmentation", "double_targets")
class DoubleTargets(Shade):
    """Darken.

    By depth, for a reason.
    """

    def __call__(self, images, targets, generator):
        images, targets = super().__call__(images, targets, generator)
        return images, targets.double()


@technique("loss", "double_loss")
class DoubleLoss:
    """Cross-entropy and a bit.

    For a reason.
    """

    def __call__(self, logits, targets):
        return -(targets * logits.log_softmax(1)).sum(1).double().mean() * 1.5


@technique("regularizer", "double_penalty")
class DoublePenalty:
    """Keep logits small.

    For a reason.
    """

    def penalty(self, model, logits):
        return 0.01 * logits.square().double().mean()


@technique("augmentation", "inputs_unchanged")
class InputsUnchanged:
    """Darken.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images.div_(2), targets


@technique("augmentation", "same_draws")
class SameDraws:
    """Darken.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        own = random.Random()
        return shaded(images, torch.tensor([own.random() for _ in images], device=images.device)), targets


@technique("augmentation", "own_draws")
class OwnDraws:
    """Darken.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images * torch.rand(1, generator=generator, device=images.device), targets


@technique("augmentation", "own_generator")
class OwnGenerator:
    """Darken.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        own = torch.Generator(images.device).manual_seed(0)
        return shaded(images, torch.rand(len(images), generator=own, device=images.device)), targets


@technique("augmentation", "no_op", no_op={"depth": 0.0})
class NoOp(Shade):
    """Darken.

    By depth, for a reason.
    """

    def __call__(self, images, targets, generator):
        return Shade(self.depth)(images.clamp(max=0.9), targets, generator)


@technique("augmentation", "gray_and_colour")
class GrayAndColour:
    """Leave the third channel.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images[:, 2:3].expand_as(images).clone(), targets


@technique("augmentation", "odd_sizes")
class OddSizes:
    """Swap halves.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        half = images.shape[2] // 2
        return torch.stack((images[:, :, half:], images[:, :, :half]), 2).flatten(2, 3), targets


@technique("augmentation", "batch_of_one")
class BatchOfOne:
    """Mix with the second image.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return (images + images[1]) / 2 if len(images) else images, targets


@technique("augmentation", "empty_batch")
class EmptyBatch:
    """Stretch.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return 0.9 * images / images.max(), targets


@technique("augmentation", "finite")
class Finite:
    """Divide.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images / (images.shape[1] - 1), targets


@technique("augmentation", "probabilities")
class Probabilities:
    """Trust less.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images, 0.9 * targets


@technique("loss", "good_cross_entropy")
class GoodLoss:
    """Cross-entropy and a bit.

    For a reason.
    """

    def __call__(self, logits, targets):
        return -(targets * logits.log_softmax(1)).sum(1).mean() * 1.5


@technique("loss", "extreme_logits")
class ExtremeLogits:
    """Cross-entropy.

    For a reason.
    """

    def __call__(self, logits, targets):
        return -(targets * logits.softmax(1).log()).sum(1).mean() * 1.5


@technique("augmentation", "same_device")
class SameDevice:
    """Add a little.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images + torch.linspace(0, 0.1, images.shape[3]), targets


@technique("augmentation", "effect")
class Effect:
    """Nothing.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images.clone(), targets


@technique("regularizer", "good_ascent")
class Ascent:
    """Take the gradient a little further on.

    For a reason.
    """

    def perturb(self, model):
        held = [parameter.detach().clone() for parameter in model.parameters()]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        return held

    def restore(self, model, state):
        with torch.no_grad():
            for parameter, old in zip(model.parameters(), state, strict=True):
                parameter.copy_(old)


@technique("regularizer", "weights_back")
class WeightsBack(Ascent):
    """Take the gradient a little further on.

    For a reason.
    """

    def restore(self, model, state):
        pass


@technique("optimizer", "good_adagrad")
class GoodOptimizer:
    """Steps divided by the root of all squared gradients so far.

    For a reason.
    """

    def __call__(self, model):
        return torch.optim.Adagrad([p for p in model.parameters() if p.requires_grad])


@technique("optimizer", "moves_weights")
class MovesWeights:
    """Moves matrices.

    For a reason.
    """

    def __call__(self, model):
        return torch.optim.Adagrad([p for p in model.parameters() if p.requires_grad and p.dim() > 1])


class Slowing(torch.optim.SGD):
    """Counts its steps where no state dict sees it."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad, alpha=-0.1 / self.steps)


@technique("optimizer", "resumes")
class Resumes:
    """Slows down.

    For a reason.
    """

    def __call__(self, model):
        return Slowing([p for p in model.parameters() if p.requires_grad], lr=0.1)


@technique("schedule", "good_inverse")
class GoodSchedule:
    """Fall as one over the step.

    For a reason.
    """

    def __call__(self, step, total_steps):
        return 1 / (1 + step)


@technique("schedule", "rates")
class Rates:
    """Fall, and fall.

    For a reason.
    """

    def __call__(self, step, total_steps):
        return 1 - 2 * step / total_steps


@technique("dataset", "good_stripes")
class Stripes:
    """Stripes.

    For a reason.
    """

    count: ClassVar[int] = 20

    def fingerprint(self):
        return "stripes-1"

    def sizes(self):
        return self.count, self.count

    def __call__(self):
        labels = torch.arange(self.count) % 2
        images = torch.zeros(self.count, 1, 8, 8, dtype=torch.uint8)
        images[labels == 1, :, ::2] = 255
        return ImageData(images, labels, images, labels, ("blank", "striped"))


@technique("dataset", "fingerprint")
class Fingerprint(Stripes):
    """Stripes.

    For a reason.
    """

    def fingerprint(self):
        return f"stripes of {time.perf_counter_ns()}"


@technique("dataset", "sizes")
class Sizes(Stripes):
    """Stripes.

    For a reason.
    """

    def sizes(self):
        return self.count, 2 * self.count


@technique("metric", "good_share")
class Share:
    """The share that is right.

    For a reason.
    """

    def __call__(self, probabilities, labels):
        return float((probabilities.argmax(1) == labels).double().mean())


@technique("metric", "not_a_number")
class NotANumber:
    """A tensor.

    For a reason.
    """

    def __call__(self, probabilities, labels):
        return probabilities.mean()


@technique("reporter", "good_names")
class Names:
    """The arms.

    For a reason.
    """

    def __call__(self, records):
        return "\n".join(dict.fromkeys(record["arm"] for record in records))


@technique("reporter", "no_text")
class NoText:
    """The arms.

    For a reason.
    """

    def __call__(self, records):
        return [record["arm"] for record in records]


@technique("executor", "good_inline")
class Inline:
    """Here.

    For a reason.
    """

    def __call__(self, workers, host):
        return InlineExecutor(host)


class Twice(InlineExecutor):
    """Tells everything twice."""

    def wait(self):
        events = super().wait()
        return [*events, *events]


@technique("executor", "tells_twice")
class TellsTwice:
    """Here.

    For a reason.
    """

    def __call__(self, workers, host):
        return Twice(host)


class Counter:
    """Counts trials."""

    count = 0

    @hookimpl
    def cnnbench_trial_finished(self, record):
        self.count += len(record["metrics"]) > 0


@technique("tracker", "good_counter")
class GoodTracker:
    """Count.

    For a reason.
    """

    def __call__(self, run):
        return Counter()


class Demanding:
    """Wants what failed trials have not."""

    @hookimpl
    def cnnbench_trial_finished(self, record):
        return record["metrics"]["accuracy"]


@technique("tracker", "demanding")
class DemandingTracker:
    """Count.

    For a reason.
    """

    def __call__(self, run):
        return Demanding()


BAD = {
    "waivers": (Waivers, "waives 'gray-or-colour', which is no rule: did you mean 'gray-and-colour'?"),
    "docstring": (Docstring, "does not say what option 'depth' is"),
    "annotations": (Annotations, "option types can't be read: name 'Decimal' is not defined"),
    "options": (Options, "needs 'depth', a number > 0, and has no example: add example={'depth': ...}"),
    "refusals": (Refusals, "'depth' takes whatever it is given"),
    "toml": (Toml, "depths.0 has no form in TOML"),
    "usable": (Usable, "augmentation 'usable' returned Tensor, expected (images, targets)"),
    "state-as-found": (StateAsFound, "it changed the state of torch's random generator"),
    "inputs-unchanged": (InputsUnchanged, "it changed its arguments in place: what it was given, images differs"),
    "same-draws": (SameDraws, "equal generators differ"),
    "own-draws": (OwnDraws, "one draw for the whole batch"),
    "no-op": (NoOp, "with 6 colour images of 16 x 16 and {'depth': 0.0} it is not the same as leaving it out"),
    "gray-and-colour": (GrayAndColour, "with 6 gray images of 16 x 16 it raises"),
    "odd-sizes": (OddSizes, "with 6 colour images of 19 x 15 it raises"),
    "batch-of-one": (BatchOfOne, "with 1 colour image of 16 x 16 it raises IndexError"),
    "empty-batch": (EmptyBatch, "with 0 colour images of 16 x 16 it raises"),
    "finite": (Finite, "with 6 gray images of 16 x 16 images is not finite"),
    "probabilities": (Probabilities, "a target sums to 0.9"),
    "extreme-logits": (ExtremeLogits, "its value is not finite where logits are +-10000"),
    "same-device": (SameDevice, "it makes a tensor on the CPU"),
    "effect": (Effect, "ends with the very weights, outputs and history of one without"),
    "weights-back": (WeightsBack, "after restore() the model, stage1_1.0.weight differs"),
    "moves-weights": (MovesWeights, "did not move in 3 steps"),
    "resumes": (Resumes, "going on from its state_dict() in a fresh optimizer gives other weights"),
    "rates": (Rates, "its factor is -0.02 in step 51 of 100"),
    "fingerprint": (Fingerprint, "of the same data"),
    "sizes": (Sizes, "sizes() says (20, 40), and (20, 20) training and test images are loaded"),
}
MORE = (
    ("refusals", RefusalsByAssert, "depth = 0 raises AssertionError, expected a ValueError"),
    ("state-as-found", OneThread, "torch's number of threads (3 to 1)"),
    ("state-as-found", SeedsAll, "it changed the state of torch's random generator"),
    ("dtypes-kept", DoubleImages, "all in torch.float32, images came out as torch.float64"),
    ("dtypes-kept", DoubleTargets, "all in torch.float32, targets came out as torch.float64"),
    ("dtypes-kept", DoubleLoss, "all in torch.float32, loss came out as torch.float64"),
    ("dtypes-kept", DoublePenalty, "all in torch.float32, penalty came out as torch.float64"),
    ("own-draws", OwnGenerator, "it draws from one of its own"),
    ("usable", NotANumber, "metric 'not_a_number' returned tensor("),
    ("usable", NoText, "reporter 'no_text' returned ['baseline'"),
    ("usable", TellsTwice, "gave an outcome of 't0'"),
    ("usable", DemandingTracker, "cnnbench_trial_finished failed: KeyError: 'accuracy'"),
)
"""Other ways to break them."""
GOOD = (*(Shade, GoodLoss, Ascent, GoodOptimizer, GoodSchedule, Stripes, Share, Names, Inline, GoodTracker),)
"""Techniques that keep every rule."""
