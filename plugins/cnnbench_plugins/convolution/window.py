"""Other windows for the same channels: kernel size and dilation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from cnnbench.errors import Unsupported
from cnnbench.technique import technique
from cnnbench_plugins.convolution._replace import like, padding_of, pair, plain

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("convolution", "kernel")
class Kernel:
    """Gives every spatial convolution another kernel size, its output as large as before.

    ``size`` x ``size`` in place of any odd kernel; an axis of extent 1 keeps it, so that 1x1 convolutions stay and 1x7
    becomes 1x``size``. Padding grows by d (size - k) / 2 on each side (d the dilation, k the old extent), which keeps
    floor((H + 2p - d (k - 1) - 1) / s) + 1 for every H. Weights and multiply-adds change by size^2 / k^2. All
    convolutions count, depthwise ones and the first as well. Even kernels are left alone: no padding that is equal on
    both sides would keep the size, and most of them (ConvNeXt's patches) cut the image into tiles.

    New weights are random at the scale of the old ones; pretrained weights of the replaced layers are lost.

    Helps: larger kernels see more context in shallow networks, and are nearly free in depthwise convolutions (Tan & Le
    2019, "MixConv", https://arxiv.org/abs/1907.09595, figure 1: up to 7x7); smaller ones save cost.
    Known not to help: dense kernels beyond 3x3, where a stack of 3x3 sees as much at less cost (Simonyan & Zisserman
    2015, section 2.3); feature maps smaller than the kernel, which then reads padding.

    Raises ``Unsupported`` where a smaller kernel would need negative padding, as LeNet's unpadded convolutions do.
    """

    size: Annotated[int, Ge(1)] = 5

    def __post_init__(self) -> None:
        if self.size % 2 == 0:
            raise ValueError(f"size must be odd, not {self.size}: an even kernel can't keep its output's size")

    def __call__(self, module: nn.Module) -> nn.Module:
        """A convolution with the new kernel; the same module where nothing is to change."""
        conv = plain(module)
        old = pair(conv.kernel_size)
        if any(k % 2 == 0 for k in old):
            return module
        height, width = (1 if k == 1 else self.size for k in old)
        if (height, width) == old:
            return module
        if (padding := padding_of(conv)) == "same":
            return like(conv, kernel_size=(height, width))
        (top, left), (down, right) = padding, pair(conv.dilation)
        top += down * (height - old[0]) // 2
        left += right * (width - old[1]) // 2
        if top < 0 or left < 0:
            raise Unsupported(
                f"a {old[0]}x{old[1]} convolution padded by {padding[0]} can't become {height}x{width} with the same "
                "output size: its padding would be negative"
            )
        return like(conv, kernel_size=(height, width), padding=(top, left))


@technique("convolution", "dilated")
class Dilated:
    """Spreads the taps of every spatial convolution apart, its output as large as before.

    Yu & Koltun 2016, https://arxiv.org/abs/1511.07122, section 2: (F *_l k)(p) is the sum over s + l t = p of
    F(s) k(t); a k x k kernel then spans l (k - 1) + 1 pixels. Padding grows by (l - 1)(k - 1) / 2 on each side.
    Parameters and multiply-adds stay exactly as they were, and so do the weights, pretrained ones too. Depthwise
    convolutions and the first one count as well. Left alone are 1x1 kernels, even kernels (see ``kernel``), strided
    convolutions, which at rate 2 and stride 2 would never read three quarters of their input, and those that are
    dilated already.

    Helps: context without loss of resolution, mostly in dense prediction.
    Known not to help: classification of small images, where feature maps of 8 pixels and less are narrower than the
    kernel, which then reads padding; equal rates in succession see a checkerboard of their input ("gridding", Wang et
    al. 2018, https://arxiv.org/abs/1702.08502, section 3.2).
    """

    rate: Annotated[int, Ge(2)] = 2

    def __call__(self, module: nn.Module) -> nn.Module:
        """The same weights over a wider window; the same module where nothing is to change."""
        conv = plain(module)
        kernel = pair(conv.kernel_size)
        rates = [1 if k == 1 else self.rate for k in kernel]
        if (
            rates == [1, 1]
            or any(k % 2 == 0 for k in kernel)
            or pair(conv.stride) != (1, 1)
            or pair(conv.dilation) != (1, 1)
        ):
            return module
        padding = padding_of(conv)
        if padding != "same":
            top, left = (p + (r - 1) * (k - 1) // 2 for p, r, k in zip(padding, rates, kernel, strict=True))
            padding = (top, left)
        new = like(conv, padding=padding, dilation=(rates[0], rates[1]))
        new.load_state_dict(conv.state_dict())
        return new


TECHNIQUES = (Kernel, Dilated)
