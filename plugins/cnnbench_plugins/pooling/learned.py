"""Pools over windows that learn something: a mixture, an exponent, a whole convolution."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins.pooling._replace import window_of


@technique("pooling", "mixed")
class MixedPool:
    """Mixes maximum and average over each window in a learned proportion.

    Lee et al. 2016, https://arxiv.org/abs/1509.08985, section 3.1 ("mixed", one proportion a layer): y = a * max + (1 -
    a) * average. The paper keeps a in 0..1; here a = sigmoid(g) with g learned from 0, so that both begin with half.
    (Its "gated" pooling of section 3.2, whose a looks at the window, is another.) Window, stride, padding and rounding
    are those of the pool replaced; padding counts neither way. Global (adaptive) pools stay.

    Helps: where neither maximum nor average suits every layer, for one parameter a layer.
    Known not to help: much; the paper's gains are a few tenths of a percent, and gated and tree pooling lie above it.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Mixed pool over the same windows."""
        from cnnbench_plugins.pooling import _layers

        window = window_of(module)
        return module if window is None else _layers.MixedPool(window)


@technique("pooling", "gem")
class GemPool:
    """Takes the power mean with a learned exponent over each window.

    Radenovic et al. 2018, https://arxiv.org/abs/1711.02512, section 3.2 (equation 3), which pools whole maps; here over
    windows (see ``global_gem`` for the paper's place): y = (mean of max(x, 1e-6)^p over the window)^(1/p), one p for
    each replaced module, from the paper's 3. p = 1 is the average, p to infinity the maximum. Window, stride, padding
    and rounding are those of the pool replaced. Negative inputs count as 1e-6: it belongs behind a ReLU.

    Helps: lets each layer choose between average and maximum.
    Known not to help: activations with negative values; weight decay pulls p down; powers cost time.
    """

    p: Annotated[float, Ge(1)] = 3.0

    def __call__(self, module: nn.Module) -> nn.Module:
        """Power mean with an exponent of its own over the same windows."""
        from cnnbench_plugins.pooling._layers import PowerPool

        window = window_of(module)
        return module if window is None else PowerPool(window, self.p, learned=True, eps=1e-6)


@technique("pooling", "strided")
class StridedConvolution:
    """Puts a convolution with the pool's stride, and a ReLU, in place of each window pool.

    Springenberg et al. 2015, https://arxiv.org/abs/1412.6806, section 2 ("All-CNN"): a pool of window k x k and stride
    s over C channels becomes a convolution from C to C channels with that window, stride and padding, followed by ReLU:
    k^2 C^2 + C parameters more for each. An ``activation`` technique of the arm replaces that ReLU like the others.
    ``ceil_mode`` is kept by zeros at the far edges. Pools of stride 1, which shrink nothing, stay, and so do global
    (adaptive) ones.

    Helps: larger data sets, where the network learns how to shrink.
    Known not to help: small data, which the many parameters overfit; the paper itself finds it on a par with max
    pooling at best, at more cost.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Convolution and ReLU; the channels are found when the model first runs."""
        from cnnbench_plugins.pooling._layers import LazyChannelConv2d

        window = window_of(module)
        if window is None or not window.shrinks:
            return module
        window.require_reach()
        layers = [LazyChannelConv2d(window.kernel, window.stride, window.padding), nn.ReLU()]
        if not window.ceil_mode:
            return nn.Sequential(*layers)
        rows, columns = window.stride
        return nn.Sequential(nn.ZeroPad2d((0, columns - 1, 0, rows - 1)), *layers)


TECHNIQUES = (MixedPool, GemPool, StridedConvolution)
