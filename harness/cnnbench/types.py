"""Plain values that pass between suite, plan, stages and techniques. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Le, Lt, MinLen

if TYPE_CHECKING:
    from cnnbench.lazy import nn, torch

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """A technique, model or dataset as a suite names it: JSON-ready, and complete, defaults filled in.

    Attributes:
        slot: the slot that it fills, e.g. ``norm``.
        name: its registered name, e.g. ``group``.
        options: every option with its value, as plain data (str, int, float, bool, None, list, dict).
    """

    slot: str
    name: str
    options: Options = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The choice as JSON-ready data; nested choices too."""
        return {"slot": self.slot, "name": self.name, "options": dict(self.options)}

    @staticmethod
    def from_plain(data: Mapping[str, Any]) -> Choice:
        """The inverse of ``plain``."""
        return Choice(data["slot"], data["name"], data["options"])


@dataclass(frozen=True)
class InSlot:
    """Marks an option that is itself a technique: ``student: Annotated[Choice, InSlot("model")]``."""

    slot: str


ModelChoice = Annotated[Choice, InSlot("model")]
"""Type of an option that names a model; the context's ``build`` makes it."""


@dataclass(frozen=True)
class DataOptions:
    """What any dataset can be asked for, beside its own options.

    Attributes:
        train_size: use a stratified subset of this many training images (before the validation split).
        test_size: use a stratified subset of this many test images.
        validation: share of the training images held out for validation, 0 to 0.5.
        shots: use this many training images of each class, before the validation split; in place of ``train_size``.
        imbalance: class k of K keeps its count x imbalance^(-k / (K - 1)) training images, so that the first class has
            this many times the share of the last (Cui et al. 2019, section 5.1); before any subset.
        label_noise: share of the training images, after the validation split, that carry a wrong label, each of the
            other classes being as likely.
    """

    train_size: Annotated[int, Ge(1)] | None = None
    test_size: Annotated[int, Ge(1)] | None = None
    validation: Annotated[float, Ge(0), Le(0.5)] = 0.1
    shots: Annotated[int, Ge(1)] | None = None
    imbalance: Annotated[float, Ge(1)] = 1.0
    label_noise: Annotated[float, Ge(0), Lt(1)] = 0.0


@dataclass(frozen=True)
class Recipe:
    """The training budget and procedure that all arms share unless an arm says otherwise.

    Attributes:
        epochs: passes over the training split.
        batch_size: images a step.
        optimizer, schedule, loss: choices in the slots of those names.
        precision: ``fp32``, or ``bf16`` for autocast (shifts results within noise, so never a silent default).
        channels_last: memory format of images and weights; None lets the device decide.
        stacked: train an arm's seeds together in one loop where that is possible; equal to one by one within float
            error, not bit for bit.
        compiled: compute forward and backward pass in training by ``torch.compile``; equal within float error.
    """

    epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(1)]
    optimizer: Annotated[Choice, InSlot("optimizer")]
    schedule: Annotated[Choice, InSlot("schedule")]
    loss: Annotated[Choice, InSlot("loss")]
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool | None = None
    stacked: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Settings:
    """All that decides a trial's result, apart from its seed: what an arm comes to.

    Attributes:
        dataset: choice in slot ``dataset``.
        data: what is asked of the dataset.
        model: choice in slot ``model``, before architecture techniques.
        recipe: training budget and procedure.
        techniques: the choices by slot, each slot's in order; a slot left out keeps the model's own.
    """

    dataset: Choice
    data: DataOptions
    model: Choice
    recipe: Recipe
    techniques: Mapping[str, tuple[Choice, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageData:
    """A dataset in memory.

    Attributes:
        train_images, test_images: uint8 tensors [N, C, H, W], C 1 (gray) or 3 (RGB).
        train_labels, test_labels: int64 tensors [N], values 0 .. len(class_names) - 1.
        class_names: names in label order.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width


class Batch(NamedTuple):
    """One training batch, as a loss sees it.

    Attributes:
        images: float [N, C, H, W] in 0..1, augmented.
        inputs: what the model saw: the images after input normalization.
        targets: class probabilities [N, K].
    """

    images: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class Progress:
    """Where training stands, as observers of the loop see it after an epoch.

    Attributes:
        epoch: 0-based.
        epochs: planned number.
        step: optimizer steps taken so far.
        train_loss: mean over the epoch's steps.
        validation_loss, validation_accuracy: on the validation split (None where there is none).
        learning_rate: of the last step, first parameter group.
    """

    epoch: int
    epochs: int
    step: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float


@dataclass
class Trained:
    """What a training run hands back.

    Attributes:
        model: the trained model, in eval mode.
        history: one ``Progress`` an epoch.
        notes: facts for the record, e.g. ``{"stopped_epoch": 7}``.
        remarks: sentences for people, which end under the table.
    """

    model: nn.Module
    history: list[Progress]
    notes: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LatencyOptions:
    """How latency is taken.

    Attributes:
        batch_sizes: images a call; each has its own columns.
        precision: sampling ends when the 95 % intervals of all medians and ratios are within this share of them ...
        max_seconds: ... or after this long for each arm and batch size, and the record says which.
        threads: intra-op threads on CPU; None means the physical cores. Recorded either way.
    """

    batch_sizes: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 32)
    precision: Annotated[float, Gt(0), Lt(1)] = 0.02
    max_seconds: Annotated[float, Gt(0)] = 2.0
    threads: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True)
class EnergyOptions:
    """How energy is taken, and the grid that its grams of CO2 stand for.

    Attributes:
        windows: number of windows, at least 3, whose spread is kept.
        window_seconds: length of one; None means long enough for a hardware counter where there is one, and short where
            the figure is an estimate, which knows nothing beyond time.
        batch_size: images a call.
        source: ``auto`` reads counters and estimates what has none, ``counters`` leaves out what has none,
            ``codecarbon`` takes all of it from codecarbon, ``constant`` is ``watts`` times time.
        watts: with ``source = "constant"``: what work adds to the idle machine, in watts, as one number or by
            component.
        country: three letters (ISO 3166-1 alpha-3) of the grid in codecarbon's table; None means the world's average.
        intensity: grams of CO2 equivalent for a kWh, in place of a country's.
        intensity_source: where ``intensity`` comes from, and of which year.
    """

    windows: Annotated[int, Ge(3)] = 3
    window_seconds: Annotated[float, Gt(0)] | None = None
    batch_size: Annotated[int, Ge(1)] = 32
    source: Literal["auto", "counters", "codecarbon", "constant"] = "auto"
    watts: Annotated[float, Gt(0)] | Mapping[Literal["cpu", "gpu", "ram"], Annotated[float, Gt(0)]] | None = None
    country: str | None = None
    intensity: Annotated[float, Ge(0)] | None = None
    intensity_source: str | None = None

    def __post_init__(self) -> None:
        if self.source == "constant" and not self.watts:
            raise ValueError("source = 'constant' needs the power of the work in watts, e.g. watts = 15")
        if self.source != "constant" and self.watts is not None:
            raise ValueError(f"watts go with source = 'constant', got source = {self.source!r}")
        if self.intensity is not None and self.country is not None:
            raise ValueError("expected a country or an intensity, got both")
        if self.intensity is not None and not (self.intensity_source or "").strip():
            raise ValueError("an intensity needs its source, e.g. intensity_source = 'RTE 2024, France'")
        if self.intensity is None and self.intensity_source is not None:
            raise ValueError("intensity_source names where intensity comes from, which is missing")

    def taking(self) -> dict[str, Any]:
        """What decides how energy is taken, as plain data: all but the grid, which only scales."""
        return {k: v for k, v in asdict(self).items() if k not in {"country", "intensity", "intensity_source"}}


@dataclass(frozen=True)
class Measure:
    """What a suite measures and reports.

    Attributes:
        primary: the metric that decides.
        metrics: metric names in the order of the table's columns; see ``cnnbench.quantities``.
        latency, energy: how these are taken.
        margin: by metric, the difference that would not matter, in the metric's own unit.
    """

    primary: str = "accuracy"
    metrics: Annotated[tuple[str, ...], MinLen(1)] = ("accuracy", "f1_macro", "params", "latency", "energy")
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    energy: EnergyOptions = field(default_factory=EnergyOptions)
    margin: Mapping[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
