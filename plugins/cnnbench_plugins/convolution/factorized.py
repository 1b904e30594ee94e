"""One large window as several small ones in succession."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench.technique import technique
from cnnbench_plugins.convolution._replace import IMAGE_CHANNELS, chain, like, padding_of, pair, plain

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("convolution", "stacked_3x3")
class Stacked3x3:
    """Puts (k - 1) / 2 convolutions of 3x3 in place of one of k x k, for odd k from 5 on.

    Simonyan & Zisserman 2015 (VGG, https://arxiv.org/abs/1409.1556, section 2.3): two 3x3 layers see 5x5 pixels, three
    see 7x7, with an activation between them. The first has the old stride and maps C_in to C_out channels, the others
    keep C_out; the output is as large as before. Weights, for n layers: 9 C_in C_out + (n - 1) 9 C_out^2 in place of
    k^2 C_in C_out, so 18/25 for 5x5 and 27/49 for 7x7 where C_in = C_out; multiply-adds likewise, all at the output's
    resolution. ``between``: ``"relu"`` is VGG's; ``"norm_relu"`` adds a batch norm each; ``"none"`` leaves the chain
    linear. Grouped and depthwise convolutions keep their groups in every layer. The first convolution counts as well,
    as in the 7x7 stems of ResNets (He, T. et al. 2019, https://arxiv.org/abs/1812.01187, section 4.2), but with 3 input
    channels the chain costs more than the one. Kernels that are not square are left alone.

    New weights are random at the scale of the old ones; pretrained weights of the replaced layers are lost.

    Helps: fewer parameters and more non-linearity for the same receptive field.
    Known not to help: networks of 3x3 kernels, where there is nothing to replace; memory, since each layer keeps its
    output for the backward pass.
    """

    between: Literal["relu", "norm_relu", "none"] = "relu"

    def __call__(self, module: nn.Module) -> nn.Module:
        """The chain; the same module where nothing is to change."""
        conv = plain(module)
        kernel = pair(conv.kernel_size)
        size = kernel[0]
        if kernel != (size, size) or size % 2 == 0 or size < 5:
            return module
        length = (size - 1) // 2
        padding = padding_of(conv)
        paddings: list[tuple[int, int] | Literal["same"]] = ["same"] * length
        if padding != "same":
            rows, columns = (
                split_padding(p, s, d, length)
                for p, s, d in zip(padding, pair(conv.stride), pair(conv.dilation), strict=True)
            )
            paddings = list(zip(rows, columns, strict=True))
        convs = [
            like(
                conv,
                in_channels=conv.out_channels if index else conv.in_channels,
                kernel_size=(3, 3),
                stride=(1, 1) if index else pair(conv.stride),
                padding=padding,
                last=index == length - 1,
            )
            for index, padding in enumerate(paddings)
        ]
        return chain(convs[0], convs[1], self.between, *convs[2:])


def split_padding(padding: int, stride: int, dilation: int, length: int) -> list[int]:
    """Padding of each of ``length`` 3-tap convolutions in place of one of 2 length + 1 taps, along one axis.

    The chain's first has the stride. One after it that is padded by the dilation keeps its input's extent; one without
    padding takes off 2 dilation pixels of it, which are 2 dilation stride pixels of the first one's input. So few go
    without that the first needs no negative padding, and the output's extent is the old one for any input.
    """
    unpadded = 0
    while (first := padding - dilation * (length - 1) + dilation * stride * unpadded) < 0:
        unpadded += 1
    return [first] + [0] * unpadded + [dilation] * (length - 1 - unpadded)


@technique("convolution", "asymmetric")
class Asymmetric:
    """Puts a k x 1 and then a 1 x k convolution in place of a k x k one.

    Szegedy et al. 2016 (Inception v3, https://arxiv.org/abs/1512.00567, section 3.2, figure 3). The first maps C_in to
    C_out channels along the height and has the vertical stride and padding, the second keeps C_out along the width.
    Weights k C_in C_out + k C_out^2 in place of k^2 C_in C_out, so 2 / k where C_in = C_out; the first one's
    multiply-adds are at the output's height and the input's width. ``between``: ``"relu"`` is the paper's, which found
    it better than a linear chain (section 3.1); ``"norm_relu"`` adds the batch norm of its released networks;
    ``"none"`` leaves the chain linear. Grouped and depthwise convolutions keep their groups. Left alone are kernels
    that are not square, and the first convolution (up to 3 input channels), where it would cost more.

    New weights are random at the scale of the old ones; pretrained weights of the replaced layers are lost.

    Helps: large kernels at feature maps of 12 to 20 pixels, where the paper has 7x1 and 1x7.
    Known not to help: early layers (section 3.2); 3x3 kernels, for which the saving is a third at best and one layer
    becomes two.
    """

    between: Literal["relu", "norm_relu", "none"] = "relu"

    def __call__(self, module: nn.Module) -> nn.Module:
        """The two convolutions; the same module where nothing is to change."""
        conv = plain(module)
        height, width = pair(conv.kernel_size)
        if height != width or height == 1 or conv.in_channels <= IMAGE_CHANNELS:
            return module
        (down, right), (below, beside) = pair(conv.stride), pair(conv.dilation)
        padding = padding_of(conv)
        vertical = like(
            conv,
            kernel_size=(height, 1),
            stride=(down, 1),
            padding=padding if padding == "same" else (padding[0], 0),
            dilation=(below, 1),
            last=False,
        )
        horizontal = like(
            conv,
            in_channels=conv.out_channels,
            kernel_size=(1, width),
            stride=(1, right),
            padding=padding if padding == "same" else (0, padding[1]),
            dilation=(1, beside),
        )
        return chain(vertical, horizontal, self.between)


TECHNIQUES = (Stacked3x3, Asymmetric)
