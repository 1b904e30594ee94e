"""What torchvision's networks share here: small stem, channels of the images, weights from a file or by name."""

from __future__ import annotations

from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cnnbench import errors
from cnnbench.lazy import torch
from cnnbench_plugins import _state_file
from cnnbench_plugins.model._probe import check_logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.lazy import nn

Weights = Literal["DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V2"] | Path
"""What the option ``weights`` takes: a name among torchvision's published weights, or a file."""

_SMALL_BELOW = 64


def is_small(image_shape: tuple[int, int, int], small_stem: bool | None) -> bool:
    """Whether the early downsampling goes: as asked or, where nothing is said, under 64 pixels (the shorter side)."""
    return min(image_shape[1:]) < _SMALL_BELOW if small_stem is None else small_stem


def fingerprint(weights: Weights | None) -> str:
    """Version of torchvision, and the digest of the weights' file where one is named.

    Raises:
        UsageError: there is no such file.
    """
    file = _state_file.fingerprint(weights) if isinstance(weights, Path) else ""
    return f"{version('torchvision')}-{file}"


def check_published(weights: Weights | None, arch: str | None, which: str) -> None:
    """Refuse a name of published weights where torchvision has no such network.

    Args:
        weights: the option's value.
        arch: torchvision's name of the network; None where it has none with these options.
        which: the options that it has weights for, in words.

    Raises:
        ValueError: there are no published weights.
    """
    if isinstance(weights, str) and arch is None:
        raise ValueError(f"weights {weights!r} are published for {which} only: name a file, or leave weights out")


def adapt(
    model: nn.Module,
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    small_stem: bool | None,
    weights: Weights | None,
    arch: str | None,
) -> nn.Module:
    """Fit one of torchvision's networks to the images, in place, load its weights, and ask it for logits once.

    Args:
        model: as torchvision builds it, with the right number of classes.
        name: what messages call it.
        image_shape: (C, H, W).
        num_classes: K.
        small_stem: take the early downsampling out; None does so under 64 pixels where the family has such a stem.
        weights: to start from.
        arch: torchvision's name, which published weights go by.

    Raises:
        UsageError: the weights don't fit, or torchvision has none of that name.
        Unsupported: no images of this size, no small stem though one is asked for, or weights that can't be had.
    """
    from cnnbench_plugins.model._stems import set_channels, shrink_stem

    if is_small(image_shape, small_stem) and not shrink_stem(model) and small_stem:
        raise errors.Unsupported(f"{name} has no small stem: leave out small_stem, or use larger images")
    set_channels(model, image_shape[0])
    if weights is not None:
        load_weights(model, weights, name, arch)
    check_logits(model, image_shape, num_classes, name)
    return model


def build_published(
    arch: str,
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    small_stem: bool | None,
    weights: Weights | None,
) -> nn.Module:
    """One of torchvision's networks by its name there, fitted to the images; arguments and errors as of ``adapt``."""
    from torchvision import models

    model = models.get_model(arch, num_classes=num_classes)
    return adapt(model, name, image_shape, num_classes, small_stem=small_stem, weights=weights, arch=arch)


def load_weights(model: nn.Module, weights: Weights, name: str, arch: str | None) -> None:
    """Copy weights into a model, in place: everything but the classifier must fit.

    The classifier is the model's outermost module that holds its last linear layer (or convolution). What does not fit
    there, by name or shape, stays fresh.

    Args:
        model: any classifier.
        weights: a file, or a name of published weights.
        name: what messages call the model.
        arch: torchvision's name of it, None where it has none.

    Raises:
        UsageError: a tensor is missing, too many, or of another shape, or torchvision has no weights of that name.
        Unsupported: the file can't be read, or the weights can't be downloaded.
    """
    if isinstance(weights, Path):
        state, where = _state_file.read_state(weights), f"weights {weights}"
    else:
        assert arch is not None
        state, where = _published(arch, weights), f"weights {weights}"
    _load(model, state, name, where)


def _load(model: nn.Module, state: Mapping[str, torch.Tensor], name: str, where: str) -> None:
    from cnnbench_plugins.model._stems import head_of

    own = model.state_dict()
    classifier = f"{head_of(model).partition('.')[0]}."
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    for key, value in own.items():
        if key in fitting or key.startswith(classifier):
            continue
        if key not in state:
            raise errors.UsageError(f"{where}: {key} is missing; is it a state dict of {name}?")
        raise errors.UsageError(
            f"{where}: {key} has shape {list(state[key].shape)}, the network {list(value.shape)} (small_stem = false "
            "keeps the original stem; the first convolution has the images' channels)"
        )
    unknown = [key for key in state if key not in own and not key.startswith(classifier)]
    if unknown:
        raise errors.UsageError(f"{where}: {min(unknown)} is not a tensor of {name}")
    model.load_state_dict(fitting, strict=False)


def _published(arch: str, name: str) -> dict[str, torch.Tensor]:
    """Torchvision's weights, from its cache folder or else from the network; its builder renames old tensors."""
    from torchvision import models

    known = models.get_model_weights(arch)
    if name not in known.__members__:
        raise errors.UsageError(f"torchvision has no weights {name} of {arch}; it has {', '.join(known.__members__)}")
    options = {"aux_logits": False} if arch == "inception_v3" else {}
    try:
        with torch.random.fork_rng(devices=[]):
            built: nn.Module = models.get_model(arch, weights=known[name], progress=False, **options)
    except (OSError, HTTPException, RuntimeError) as error:  # the last where the download's digest is wrong
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise errors.Unsupported(
            f"weights {name} of {arch} can't be had from {known[name].url}: {reason}; fetch them where there is a "
            "network and name the file"
        ) from error
    return built.state_dict()
