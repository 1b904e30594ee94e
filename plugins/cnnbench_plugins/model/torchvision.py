"""Torchvision's classification networks."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import Unsupported, UsageError
from cnnbench.lazy import torch
from cnnbench.registry import digest_of_files, nearest
from cnnbench.technique import technique
from cnnbench_plugins.model._probe import check_logits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnnbench.lazy import nn

_SMALL_BELOW = 64
_REGISTERED = re.compile(r"^@register_model\(.*\)\n(?:@.*\n)*def (\w+)", re.MULTILINE)


@technique("model", "torchvision")
class TorchvisionModel:
    """A torchvision classification network by its name, fitted to small images, gray images and any class count.

    Weights are torchvision's own initialization (nothing is downloaded). The first convolution takes the images'
    channels and the classifier has one output a class. For images under 64 pixels (the shorter side) the early
    downsampling is taken out, as the CIFAR versions of these families have it: in ResNets, ResNeXts, DenseNets,
    ShuffleNets, SqueezeNets and GoogLeNet a 3x3 convolution of stride 1 in place of the strided one, without the max
    pooling after it; in MobileNets, EfficientNets, MNASNets and RegNets the first stride is 1. Convolutions replaced
    thereby are initialized by He et al. 2015 with fan-out, std = sqrt(2 / (out_channels kH kW)).

    Auxiliary classifiers (GoogLeNet, Inception) are left out. Vision transformers are built for the images' size.
    AlexNet (63 pixels), Inception v3 (75) and VGG (32) need larger images and say so.

    Attributes:
        arch: torchvision's name, e.g. ``"mobilenet_v2"``.
        small_stem: take the early downsampling out; None does so under 64 pixels where the family has such a stem.
        weights: a state dict (a file that ``torch.save`` wrote) to start from. Its classifier may have another number
            of classes and is then left out; everything else must fit.
    """

    arch: str
    small_stem: bool | None = None
    weights: Path | None = None

    def __post_init__(self) -> None:
        known = arch_names()
        if known and self.arch not in known:
            raise ValueError(_unknown(self.arch, known))

    def fingerprint(self) -> str:
        """Version of torchvision and digest of the weights' file. Raises ``UsageError`` where that is missing."""
        from importlib.metadata import version

        return f"{version('torchvision')}-{digest_of_files([self._file()] if self.weights else [])}"

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: the weights' file is missing, corrupt or doesn't fit.
            Unsupported: the network can't take images of this size, or its family has no small stem.
        """
        from cnnbench_plugins.model._stems import set_channels, shrink_stem

        channels, height, width = image_shape
        small = min(height, width) < _SMALL_BELOW if self.small_stem is None else self.small_stem
        model = _build(self.arch, num_classes, (height, width))
        if small and not shrink_stem(model) and self.small_stem:
            raise Unsupported(f"{self.arch} has no small stem: leave out small_stem, or use larger images")
        set_channels(model, channels)
        if self.weights is not None:
            self._load_into(model)
        check_logits(model, image_shape, num_classes, self.arch)
        return model

    def _file(self) -> Path:
        assert self.weights is not None
        if not self.weights.is_file():
            raise UsageError(f"weights {self.weights}: no such file")
        return self.weights

    def _load_into(self, model: nn.Module) -> None:
        from cnnbench_plugins.model._stems import head_of

        try:
            saved: Any = torch.load(self._file(), map_location="cpu", weights_only=True)
        except Exception as error:  # what is no pickle fails anywhere in the unpickler
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"weights {self.weights}: not a state dict of plain tensors: {reason}") from error
        if not isinstance(saved, dict) or not all(isinstance(value, torch.Tensor) for value in saved.values()):
            raise UsageError(f"weights {self.weights}: not a state dict of plain tensors but a {type(saved).__name__}")
        own = model.state_dict()
        head = head_of(model)
        saved = {
            name: value
            for name, value in saved.items()
            if not (name.startswith(f"{head}.") and name in own and value.shape != own[name].shape)
        }
        for name, value in own.items():
            where = f"weights {self.weights}: {name}"
            if name not in saved:
                if not name.startswith(f"{head}."):
                    raise UsageError(f"{where} is missing; is it a state dict of {self.arch}?")
            elif saved[name].shape != value.shape:
                raise UsageError(
                    f"{where} has shape {list(saved[name].shape)}, the network {list(value.shape)} (small_stem = false "
                    "keeps the original stem; the first convolution has the images' channels)"
                )
        if unknown := saved.keys() - own.keys():
            raise UsageError(f"weights {self.weights}: {min(unknown)} is not a tensor of {self.arch}")
        model.load_state_dict(saved, strict=False)


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
