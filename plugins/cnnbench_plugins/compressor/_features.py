"""What comes out of a network's layers on the way: which there are, and how to hold on to them."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cnnbench.errors import Unsupported
from cnnbench.registry import nearest
from cnnbench_plugins.strategy._combined import Ensemble, ViewAverage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Size = tuple[int, int]


@contextmanager
def captured(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Outputs of layers by name, as of the last forward pass, in float32; the hooks are gone afterwards."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, args: Any, output: torch.Tensor) -> None:  # noqa: ARG001 - a hook's signature
        found[name] = output.float()

    handles = [model.get_submodule(name).register_forward_hook(functools.partial(keep, name)) for name in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def embeddings(
    model: nn.Module, layer: str | None, example: torch.Tensor, whose: str
) -> Iterator[Callable[[], torch.Tensor]]:
    """A function that gives a vector for each image of the last forward pass, [N, D], in float32.

    It is the output of a layer, or of whatever enters the classifier; feature maps are averaged over their pixels.

    Args:
        model: left in eval mode.
        layer: by name; None for the classifier's input.
        example: one or more model inputs.
        whose: the model's part, for messages.

    Raises:
        Unsupported: no such layer, or no classifier.
    """
    if layer is not None:
        check_layer(model, layer, whose)
        with captured(model, [layer]) as found:
            yield lambda: _vectors(found[layer])
        return
    entered: list[torch.Tensor] = []

    def keep(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:  # noqa: ARG001 - a hook's signature
        entered[:] = [args[0].float()]

    handle = model.get_submodule(classifier(model, example)).register_forward_pre_hook(keep)
    try:
        yield lambda: _vectors(entered[0])
    finally:
        handle.remove()


def _vectors(features: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] averaged over pixels, anything else flattened, to [N, D]."""
    return features.mean((2, 3)) if features.ndim == 4 else features.flatten(1)


def feature_maps(model: nn.Module, example: torch.Tensor) -> dict[str, torch.Size]:
    """Shapes [N, C, H, W] of all feature maps by layer, in the order in which the layers finish.

    A layer is any module inside the model, blocks and stages included. Maps of a single pixel are left out.

    Args:
        model: left in eval mode.
        example: one or more model inputs.
    """
    shapes: dict[str, torch.Size] = {}

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 - a hook's signature
        shapes.pop(name, None)
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            shapes[name] = output.shape

    _run_with(model, example, note)
    return shapes


def classifier(model: nn.Module, example: torch.Tensor) -> str:
    """Name of the linear layer or convolution that runs last.

    Raises:
        Unsupported: the model has neither.
    """
    ran: list[str] = []

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 - a hook's signature
        if isinstance(module, nn.Linear | nn.Conv2d):
            ran.append(name)

    _run_with(model, example, note)
    if not ran:
        raise Unsupported(f"{type(model).__name__} has no linear layer or convolution that could be its classifier")
    return ran[-1]


def _run_with(model: nn.Module, example: torch.Tensor, note: Any) -> None:
    """One forward pass in eval mode; ``note(name, module, args, output)`` hears of every module inside."""
    inner = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_hook(functools.partial(note, name)) for name, module in inner]
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for handle in handles:
            handle.remove()


def check_teacher(teacher: nn.Module) -> None:
    """Raise ``Unsupported`` where a teacher's answers are a mean, whose features would be those of one share of it."""
    for module in teacher.modules():
        if isinstance(module, Ensemble):
            what, strategy = "is an ensemble, whose members have features of their own", "the ensemble"
        elif isinstance(module, ViewAverage):
            what, strategy = "looks at several views of each image, which differ in features", "test_time_augmentation"
        else:
            continue
        raise Unsupported(f"the teacher {what}: use distill, which learns from its answers alone, or drop {strategy}")


def check_layer(model: nn.Module, layer: str, whose: str) -> None:
    """Raise ``Unsupported`` with the nearest name where the model has no such layer."""
    known = [name for name, _ in model.named_modules() if name]
    if layer not in known:
        raise Unsupported(f"the {whose} has no layer {layer!r}: {nearest(layer, known)}".removesuffix(": "))


def map_of(maps: dict[str, torch.Size], model: nn.Module, layer: str, whose: str) -> torch.Size:
    """Shape of the feature map of a layer that an option names.

    Raises:
        Unsupported: no such layer, or its output is no map.
    """
    check_layer(model, layer, whose)
    if layer not in maps:
        raise Unsupported(f"layer {layer!r} of the {whose} makes no feature map [N, C, H, W] of more than one pixel")
    return maps[layer]


def common_stages(student: dict[str, torch.Size], teacher: dict[str, torch.Size]) -> list[tuple[str, str]]:
    """Pairs of a student's and a teacher's layer: for each size that both have, the last map of that size.

    Sizes come in the student's order, from input to output.

    Raises:
        Unsupported: no size is common; names both lists.
    """
    own, taught = _last_of_each_size(student), _last_of_each_size(teacher)
    pairs = [(own[size], taught[size]) for size in own if size in taught]
    if not pairs:
        sizes = [", ".join(f"{height} x {width}" for height, width in each) or "none" for each in (own, taught)]
        raise Unsupported(f"no feature maps match: the student's sizes are {sizes[0]}, the teacher's {sizes[1]}")
    return pairs


def _last_of_each_size(maps: dict[str, torch.Size]) -> dict[Size, str]:
    found: dict[Size, str] = {}
    for name, shape in maps.items():
        found[shape[2], shape[3]] = name
    return found
