"""Torchvision's classification networks."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import Unsupported, UsageError
from cnnbench.registry import nearest
from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, adapt, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnnbench.lazy import nn

_REGISTERED = re.compile(r"^@register_model\(.*\)\n(?:@.*\n)*def (\w+)", re.MULTILINE)


@technique("model", "torchvision", example={"arch": "squeezenet1_1"})
class TorchvisionModel:
    """A torchvision classification network by its name, fitted to small images, gray images and any class count.

    Weights are torchvision's own initialization unless ``weights`` names others. The first convolution takes the
    images' channels and the classifier has one output a class. For images under 64 pixels (the shorter side) the early
    downsampling is taken out, as the CIFAR versions of these families have it: in ResNets, ResNeXts, DenseNets,
    ShuffleNets, SqueezeNets and GoogLeNet a 3x3 convolution of stride 1 in place of the strided one, without the max
    pooling after it; in MobileNets, EfficientNets, MNASNets and RegNets the first stride is 1; ConvNeXts take patches
    of 2x2 in place of 4x4. Convolutions replaced thereby are initialized by He et al. 2015 with fan-out, std = sqrt(2 /
    (out_channels kH kW)).

    Auxiliary classifiers (GoogLeNet, Inception) are left out. Vision transformers are built for the images' size.
    AlexNet (63 pixels), Inception v3 (75) and VGG (32) need larger images and say so.

    Attributes:
        arch: torchvision's name, e.g. ``"mobilenet_v2"``.
        small_stem: take the early downsampling out; None does so under 64 pixels where the family has such a stem.
        weights: what to start from: a state dict (a file that ``torch.save`` wrote, or safetensors), or one of the
            names that torchvision publishes weights under, which are downloaded. The classifier (the outermost module
            that holds the last layer) may have another number of classes and stays fresh where it does not fit;
            everything else must fit. Published weights were trained on colour images with ImageNet's mean and deviation
            taken out.
    """

    arch: str
    small_stem: bool | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        known = arch_names()
        if known and self.arch not in known:
            raise ValueError(_unknown(self.arch, known))

    def fingerprint(self) -> str:
        """Version of torchvision and digest of the weights' file. Raises ``UsageError`` where that is missing."""
        return fingerprint(self.weights)

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: there is no such network, or the weights don't fit.
            Unsupported: the network can't take images of this size, its family has no small stem, or the weights can't
                be had.
        """
        model = _build(self.arch, num_classes, image_shape[1:])
        return adapt(
            *(model, self.arch, image_shape, num_classes),
            small_stem=self.small_stem,
            weights=self.weights,
            arch=self.arch,
        )


@cache
def arch_names() -> frozenset[str]:
    """Names of torchvision's classification networks, read from its source: importing it takes seconds.

    Empty where the source is not as expected; then a wrong name shows when the network is built.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8")))


def _unknown(arch: str, known: Iterable[str]) -> str:
    hint = nearest(arch, known) or "torchvision.models.list_models() lists them"
    return f"unknown torchvision network {arch!r}: {hint}"


def _build(arch: str, num_classes: int, size: tuple[int, int]) -> nn.Module:
    """The network as torchvision makes it, without auxiliary classifiers."""
    import torchvision.models

    if arch not in (known := torchvision.models.list_models(module=torchvision.models)):
        raise UsageError(_unknown(arch, known))
    options: dict[str, Any] = {}
    if arch in {"googlenet", "inception_v3"}:
        options = {"aux_logits": False, "init_weights": True}
    elif arch.startswith("vit_"):
        options = {"image_size": size[0]}
    elif arch.startswith("maxvit"):
        options = {"input_size": size}
    try:
        model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
    except (RuntimeError, ValueError, AssertionError) as error:
        what = f"{size[0]} x {size[1]} images"
        raise Unsupported(f"{arch} can't be built for {what}: {str(error).partition(chr(10))[0]}") from error
    return model


TECHNIQUES = (TorchvisionModel,)
