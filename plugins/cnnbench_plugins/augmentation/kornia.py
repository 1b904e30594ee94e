"""The augmentations of kornia."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read at run time
from dataclasses import field
from functools import cached_property
from typing import Any

from cnnbench.errors import Unsupported, UsageError
from cnnbench.lazy import torch
from cnnbench.registry import nearest
from cnnbench.technique import Requirement, technique
from cnnbench_plugins._foreign import first_line, made


@technique(
    "augmentation",
    "kornia",
    requires=(Requirement("kornia", "kornia"),),
    example={"transform": "RandomRotation", "options": {"degrees": 30.0, "p": 1.0}},
    no_op={"transform": "RandomRotation", "options": {"degrees": 30.0, "p": 0.0}},
)
class Kornia:
    """An augmentation of the package kornia by its name.

    E. Riba et al. 2020, arXiv:1910.02190 (https://github.com/kornia/kornia): the 2D transforms of
    ``kornia.augmentation`` that give images of the size that they take, such as ``RandomAffine``, ``RandomJPEG`` or
    ``RandomPlasmaShadow``, and ``RandomMixUpV2``, which mixes targets along with images. kornia draws from torch's
    global generator on the CPU: that is seeded by one draw of the trial's own, and put back afterwards. Results are cut
    to 0..1. What fits many images only together (``RandomCutMixV2``, ``RandomMosaic``, ``RandomTransplantation``) and
    one draw for a whole batch (``same_on_batch``) are refused.

    Helps where the catalogue lacks a transform, and to compare with pipelines of kornia.
    Known not to help: speed on a GPU, as parameters are drawn on the CPU; most defaults have ``p = 0.5``, so that half
    of the images stay as they are. Within a batch ``RandomClahe`` takes one clip limit, ``RandomMotionBlur`` one size
    of its kernel, ``ColorJiggle`` and ``ColorJitter`` one order of their changes; the rest is each image's own.

    Attributes:
        transform: kornia's name, e.g. ``"RandomElasticTransform"``.
        options: its own, e.g. ``{ p = 1.0 }``; lists stand for tuples.
    """

    transform: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.options.get("same_on_batch"):
            raise ValueError("same_on_batch = true gives a whole batch one draw: each image must have its own")

    @cached_property
    def _made(self) -> Any:
        from kornia import augmentation

        classes = {name: one for name, one in vars(augmentation).items() if isinstance(one, type)}
        if self.transform not in classes:
            raise UsageError(f"unknown kornia transform {self.transform!r}: {nearest(self.transform, classes)}")
        if not issubclass(classes[self.transform], augmentation.AugmentationBase2D | augmentation.RandomMixUpV2):
            raise Unsupported(f"kornia's {self.transform} does not make one image and its target of each image")
        return made(classes[self.transform], self.options, what=f"kornia's {self.transform}")

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Transform each image, or leave it, as drawn; raises ``Unsupported`` for images that it can't take."""
        from kornia.core.exceptions import BaseError

        call, places = self._made, torch.arange(len(images), device=images.device)
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                mixes = hasattr(call, "data_keys")
                new, *rows = call(images, places, data_keys=["input", "class"]) if mixes else [call(images)]
            except (BaseError, TypeError, ValueError) as error:
                raise Unsupported(f"kornia's {self.transform} can't take these images: {first_line(error)}") from error
        if new.shape != images.shape:
            raise Unsupported(f"kornia's {self.transform} makes {list(new.shape)} of images {list(images.shape)}")
        for row in rows:  # of each image: its place, its partner's, and the partner's share
            targets = targets.lerp(targets[row[:, 1].long()], row[:, 2:])
        return new.clamp(0, 1), targets


TECHNIQUES = (Kornia,)
