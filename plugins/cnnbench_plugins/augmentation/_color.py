"""Operations on pixel values of batches, each sample with parameters of its own.

Each result equals that of the operation of the same name in ``torchvision.transforms.v2.functional`` on the sample
alone, as a float image in 0..1. Images are float [N, C, H, W] in 0..1, C = 1 (gray) or 3 (RGB), and are not changed
in place; parameters are [N].
"""

from __future__ import annotations

from cnnbench.errors import Unsupported
from cnnbench.lazy import torch
from cnnbench_plugins.augmentation._draw import per_sample, select

# ITU-R BT.601 luma, to the digits that torchvision and Pillow use.
_LUMA = (0.2989, 0.587, 0.114)
# How much of red, green and blue a hue h in sixths has: clamp(sign |h - peak| + offset, 0, 1).
_WHEEL = ((3, 1, -1), (2, -1, 2), (4, -1, 2))


def _channels(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three channels of RGB images, each [N, 1, H, W]."""
    if images.shape[1] != 3:
        raise Unsupported(f"colours need 3 channels (or 1 for gray), these images have {images.shape[1]}")
    return images[:, 0:1], images[:, 1:2], images[:, 2:3]


def luma(images: torch.Tensor) -> torch.Tensor:
    """Gray [N, 1, H, W] of RGB images; gray images are their own."""
    if images.shape[1] == 1:
        return images
    red, green, blue = _channels(images)
    return (_LUMA[0] * red).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _blend(images: torch.Tensor, other: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """``other`` at factor 0, ``images`` at 1, beyond them above 1; cut to 0..1."""
    return torch.lerp(other, images, per_sample(factors, images)).clamp_(0, 1)


def adjust_brightness(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Scale each image's values by its factor: 0 is black, 1 leaves it, cut to 0..1."""
    return (images * per_sample(factors, images)).clamp_(0, 1)


def adjust_contrast(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Blend each image with its own mean gray: factor 0 is that gray, 1 leaves it, cut to 0..1."""
    mean = luma(images).mean((1, 2, 3), keepdim=True)
    return _blend(images, mean.expand_as(images), factors)


def adjust_saturation(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Blend each image with its gray version: factor 0 is gray, 1 leaves it. Gray images are returned as they are."""
    if images.shape[1] == 1:
        return images
    return _blend(images, luma(images).expand_as(images), factors)


def adjust_sharpness(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Blend each image with a smoothed version: factor 0 is smooth, 1 leaves it, above 1 sharpens; cut to 0..1.

    Smooth is the mean over 3 x 3 pixels with the middle one counted five times. Pixels at the edge have no such mean
    and stay; so do images of less than 3 pixels either way.
    """
    if min(images.shape[-2:]) < 3:
        return images
    inner = images[..., 1:-1, 1:-1]
    # The sum of nine by rows, then columns; pooling does the same many times slower.
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    means = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).mul_(1 / 9)
    out = images.clone()
    # (sum + 4 middle) / 13 is the middle moved 9/13 of the way to the plain mean of nine.
    torch.lerp(inner, means, per_sample((1 - factors) * (9 / 13), images), out=out[..., 1:-1, 1:-1])
    return out.clamp_(0, 1)


def adjust_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn each image's colours around the HSV circle. Gray images are returned as they are.

    Turns are parts of the circle: -0.5 and 0.5 both give the complementary colour. With hue h in sixths, lowest channel
    m and chroma c (highest less lowest), red is m + c clamp(|h - 3| - 1), green m + c clamp(2 - |h - 2|) and blue
    m + c clamp(2 - |h - 4|), clamped to 0..1: Smith 1978 in closed form.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = _channels(images)
    value, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    # Of a gray pixel the hue does not matter, but it must be a number.
    chroma = (value - low).clamp_(min=torch.finfo(images.dtype).tiny)
    # Hue in sixths of the circle, by which channel is the highest: red before green before blue where two are. From
    # here on in as few buffers as do, since fresh memory costs more than the sums.
    hue = (red - green).div_(chroma).add_(4)
    work = (blue - red).div_(chroma).add_(2)
    hue.lerp_(work, (value == green).to(hue.dtype))
    torch.sub(green, blue, out=work).div_(chroma)
    hue.lerp_(work, (value == red).to(hue.dtype))
    hue.add_(6 * per_sample(turns, images))
    hue.sub_(torch.div(hue, 6, out=work).floor_().mul_(6))  # a remainder, in a fraction of remainder's time
    out = torch.empty_like(images)
    for channel, (peak, sign, offset) in enumerate(_WHEEL):
        torch.sub(hue, peak, out=work).abs_().mul_(sign).add_(offset).clamp_(0, 1)
        torch.addcmul(low, chroma, work, out=out[:, channel : channel + 1])
    return out


def invert(images: torch.Tensor) -> torch.Tensor:
    """The negative of each image, 1 - x."""
    return 1 - images


def solarize(images: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Invert the values at or above each image's threshold, 0..1; of a threshold above 1 there are none."""
    return select(images >= per_sample(thresholds, images), 1 - images, images)


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Keep as many levels as the given number of bits (0 to 8) has: floor(2^b x) / 2^b, at most 1 - 2^-b.

    torchvision's definition for float images. For 8-bit images it masks low bits: the same pixels fall together but
    for those next to a border, and the level l becomes l 2^(8-b) / 255 in place of l / 2^b.
    """
    levels = torch.exp2(per_sample(bits, images))
    return torch.minimum((images * levels).floor_(), levels - 1).div_(levels)


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Stretch each channel of each image to 0..1; a channel of one value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = low == high
    return (images - low.masked_fill(flat, 0)).div_((high - low).masked_fill(flat, 1)).clamp_(0, 1)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Spread each channel of each image over 0..1 by its histogram, so that all levels become equally frequent.

    In 256 levels: floor(255.999 x), as torchvision makes 8-bit images of float ones. Level v becomes
    floor((pixels below v + s / 2) / s) where s is a 255th of the pixels below the highest level there is (Pillow's
    formula). Channels where s is 0 (one value, or fewer than 255 pixels below the highest) are only rounded.
    """
    count, channels, height, width = images.shape
    levels = (images.to(torch.float32) * 255.999).to(torch.int64).reshape(count * channels, height * width)
    histogram = torch.zeros(len(levels), 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones_like(levels, dtype=torch.int32))
    highest = levels.amax(1, keepdim=True)
    step = (height * width - histogram.gather(1, highest)) // 255
    below = histogram.cumsum(1, dtype=torch.int32) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    unchanged = torch.arange(256, dtype=torch.int32, device=images.device)
    table = torch.where(step == 0, unchanged, table).to(images.dtype) / 255
    return table.gather(1, levels).view(images.shape)
