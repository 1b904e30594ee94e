"""Batch-norm folding: the norm's scale and shift become part of the convolution before it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cnnbench import technique
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


def foldable_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Names of (layer, batch norm) where the norm alone reads the layer's output and both are called once.

    Of a model that can't be traced as a whole, those within its parts that can.

    Raises:
        Unsupported: the model's flow can't be traced, nor that of a part with such a pair.
    """
    from torch import fx

    from cnnbench.tracing import joined, traced_graphs

    modules = dict(model.named_modules(remove_duplicate=False))
    graphs = list(traced_graphs(model, lambda _: False))
    calls = [
        (joined(path, str(node.target)), node, path)
        for path, graph in graphs
        for node in graph.nodes
        if node.op == "call_module"
    ]
    # By object: a shared module goes by more than one name.
    called = Counter(modules[name] for name, _, _ in calls)
    named = Counter(modules.values())
    pairs = []
    for name, node, path in calls:
        norm = modules[name]
        source = node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) or norm.running_var is None:
            continue
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        layer_name = joined(path, str(source.target))
        layer = modules[layer_name]
        fits = type(layer) is nn.Conv2d if isinstance(norm, nn.BatchNorm2d) else type(layer) is nn.Linear
        # What lies around a traced part may call a module too that it knows by another name.
        once = all(called[module] == 1 and (not path or named[module] == 1) for module in (layer, norm))
        if fits and len(source.users) == 1 and once:
            pairs.append((layer_name, name))
    if not pairs and [path for path, _ in graphs] != [""]:
        raise Unsupported(
            f"fold_bn can't trace {type(model).__name__}, nor a part of it where a batch norm follows a convolution or "
            "linear layer"
        )
    return pairs


def fold(model: nn.Module) -> int:
    """Fold every foldable batch norm, in place; the norm becomes an identity.

    Per output channel, with running mean m and variance v: w' = w * gamma / sqrt(v + eps) and
    b' = (b - m) * gamma / sqrt(v + eps) + beta.

    Returns:
        Number of norms folded.

    Raises:
        Unsupported: as ``foldable_pairs``.
    """
    model.eval()
    pairs = foldable_pairs(model)
    for layer_name, norm_name in pairs:
        layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        _fold_into(layer, norm)
        parent, _, child = norm_name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    return len(pairs)


def _fold_into(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight
        bias = -norm.running_mean.double() if layer.bias is None else layer.bias - norm.running_mean.double()
        bias = bias * scale + norm.bias if norm.affine else bias * scale
        shape = (-1, *[1] * (layer.weight.dim() - 1))
        layer.weight.copy_(layer.weight * scale.view(shape))
        layer.bias = nn.Parameter(bias.to(layer.weight))


@technique("compressor", "fold_bn")
class FoldBn:
    """Merges each batch norm into the convolution or linear layer before it; outputs stay as they were.

    Jacob et al. 2018 (Quantization and Training of Neural Networks, section 3.2): at inference a batch norm is an
    affine map per channel, so w' = w * gamma / sqrt(v + eps) and b' = (b - m) * gamma / sqrt(v + eps) + beta take
    its place. Done in double precision; outputs agree within rounding.

    Helps: latency of eager models, at no cost in accuracy.
    Known not to help: compiled runtimes, which fold by themselves; norms before their convolution (pre-activation
    networks); group, layer and instance norms, which depend on the input.
    """

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:  # noqa: ARG002
        """Fold in place; raises ``NoEffect`` where no norm follows a layer, ``Unsupported`` where tracing fails."""
        if not fold(model):
            raise NoEffect("folded nothing: no batch norm directly follows a convolution or linear layer")
        return model


TECHNIQUES = (FoldBn,)
