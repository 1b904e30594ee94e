"""Techniques that yield modules and break one rule of the conformance kit each; with ``mended`` they keep it.

All but one waive the rule ``onnx``, for an export takes longer than all else together.
"""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from cnnbench import technique

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.slots import CompressionContext, ServingContext

WAIVES = {"onnx": "its rule is another"}
STOP = threading.Event()
"""Ends the threads that ``bad_closes`` leaves behind."""


@torch.library.custom_op("bad_modules::hidden", mutates_args=())
def hidden(x: torch.Tensor) -> torch.Tensor:
    """An operator that no counter of multiply-adds knows."""
    return F.elu(x)


@hidden.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Layer(nn.Module):
    """ELU, or what a mistake makes of it.

    Args:
        mended: whether the mistake is absent.
    """

    def __init__(self, mended: bool) -> None:
        super().__init__()
        self.mended = mended

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x) if self.mended else self.wrong(x)

    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x)


class Single(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x.float())


class OnHost(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x) * torch.ones(1, dtype=x.dtype)


class Together(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x) - 0.1 * x.mean()


class Modeless(Layer):
    def train(self, mode: bool = True) -> Modeless:
        return super().train(mode) if self.mended else self


class Forgotten(Layer):
    def __init__(self, mended: bool) -> None:
        super().__init__(mended)
        self.slope = float(torch.rand(()))

    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu(x, self.slope)


class Remembering(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = F.elu(x)
        return self.seen


class Local(Layer):
    def __init__(self, mended: bool) -> None:
        super().__init__(mended)
        if not mended:
            self.function = lambda x: F.elu(x)  # noqa: PLW0108 - the very mistake


class Mixing(Layer):
    def __init__(self, mended: bool) -> None:
        super().__init__(mended)
        self.share = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.lerp(x, F.elu(x), self.share.to(x.dtype) if self.mended else self.share)


class Viewing(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        if self.training:
            return F.elu(x)
        return F.elu(x.view(n, c * h * w)).view(n, c, h, w)


class Steep(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return x * (x - x[:, :, :1, :1]).square().mean((2, 3), keepdim=True).sqrt()


class Branching(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return -x if x.sum() > 1e9 else F.elu(x)


class Unregistered(Layer):
    def __init__(self, mended: bool) -> None:
        super().__init__(mended)
        if not mended:
            self.slope = torch.tensor(0.1, requires_grad=True)

    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(x, self.slope * x)


class Hiding(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x) if self.training else hidden(x)


class Leaving(Layer):
    def wrong(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x) if x.requires_grad else torch.from_numpy(F.elu(x).numpy())


def activation(rule: str, layer: type[Layer]) -> type[Any]:
    """A technique of slot ``activation`` that puts a layer in place of each."""

    class Bad:
        """Breaks a rule, unless ``mended``.

        Ours, for the tests of the kit.
        """

        mended: bool = False

        def __call__(self, module: nn.Module) -> nn.Module:
            return layer(self.mended)

    waives = {} if rule == "onnx" else WAIVES
    if rule == "channels-last":  # the harness trains in that layout where a CPU is faster so
        waives = {**WAIVES, "effect": "its training ends where the layout is met"}
    return technique("activation", f"bad_{rule}", waives=waives)(Bad)


@technique("model", "bad_shapes-kept", waives=WAIVES)
class OneClassMore:
    """A network with a class too many, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(image_shape[0], 4, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, num_classes + (not self.mended)),
        )


@technique("activation", "bad_every-kind", waives=WAIVES)
class OnlyInPlace:
    """Asks each activation whether it works in place, which not every one says, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, module: nn.Module) -> nn.Module:
        known: Any = module
        return nn.ELU(inplace=getattr(known, "inplace", False) if self.mended else known.inplace)


@technique("activation", "bad_others-untouched", waives=WAIVES)
class Greedy:
    """Sets the biases of linear layers too, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, module: nn.Module) -> nn.Module:
        return nn.ELU()

    def finish(self, model: nn.Module) -> list[str]:
        """Change what it was not shown."""
        for module in model.modules():
            if isinstance(module, nn.Linear) and not self.mended:
                nn.init.constant_(module.bias, 0.5)
        return []


@technique("norm", "bad_left-alone", waives=WAIVES)
class Copying:
    """Group norm in place of batch norm; a copy of any other, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, module: nn.Module) -> nn.Module:
        if isinstance(module, nn.BatchNorm2d):
            return nn.GroupNorm(2, module.num_features)
        return module if self.mended else copy.deepcopy(module)


@technique("initializer", "bad_weights-in-place")
class Replacing:
    """Puts new parameters in place of linear weights, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                drawn = torch.randn(module.weight.shape, generator=generator)
                if self.mended:
                    module.weight.copy_(drawn)
                else:
                    module.weight = nn.Parameter(drawn)


class Centred(nn.Module):
    def __init__(self, mean: torch.Tensor, std: torch.Tensor, trainable: bool) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean.view(1, -1, 1, 1), requires_grad=trainable)
        self.std = nn.Parameter(std.view(1, -1, 1, 1), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


@technique("input", "bad_input-fixed")
class Trainable:
    """Each channel minus its mean, which no optimizer will see, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, images: torch.Tensor) -> nn.Module:
        mean = images.float().mean((0, 2, 3)) / 255
        return Centred(mean, torch.ones_like(mean), trainable=not self.mended)


@technique("input", "bad_constant-images")
class Unguarded:
    """Each channel minus its mean, over its standard deviation, even if that is 0, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, images: torch.Tensor) -> nn.Module:
        std, mean = torch.std_mean(images.float() / 255, (0, 2, 3))
        return Centred(mean, std.clamp(min=1e-3) if self.mended else std, trainable=False)


@technique("compressor", "bad_cheaper", waives=WAIVES)
class Idle:
    """Compresses nothing, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        if self.mended:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter[parameter.abs() < 0.01] = 0
        return model


@technique("runtime", "bad_agrees")
class Inexact:
    """Serves other logits than the model's, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, model: nn.Module, context: ServingContext) -> Callable[[torch.Tensor], torch.Tensor]:
        return model if self.mended else lambda x: model(x) * 1.1


class Threaded:
    def __init__(self, model: nn.Module, stops: bool) -> None:
        self.model, self.stops, self.end = model, stops, threading.Event()
        threading.Thread(target=self.wait, daemon=True, name="bad_closes").start()

    def wait(self) -> None:
        """Until it is closed, or all are."""
        while not (self.end.wait(0.05) or STOP.is_set()):
            pass

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(x)
        return found

    def close(self) -> None:
        """Let the thread go, if that was thought of."""
        if self.stops:
            self.end.set()
            for thread in threading.enumerate():
                if getattr(thread, "_target", None) == self.wait:
                    thread.join()


@technique("runtime", "bad_closes")
class Lingering:
    """Keeps a thread after it was closed, unless ``mended``.

    Ours, for the tests of the kit.
    """

    mended: bool = False

    def __call__(self, model: nn.Module, context: ServingContext) -> Callable[[torch.Tensor], torch.Tensor]:
        return Threaded(model, self.mended)


BAD: dict[str, tuple[type[Any], str]] = {
    "shapes-kept": (OneClassMore, "the module gives [3, 5], expected a tensor [3, 4]"),
    "dtypes-kept": (activation("dtypes-kept", Single), "moved to torch.float64"),
    "devices-kept": (activation("devices-kept", OnHost), "at least two devices, cuda:0 and cpu"),
    "images-apart": (activation("images-apart", Together), "of one image by itself and of the same in a batch of 6"),
    "train-and-eval": (activation("train-and-eval", Modeless), "eval() does not reach '2'"),
    "state-dict": (activation("state-dict", Forgotten), "a fresh one with its state_dict computes something else"),
    "deepcopy": (activation("deepcopy", Remembering), "copied after a forward pass, it raises RuntimeError"),
    "process-transfer": (activation("process-transfer", Local), "lambda"),
    "autocast": (activation("autocast", Mixing), "under autocast to bfloat16 it raises RuntimeError"),
    "channels-last": (activation("channels-last", Viewing), "in channels-last memory layout it raises RuntimeError"),
    "gradients-finite": (activation("gradients-finite", Steep), "on images of zeros among others the gradient of"),
    "onnx": (activation("onnx", Branching), "torch.export can't trace Sequential"),
    "parameters-counted": (activation("parameters-counted", Unregistered), "a tensor [] gets gradients and is no"),
    "flops-counted": (activation("flops-counted", Hiding), "it runs bad_modules::hidden"),
    "every-kind": (OnlyInPlace, "given PReLU(num_parameters=8) it raises AttributeError"),
    "others-untouched": (Greedy, "it changed '7', Linear(in_features=16, out_features=4, bias=True)"),
    "left-alone": (Copying, "network 'strided' it gives back an equal copy of '1', GroupNorm"),
    "weights-in-place": (Replacing, "parameter '7.weight' is another object afterwards"),
    "input-fixed": (Trainable, "parameter 'mean' of the fitted module wants gradients"),
    "constant-images": (Unguarded, "fitted to images of one value it gives values that are not finite"),
    "cheaper": (Idle, "neither parameters, multiply-adds nor sizes become less"),
    "agrees": (Inexact, "for a batch of 1, the output differs by up to"),
    "closes": (Lingering, "closed, it leaves the thread 'bad_closes' running"),
}
"""By the rule that it breaks: a technique, and words that the finding must have."""


def make(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A network for model ``import``."""
    return OneClassMore(mended=True)(image_shape, num_classes)
