"""Smooth activations, and hard swish, the cheap image of one."""

# ruff: noqa: ARG002 - every surgery is handed the module that it replaces; these need to know nothing of it

from __future__ import annotations

from cnnbench.lazy import nn
from cnnbench.technique import technique


@technique("activation", "sigmoid")
class Sigmoid:
    """Squashes inputs to 0..1.

    y = 1 / (1 + exp(-x)); the classic unit of Rumelhart et al. 1986.

    Helps: as a historical baseline.
    Known not to help: its slope is at most 1/4, so gradients vanish with depth, and its outputs are never centred
    (Glorot & Bengio 2010, section 3).
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Sigmoid."""
        return nn.Sigmoid()


@technique("activation", "tanh")
class Tanh:
    """Squashes inputs to -1..1, symmetric about 0.

    y = tanh(x); recommended over sigmoid by LeCun et al. 1998 ("Efficient BackProp", section 4.4).

    Helps: shallow networks without normalization, with Xavier initialization.
    Known not to help: deep networks, where units saturate and gradients vanish.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Tanh."""
        return nn.Tanh()


@technique("activation", "silu")
class Silu:
    """Input times its sigmoid; also known as swish.

    Elfwing et al. 2017, https://arxiv.org/abs/1702.03118; Ramachandran et al. 2017, https://arxiv.org/abs/1710.05941:
    y = x / (1 + exp(-x)).

    Helps: deep and mobile networks, by some tenths of a percent on ImageNet.
    Known not to help: very small networks; slower than ReLU and keeps more for the backward pass.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """SiLU, not in place."""
        return nn.SiLU()


@technique("activation", "gelu")
class Gelu:
    """Input times the normal distribution's share below it.

    Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415, section 2: y = x * Phi(x), which is
    x / 2 * (1 + erf(x / sqrt 2)): exact, not the tanh approximation.

    Helps: transformers and ConvNeXt-like networks.
    Known not to help: ordinary CNNs gain little over ReLU for the price of erf.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """GELU."""
        return nn.GELU()


@technique("activation", "mish")
class Mish:
    """Input times the tanh of its softplus.

    Misra 2019, https://arxiv.org/abs/1908.08681: y = x * tanh(log(1 + exp(x))).

    Helps: reported a little above SiLU in detectors and CIFAR networks.
    Known not to help: the difference from SiLU is mostly within seed noise; the slowest of these.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Mish, not in place."""
        return nn.Mish()


@technique("activation", "hard_swish")
class HardSwish:
    """Piecewise-quadratic stand-in for SiLU, cheap and friendly to int8.

    Howard et al. 2019, https://arxiv.org/abs/1905.02244, section 5.2: y = x * min(max(x + 3, 0), 6) / 6.

    Helps: quantized mobile networks that want SiLU's shape.
    Known not to help: early, wide layers, where the paper keeps ReLU for speed.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Hard swish, not in place."""
        return nn.Hardswish()


@technique("activation", "softplus")
class Softplus:
    """Smooth ReLU that is positive everywhere.

    Dugas et al. 2001 (NIPS): y = log(1 + exp(x)).

    Helps: where an activation must be positive and smooth.
    Known not to help: image classification; Glorot et al. 2011 found ReLU better and sparse.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Softplus."""
        return nn.Softplus()


TECHNIQUES = (Sigmoid, Tanh, Silu, Gelu, Mish, HardSwish, Softplus)
