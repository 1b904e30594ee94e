"""Spatial pyramid pooling in front of the classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, MinLen

from cnnbench.errors import Unsupported
from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins.pooling._replace import cells_of

if TYPE_CHECKING:
    from torch import fx

    from cnnbench_plugins.pooling._layers import SpatialPyramid

_SIZES = frozenset({"size", "getattr", "dim"})
_FLAT = frozenset({"flatten", "view", "reshape", "squeeze", "dropout"})


@technique("pooling", "spp", waives={"others-untouched": "the linear layer behind gets as many inputs as it has cells"})
class SpatialPyramidPooling:
    """Pools each channel's map over grids of several sizes, in place of the global pool.

    He et al. 2014, https://arxiv.org/abs/1406.4729, section 2.2: for each level l the map is cut into l x l cells, from
    floor(i H / l) to ceil((i + 1) H / l), and each cell gives its maximum; all cells of all levels are concatenated. So
    an input of any size becomes C * sum of l^2 values (21 C for the default levels 1, 2 and 4, three of the paper's),
    and the linear layer behind gets as many inputs: it is made anew, with fresh weights.

    It acts where an adaptive pool leads to a linear layer through nothing but flattening and dropout. Pools over
    windows stay, and so do the squeezes of squeeze-and-excitation.

    Helps: classes told by where things are; images of different sizes.
    Known not to help: small last maps, whose finer cells repeat the same pixels (4 x 4 cells of a 2 x 2 map); the
    classifier is up to 21 times as large, overfits small data and wants a lower learning rate than behind an average.

    Raises ``Unsupported`` where something else lies between the pool and the next layer with weights.
    """

    levels: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 2, 4)

    def __post_init__(self) -> None:
        if len({*self.levels}) < len(self.levels):
            raise ValueError(f"levels {list(self.levels)} name one grid twice")

    def __call__(self, module: nn.Module) -> nn.Module:
        """Pyramid pool; ``finish`` fits the linear layer behind it."""
        from cnnbench_plugins.pooling._layers import SpatialPyramid

        cells = cells_of(module)
        if cells is None:
            return module
        height, width = cells
        if height is None or width is None:
            raise Unsupported("an adaptive pool that keeps its input's size has no fixed length for spp to replace")
        return SpatialPyramid(tuple(self.levels), height * width)

    def finish(self, model: nn.Module) -> list[str]:
        """Put a linear layer of the right size behind each pyramid."""
        from cnnbench.surgery import replace_modules

        sizes = linear_behind(model)
        replace_modules(model, lambda m: m in sizes, lambda m: _resized(m, sizes[m]))
        return []


def _resized(linear: nn.Module, inputs: int) -> nn.Module:
    assert isinstance(linear, nn.Linear)
    return nn.Linear(inputs, linear.out_features, bias=linear.bias is not None)


def linear_behind(model: nn.Module) -> dict[nn.Module, int]:
    """The linear layer behind each pyramid, with the number of inputs that it needs.

    Raises:
        Unsupported: one has none, or tracing does not reach it.
    """
    from cnnbench.surgery import graphs_of
    from cnnbench.tracing import joined
    from cnnbench_plugins.pooling._layers import SpatialPyramid

    waiting = {module: path for path, module in model.named_modules() if isinstance(module, SpatialPyramid)}
    sizes: dict[nn.Module, int] = {}
    for path, graph in graphs_of(model, (SpatialPyramid,)):
        modules = {n: model.get_submodule(joined(path, str(n.target))) for n in graph.nodes if n.op == "call_module"}
        for node, module in modules.items():
            if isinstance(module, SpatialPyramid):
                linear = _linear_after(node, modules, waiting.pop(module, joined(path, str(node.target))))
                sizes[linear] = _inputs(linear, module)
    if waiting:
        raise Unsupported(f"{next(iter(waiting.values()))}: the way from this pool to a linear layer can't be traced")
    return sizes


def _linear_after(node: fx.Node, modules: dict[fx.Node, nn.Module], pool: str) -> nn.Linear:
    from cnnbench.tracing import called

    while True:
        users = [user for user in node.users if called(user) not in _SIZES]
        if len(users) != 1:
            raise Unsupported(
                f"{pool}: what this pool gives is used in {len(users)} places, not by a linear layer alone"
            )
        node = users[0]
        module = modules.get(node)
        if isinstance(module, nn.Linear):
            return module
        if not isinstance(module, nn.Flatten | nn.Dropout | nn.Identity) and called(node) not in _FLAT:
            what = type(module).__name__ if module is not None else called(node) or "the model's end"
            raise Unsupported(f"{pool}: spp needs a linear layer behind this pool, and finds {what}")


def _inputs(linear: nn.Linear, pyramid: SpatialPyramid) -> int:
    return linear.in_features // pyramid.replaced * pyramid.cells


TECHNIQUES = (SpatialPyramidPooling,)
