"""Global pools: what summarizes each channel's whole map in front of the classifier."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins.pooling._replace import cells_of


@technique("pooling", "global_avg", waives={"effect": "it is what most networks have"})
class GlobalAvg:
    """Averages each channel's map, in place of whatever a global pool did.

    Lin et al. 2014, https://arxiv.org/abs/1312.4400, section 3.2: y[n, c] is the mean of x[n, c] over H and W. Where
    the model's adaptive pool has more than one cell (VGG's 7x7), so has this. Pools over windows stay (see ``avg``),
    and so do the squeezes of squeeze-and-excitation, which are no pooling of features.

    Helps: the standard; every position gets a gradient, and class maps can be read off.
    Known not to help: small objects on large maps, which it dilutes.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Adaptive average pool of the same output size."""
        cells = cells_of(module)
        return module if cells is None or isinstance(module, nn.AdaptiveAvgPool2d) else nn.AdaptiveAvgPool2d(cells)


@technique("pooling", "global_max")
class GlobalMax:
    """Takes the maximum of each channel's map, in place of whatever a global pool did.

    Oquab et al. 2015 (CVPR, "Is object localization for free?"), section 3: y[n, c] is the largest x[n, c] over H and
    W. Where the model's adaptive pool has more than one cell, so has this. Pools over windows stay (see ``max``), and
    so do the squeezes of squeeze-and-excitation.

    Helps: classes that a single place gives away, however small it is.
    Known not to help: textures and classes told by the whole image; one position a channel gets all the gradient.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Adaptive max pool of the same output size."""
        cells = cells_of(module)
        return module if cells is None or isinstance(module, nn.AdaptiveMaxPool2d) else nn.AdaptiveMaxPool2d(cells)


@technique("pooling", "global_gem")
class GlobalGem:
    """Takes the power mean of each channel's map with a learned exponent, in place of the global pool.

    Radenovic et al. 2018, https://arxiv.org/abs/1711.02512, section 3.2 (equation 3): y[n, c] = (mean over H and W of
    max(x[n, c], 1e-6)^p)^(1/p), one p, learned from the paper's 3. p = 1 is the average, p to infinity the maximum.
    Where the model's adaptive pool has more than one cell, so has this. Pools over windows stay (see ``gem``), and so
    do the squeezes of squeeze-and-excitation.

    Helps: image retrieval, for which it was made; classes of objects of different size.
    Known not to help: features with negative values (no ReLU in front), which count as 1e-6; weight decay pulls p down.
    """

    p: Annotated[float, Ge(1)] = 3.0

    def __call__(self, module: nn.Module) -> nn.Module:
        """Power mean with an exponent of its own and the same output size."""
        from cnnbench_plugins.pooling._layers import AdaptiveGem

        cells = cells_of(module)
        return module if cells is None else AdaptiveGem(cells, self.p, eps=1e-6)


TECHNIQUES = (GlobalAvg, GlobalMax, GlobalGem)
