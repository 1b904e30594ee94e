"""Encoded images (PNG, JPEG and whatever else Pillow reads) into one uint8 tensor."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cnnbench.errors import DataError
from cnnbench.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

_GRAY = frozenset({"1", "L", "LA"})
_DEEP = ("I", "F")  # modes of more than 8 bits start so; Pillow would clip them


def decode(encoded: bytes, place: str, size: int | None) -> npt.NDArray[np.uint8]:
    """One image as uint8, [H, W] if it is gray and [H, W, 3] if not.

    Args:
        encoded: the file's bytes.
        place: names the image in errors.
        size: scale the shorter side to this many pixels (bilinear, antialiased) and cut out the centre square.

    Raises:
        DataError: not an image, truncated, or of more than 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if opened.mode.startswith(_DEEP):
                raise DataError(f"{place}: more than 8 bits a channel (mode {opened.mode}); convert it to 8 bits")
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
            image: Image.Image = ImageOps.exif_transpose(opened) if turned else opened
            return as_array(image, size)
    except UnidentifiedImageError:
        raise DataError(f"{place}: not an image, or of a format that Pillow doesn't read") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"{place}: corrupt image: {' '.join(str(error).split())}") from error


def as_array(image: Image.Image, size: int | None) -> npt.NDArray[np.uint8]:
    """A Pillow image as uint8, [H, W] if it is gray and [H, W, 3] if not; ``size`` as in ``decode``."""
    mode = "L" if image.mode in _GRAY else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def stack(parts: Sequence[Sequence[npt.NDArray[np.uint8]]], places: Sequence[Iterable[str]]) -> list[torch.Tensor]:
    """Decoded images as one contiguous uint8 tensor [N, C, H, W] a part, gray only where every image of all is.

    Args:
        parts: what ``decode`` returned, e.g. for training and test.
        places: names of the images in errors, for each part.

    Raises:
        DataError: two images differ in height or width; names the first that differs.
    """
    channels = 3 if any(image.ndim == 3 for part in parts for image in part) else 1
    expected = next(image.shape[:2] for part in parts for image in part)
    tensors = []
    for part, names in zip(parts, places, strict=True):
        stacked = np.empty((len(part), channels, *expected), np.uint8)
        for row, image, place in zip(stacked, part, names, strict=True):
            if image.shape[:2] != expected:
                raise DataError(
                    f"{place}: {image.shape[0]} x {image.shape[1]} pixels, the first image has {expected[0]} x "
                    f"{expected[1]}: give the option size to bring all to one size"
                )
            row[:] = image.transpose(2, 0, 1) if image.ndim == 3 else image
        tensors.append(torch.from_numpy(stacked))
    return tensors
