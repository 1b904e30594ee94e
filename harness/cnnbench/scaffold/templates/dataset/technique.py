"""Gratings, generated."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval, Le

from cnnbench import technique
from cnnbench.lazy import torch
from cnnbench.types import ImageData


@technique("dataset", "template_name")
class Template:
    """Noisy gray gratings, generated: the class is the direction of their stripes.

    The stimulus of Hubel & Wiesel 1962, J. Physiol. 160. Class k of K has stripes across the angle pi k / K; each image
    draws its phase and 1.5 to 3 periods across its side, and adds Gaussian noise of standard deviation ``noise``.
    Images are uint8 [N, 1, size, size], classes balanced, and the same in every run: the generator's seed is fixed.

    Helps to ask whether a technique harms what first layers are for: oriented edges. Known not to stand for
    photographs.

    Attributes:
        classes: number of directions.
        size: height and width in pixels.
        train_images, test_images: how many to draw.
        noise: standard deviation, as a share of the range from black to white.
    """

    # Options are typed fields; their constraints are checked when a suite is read, before anything runs.
    classes: Annotated[int, Interval(ge=2, le=36)] = 6
    size: Annotated[int, Interval(ge=8, le=256)] = 12
    train_images: Annotated[int, Ge(36)] = 600
    test_images: Annotated[int, Ge(36)] = 600
    noise: Annotated[float, Ge(0), Le(1)] = 0.3

    def fingerprint(self) -> str:
        """What decides every image, as a text. Raise its number when the drawing changes, and results are made anew."""
        return f"gratings 1 {self!r}"

    def sizes(self) -> tuple[int, int]:
        """Number of training and test images, told without drawing them."""
        return self.train_images, self.test_images

    def __call__(self) -> ImageData:
        """Draw all images."""
        names = tuple(f"{180 * k / self.classes:g} degrees" for k in range(self.classes))
        return ImageData(*self._draw(0, self.train_images), *self._draw(1, self.test_images), names)

    def _draw(self, part: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = np.random.default_rng((1962, part))
        labels: npt.NDArray[np.int64] = generator.permutation(np.arange(count) % self.classes)
        angle, phase = np.pi * labels / self.classes, generator.uniform(0, 2 * np.pi, count)
        periods = generator.uniform(1.5, 3, count)
        axis = (np.arange(self.size) + 0.5) / self.size
        along = np.cos(angle)[:, None, None] * axis + np.sin(angle)[:, None, None] * axis[:, None]
        wave = np.sin(2 * np.pi * periods[:, None, None] * along + phase[:, None, None])
        image = 0.5 + 0.4 * wave + generator.normal(0, self.noise, wave.shape)
        pixels = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
        return torch.from_numpy(pixels[:, None]), torch.from_numpy(labels)
