"""What techniques hand back in training, held to the contract of their slots: in rehearsals, where it costs nothing.

A value of the wrong kind would fail some lines later, in code that is not the technique's: here it is named.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import BrokenContract
from cnnbench.technique import card_of

if TYPE_CHECKING:
    from cnnbench.stages.train import Procedure


def checked(how: Procedure) -> Procedure:
    """The same procedure, whose techniques raise ``BrokenContract`` where they hand back what they must not."""
    return replace(
        how,
        augmentations=[_Augmentation(one) for one in how.augmentations],
        regularizers=[_Regularizer(one) for one in how.regularizers],
        optimizer=_Optimizer(how.optimizer),
        schedule=_Schedule(how.schedule),
        loss=_Loss(how.loss),
    )


@dataclass(frozen=True)
class _Checked:
    """A technique; what is not checked is its own."""

    technique: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.technique, name)

    @property
    def words(self) -> str:
        """Slot and name."""
        try:
            card = card_of(type(self.technique))
        except Exception:  # noqa: BLE001 - not a technique but a function that a strategy put in its place
            return type(self.technique).__name__
        return f"{card.slot} {card.name!r}"

    def refuse(self, what: str, expected: str) -> BrokenContract:
        """An error that says what came and what should have."""
        return BrokenContract(f"{self.words} returned {what}, expected {expected}")

    def tensor(self, value: Any, like: torch.Tensor, shape: tuple[int | None, ...], name: str) -> torch.Tensor:
        """A value, once it has proved to be a float tensor of a shape (None for any size) on the batch's device."""
        wanted = f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
        expected = f"a float tensor {wanted} on {like.device}"
        if not isinstance(value, torch.Tensor):
            raise self.refuse(f"{type(value).__name__} as {name}", expected)
        fits = len(value.shape) == len(shape) and all(
            size in (None, found) for size, found in zip(shape, value.shape, strict=True)
        )
        if not fits or not value.is_floating_point() or value.device != like.device:
            kind = str(value.dtype).removeprefix("torch.")
            raise self.refuse(f"{name} as {kind} {list(value.shape)} on {value.device}", expected)
        return value


class _Augmentation(_Checked):
    def __call__(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Any:
        found = self.technique(images, targets, generator)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise self.refuse(type(found).__name__, "(images, targets)")
        changed = self.tensor(found[0], images, (None, images.shape[1], None, None), "images")
        self.tensor(found[1], images, (len(changed), targets.shape[1]), "targets")
        return found


class _Regularizer(_Checked):
    def __getattr__(self, name: str) -> Any:
        method = getattr(self.technique, name)
        if name == "targets":
            return lambda targets: self.tensor(method(targets), targets, tuple(targets.shape), "targets")
        if name == "penalty":
            return lambda model, logits: self._scalar(method(model, logits), logits)
        return method

    def _scalar(self, value: Any, logits: torch.Tensor) -> Any:
        return value if isinstance(value, numbers.Real) else self.tensor(value, logits, (), "penalty")


class _Optimizer(_Checked):
    def __call__(self, model: torch.nn.Module) -> Any:
        made = self.technique(model)
        if not isinstance(made, torch.optim.Optimizer):
            raise self.refuse(type(made).__name__, "a torch.optim.Optimizer")
        return made


class _Schedule(_Checked):
    def __call__(self, step: int, total_steps: int) -> Any:
        factor = self.technique(step, total_steps)
        if not isinstance(factor, numbers.Real) or not math.isfinite(factor):
            raise self.refuse(f"{factor!r:.60}", "a finite number")
        return factor


class _Loss(_Checked):
    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> Any:
        if logits.shape != targets.shape:
            raise BrokenContract(f"the model returned logits {list(logits.shape)}, expected {list(targets.shape)}")
        return self.tensor(self.technique(logits, targets), logits, (), "loss")
