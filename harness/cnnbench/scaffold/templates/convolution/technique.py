"""Convolutions that know where in the image they are."""

from __future__ import annotations

from cnnbench import technique
from cnnbench.lazy import nn


@technique("convolution", "template_name")
class Template:
    """Lets every convolution see the coordinates of its pixels.

    Liu et al. 2018 (CoordConv), https://arxiv.org/abs/1807.03247, section 3: row and column, each from -1 to 1 across
    the map, become two more input channels, and with ``radius`` the distance from the centre a third. A convolution
    of more inputs is the sum of two: y = conv(x) + where(coordinates), x [N, C, H, W], coordinates [1, 2 or 3, H, W].
    So the model's own convolution stays as it is, weights and all, and ``where`` starts at 0 and learns. It adds 2 or 3
    weights for each output channel and tap.

    Helps where the answer depends on the place: detection, coordinates, images that are all framed alike. Known not to
    help classification of objects that may stand anywhere: it gives up what convolutions gain by ignoring the place.

    Attributes:
        radius: tell the distance from the centre too.
    """

    # An option is a typed field. Suites that give anything but true or false are told so before anything runs.
    radius: bool = False

    def __call__(self, module: nn.Module) -> nn.Module:
        """The layer that stands in for one convolution; the same object again would leave it alone."""
        from cnnbench.scaffold.templates.convolution.layers import CoordConv

        assert isinstance(module, nn.Conv2d)
        return CoordConv(module, radius=self.radius)
