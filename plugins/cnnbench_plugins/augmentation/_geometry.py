"""Geometric operations on batches, each sample with parameters of its own.

Each result equals that of the operation of the same name in ``torchvision.transforms.v2.functional`` on the sample
alone. All coordinates are in pixels, x to the right and y down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench.lazy import F, torch

if TYPE_CHECKING:
    from typing import TypeAlias

Interpolation: TypeAlias = "Literal['nearest', 'bilinear']"
PadMode: TypeAlias = "Literal['constant', 'reflect', 'replicate']"
PerSample: TypeAlias = "torch.Tensor | float"


def _vector(images: torch.Tensor, value: PerSample) -> torch.Tensor:
    """A parameter as float32 [N]."""
    if isinstance(value, torch.Tensor):
        return value.to(torch.float32)
    return torch.full((len(images),), value, dtype=torch.float32, device=images.device)


def _centres(size: int, device: torch.device) -> torch.Tensor:
    """Where the centres of ``size`` pixels lie, counted from the middle of the image, float32."""
    return torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2


def sample(
    images: torch.Tensor, grid: torch.Tensor, interpolation: Interpolation = "bilinear", fill: float = 0.0
) -> torch.Tensor:
    """Read each image at the places of its grid.

    Args:
        images: float [N, C, H, W].
        grid: float32 [N, 2, H, W]: x and y of each place, -1 and 1 the outer edges of the image.
        interpolation: between pixels.
        fill: value of what lies outside. Pixels at the edge blend with it by the share of them that is covered, where
            torchvision, given a fill other than None, counts that share twice.
    """
    # Half precision can't tell the columns of a wide image apart.
    exact = images if images.dtype in (torch.float32, torch.float64) else images.to(torch.float32)
    shifted = exact - fill if fill else exact
    places = grid.to(exact.dtype).permute(0, 2, 3, 1)
    out = F.grid_sample(shifted, places, mode=interpolation, padding_mode="zeros", align_corners=False)
    return (out.add_(fill) if fill else out).to(images.dtype)


def affine(
    images: torch.Tensor,
    *,
    degrees: PerSample = 0.0,
    right: PerSample = 0.0,
    down: PerSample = 0.0,
    scale: PerSample = 1.0,
    shear_x: PerSample = 0.0,
    shear_y: PerSample = 0.0,
    center: tuple[float, float] | None = None,
    interpolation: Interpolation = "bilinear",
    fill: float = 0.0,
) -> torch.Tensor:
    """Shear, scale, rotate and then shift each image; its size stays.

    Parameters are numbers for all or tensors [N].

    Args:
        images: float [N, C, H, W].
        degrees: rotation, clockwise (torchvision's ``affine``; its ``rotate`` turns the other way).
        right: shift in pixels, any fraction.
        down: likewise.
        scale: above 1 enlarges what is in the image.
        shear_x: in degrees; the x of a point changes by -y tan(shear_x).
        shear_y: likewise the y by -x tan(shear_y), after x was sheared.
        center: x and y of the point that rotation, scale and shear leave alone, in pixels from the top left corner of
            the image; None for its middle.
        interpolation: between pixels.
        fill: value of what lies outside.
    """
    height, width = images.shape[-2:]
    turn = torch.deg2rad(_vector(images, degrees))
    horizontal, vertical = torch.deg2rad(_vector(images, shear_x)), torch.deg2rad(_vector(images, shear_y))
    size = _vector(images, scale)
    # With R(t) the rotation, forward = scale R(turn) [1, 0; -tan v, 1] [1, -tan h; 0, 1], whose determinant is scale².
    cosine, sine, tan_h, tan_v = torch.cos(turn), torch.sin(turn), torch.tan(horizontal), torch.tan(vertical)
    a = cosine + sine * tan_v
    c = sine - cosine * tan_v
    b = -(a * tan_h + sine)
    d = cosine - c * tan_h
    # The inverse, from pixels to the grid's -1..1, over the rows for x and y.
    half_x, half_y = size * (width / 2), size * (height / 2)
    by_x = torch.stack((d / half_x, -c / half_y), 1)[:, :, None, None]
    by_y = torch.stack((-b / half_x, a / half_y), 1)[:, :, None, None]

    fixed_x, fixed_y = (0.0, 0.0) if center is None else (center[0] - width / 2, center[1] - height / 2)
    # An output point less the shift and the fixed point, through the inverse, plus the fixed point.
    x = _centres(width, images.device) - fixed_x - _vector(images, right)[:, None]
    y = _centres(height, images.device) - fixed_y - _vector(images, down)[:, None]
    columns = by_x * x[:, None, None, :]
    if center is not None:
        columns[:, 0] += fixed_x / (width / 2)
        columns[:, 1] += fixed_y / (height / 2)
    return sample(images, columns + by_y * y[:, None, :, None], interpolation, fill)


def rotate(
    images: torch.Tensor, degrees: torch.Tensor, interpolation: Interpolation = "bilinear", fill: float = 0.0
) -> torch.Tensor:
    """Rotate each image about its centre, counter-clockwise by degrees [N]; size kept."""
    return affine(images, degrees=-degrees, interpolation=interpolation, fill=fill)


def crop(images: torch.Tensor, left: torch.Tensor, top: torch.Tensor, padding: int, mode: PadMode) -> torch.Tensor:
    """Pad each image on all sides and cut a window of its old size from it.

    Args:
        images: [N, C, H, W].
        left: the window's first column in the padded image, int64 [N] within 0..2 padding.
        top: its first row, likewise.
        padding: pixels on every side; below the image's sides if they reflect.
        mode: of ``torch.nn.functional.pad``; constant is zero.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (padding, padding, padding, padding), mode=mode)
    # A view of every possible crop; picking one for each sample is the only copy.
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(len(images), device=images.device), :, top, left]


def translate(images: torch.Tensor, right: torch.Tensor, down: torch.Tensor, limit: int) -> torch.Tensor:
    """Shift each image by whole pixels, zeros where nothing was.

    Args:
        images: [N, C, H, W].
        right: pixels, int64 [N], each within -limit..limit; negative is to the left.
        down: the same, downwards.
        limit: the largest shift.
    """
    return crop(images, limit - right, limit - down, limit, "constant")


def perspective(images: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Move the corners of each image and what lies between as a plane seen from elsewhere; bilinear, zeros outside.

    torchvision's ``perspective`` with the start points (0, 0), (W, 0), (W, H), (0, H): the outer corners of the image,
    since its pixels have their centres at halves.

    Args:
        images: float [N, C, H, W].
        corners: float32 [N, 4, 2], x and y of where the corners come to lie, from the top left one clockwise. They
            must form a convex quadrilateral.
    """
    height, width = images.shape[-2:]
    (x0, x1, x2, x3), (y0, y1, y2, y3) = corners[..., 0].unbind(1), corners[..., 1].unbind(1)
    # Heckbert 1989, section 2.2.2: the map from the unit square to a quadrilateral. With its third row (g, h, 1) ...
    skew_x, skew_y = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    determinant = (x1 - x2) * (y3 - y2) - (x3 - x2) * (y1 - y2)
    g = (skew_x * (y3 - y2) - (x3 - x2) * skew_y) / determinant
    h = ((x1 - x2) * skew_y - skew_x * (y1 - y2)) / determinant
    # ... and the first two (a, b, x0) and (d, e, y0). Pixels need the inverse, that is the adjugate up to a factor.
    a, b = x1 - x0 + g * x1, x3 - x0 + h * x3
    d, e = y1 - y0 + g * y1, y3 - y0 + h * y3
    u = (e - y0 * h, x0 * h - b, b * y0 - x0 * e)
    v = (y0 * g - d, a - x0 * g, x0 * d - a * y0)
    w = (d * h - e * g, b * g - a * h, a * e - b * d)
    # The grid runs from -1 to 1 where the unit square runs from 0 to 1: 2 u / w - 1 is (2 u - w) / w.
    rows = ([2 * i - k for i, k in zip(u, w, strict=True)], [2 * j - k for j, k in zip(v, w, strict=True)], w)
    by_x, by_y, one = (torch.stack(column, 1)[:, :, None, None] for column in zip(*rows, strict=True))
    x = torch.arange(width, dtype=torch.float32, device=images.device) + 0.5
    y = torch.arange(height, dtype=torch.float32, device=images.device)[:, None] + 0.5
    planes = (by_x * x + one) + by_y * y
    # Where the plane's horizon crosses a pixel the quotient is infinite; any place outside the image does.
    return sample(images, planes[:, :2].div_(planes[:, 2:]).clamp_(-3, 3))


def elastic(images: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Read every pixel from a place next to it; bilinear, zeros where there is nothing.

    Args:
        images: float [N, C, H, W].
        displacement: float32 [N, 2, H, W]: x and y, in pixels, from a pixel to the place that it is read from. In units
            of torchvision's ``elastic``, where an image is 2 wide, that is 2 / W and 2 / H times as much.
    """
    height, width = images.shape[-2:]
    x = displacement[:, 0] + _centres(width, images.device)
    y = displacement[:, 1] + _centres(height, images.device)[:, None]
    return sample(images, torch.stack((x.div_(width / 2), y.div_(height / 2)), 1))
