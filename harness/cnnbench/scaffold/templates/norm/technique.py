"""Root mean square normalization for images."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench import technique
from cnnbench.errors import Unsupported
from cnnbench.lazy import nn


@technique("norm", "template_name")
class Template:
    """Divides each sample by its root mean square over all channels and positions.

    Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467, equation 4, taken to images: for x [N, C, H, W] and m[n]
    the mean of x[n]^2 over C, H and W, y = x / sqrt(m[n] + eps) * scale[c] + bias[c], of the same shape. No mean is
    subtracted and nothing is averaged over the batch, so training and inference compute the same.

    Helps where batches are small, down to one image. Known not to help where batches are large: batch norm's noise
    regularizes, and it can be folded into the convolution before it, which this can't.

    Attributes:
        eps: added to the mean square, so that a blank image is not divided by 0.
    """

    # An option is a typed field; its constraint is checked when a suite is read, before anything runs.
    eps: Annotated[float, Gt(0)] = 1e-5

    def __call__(self, module: nn.Module) -> nn.Module:
        """The layer that stands in for one norm of the model; the same object again would leave it alone.

        Raises:
            Unsupported: the norm does not say how many channels it has. Costs its trial, which is then skipped.
        """
        from cnnbench.scaffold.templates.norm.layers import ImageRMSNorm

        channels = getattr(module, "num_features", None) or getattr(module, "num_channels", None)
        if channels is None:
            raise Unsupported(f"{type(module).__name__} does not say how many channels it has")
        return ImageRMSNorm(channels, self.eps)
