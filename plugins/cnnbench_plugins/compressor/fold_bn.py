"""Batch-norm folding: the norm's scale and shift become part of the convolution before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench import technique
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


def foldable_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Names of (layer, batch norm) where the norm alone reads the layer's output and both are called once.

    Raises:
        Unsupported: the model's flow can't be traced.
    """
    import torch.fx

    try:
        graph = torch.fx.symbolic_trace(model).graph
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Unsupported(f"fold_bn can't trace {type(model).__name__}: {reason}") from error
    modules = dict(model.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    # By object: a shared module goes by more than one name.
    called = [id(modules[str(node.target)]) for node in calls]
    pairs = []
    for node in calls:
        norm = modules[str(node.target)]
        source = node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) or source not in calls or norm.running_var is None:
            continue
        assert isinstance(source, torch.fx.Node)
        layer = modules[str(source.target)]
        fits = type(layer) is nn.Conv2d if isinstance(norm, nn.BatchNorm2d) else type(layer) is nn.Linear
        if fits and len(source.users) == 1 and called.count(id(norm)) == called.count(id(layer)) == 1:
            pairs.append((str(source.target), str(node.target)))
    return pairs


def fold(model: nn.Module) -> int:
    """Fold every foldable batch norm, in place; the norm becomes an identity.

    Per output channel, with running mean m and variance v: w' = w * gamma / sqrt(v + eps) and
    b' = (b - m) * gamma / sqrt(v + eps) + beta.

    Returns:
        Number of norms folded.

    Raises:
        Unsupported: the model's flow can't be traced.
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
