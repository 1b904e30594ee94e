"""The norms of every textbook: none, batch, group, layer, instance."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from cnnbench.errors import Unsupported
from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins.norm._replace import channels_of, inherit


def group_norm(groups: int, channels: int) -> nn.GroupNorm:
    """Group normalization of ``channels``.

    Raises:
        Unsupported: ``groups`` does not divide them; names the nearest numbers of groups that do.
    """
    if channels % groups:
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        below = [d for d in divisors if d < groups][-1:]
        above = [d for d in divisors if d > groups][:1]
        nearest = " and ".join(map(str, below + above))
        raise Unsupported(f"{groups} groups do not divide {channels} channels; the nearest that do: {nearest}")
    return nn.GroupNorm(groups, channels)


@technique("norm", "none")
class NoNorm:
    """Removes normalization, leaving at most a bias for each channel.

    y[n, c, h, w] = x[n, c, h, w] + b[c], b starting at 0. Convolutions in front of a norm are usually built without a
    bias, since the norm would cancel it; without ``bias`` here the network would lose its biases together with its
    normalization, and the arm would change two things.

    Helps: nothing but speed and memory; it is the control that shows what normalization does.
    Known not to help: deep plain networks at high learning rates hardly train at all without normalization (Ioffe &
    Szegedy 2015, https://arxiv.org/abs/1502.03167, section 4.2).
    """

    bias: bool = True

    def __call__(self, module: nn.Module) -> nn.Module:
        """A bias for each channel, or nothing at all."""
        if not self.bias:
            return nn.Identity()
        from cnnbench_plugins.norm._layers import ChannelBias

        return inherit(ChannelBias(channels_of(module)), module)


@technique(
    "norm",
    "batch",
    waives={
        "left-alone": "as an arm it names the norm that most networks have: an equal one counts as replaced",
        "effect": "it is what most networks have",
    },
)
class BatchNorm:
    """Normalizes each channel by the mean and variance of the batch.

    Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 1. For x [N, C, H, W], mean m[c] and biased
    variance v[c] are taken over N, H and W: y = (x - m) / sqrt(v + eps) * scale[c] + shift[c]. Inference uses running
    statistics: r <- (1 - momentum) * r + momentum * (statistic of the batch, variance unbiased). ``momentum`` is the
    weight of the new batch, torch's convention; defaults are torch's.

    Helps: deep networks train faster and at higher learning rates; mild regularization from the batch's noise.
    Known not to help: small batches, whose statistics are noise (Wu & He 2018, figure 1: below about 16 images), and
    test data distributed otherwise than the training data.
    """

    momentum: Annotated[float, Gt(0), Le(1)] = 0.1
    eps: Annotated[float, Gt(0)] = 1e-5

    def __call__(self, module: nn.Module) -> nn.Module:
        """Batch norm of as many channels."""
        return inherit(nn.BatchNorm2d(channels_of(module), eps=self.eps, momentum=self.momentum), module)


@technique("norm", "group", example={"groups": 4})
class GroupNorm:
    """Normalizes groups of channels within each sample, whatever the batch.

    Wu & He 2018, https://arxiv.org/abs/1803.08494, section 3. The C channels form ``groups`` equal groups; mean and
    biased variance are taken for each sample and group over its C / groups channels, H and W:
    y = (x - m[n, g]) / sqrt(v[n, g] + 1e-5) * scale[c] + shift[c]. The paper uses 32 groups; the default here is 8,
    because small-image networks have layers of 16 channels.

    Helps: batches below about 16 images, where it keeps its accuracy and batch norm loses it.
    Known not to help: large batches, where batch norm is usually a little better; and it can't be folded into the
    convolution for inference, so it costs time there.

    Raises ``Unsupported`` where ``groups`` does not divide a layer's channels.
    """

    groups: Annotated[int, Ge(1)] = 8

    def __call__(self, module: nn.Module) -> nn.Module:
        """Group norm of as many channels."""
        return inherit(group_norm(self.groups, channels_of(module)), module)


@technique("norm", "layer")
class LayerNorm:
    """Normalizes each sample over all its channels and positions: group norm with one group.

    Ba et al. 2016, https://arxiv.org/abs/1607.06450, as Wu & He 2018 (section 3.1) define it for images: mean and
    biased variance for each sample over C, H and W, then scale and shift for each channel. (Not ConvNeXt's, which
    normalizes over C alone at each position.)

    Helps: any batch size, one included.
    Known not to help: in CNNs it is mostly behind batch and group norm, since it makes channels of different meaning
    share one scale.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Layer norm of as many channels."""
        return inherit(group_norm(1, channels_of(module)), module)


@technique("norm", "instance", waives={"empty-batch": "torch's instance norm takes no batch of no images"})
class InstanceNorm:
    """Normalizes each channel of each sample by its own mean and variance.

    Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022: mean and biased variance for each sample and channel over H
    and W: y = (x - m[n, c]) / sqrt(v[n, c] + 1e-5) * scale[c] + shift[c]; ``affine`` keeps scale and shift. The same in
    training and inference.

    Helps: style transfer and generation; data whose contrast varies from image to image.
    Known not to help: classification, since it discards how strongly a channel responds.

    Raises ``Unsupported`` at the first 1x1 feature map, which has no variance: ResNets with five halvings meet it on
    32x32 images.
    """

    affine: bool = True

    def __call__(self, module: nn.Module) -> nn.Module:
        """Instance norm of as many channels."""
        from cnnbench_plugins.norm import _layers

        return inherit(_layers.InstanceNorm(channels_of(module), affine=self.affine), module)


TECHNIQUES = (NoNorm, BatchNorm, GroupNorm, LayerNorm, InstanceNorm)
