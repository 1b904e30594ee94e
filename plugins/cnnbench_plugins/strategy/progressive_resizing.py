"""Small images first."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Lt

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import F, torch
from cnnbench.slots import Observer, StrategyKind
from cnnbench.technique import technique

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from cnnbench.lazy import nn
    from cnnbench.slots import TrainingRun
    from cnnbench.types import Progress, Trained


def resize(images: torch.Tensor, scale: float, multiple: int) -> torch.Tensor:
    """Images [N, C, H, W] with sides of about ``scale`` times their own: bilinear, antialiased.

    Args:
        images: any float values.
        scale: above 0, at most 1.
        multiple: sides are rounded to a multiple of this, at least one and at most their own length.
    """
    height, width = (min(side, max(1, round(side * scale / multiple)) * multiple) for side in images.shape[-2:])
    if (height, width) == images.shape[-2:]:
        return images
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)


def scale_of(epoch: int, small_epochs: int, start: float) -> float:
    """Share of the full side in 0-based ``epoch``: from ``start`` up in equal steps over ``small_epochs``, then 1."""
    return start + (1 - start) * epoch / small_epochs if epoch < small_epochs else 1.0


class SmallInputs(Observer):
    """Shrinks what the model sees in training; nothing stays on the model between epochs or in evaluation."""

    def __init__(self, start: float, small_epochs: int, multiple: int) -> None:
        self.start = start
        self.small_epochs = small_epochs
        self.multiple = multiple
        self._handle: RemovableHandle | None = None
        self._tried = False

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:  # noqa: ARG002 - the loop's signature
        """Put a hook before the forward pass."""
        scale = scale_of(epoch, self.small_epochs, self.start)
        self._handle = model.register_forward_pre_hook(functools.partial(self._shrink, scale))

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:  # noqa: ARG002 - the loop's signature
        """Take it away."""
        if self._handle is not None:
            self._handle.remove()
        return False

    def _shrink(self, scale: float, model: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not model.training:  # validation, or the try below
            return None
        if not self._tried:
            self._tried = True
            try_small(model, args[0][:1], resize(args[0][:1], self.start, self.multiple))
        return resize(args[0], scale, self.multiple), *args[1:]


def try_small(model: nn.Module, image: torch.Tensor, small: torch.Tensor) -> None:
    """Send one image of each size through the model in eval mode, which leaves the model as it was.

    Raises:
        NoEffect: both have the same size.
        Unsupported: the model takes the one but not the other.
    """
    sizes = [f"{one.shape[-2]} x {one.shape[-1]}" for one in (small, image)]
    if small.shape == image.shape:
        raise NoEffect(f"progressive_resizing: images of {sizes[1]} are not shrunk: lower start or multiple")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            full = model(image)
            try:
                reason = "" if model(small).shape == full.shape else "its output has another shape"
            except (RuntimeError, ValueError, AssertionError) as error:  # what layers say to a size they can't take
                reason = str(error).partition("\n")[0]
    finally:
        for module, mode in modes.items():
            module.training = mode
    if reason:
        raise Unsupported(f"progressive_resizing: the model takes {sizes[1]} images but not {sizes[0]}: {reason}")


@technique("strategy", "progressive_resizing")
class ProgressiveResizing:
    """Train the first epochs on smaller images, the last ones on full size.

    The side grows from ``start`` times the full one in equal steps from epoch to epoch, and is the full one in the last
    ``full`` share of the epochs (at least one); sides are rounded to a multiple of ``multiple`` pixels. Bilinear with
    antialiasing, on the normalized input; validation and test always see full size. Howard's DAWNBench entry of 2018
    made it known, on a coarser staircase; Karras et al. 2018 grew generators the same way. The defaults are a common
    choice, no paper's.

    Helps training time on large images, as a convolution's cost goes with the area, at little or no loss. Known to cost
    accuracy on images that are small to begin with, and to need a network that takes any size (global pooling before
    the classifier); objects look larger to it at the end than at the start (Touvron et al. 2019), which the last epochs
    mend.
    """

    acts_on: ClassVar[StrategyKind] = "training"

    start: Annotated[float, Gt(0), Lt(1)] = 0.5
    full: Annotated[float, Gt(0), Lt(1)] = 0.3
    multiple: Annotated[int, Ge(1)] = 4

    def __call__(self, run: TrainingRun) -> Trained:
        """Train once.

        Raises:
            Unsupported: the model takes only one size of images.
            NoEffect: the images are so small that none is shrunk.
        """
        small_epochs = run.epochs - max(1, round(self.full * run.epochs))
        trained = run.fit(SmallInputs(self.start, small_epochs, self.multiple))
        if small_epochs < 1:
            remark = f"progressive_resizing: {run.epochs} epochs leave no room for one on smaller images"
            return replace(trained, remarks=[*trained.remarks, remark])
        return trained


TECHNIQUES = (ProgressiveResizing,)
