"""Fixed or fitted ranges: raw pixel values, 0..1, min-max."""

from __future__ import annotations

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique


@technique("input", "none")
class Raw:
    """Raw pixel values, 0 to 255, as the files hold them.

    The arm to compare normalization with. LeCun et al. 1998 (Efficient BackProp, section 4.3): inputs far from mean 0
    and variance 1 slow training down; without normalization layers, at usual learning rates, it often diverges.
    """

    def __call__(self, images: torch.Tensor) -> nn.Module:
        """Make the module; ``images`` do not matter."""
        from cnnbench_plugins.input._layers import Affine

        return Affine(torch.zeros(1), torch.full((1,), 255.0)).to(images.device)


@technique("input", "unit", waives={"effect": "it is what the harness does where no input is named"})
class Unit:
    """Pixel values divided by 255, so 0 to 1.

    What the harness hands to the model where no input technique is named. Nothing is fitted, so nothing can leak from
    or depend on the training split. Known to leave the mean of inputs above 0, which ``z_score`` does not.
    """

    def __call__(self, images: torch.Tensor) -> nn.Module:  # noqa: ARG002 - the slot's signature
        """Make the module; ``images`` do not matter."""
        return nn.Identity()


@technique("input", "min_max")
class MinMax:
    """Each channel's range over the training split mapped to low..high.

    x' = low + (x - min) (high - low) / (max - min), with min and max of the channel over all training images; other
    images may fall outside the range. A channel that is constant in training becomes ``low``. The default range is
    symmetric about 0, see LeCun et al. 1998 (Efficient BackProp, section 4.3).

    Helps where the data use a part of the pixel range only. Known to depend on outliers: on photographs every channel
    has a black and a white pixel somewhere, and it is then ``unit``, shifted.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")

    def __call__(self, images: torch.Tensor) -> nn.Module:
        """Fit to training images, uint8 [N, C, H, W]."""
        from cnnbench_plugins.input._layers import Affine

        least, most = (extreme.float() / 255 for extreme in (images.amin((0, 2, 3)), images.amax((0, 2, 3))))
        spread = most - least
        scale = torch.where(spread > 0, (self.high - self.low) / spread, 1)
        return Affine(least - self.low / scale, scale)


TECHNIQUES = (Raw, Unit, MinMax)
