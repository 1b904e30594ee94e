"""Convolutions that do not connect every input channel with every output channel at every tap."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from cnnbench.errors import Unsupported
from cnnbench.technique import technique
from cnnbench_plugins.convolution._replace import IMAGE_CHANNELS, chain, like, pair, plain

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("convolution", "grouped")
class Grouped:
    """Splits every spatial convolution into groups of channels that do not see each other.

    Krizhevsky et al. 2012 (NIPS 25, section 3.5), as Xie et al. 2017 use it (ResNeXt, https://arxiv.org/abs/1611.05431,
    section 3.2): output channels of group g read the C_in / ``groups`` input channels of group g alone. Weights
    [C_out, C_in / groups, kH, kW]; parameters and multiply-adds shrink by ``groups``. 1x1 convolutions stay as they
    are: they mix the groups again, as in ResNeXt (there is no channel shuffle). Left alone are the first convolution
    (up to 3 input channels) and those that are grouped already. The default is no paper's: it divides the 16 channels
    of small-image networks.

    New weights are random at the scale of the old ones; pretrained weights of the replaced layers are lost.

    Helps: accuracy for the same cost where the width grows in exchange (Xie et al. 2017, table 3).
    Known not to help: networks without 1x1 convolutions, in which nothing mixes the groups any more; and latency often
    falls far less than the count of multiply-adds (Ma et al. 2018, https://arxiv.org/abs/1807.11164, guideline 2).

    Raises ``Unsupported`` where ``groups`` divides not both numbers of channels.
    """

    groups: Annotated[int, Ge(2)] = 4

    def __call__(self, module: nn.Module) -> nn.Module:
        """The grouped convolution; the same module where nothing is to change."""
        conv = plain(module)
        if not _dense_and_spatial(conv):
            return module
        common = math.gcd(conv.in_channels, conv.out_channels)
        if common % self.groups:
            divisors = ", ".join(str(d) for d in range(2, common + 1) if common % d == 0)
            raise Unsupported(
                f"{self.groups} groups do not divide both {conv.in_channels} and {conv.out_channels} channels; "
                + (f"these do: {divisors}" if divisors else "no number of groups does")
            )
        return like(conv, groups=self.groups)


@technique("convolution", "depthwise_separable")
class DepthwiseSeparable:
    """Splits every spatial convolution into one k x k filter a channel and a 1x1 convolution across channels.

    Howard et al. 2017 (MobileNets, https://arxiv.org/abs/1704.04861, section 3.1 and figure 3): a depthwise convolution
    with the old kernel, stride, padding and dilation, batch norm and ReLU, then a pointwise convolution, which the
    network's own norm and activation follow. Weights C_in k^2 + C_in C_out in place of C_in C_out k^2, multiply-adds
    likewise, so 1 / C_out + 1 / k^2 of before; batch norm adds 2 C_in parameters. ``between``: ``"norm_relu"`` is
    Howard's; ``"none"`` leaves the two linear, as Chollet 2017 (Xception, https://arxiv.org/abs/1610.02357, section
    4.7) found better; ``"relu"`` suits networks without norms. Left alone are the first convolution (up to 3 input
    channels), as in MobileNets, and those that are depthwise or grouped already.

    New weights are random at the scale of the old ones; pretrained weights of the replaced layers are lost.

    Helps: 8 to 9 times fewer multiply-adds for 3x3 kernels at about 1 percent of accuracy on ImageNet (Howard et al.,
    table 4).
    Known not to help: narrow networks that have no capacity to spare; and depthwise convolutions are bound by memory,
    so that on GPUs latency falls far less than multiply-adds.
    """

    between: Literal["norm_relu", "relu", "none"] = "norm_relu"

    def __call__(self, module: nn.Module) -> nn.Module:
        """Depthwise and pointwise convolution; the same module where nothing is to change."""
        conv = plain(module)
        if not _dense_and_spatial(conv):
            return module
        depthwise = like(conv, out_channels=conv.in_channels, groups=conv.in_channels, last=False)
        pointwise = like(conv, kernel_size=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
        return chain(depthwise, pointwise, self.between)


def _dense_and_spatial(conv: nn.Conv2d) -> bool:
    return conv.groups == 1 and conv.in_channels > IMAGE_CHANNELS and pair(conv.kernel_size) != (1, 1)


TECHNIQUES = (Grouped, DepthwiseSeparable)
