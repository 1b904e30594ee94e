"""Decorrelated pixels: ZCA whitening."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench.errors import Unsupported
from cnnbench.lazy import nn, torch
from cnnbench.technique import technique

MOST_VALUES = 4096
"""Values of an image, C x H x W, above which whitening is refused: its matrix has their square of entries."""

_CHUNK = 1024


def pixel_moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [D] and covariance [D, D] of the images' D = C H W values, on the 0..1 scale, float64.

    Population moments, over chunks, so that no float copy of all images is made. On the images' device if that is a GPU
    of CUDA, else on the CPU, as other devices lack float64.

    Args:
        images: uint8 [N, C, H, W].
    """
    home = images.device if images.is_cuda else torch.device("cpu")
    chunks = [chunk.flatten(1) for chunk in torch.split(images, _CHUNK)]
    total = torch.stack([chunk.sum(0) for chunk in chunks]).sum(0)  # integers, so exact
    mean = total.to(home).double() / (255 * len(images))
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=home)
    for chunk in chunks:
        centred = chunk.to(home).double().div_(255).sub_(mean)
        covariance.addmm_(centred.T, centred)
    return mean, covariance / len(images)


def zca_matrix(covariance: torch.Tensor, eps: float) -> torch.Tensor:
    """W = U (S + eps)^(-1/2) Uᵀ, [D, D], from a covariance U S Uᵀ; symmetric.

    Args:
        covariance: symmetric, [D, D].
        eps: above 0, in the covariance's units.
    """
    variances, directions = torch.linalg.eigh(covariance)
    # Rounding puts variances of 0 slightly below it.
    gains = (variances.clamp_min(0) + eps).rsqrt()
    whitening: torch.Tensor = (directions * gains) @ directions.T
    return whitening


@technique("input", "zca")
class ZCA:
    """Pixels decorrelated and brought to equal variance over the training split, and turned back to look like images.

    x' = W (x - mean) with W = U (S + eps)^(-1/2) Uᵀ, from mean [D] and covariance U S Uᵀ [D, D] of all D = C H W pixel
    values of the training images (population moments). Krizhevsky 2009, appendix A, without eps; Coates, Ng & Lee 2011
    made it a standard step, and Coates & Ng 2012 add an eps of 0.01 to 0.1 on patches of unit variance. Here eps is in
    squared units of the 0..1 pixel scale, where the variance of photographs is about 0.06, hence the default of 0.01:
    no direction is amplified more than 1 / sqrt(eps) = 10 times, and a constant pixel becomes 0.

    At most 4096 values an image (64 x 64 gray, 36 x 36 in colour): W has the square of that in entries and costs as
    many multiply-adds for each image; larger images are refused. Fitting takes seconds at 28 x 28 and some
    40 s of one CPU core for 50,000 images of 32 x 32 in colour.

    Helps shallow networks and networks without normalization layers, and unsupervised features. Known to matter little
    to deep networks with batch normalization, to amplify noise where eps is small, and to overfit where there are
    fewer training images than values.
    """

    eps: Annotated[float, Gt(0)] = 0.01

    def __call__(self, images: torch.Tensor) -> nn.Module:
        """Fit to training images, uint8 [N, C, H, W].

        Raises:
            Unsupported: an image has more than ``MOST_VALUES`` values.
        """
        from cnnbench_plugins.input._layers import Whiten

        channels, height, width = images.shape[1:]
        values = channels * height * width
        if values > MOST_VALUES:
            raise Unsupported(
                f"zca takes images of at most {MOST_VALUES} values, not {channels} x {height} x {width} = {values}: "
                "use smaller images, or z_score"
            )
        mean, covariance = pixel_moments(images)
        return Whiten(mean.view(images.shape[1:]), zca_matrix(covariance, self.eps)).to(images.device)


TECHNIQUES = (ZCA,)
