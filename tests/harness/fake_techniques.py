"""A small registry of techniques that do nothing: what reading a suite needs, and no torch."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - read at run time
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from cnnbench.errors import DataError
from cnnbench.registry import Owner, Registry
from cnnbench.technique import technique
from cnnbench.types import Choice, InSlot, ModelChoice

OWNER = Owner("fakes", "fakes", "1.0")


@technique("dataset", "digits")
class Digits:
    """Handwritten digits."""

    def fingerprint(self) -> str:
        return "d161"


@technique("dataset", "folder")
class Folder:
    """A folder of images."""

    path: Path
    size: Annotated[int, Ge(8)] | None = None

    def fingerprint(self) -> str:
        if not self.path.is_dir():
            raise DataError(f"no folder {self.path}: expected one folder of images for each class")
        return "f01d"


@technique("model", "resnet")
class ResNet:
    """Residual network for small images."""

    depth: Annotated[int, Ge(2)] = 8
    width: Annotated[int, Ge(1)] = 16

    def __post_init__(self) -> None:
        if (self.depth - 2) % 6 and self.width < 100:
            raise ValueError(f"depth must be 6n + 2, got {self.depth}")


@technique("model", "plain")
class Plain:
    """Plain stack of convolutions."""

    depth: Annotated[int, Ge(2)] = 4


@technique("norm", "none")
class NoNorm:
    """Removes normalization."""


@technique("norm", "batch")
class Batch:
    """Batch normalization."""

    momentum: Annotated[float, Gt(0), Lt(1)] = 0.1


@technique("norm", "group")
class Group:
    """Group normalization."""

    groups: Annotated[int, Ge(1)] = 8
    affine: bool = True


@technique("activation", "relu")
class ReLU:
    """Rectifier."""


@technique("activation", "leaky_relu")
class LeakyReLU:
    """Leaky rectifier."""

    slope: float = 0.01


@technique("activation", "tanh")
class Tanh:
    """Hyperbolic tangent."""


@technique("augmentation", "hflip")
class HFlip:
    """Mirrors left and right."""

    p: Annotated[float, Ge(0), Le(1)] = 0.5


@technique("augmentation", "translate")
class Translate:
    """Shifts the image."""

    pixels: Annotated[int, Ge(1)] = 2


@technique("augmentation", "mixup")
class Mixup:
    """Blends pairs of samples."""

    alpha: Annotated[float, Gt(0)] = 0.2


@technique("regularizer", "dropout")
class Dropout:
    """Zeroes activations at random."""

    rate: Annotated[float, Ge(0), Lt(1)] = 0.1


@technique("strategy", "early_stopping")
class EarlyStopping:
    """Stops when validation no longer improves."""

    patience: Annotated[int, Ge(1)] = 3


@technique("compressor", "prune")
class Prune:
    """Zeroes small weights."""

    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.5
    scope: Literal["global", "layer"] = "global"


@technique("compressor", "distill")
class Distill:
    """Trains a student on the teacher's logits."""

    student: ModelChoice | None = None
    teacher: Annotated[Choice, InSlot("model")] = Choice("model", "resnet", {"depth": 14})
    temperatures: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (4.0,)


@technique("compressor", "chain")
class Chain:
    """Several compressors in turn."""

    steps: tuple[Annotated[Choice, InSlot("compressor")], ...]


@technique("optimizer", "sgd")
class SGD:
    """Stochastic gradient descent."""

    lr: Annotated[float, Gt(0)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0


@technique("optimizer", "adam")
class Adam:
    """Adam."""

    lr: Annotated[float, Gt(0)] = 0.001
    betas: tuple[float, float] = (0.9, 0.999)


@technique("schedule", "cosine")
class Cosine:
    """Half a cosine."""


@technique("schedule", "constant")
class Constant:
    """No change."""


@technique("loss", "cross_entropy")
class CrossEntropy:
    """Cross-entropy."""


@technique("metric", "mcc")
class MCC:
    """Matthews correlation coefficient."""


FAKES = (
    *(Digits, Folder, ResNet, Plain, NoNorm, Batch, Group, ReLU, LeakyReLU, Tanh, HFlip, Translate, Mixup, Dropout),
    *(EarlyStopping, Prune, Distill, Chain, SGD, Adam, Cosine, Constant, CrossEntropy, MCC),
)


def make_registry() -> Registry:
    """A registry of all fakes."""
    registry = Registry()
    for cls in FAKES:
        registry.add(cls, OWNER)
    return registry
