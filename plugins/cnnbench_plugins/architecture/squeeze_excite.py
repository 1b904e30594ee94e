"""Squeeze-and-excitation in any model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn

BuildsModel = Callable[[tuple[int, int, int], int], "nn.Module"]


@technique("architecture", "squeeze_excite")
class SqueezeExcitation:
    """Lets each block weigh its channels by what it sees in the whole image.

    Hu et al. 2018 (https://arxiv.org/abs/1709.01507, section 3): for features u [N, C, H, W], z = mean of u over H and
    W; s = sigmoid(W2 relu(W1 z)) with W1 [h, C], W2 [C, h], h = max(1, floor(C / ``reduction`` + 1/2)); the output is
    s[n, c] u[n, c, h, w]. It costs 2 C h parameters and as many multiply-adds an image for the two layers, which is
    2 C^2 / r, and with ``bias`` C + h more parameters. The default ``reduction`` of 16 is the paper's (table 10), for
    256 channels and more; narrow networks want 4 or 8. Without biases, as in the journal's version of the paper.

    Any model: at the end of every residual branch, before the addition (section 3.3, the standard SE block), where the
    model has residual additions, which tracing finds; otherwise behind the activation of every convolution (same
    section, for VGG), behind the convolution itself where the activation is no module of its own; not behind depthwise
    convolutions, whose pointwise partner has one, nor behind a convolution that is the classifier. Parts that can't be
    traced stay as they are. A network that has gates of its own (MobileNetV3, EfficientNet, RegNetY) gets these beside.

    Helps: ResNets and their relatives, by about 1 percent on ImageNet for 10 percent more parameters (table 2).
    Known not to help: small data and shallow networks, where it is within seed noise; latency, which grows more than
    multiply-adds do, since the gate waits for the whole feature map.

    Raises ``Unsupported`` where no feature maps [N, C, H, W] are found, as in vision transformers.
    """

    reduction: Annotated[int, Ge(1)] = 16
    bias: bool = False

    def __call__(self, model: BuildsModel) -> BuildsModel:
        """The model with the layers put in once it is built."""
        return SqueezeExcited(model, self)


@dataclass(frozen=True)
class SqueezeExcited:
    """A model technique around another one.

    Attributes:
        model: the one that builds the network.
        technique: what is done to it.
    """

    model: BuildsModel
    technique: SqueezeExcitation

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W), and put the layers in.

        Raises:
            Unsupported: there is no place for them.
        """
        from cnnbench_plugins.architecture._insert import insert_squeeze_excite

        built = self.model(image_shape, num_classes)
        insert_squeeze_excite(built, image_shape, self.hidden, bias=self.technique.bias)
        return built

    def hidden(self, channels: int) -> int:
        """Units between the two layers."""
        return max(1, int(channels / self.technique.reduction + 0.5))


TECHNIQUES = (SqueezeExcitation,)
