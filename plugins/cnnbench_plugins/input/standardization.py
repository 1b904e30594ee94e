"""Mean 0 and variance 1: by channel over the training split, or for each image by itself."""

from __future__ import annotations

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique


def channel_moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel, on the 0..1 scale, float64 [C] on the CPU.

    A histogram of the 256 values has the exact moments and needs no float copy of the images.

    Args:
        images: uint8 [N, C, H, W].
    """
    channels = range(images.shape[1])
    histograms = torch.stack([torch.bincount(images[:, c].flatten(), minlength=256) for c in channels])
    shares = histograms.cpu().double()
    shares /= shares.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ values
    variance = (shares * (values - mean[:, None]).square()).sum(1)
    return mean, variance.sqrt()


@technique("input", "z_score")
class ZScore:
    """Each channel minus its mean, over its standard deviation, both from the training split alone.

    x' = (x - mean_c) / std_c over all pixels of all training images (population deviation). A constant channel is
    centred and not scaled. LeCun et al. 1998 (Efficient BackProp, section 4.3).

    Helps nearly always, most where the model has no normalization layers. Known to matter little in front of batch
    normalization, which repeats it one layer later.
    """

    def __call__(self, images: torch.Tensor) -> nn.Module:
        """Fit to training images, uint8 [N, C, H, W]."""
        from cnnbench_plugins.input._layers import Affine

        mean, std = channel_moments(images)
        # The histogram of a constant channel has a single entry, so that its deviation is exactly 0.
        return Affine(mean, torch.where(std > 0, 1 / std, 1)).to(images.device)


@technique("input", "per_image")
class PerImage:
    """Each image minus its own mean, over its own standard deviation.

    Over all channels and pixels of the one image, so that brightness and contrast of the exposure drop out while
    colours keep their relation. The deviation counts as at least 1 / sqrt(C H W) of one of the 255 pixel steps, so that
    a flat image becomes 0. LeCun et al. 1998 reason as for ``z_score``; TensorFlow's per_image_standardization made it
    common.

    Helps where lighting varies from image to image. Known to hurt where brightness itself tells the classes apart, and
    to amplify the noise of nearly flat images.
    """

    def __call__(self, images: torch.Tensor) -> nn.Module:  # noqa: ARG002 - the slot's signature
        """Make the module; nothing is fitted."""
        from cnnbench_plugins.input._layers import Standardize

        return Standardize()


TECHNIQUES = (ZScore, PerImage)
