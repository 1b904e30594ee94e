"""Swaps modules in any model, and says which operations a swap can't reach.

A model calls some operations as modules (``self.relu(x)``) and some as functions (``F.relu(x)``). Only modules can be
swapped; the functional calls are found by symbolic tracing and reported, so that a table never claims "SiLU
everywhere" where half of the network still computes ReLU.

A new module that can't tell its sizes from the one it replaces is one of torch's lazy modules; ``materialize`` settles
them all once the surgery is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.technique import card_of
from cnnbench.tracing import called, joined, traced_graphs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx

    from cnnbench.slots import Surgery


TARGETS: dict[str, tuple[type[nn.Module], ...]] = {
    # LocalResponseNorm has no channels to hand over; 1d and 3d norms don't see images.
    "norm": (nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm),
    # Not Softmax, LogSoftmax, Softmin and LogSigmoid, which are outputs; not GLU, which halves the channels.
    "activation": (
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
        *(nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Softshrink),
        *(nn.Hardshrink, nn.Tanhshrink, nn.Threshold),
    ),
    # Windows and global pools alike: a technique that knows only one of the two returns the other as it came.
    "pooling": (
        *(nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d),
        *(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    ),
    "convolution": (nn.Conv2d,),
}
"""The classes that each slot's surgery replaces, subclasses included; ``norm`` has torchvision's FrozenBatchNorm2d too.

Functions and tensor methods of the same names are the functional calls that it can't reach.
"""

_GATES = (nn.Sigmoid, nn.Hardsigmoid)
_PRODUCTS = frozenset({"mul", "multiply"})
_RESHAPES = frozenset({"view", "reshape", "expand", "expandas", "unsqueeze", "squeeze", "getitem", "flatten"})
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class SurgeryReport:
    """What a surgery did.

    Attributes:
        swapped: module objects replaced; one that the model uses in several places counts once.
        unreached: functional calls and modules of the slot's kind that stay as they were, one entry for each kind, e.g.
            ``F.relu (94 calls, first in Conv2d_1a_3x3)``. Parts that can't be traced contribute no functional calls.
    """

    swapped: int
    unreached: tuple[str, ...] = ()


def replace_modules(
    model: nn.Module, wanted: Callable[[nn.Module], bool], make: Callable[[nn.Module], nn.Module]
) -> int:
    """Replace modules at any depth, in place.

    A module object that the model holds under several names has one replacement under all of them. A replacement takes
    over training mode, device and dtype; its own submodules are not searched, so it may wrap the original.

    Args:
        model: any model.
        wanted: says which modules to replace.
        make: from the old module, the new one; the same object means: left alone.

    Returns:
        The number of module objects replaced.

    Raises:
        Unsupported: ``model`` itself is wanted, so that there is no place to put a replacement; or ``make`` raised it,
            with the module's path put in front.
    """
    if wanted(model):
        raise Unsupported(f"the model is itself a {type(model).__name__}: only modules inside a model can be swapped")
    made: dict[nn.Module, nn.Module] = {}
    swapped: tuple[str, ...] = ()
    for path, old in list(model.named_modules(remove_duplicate=False)):
        if path.startswith(swapped) or not wanted(old):
            continue
        if old not in made:
            try:
                made[old] = _fit(make(old), old, model)
            except Unsupported as error:
                error.args = (f"{path}: {error}",)
                raise
        if made[old] is not old:
            model.set_submodule(path, made[old])
            swapped += (f"{path}.",)
    return sum(new is not old for old, new in made.items())


def apply_surgery(slot: str, technique: Surgery, model: nn.Module) -> SurgeryReport:
    """Put a technique's modules in place of the model's own, in place.

    Sigmoids whose output does nothing but multiply other features (squeeze-and-excitation, attention gates) are no
    activations and stay, and so do the global pools that such a gate begins with. In-place flags that the old modules
    tolerated and the new ones may not are switched off. Last comes the technique's ``finish``, if it has one.

    Args:
        slot: ``norm``, ``activation``, ``pooling`` or ``convolution``.
        technique: of that slot.
        model: any model.

    Raises:
        NoEffect: no module was replaced; the message names functional calls that would have been meant.
        Unsupported: the technique can't stand in for one of the modules.
    """
    kinds = _kinds(slot)
    graphs = list(graphs_of(model, kinds))
    kept = gates_of(model, graphs) if slot == "activation" else _squeezes(model, graphs) if slot == "pooling" else set()
    aside = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, kinds) and not _reachable(module) and path
    ]
    identities: list[nn.Module] = []

    def make(old: nn.Module) -> nn.Module:
        new = technique(old)
        if isinstance(new, nn.Identity) and new is not old:
            identities.append(new)
        return new

    def meant(module: nn.Module) -> bool:
        return isinstance(module, kinds) and _reachable(module) and module not in kept

    swapped = replace_modules(model, meant, make)
    changed = kinds if slot != "pooling" else tuple(kind for kind in kinds if not _leaves_alone(technique, kind))
    unreached = _summary(
        [(_label(node), path, "calls") for path, node in _functional(graphs, changed)]
        + [(type(module).__name__, path, "modules") for path, module in aside]
    )
    if not swapped:
        changeable = any(map(meant, model.modules()))
        why = f"none of whose {slot} modules it changes" if changeable else f"which has no {slot} module to change"
        hint = f"; out of reach are {', '.join(unreached)}" if unreached else ""
        card = card_of(technique)  # of another slot where a regularizer stands behind activations
        raise NoEffect(f"{card.slot} {card.name!r} replaced no module of the model, {why}{hint}")
    if hasattr(technique, "finish"):
        unreached += tuple(technique.finish(model))
    _undo_inplace(model, everywhere=bool(identities))
    return SurgeryReport(swapped, unreached)


def graphs_of(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, fx.Graph]]:
    """``traced_graphs`` of a model under surgery.

    Modules of ``kinds``, those that any slot swaps, and lazy ones are single nodes, wherever they come from.
    """
    swapped = tuple(kind for targets in TARGETS.values() for kind in targets)

    def whole(module: nn.Module) -> bool:
        # A lazy module would take its sizes from the symbols that tracing hands it, a norm its statistics.
        return isinstance(module, (*kinds, LazyModuleMixin)) or (isinstance(module, swapped) and _childless(module))

    return traced_graphs(model, whole)


def materialize(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Give every lazy module of a model its sizes by one dry run on blank images; without any, do nothing.

    The run is in eval mode and without gradients; training mode and buffers are as before afterwards. Random numbers
    are drawn from torch's default generator, for the new weights and by whatever the forward pass itself draws.

    Args:
        model: any model; its lazy modules become what they declare to (``nn.LazyConv2d`` an ``nn.Conv2d``).
        image_shape: channels, height and width of the model's inputs.

    Raises:
        Unsupported: the model does not run on such images, or its forward pass leaves a lazy module out.
    """
    if not _lazy(model):
        return
    tensors = (*model.parameters(), *model.buffers())
    like = next(tensor for tensor in tensors if tensor.dtype.is_floating_point)
    modes = {module: module.training for module in model.modules()}
    before = [(buffer, buffer.clone()) for buffer in model.buffers() if not is_lazy(buffer)]
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(2, *image_shape, device=like.device, dtype=like.dtype))
            for buffer, value in before:
                buffer.copy_(value)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        shape = "x".join(map(str, image_shape))
        raise Unsupported(f"the model does not run on {shape} images after the surgery: {reason}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    if left := _lazy(model):
        raise Unsupported(f"{left[0]}: the forward pass never calls this module, so that its sizes stay unknown")


def fold_for_inference(model: nn.Module) -> None:
    """Put plain modules in place of those that compute something extra for training alone, in place.

    A module that amounts to a plain one at inference has ``folded() -> nn.Module``, which makes that. Compressors,
    counters and runtimes then meet an ordinary network; trained on, it no longer has what was folded.

    Args:
        model: a trained model; its outputs in eval mode stay as they were, but for rounding.
    """
    replace_modules(model, lambda module: hasattr(module, "folded"), lambda module: cast("Any", module).folded())


def _lazy(model: nn.Module) -> list[str]:
    """Paths of the modules that don't know their sizes yet."""
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, LazyModuleMixin)
        or any(map(is_lazy, (*module.parameters(recurse=False), *module.buffers(recurse=False))))
    ]


def _fit(new: nn.Module, old: nn.Module, model: nn.Module) -> nn.Module:
    """Give a replacement the mode, device and dtype of what it replaces, or of the model where that has none."""
    if new is old:
        return new
    for module in (old, model):
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dtype.is_floating_point:  # the method is not to be had of an uninitialized parameter
                return new.to(tensor.device, tensor.dtype).train(old.training)
    return new.train(old.training)


def _leaves_alone(technique: Surgery, kind: type[nn.Module]) -> bool:
    """Whether a technique doesn't mean pools of a kind, such as those over windows where it is about global ones."""
    try:
        with torch.random.fork_rng(devices=[]):
            example = kind(2)
            return technique(example) is example
    except (TypeError, ValueError, Unsupported):  # pools that take more than a size are rare
        return False


def _kinds(slot: str) -> tuple[type[nn.Module], ...]:
    if slot != "norm":
        return TARGETS[slot]
    from torchvision.ops import FrozenBatchNorm2d

    return (*TARGETS[slot], FrozenBatchNorm2d)


def _reachable(module: nn.Module) -> bool:
    """Whether a module of the right class does that one thing to images [N, C, H, W] and nothing else."""
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 3:
        # Over the last axis of channels-last features or tokens, unless it is the subclass that permutes for itself.
        return type(module).__name__ == "LayerNorm2d"
    # One with children does more: a norm with its activation built in, a weight computed by a parametrization.
    return _childless(module)


def _childless(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _undo_inplace(model: nn.Module, *, everywhere: bool) -> None:
    """Switch off in-place flags that could overwrite what a new module still needs.

    Dropout after an activation is the common case: sigmoid, tanh and ELU need their output for the backward pass, ReLU
    doesn't mind. It costs nothing, dropout being idle at inference. An Identity hands on its input itself, so anything
    in place behind it would change the tensor that a skip connection still holds: then all flags go.
    """
    for module in model.modules():
        if getattr(module, "inplace", False) is True and (everywhere or isinstance(module, _DROPOUTS)):
            cast("Any", module).inplace = False


def _functional(
    graphs: list[tuple[str, fx.Graph]], kinds: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, fx.Node]]:
    """Functional calls that do what one of ``kinds`` does, each with the path of the module that calls."""
    names = _names(kinds)
    for path, graph in graphs:
        for node in graph.nodes:
            if _name(node) in names and not _is_gate_call(node):
                stack = [str(inner) for inner, _ in node.meta.get("nn_module_stack", {}).values()]
                yield joined(path, stack[-1] if stack else ""), node


def gates_of(model: nn.Module, graphs: list[tuple[str, fx.Graph]]) -> set[nn.Module]:
    """Sigmoids whose output does nothing but multiply other features."""
    gates: set[nn.Module] = set()
    for path, graph in graphs:
        for node in graph.nodes:
            if node.op == "call_module" and _only_multiplies(node):
                module = model.get_submodule(joined(path, str(node.target)))
                if isinstance(module, _GATES):
                    gates.add(module)
    return gates


def _squeezes(model: nn.Module, graphs: list[tuple[str, fx.Graph]]) -> set[nn.Module]:
    """Global pools whose output, some layers later, does nothing but multiply other features."""
    between = _names(TARGETS["activation"]) | {"add", "iadd"}
    squeezes: set[nn.Module] = set()
    for path, graph in graphs:
        for node in graph.nodes:
            if node.op == "call_module" and _only_multiplies(
                node, lambda user: user.op == "call_module" or _name(user) in between
            ):
                module = model.get_submodule(joined(path, str(node.target)))
                if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
                    squeezes.add(module)
    return squeezes


def _is_gate_call(node: fx.Node) -> bool:
    # x * sigmoid(x) is SiLU written out: an activation, not a gate.
    own_input = node.args[0] if node.args else None
    return (
        _name(node) in _names(_GATES)
        and _only_multiplies(node)
        and all(own_input not in user.args for user in node.users)
    )


def _only_multiplies(node: fx.Node, through: Callable[[fx.Node], bool] = lambda _: False) -> bool:
    """Whether a value, perhaps reshaped or taken ``through`` other nodes, is a factor and used in no other way."""
    return bool(node.users) and all(
        _name(user) in _PRODUCTS or ((_name(user) in _RESHAPES or through(user)) and _only_multiplies(user, through))
        for user in node.users
    )


def _name(node: fx.Node) -> str:
    """Name of the function or method that a node calls, plain; empty for a node that calls none."""
    return _plain(called(node))


def _names(kinds: tuple[type[nn.Module], ...]) -> set[str]:
    return {_plain(kind.__name__) for kind in kinds}


def _plain(name: str) -> str:
    """One spelling for a class and its functions: LeakyReLU and ``leaky_relu_``, BatchNorm2d and ``batch_norm``."""
    return name.lower().replace("_", "").removesuffix("2d")


def _label(node: fx.Node) -> str:
    home = "Tensor" if node.op == "call_method" else str(getattr(node.target, "__module__", ""))
    return f"{'F' if home.startswith('torch.') else home}.{called(node)}"


def _summary(found: list[tuple[str, str, str]]) -> tuple[str, ...]:
    """One entry for each label: how often, and where first."""
    places: dict[tuple[str, str], list[str]] = {}
    for label, path, unit in found:
        places.setdefault((label, unit), []).append(path)
    return tuple(
        f"{label} ({len(paths)} {unit if len(paths) > 1 else unit[:-1]}, "
        f"{'first ' if len(paths) > 1 else ''}in {paths[0] or 'the model itself'})"
        for (label, unit), paths in places.items()
    )
