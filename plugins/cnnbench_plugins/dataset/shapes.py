"""Coloured shapes, drawn when they are asked for: nothing to download, any size."""

from __future__ import annotations

import hashlib
from dataclasses import astuple
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Interval, Le

from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench.types import ImageData

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

FORMS = ("disc", "triangle", "square", "star", "cross", "ring", "crescent", "bar", "hexagon", "trefoil")
FILLS = ("solid", "outlined", "striped", "checked")
_CHUNK = 1000
"""Images drawn at a time, which bounds the memory that drawing takes."""


@technique("dataset", "shapes", example={"train_images": 600, "test_images": 300})
class Shapes:
    """Coloured shapes on coloured ground, generated: ten forms in four fills make up to 40 classes.

    Made for this harness; no paper's. Class k is form k mod 10 in fill k // 10 (solid, outlined, striped, checked).
    Every image draws anew where the shape lies, its size (0.45 to 0.8 of half the image), any rotation, its colour and
    that of the ground (at least 0.5 apart in RGB, so that colour tells nothing of the class), and adds Gaussian noise
    of standard deviation ``noise``, in shares of the whole range. Classes are balanced, and the images are the same in
    every run: their generator's seed is fixed.

    Helps where a question needs colour, a certain size or many classes, and nothing may be downloaded. Known not to
    stand for photographs: backgrounds are plain, and any rotation of a shape keeps its class.

    Attributes:
        classes: number of classes.
        image_size: height and width in pixels.
        train_images, test_images: how many to draw.
        noise: standard deviation of the noise, in shares of 0..255.
    """

    classes: Annotated[int, Interval(ge=2, le=40)] = 10
    image_size: Annotated[int, Interval(ge=8, le=512)] = 32
    train_images: Annotated[int, Ge(40)] = 5000
    test_images: Annotated[int, Ge(40)] = 1000
    noise: Annotated[float, Ge(0), Le(1)] = 0.08

    def fingerprint(self) -> str:
        """Digest of the options, which decide every image."""
        return hashlib.blake2b(repr(("shapes", *astuple(self))).encode(), digest_size=16).hexdigest()

    def sizes(self) -> tuple[int, int]:
        """Number of training and test images."""
        return self.train_images, self.test_images

    def __call__(self) -> ImageData:
        """Draw all images."""
        names = tuple(f"{FILLS[k // 10]} {FORMS[k % 10]}" for k in range(self.classes))
        return ImageData(*self._part(0, self.train_images), *self._part(1, self.test_images), names)

    def _part(self, part: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = np.random.default_rng((20, part))
        labels = generator.permutation(np.arange(count) % self.classes)
        drawn = [
            draw_shapes(labels[start : start + _CHUNK], self.image_size, self.noise, generator)
            for start in range(0, count, _CHUNK)
        ]
        return torch.from_numpy(np.concatenate(drawn)), torch.from_numpy(labels.astype(np.int64))


def draw_shapes(
    labels: npt.NDArray[np.int64], size: int, noise: float, generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """One image for each label.

    Args:
        labels: [N], values 0 to 39.
        size: height and width in pixels.
        noise: standard deviation, in shares of the whole range.
        generator: draws everything else.

    Returns:
        RGB images [N, 3, size, size].
    """
    count = len(labels)
    column = (count, 1, 1)
    radius = generator.uniform(0.45, 0.8, column)
    left, top = (generator.uniform(-1, 1, column) * (1 - radius) for _ in range(2))
    angle = generator.uniform(0, 2 * np.pi, column)
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    x, y = (axis[None, None, :] - left) / radius, (axis[None, :, None] - top) / radius
    u, v = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    depth = np.empty((count, size, size))
    for form, name in enumerate(FORMS):
        chosen = labels % 10 == form
        depth[chosen] = _depth(name, u[chosen], v[chosen])
    depth = _filled(depth, u, v, labels // 10)
    pixels = radius * size / 2  # of a unit of depth: edges are one pixel soft
    cover = np.clip(0.5 + depth * pixels, 0, 1)[:, None]
    ground = generator.uniform(0, 1, (count, 3))
    colour = _apart(ground, generator)
    image = ground[..., None, None] * (1 - cover) + colour[..., None, None] * cover
    image += generator.normal(0, noise, image.shape) if noise else 0
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _depth(form: str, u: Array, v: Array) -> Array:
    """How deep inside a form of radius 1 each point lies, negative outside; near edges about the distance from them."""
    rho, theta = np.hypot(u, v), np.arctan2(v, u)
    sides = {"triangle": 3, "square": 4, "hexagon": 6}
    lobes = {"star": 5, "trefoil": 3}
    depth: Array
    if form in sides:
        sector = 2 * np.pi / sides[form]
        depth = np.cos(sector / 2) - rho * np.cos(theta % sector - sector / 2)
    elif form in lobes:
        depth = 0.68 + 0.32 * np.cos(lobes[form] * theta) - rho
    elif form == "disc":
        depth = 1 - rho
    elif form == "cross":
        depth = np.maximum(_box(u, v, 0.95, 0.3), _box(u, v, 0.3, 0.95))
    elif form == "ring":
        depth = 0.26 - np.abs(rho - 0.7)
    elif form == "crescent":
        depth = np.minimum(1 - rho, np.hypot(u - 0.45, v) - 0.75)
    else:  # bar
        depth = _box(u, v, 0.98, 0.36)
    return depth


def _box(u: Array, v: Array, half_width: float, half_height: float) -> Array:
    return np.minimum(half_width - np.abs(u), half_height - np.abs(v))


def _filled(depth: Array, u: Array, v: Array, fills: npt.NDArray[np.int64]) -> Array:
    """Depth with what a fill leaves out cut away."""
    fills = fills[:, None, None]
    outlined = np.minimum(depth, 0.16 - depth)
    striped = np.minimum(depth, np.sin(11 * u) / 11)
    checked = np.minimum(depth, np.sin(9 * u) * np.sin(9 * v) / 9)
    return np.select([fills == 0, fills == 1, fills == 2], [depth, outlined, striped], checked)


def _apart(ground: Array, generator: np.random.Generator) -> Array:
    """Colours [N, 3] at least 0.5 from those of the ground; every point of the cube has such a corner."""
    colour = generator.uniform(0, 1, ground.shape)
    near = np.linalg.norm(colour - ground, axis=1, keepdims=True) < 0.5
    corner = (ground < 0.5).astype(np.float64)
    return np.where(near, corner, colour)


TECHNIQUES = (Shapes,)
