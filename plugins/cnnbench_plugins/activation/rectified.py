"""ReLU and its relatives: linear for positive inputs."""

# ruff: noqa: ARG002 - every surgery is handed the module that it replaces; these need to know nothing of it

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt

from cnnbench.lazy import nn
from cnnbench.technique import technique


@technique("activation", "relu", waives={"effect": "it is what most networks have"})
class Relu:
    """Passes positive inputs and sets the rest to 0.

    Nair & Hinton 2010 (ICML), Glorot et al. 2011 (AISTATS): y = max(0, x). The default of most CNNs.

    Helps: gradients don't shrink with depth; cheapest of all; exact zeros.
    Known not to help: units that are negative for all inputs get no gradient and stay dead, most of all at high
    learning rates.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """ReLU, not in place."""
        return nn.ReLU()


@technique("activation", "leaky_relu")
class LeakyRelu:
    """ReLU with a small fixed slope for negative inputs.

    Maas et al. 2013 (ICML workshop), section 2: y = x for x > 0, else slope * x. Default slope 0.01 is the paper's.

    Helps: no dead units.
    Known not to help: the paper finds no gain over ReLU at slope 0.01; larger slopes gain little more (Xu et al. 2015,
    https://arxiv.org/abs/1505.00853).
    """

    slope: Annotated[float, Ge(0)] = 0.01

    def __call__(self, module: nn.Module) -> nn.Module:
        """Leaky ReLU, not in place."""
        return nn.LeakyReLU(self.slope)


@technique("activation", "prelu")
class Prelu:
    """ReLU whose negative slope is learned, one slope for each layer or for each channel.

    He et al. 2015, https://arxiv.org/abs/1502.01852, section 2.1: y = x for x > 0, else a * x, with a learned from the
    paper's 0.25. ``parameters``: ``shared`` has one a for each replaced module (the paper's channel-shared variant),
    ``channel`` one for each channel of [N, C, ...] (its channel-wise variant), whose number a dry run of the model
    finds. An activation module that the model uses in several places has the same slopes in all of them, so that with
    ``channel`` these must have equally many channels: the bottleneck blocks of torchvision's ResNets have not.

    Helps: large networks on much data; adds one parameter a layer, or one a channel. The paper's two variants come out
    within 0.1 points of each other.
    Known not to help: weight decay on a pulls it towards ReLU, which the paper avoids; on small data it can overfit.
    """

    parameters: Literal["shared", "channel"] = "shared"

    def __call__(self, module: nn.Module) -> nn.Module:
        """PReLU with one slope, or with as many as the channels that it will see."""
        if self.parameters == "shared":
            return nn.PReLU(1, init=0.25)
        from cnnbench_plugins.activation._layers import LazyChannelPReLU

        return LazyChannelPReLU(init=0.25)


@technique("activation", "elu")
class Elu:
    """ReLU with an exponential that saturates at -alpha for negative inputs.

    Clevert et al. 2016, https://arxiv.org/abs/1511.07289, section 3: y = x for x > 0, else alpha * (exp(x) - 1). The
    default alpha 1 is the paper's.

    Helps: mean activations nearer to 0, which speeds up networks without normalization.
    Known not to help: together with batch norm the gain is gone (the paper's section 4.2); exp costs time.
    """

    alpha: Annotated[float, Gt(0)] = 1.0

    def __call__(self, module: nn.Module) -> nn.Module:
        """ELU, not in place."""
        return nn.ELU(self.alpha)


@technique("activation", "selu")
class Selu:
    """ELU scaled so that activations of a plain network drift to mean 0 and variance 1.

    Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, section 2: y = l * x for x > 0, else l * a * (exp(x) - 1)
    with a = 1.6733 and l = 1.0507.

    Helps: deep networks without normalization whose weights have variance 1 / fan-in (initializer ``he_normal`` with
    slope 1).
    Known not to help: with other initializations, with batch norm, or with ordinary dropout, which breaks the moments.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """SELU, not in place."""
        return nn.SELU()


TECHNIQUES = (Relu, LeakyRelu, Prelu, Elu, Selu)
