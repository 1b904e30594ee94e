"""Filter response normalization with thresholded linear units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.errors import Unsupported
from cnnbench.technique import technique
from cnnbench_plugins.norm._replace import channels_of, inherit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from cnnbench.lazy import nn

_PASSED = frozenset({"add", "iadd", "add_", "stochastic_depth", "dropout"})


@technique("norm", "filter_response", waives={"others-untouched": "its thresholds take the place of activations"})
class FilterResponse:
    """Normalizes each channel of each sample by its mean square, and thresholds in place of the activation behind.

    Singh & Krishnan 2020, https://arxiv.org/abs/1911.09737, section 3. For x [N, C, H, W], p[n, c] the mean of x^2 over
    H and W (no mean is subtracted): y = x / sqrt(p + 1e-6 + |e|) * scale[c] + shift[c] (FRN), then z = max(y, t[c])
    with learned t starting at 0 (TLU). The learned e, one a layer, starting at 1e-4, is the paper's for maps of a
    single pixel, where without it y would be a sign; here every layer has it, since none knows the size of its maps,
    and on larger ones it hardly matters.

    The TLU takes the place of every activation module (whatever it was) that reads a norm's output directly or past
    additions, so also of the last one of a residual block; a norm without activation (linear bottlenecks) gets none.
    An activation module that a block calls in several places has one set of thresholds for each number of channels.
    Activations that are called as functions stay and are noted. An arm that also has an ``activation`` technique
    changes only those that are left.

    Helps: any batch size, one included; the paper reports it ahead of batch norm at large batches too.
    Known not to help: without warm-up of the learning rate training is often unstable (the paper's section 3.3); it
    can't be folded into the convolution.

    Raises ``Unsupported`` where no activation behind a norm can be replaced, as where all are called as functions.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """FRN of as many channels."""
        from cnnbench_plugins.norm._filter_response import FilterResponseNorm

        return inherit(FilterResponseNorm(channels_of(module)), module)

    def finish(self, model: nn.Module) -> list[str]:
        """Put TLUs in place of the activations behind the norms; names those out of reach."""
        from cnnbench.surgery import replace_modules
        from cnnbench_plugins.norm._filter_response import ThresholdedLinearUnit

        widths, unreached = activations_behind(model)
        if not widths:
            reason = f"; out of reach are {', '.join(unreached)}" if unreached else ""
            raise Unsupported(f"found no activation module behind a norm for a thresholded linear unit{reason}")
        replace_modules(model, lambda m: m in widths, lambda m: ThresholdedLinearUnit(widths[m]))
        return unreached


def activations_behind(model: nn.Module) -> tuple[dict[nn.Module, set[int]], list[str]]:
    """Activation modules that read filter response norms alone, each with its numbers of channels; what is left out."""
    from cnnbench.surgery import TARGETS, gates_of, graphs_of
    from cnnbench.tracing import called, joined
    from cnnbench_plugins.norm._filter_response import FilterResponseNorm

    kinds = TARGETS["activation"]
    functions = {kind.__name__.lower() for kind in kinds}
    widths: dict[nn.Module, set[int]] = {}
    elsewhere: dict[nn.Module, str] = {}
    calls: list[str] = []
    graphs = list(graphs_of(model, (FilterResponseNorm,)))
    gates = gates_of(model, graphs)
    for path, graph in graphs:
        modules = {n: model.get_submodule(joined(path, str(n.target))) for n in graph.nodes if n.op == "call_module"}
        for node in graph.nodes:
            module = modules.get(node)
            found = {m.weight.numel() for m in _read(node, modules) if isinstance(m, FilterResponseNorm)}
            if isinstance(module, kinds) and module not in gates:
                if found:
                    widths.setdefault(module, set()).update(found)
                else:
                    elsewhere[module] = joined(path, str(node.target))
            elif found and called(node).replace("_", "") in functions:
                calls.append(joined(path, str(node)))
    shared = [f"{where} (an activation behind a norm and elsewhere)" for m, where in elsewhere.items() if m in widths]
    functional = [f"activations called as functions behind norms ({len(calls)})"] if calls else []
    return {m: found for m, found in widths.items() if m not in elsewhere}, [*shared, *functional]


def _read(node: fx.Node, modules: dict[fx.Node, nn.Module]) -> Iterator[nn.Module]:
    """The modules whose output a node reads, directly or past additions and what drops values."""
    from cnnbench.tracing import called

    ahead, seen = list(node.all_input_nodes), set()
    while ahead:
        source = ahead.pop()
        if source in seen:
            continue
        seen.add(source)
        if source in modules:
            yield modules[source]
        if called(source) in _PASSED or type(modules.get(source)).__name__ in {"Identity", "Dropout", "Dropout2d"}:
            ahead += source.all_input_nodes


TECHNIQUES = (FilterResponse,)
