"""What a built model shows that is known to go wrong, before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from cnnbench.tracing import called, joined, traced_graphs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

_NORMS = (nn.modules.batchnorm._BatchNorm,)  # noqa: SLF001 - the base of all batch norms has no public name
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
DROPS = "drops_at_random"
"""Class attribute, true, of other layers that act as dropout does; they have ``p`` too."""
_FUNCTIONS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"})


def remarks(model: nn.Module) -> list[str]:
    """Lines for the record about a model as it was built."""
    return list(_dropout_before_batch_norm(model))


def _dropout_before_batch_norm(model: nn.Module) -> Iterator[str]:
    """X. Li et al., "Understanding the Disharmony between Dropout and Batch Normalization", CVPR 2019, section 3.

    At inference nothing is dropped, so that the variance which batch norm sees is not the one that it learned.
    """
    for path, graph in traced_graphs(model, lambda module: _drops(module) or isinstance(module, _NORMS)):
        modules = {n: model.get_submodule(joined(path, str(n.target))) for n in graph.nodes if n.op == "call_module"}
        for node in graph.nodes:
            module = modules.get(node)
            if not (module is not None and _drops(module)) and called(node) not in _FUNCTIONS:
                continue
            behind = next((user for user in _downstream(node) if isinstance(modules.get(user), _NORMS)), None)
            if behind is not None:
                place = joined(path, str(behind.target))
                yield f"dropout before batch norm ({place}): its statistics at inference are not training's (Li 2019)"
                return


def _drops(module: nn.Module) -> bool:
    known = isinstance(module, _DROPOUTS) or getattr(type(module), DROPS, False)
    return bool(known) and float(getattr(module, "p", 0)) > 0


def _downstream(node: fx.Node) -> Iterator[fx.Node]:
    """Everything that uses a value, directly or not."""
    seen: set[fx.Node] = set()
    ahead = list(node.users)
    while ahead:
        user = ahead.pop(0)
        if user not in seen:
            seen.add(user)
            yield user
            ahead += user.users
