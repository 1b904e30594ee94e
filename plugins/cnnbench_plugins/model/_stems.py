"""Fits torchvision's classifiers, made for 224 x 224 RGB, to the images at hand."""

from __future__ import annotations

import math

from torch import nn


def shrink_stem(model: nn.Module) -> bool:
    """Take the early downsampling out of a network in place; False where its family has none that is known.

    A 7x7 convolution of stride 2 becomes 3x3 of stride 1, one of 3x3 loses its stride, and a max pooling right after
    it goes: what CIFAR versions of these families do (He et al. 2016, section 4.2; Huang et al. 2017, section 3).
    ConvNeXt's patches of 4x4 pixels become 2x2.
    """
    family = type(model).__name__
    if family not in _STEMS:
        return False
    conv_name, pool_name = _STEMS[family]
    conv = model.get_submodule(conv_name)
    if not isinstance(conv, nn.Conv2d):
        return False
    if family == "ConvNeXt":
        _put(model, conv_name, _fresh(conv, kernel=2, stride=2))
    elif conv.kernel_size != (3, 3):
        _put(model, conv_name, _fresh(conv, kernel=3, padding=1))
    else:
        conv.stride, conv.padding = (1, 1), (1, 1)
    if pool_name:
        _put(model, pool_name, nn.Identity())
    return True


# Class: the first convolution, and the max pooling after it where CIFAR versions leave it out.
_STEMS = {
    "ResNet": ("conv1", "maxpool"),
    "DenseNet": ("features.conv0", "features.pool0"),
    "GoogLeNet": ("conv1.conv", "maxpool1"),
    "ShuffleNetV2": ("conv1.0", "maxpool"),
    "SqueezeNet": ("features.0", "features.2"),
    "MobileNetV2": ("features.0.0", ""),
    "MobileNetV3": ("features.0.0", ""),
    "EfficientNet": ("features.0.0", ""),
    "MNASNet": ("layers.0", ""),
    "RegNet": ("stem.0", ""),
    "ConvNeXt": ("features.0.0", ""),
}


def set_channels(model: nn.Module, channels: int) -> None:
    """Give the first convolution so many input channels, in place, if it has another number."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != channels:
                _put(model, name, _fresh(module, in_channels=channels))
            return


def head_of(model: nn.Module) -> str:
    """Name of the last layer with weights that makes logits: the classifier."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return names[-1]


def _fresh(
    old: nn.Conv2d, *, in_channels: int | None = None, kernel: int | None = None, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    """A convolution like ``old`` with another input or kernel, initialized by He et al. 2015 (fan-out, as these nets).

    ``stride`` and ``padding`` come with a changed kernel.
    """
    new = nn.Conv2d(
        in_channels or old.in_channels,
        old.out_channels,
        (kernel, kernel) if kernel else old.kernel_size,  # type: ignore[arg-type]
        (stride, stride) if kernel else old.stride,  # type: ignore[arg-type]
        (padding, padding) if kernel else old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    fan_out = new.out_channels * math.prod(new.kernel_size)
    nn.init.normal_(new.weight, std=math.sqrt(2 / fan_out))
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
