"""Weight standardization: norms of the filters, beside a norm of the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from cnnbench.errors import Unsupported
from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins.norm._replace import channels_of, inherit
from cnnbench_plugins.norm.standard import group_norm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

_GATES = ("sigmoid", "hardsigmoid")


def normed_convolutions(model: nn.Module) -> tuple[set[nn.Conv2d], int]:
    """Convolutions whose output reaches a group norm past no other layer or norm.

    Between the two there may be anything else: additions and concatenations of residual and dense networks, pools,
    activations. Gates beside the way don't count, nor do convolutions of a single weight a filter.

    Returns:
        The convolutions, and the number of group norms that have none in front.
    """
    from cnnbench.surgery import graphs_of
    from cnnbench.tracing import joined

    found: set[nn.Conv2d] = set()
    norms = {module for module in model.modules() if isinstance(module, nn.GroupNorm)}
    fed: set[nn.Module] = set()
    for path, graph in graphs_of(model, ()):
        modules = {n: model.get_submodule(joined(path, str(n.target))) for n in graph.nodes if n.op == "call_module"}
        for node, norm in modules.items():
            if norm in norms:
                behind = {m for m in _sources(node, modules) if type(m) is nn.Conv2d and m.weight[0].numel() > 1}
                found |= behind
                fed |= {norm} if behind else set()
    return found, len(norms - fed)


def _sources(node: fx.Node, modules: dict[fx.Node, nn.Module]) -> Iterator[nn.Module]:
    """The layers and norms from which a value comes most directly."""
    from cnnbench.tracing import called

    ahead, seen = list(node.all_input_nodes), set()
    while ahead:
        source = ahead.pop()
        if source in seen:
            continue
        seen.add(source)
        module = modules.get(source)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.GroupNorm):
            yield module
        elif not isinstance(module, nn.Sigmoid | nn.Hardsigmoid) and called(source) not in _GATES:
            ahead += source.all_input_nodes


@technique(
    "norm",
    "weight_standardization",
    example={"groups": 4},
    waives={"others-untouched": "it standardizes the filters of convolutions"},
)
class WeightStandardization:
    """Standardizes the filters of convolutions, with group norm behind them.

    Qiao et al. 2019, https://arxiv.org/abs/1903.10520, section 3.1. Each filter w[o] of a convolution's weight
    [out, in, kH, kW] is used as (w[o] - mean) / sqrt(variance + 1e-5), mean and biased variance over its in x kH x kW
    values, and gradients pass through this (! it is no projection of the weights after each step). There is no gain:
    the norm behind has one. Standardized are the convolutions whose output reaches one of the norms before any other
    layer; not those of gates and classifiers, whose output no norm sees. ``groups`` as in norm ``group``.

    After training the standardized filters become the weights of plain convolutions. Fine-tuning by a compressor goes
    on from there without standardization.

    Helps: training with small batches, where group norm alone stays a little behind batch norm.
    Known not to help: depthwise convolutions much, whose filters have few weights; each training step computes all
    filters anew.

    Raises ``Unsupported`` where ``groups`` does not divide a layer's channels, and where tracing the model finds no
    convolution in front of a norm.
    """

    groups: Annotated[int, Ge(1)] = 8

    def __call__(self, module: nn.Module) -> nn.Module:
        """Group norm of as many channels."""
        return inherit(group_norm(self.groups, channels_of(module)), module)

    def finish(self, model: nn.Module) -> list[str]:
        """Standardize the convolutions in front of the norms; names norms that have none."""
        from cnnbench.surgery import replace_modules
        from cnnbench_plugins.norm._standardized import standardized

        found, without = normed_convolutions(model)
        if not found:
            raise Unsupported(f"found no convolution in front of a norm of {type(model).__name__} to standardize")
        replace_modules(model, lambda m: m in found, lambda m: standardized(m) if isinstance(m, nn.Conv2d) else m)
        return [f"norms with no convolution right in front ({without})"] if without else []


TECHNIQUES = (WeightStandardization,)
