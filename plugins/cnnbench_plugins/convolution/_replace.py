"""What all convolution designs need: the old convolution's geometry, and a new one in its manner."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, cast

from cnnbench.errors import Unsupported
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    Pair = tuple[int, int]

Between = Literal["norm_relu", "relu", "none"]
"""What stands between two convolutions that take the place of one."""

IMAGE_CHANNELS = 3
"""A convolution of no more input channels than this sees the image: gray or RGB."""


def plain(module: nn.Module) -> nn.Conv2d:
    """The module as a convolution of which torch's class tells everything.

    Raises:
        Unsupported: it is of a subclass, which may pad, weight or initialize in a way of its own.
    """
    if type(module) is not nn.Conv2d:
        raise Unsupported(f"{type(module).__name__} may do more than torch's Conv2d, which alone can be replaced")
    return module


def pair(value: Any) -> Pair:
    """A convolution's kernel size, stride, dilation or padding as numbers, height first."""
    return cast("Pair", tuple(value))


def padding_of(conv: nn.Conv2d) -> Pair | Literal["same"]:
    """Rows and columns added on each side; ``"same"`` stays, since it adapts to any kernel by itself."""
    if conv.padding == "same":
        return "same"
    return (0, 0) if conv.padding == "valid" else pair(conv.padding)


def like(
    old: nn.Conv2d,
    *,
    in_channels: int | None = None,
    kernel_size: Pair | None = None,
    stride: Pair | None = None,
    padding: Pair | str | None = None,
    dilation: Pair | None = None,
    groups: int | None = None,
    out_channels: int | None = None,
    last: bool = True,
) -> nn.Conv2d:
    """A fresh convolution as ``old`` is, but for what is given.

    Weights are torch's default draws, scaled to rms(new) sqrt(fan_in(new)) = rms(old) sqrt(fan_in(old)), so that the
    output's variance is what the model's own initialization made it and the design is all that changes. The ``last``
    of a chain has the old bias; those before it have a bias of their own, or none where the old one has none, and are
    never all zero.
    """
    new = nn.Conv2d(
        in_channels or old.in_channels,
        out_channels or old.out_channels,
        kernel_size or pair(old.kernel_size),
        stride or pair(old.stride),
        cast("Any", old.padding if padding is None else padding),
        dilation or pair(old.dilation),
        groups or old.groups,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    with torch.no_grad():
        factor = _gain(old) / _gain(new)
        new.weight.mul_(factor if last else torch.where(factor > 0, factor, 1))
        if last and new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    return new


def chain(first: nn.Conv2d, second: nn.Conv2d, between: Between, *more: nn.Conv2d) -> nn.Sequential:
    """Convolutions one after the other, each pair with what stands ``between`` them.

    A norm takes the bias of the convolution in front of it, which it would cancel.
    """
    convs = (first, second, *more)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, conv in enumerate(convs, start=1):
        layers[f"conv{number}"] = conv
        if number == len(convs) or between == "none":
            continue
        if between == "norm_relu":
            conv.bias = None
            layers[f"norm{number}"] = nn.BatchNorm2d(conv.out_channels)
        layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


def _gain(conv: nn.Conv2d) -> torch.Tensor:
    """Output's standard deviation over the input's, for independent inputs."""
    return (conv.weight.square().mean() * conv.weight[0].numel()).sqrt()
