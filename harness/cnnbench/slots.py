"""The slots: what kinds of technique there are, how each is called, and when.

A technique is a frozen options class made with ``@technique(slot, name)`` that also satisfies its slot's protocol.
Protocols whose every method is optional say so; the loop asks once, before training, which of them a technique has.

Order of use in one trial: ``architecture`` rewrites the model's options; the model is built; surgery swaps
``convolution``, ``pooling``, ``norm`` and ``activation`` modules; ``regularizer.prepare`` inserts layers; ``input`` is
fitted on the training split; the ``initializer`` fills weights; ``strategy`` wraps the training run, whose loop calls
``augmentation`` and ``regularizer``; ``compressor`` follows; ``runtime`` prepares the model for latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cnnbench.execute.interface import TaskExecutor
    from cnnbench.lazy import nn, torch
    from cnnbench.types import Batch, Choice, DataOptions, ImageData, Progress, Trained


class Architecture(Protocol):
    """Rewrites a model before it is built: its options, usually by ``dataclasses.replace``, or how it is built.

    A distillation student is not rewritten: its own options say what it is.
    """

    def __call__(self, model: Any) -> Any:
        """Return the changed model technique; raise ``Unsupported`` where it has no such option.

        What is returned may also be any callable ``(image_shape, num_classes) -> nn.Module`` around the one given.
        """


class Surgery(Protocol):
    """Slots ``activation``, ``norm``, ``pooling``, ``convolution``: one module in place of another.

    The replacement may be one of torch's lazy modules where it can't tell its sizes from the old module: a dry run on
    blank images settles them before training. One that computes something extra for training alone may have a method
    ``folded() -> nn.Module``, which makes the plain module that it amounts to once it is trained.

    ``finish(model) -> Sequence[str]`` is optional: called once after all replacements, where a technique changes more
    than the modules it is shown (the convolutions in front of a norm, the linear layer behind a pool). It changes the
    model in place, raises ``Unsupported`` where it can't, and returns what it could not reach, in words for the record.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Return the replacement, on any device (the harness moves it); the same object means: left alone."""


class Initializer(Protocol):
    """Fills the weights of a freshly built model.

    ``calibrate(model, inputs)`` is optional: called next, under ``no_grad``, with up to 256 training images as model
    inputs [n, C, H, W], for methods that look at what comes out of the layers.
    """

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Set parameters in place (under ``no_grad``), drawing from ``generator`` (CPU) alone."""


class Input(Protocol):
    """Input normalization, fitted on the training split."""

    def __call__(self, images: torch.Tensor) -> nn.Module:
        """From training images, uint8 [N, C, H, W], make a module that maps float images in 0..1 to model inputs."""


class Augmentation(Protocol):
    """Changes every training batch, on the device, with a fresh draw for each sample."""

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return new images and targets; the arguments are not changed in place.

        Args:
            images: float [N, C, H, W] in 0..1, before input normalization.
            targets: class probabilities, float [N, K].
            generator: on the images' device; the only source of randomness.
        """


class Regularizer(Protocol):
    """Acts during training. Every method is optional: implement any, inherit nothing.

    ``prepare(model, generator)`` returns the number of layers inserted or changed, once after surgery.
    ``targets(targets)`` maps class probabilities [N, K] to class probabilities.
    ``epoch(model, epoch, epochs)`` is called before each epoch's first step, for rates that grow along the run.
    ``penalty(model, logits)`` returns a scalar that is added to the loss.
    ``perturb(model)`` and ``restore(model, state)`` bracket a second gradient at other weights (SAM): after the first
    backward pass ``perturb`` moves the weights, the gradient is taken anew, ``restore`` moves them back with the help
    of what ``perturb`` returned.
    ``gradients(model, generator, step)`` changes ``.grad`` in place after the backward pass of 0-based ``step``.
    ``weights(model, learning_rate)`` changes weights in place after the optimizer's step.
    """


REGULARIZER_METHODS = ("prepare", "epoch", "targets", "penalty", "perturb", "restore", "gradients", "weights")


class Optimizer(Protocol):
    """Makes the optimizer."""

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return an optimizer over the model's trainable parameters."""


class Schedule(Protocol):
    """Learning rate over the run as a factor of the optimizer's own."""

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor for 0-based ``step`` of ``total_steps``."""


class Loss(Protocol):
    """The training loss."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Scalar from logits [N, K] and class probabilities [N, K]."""


class Observer:
    """Watches the training loop; strategies override what they need."""

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Before the first step of 0-based ``epoch``, the model being in training mode already."""

    def after_step(self, model: nn.Module, step: int) -> None:
        """After each optimizer step (0-based)."""

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:  # noqa: ARG002
        """After each epoch and its validation; return True to stop training."""
        return False


class TrainingRun(Protocol):
    """One training run, as a strategy sees it."""

    @property
    def epochs(self) -> int:
        """Planned epochs."""

    @property
    def schedule(self) -> Schedule:
        """The recipe's learning-rate schedule."""

    def fit(self, *observers: Observer, member: int = 0, schedule: Schedule | None = None) -> Trained:
        """Build and train a model from scratch, calling the observers.

        Args:
            observers: called by the loop.
            member: above 0, draws other streams.
            schedule: in place of the recipe's.
        """

    def recalibrate(self, model: nn.Module) -> None:
        """Recompute batch-norm statistics of ``model`` on the training split, in place (after averaging weights)."""

    def on(self, dataset: Choice, data: DataOptions, epochs: int) -> TrainingRun:
        """The same model and recipe on another dataset, whose images are brought to this one's shape.

        Its classes are its own, and so is the fit of the input normalization.
        """


StrategyKind = Literal["inference", "members", "weights", "training"]
"""What a strategy acts on, from the outermost to the innermost."""


class Strategy(Protocol):
    """Wraps the training run: early stopping, averaging, ensembles.

    A class attribute ``acts_on: ClassVar[StrategyKind]`` is optional. It says what the strategy decides: ``training``,
    how one fit goes; ``weights``, which weights one fit ends with; ``members``, several models; ``inference``, the
    finished model. A suite's list has them the other way round, outermost first, and at most one each of ``weights``
    and ``members``: any other list would silently drop what one of them did.
    """

    def __call__(self, run: TrainingRun) -> Trained:
        """Call ``run.fit`` once or several times and return the model to keep.

        Strategies nest: ``run`` may itself be a run wrapped by the next strategy of the suite's list.
        """


class CompressionContext(Protocol):
    """What a compressor may use beside the trained model."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def example(self) -> torch.Tensor:
        """One model input, [1, C, H, W], normalized, on the device."""

    @property
    def generator(self) -> torch.Generator:
        """CPU generator of the trial's own stream for this compressor."""

    def calibration(self, count: int) -> torch.Tensor:
        """``count`` (or all, if fewer) training images as model inputs [n, C, H, W], without augmentation."""

    def build(self, model: Choice) -> nn.Module:
        """A fresh, initialized model for the same data, such as a student, with the arm's surgery."""

    def initial(self) -> nn.Module:
        """The arm's own model as it was before its training, weight by weight."""

    def make(self, choice: Choice) -> Any:
        """A technique that an option names."""

    def input(self, choice: Choice) -> nn.Module:
        """An input normalization, fitted on the training split: float images in 0..1 to model inputs."""

    def recalibrate(self, model: nn.Module) -> None:
        """Recompute batch-norm statistics of ``model`` on the training split, in place."""

    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        learning_rate: float | None = None,
        loss: Callable[[Batch, torch.Tensor], torch.Tensor] | None = None,
        observers: Sequence[Observer] = (),
    ) -> list[Progress]:
        """Train ``model`` in place with the arm's recipe, augmentation and regularizers, and return the history.

        Each call draws its own order and augmentation.

        Args:
            model: any classifier for the same inputs; left in eval mode.
            epochs: passes over the training split; the schedule runs over these.
            learning_rate: base rate in place of the recipe's.
            loss: called as ``loss(batch, logits)`` in place of the recipe's loss, so that a teacher can be asked about
                the same images.
            observers: called by the loop, e.g. to keep pruned weights at zero.
        """

    def validation_accuracy(self, model: nn.Module) -> float:
        """Top-1 accuracy on the validation split, 0..1."""


class Compressor(Protocol):
    """Makes a trained model cheaper."""

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the compressed model; ``model`` is a copy that may be changed in place.

        The result must pickle with importable classes alone. It may carry ``deployed_bytes`` (int), the size of a
        format that has no packed storage here, which the tables mark ``nominal``; ``flops_of_source`` (int),
        multiply-adds counted before a conversion that hides them; ``deploy(example) -> callable``, which makes it
        ready to be served by kernels of its own, for inputs of the example's shape first; and, where a format is
        simulated, ``unsimulated() -> nn.Module``, what a runtime is given in its place.
        """


class ServingContext(Protocol):
    """What a runtime may use beside the model."""

    @property
    def example(self) -> torch.Tensor:
        """Model inputs [n, C, H, W] of the first batch size, on the device."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Every batch size that will be asked for."""

    @property
    def folder(self) -> Path:
        """An empty folder of its own that lives as long as what the runtime returns."""

    @property
    def threads(self) -> int:
        """Intra-op threads that it is to use on the CPU."""

    def calibration(self, count: int) -> torch.Tensor:
        """``count`` (or all, if fewer) training images as model inputs [n, C, H, W], without augmentation."""


class Runtime(Protocol):
    """Prepares a model for serving before its latency is taken.

    What it returns is checked against the model on the test split before any time is taken: top-1 agreement and the
    largest difference of logits are recorded. A class attribute ``exact: ClassVar[bool]`` is optional and True unless
    said otherwise: an exact runtime whose outputs differ by more than rounding fails its trial; one that is not
    (it quantizes) has its own accuracy recorded.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function from model inputs [N, C, H, W] to logits [N, K], for any of the context's batch sizes.

        The function may carry ``size_bytes`` (int), of the file or files that one would ship; ``remarks`` (strings),
        for the table's footnotes; and ``close()``, called when it is not used again. How long this call and the first
        call at each batch size take is recorded apart, as ``prepare_time``. Raises ``Unsupported`` where the runtime
        can't serve this model or device.
        """


class Model(Protocol):
    """A network family.

    A technique of any slot that uses code or files of the user's (a model by import path, a file of weights) also has
    ``fingerprint() -> str``: a digest of them, taken without importing torch, that becomes part of the trial's key.
    """

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W); module initialization draws from torch's default generator."""


class Dataset(Protocol):
    """Where images come from.

    ``sizes() -> tuple[int, int] | None`` is optional: the numbers of training and test images, read without loading
    them and without torch (None where that can't be had), so that a suite that asks for more is told before it runs.
    It is called after ``fingerprint`` and may raise ``DataError``.
    """

    def fingerprint(self) -> str:
        """A digest that changes when any image or label does. Raises ``DataError``; imports no torch."""

    def __call__(self) -> ImageData:
        """Load everything into memory. Raises ``DataError`` saying where it looked and how to get the data."""


class Metric(Protocol):
    """A quality metric of the test split."""

    def __call__(self, probabilities: torch.Tensor, labels: torch.Tensor) -> float:
        """A number from class probabilities [N, K] (CPU, float64) and labels [N], recorded under the metric's name."""


class Reporter(Protocol):
    """Renders records in another format."""

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> str:
        """The document as text."""


class Executor(Protocol):
    """Runs stages elsewhere."""

    def __call__(self, workers: int | None, host: Any) -> TaskExecutor:
        """Make the executor; see ``cnnbench.execute.interface``.

        Args:
            workers: how many; None leaves it to the executor.
            host: the run's ``cnnbench.plugins.PluginHost``: stages need it to make techniques, those of plugins that
                the suite names too.
        """


class Tracker(Protocol):
    """Tells an experiment tracker of a run."""

    def __call__(self, run: Mapping[str, Any]) -> object:
        """Make an observer: an object whose methods are hook implementations, see ``cnnbench.hookspecs``.

        Args:
            run: ``{"suite": name, "question": str, "sha256": str, "device": str, "results": path}``. Raises
                ``Unsupported`` where the tracker can't be reached.
        """


@dataclass(frozen=True)
class Slot:
    """What the host must know of a slot.

    Attributes:
        protocol: how its techniques are called.
        many: a suite may list several techniques, used in order.
        in_arm: arms and ``[baseline]`` may set it (the rest are set elsewhere in a suite).
        stage: the first stage whose result depends on it.
        summary: one line for ``cnnbench list``.
    """

    protocol: type
    many: bool
    in_arm: bool
    stage: str
    summary: str


SLOTS: Mapping[str, Slot] = {
    "architecture": Slot(Architecture, True, True, "train", "rewrites the model's options before it is built"),
    "convolution": Slot(Surgery, True, True, "train", "replaces convolutions in the built model"),
    "pooling": Slot(Surgery, True, True, "train", "replaces pooling layers in the built model"),
    "norm": Slot(Surgery, False, True, "train", "replaces normalization layers in the built model"),
    "activation": Slot(Surgery, False, True, "train", "replaces activations in the built model"),
    "initializer": Slot(Initializer, False, True, "train", "fills the weights before training"),
    "input": Slot(Input, False, True, "train", "normalizes the input, fitted on the training split"),
    "augmentation": Slot(Augmentation, True, True, "train", "changes each training batch at random"),
    "regularizer": Slot(Regularizer, True, True, "train", "acts on layers, targets, loss, gradients or weights"),
    "strategy": Slot(Strategy, True, True, "train", "wraps the training run"),
    "compressor": Slot(Compressor, True, True, "compress", "makes the trained model cheaper"),
    "runtime": Slot(Runtime, False, True, "latency", "prepares the model for serving"),
    "optimizer": Slot(Optimizer, False, False, "train", "updates the weights (set in [recipe])"),
    "schedule": Slot(Schedule, False, False, "train", "learning rate over time (set in [recipe])"),
    "loss": Slot(Loss, False, False, "train", "the training loss (set in [recipe])"),
    "model": Slot(Model, False, False, "train", "network families"),
    "dataset": Slot(Dataset, False, False, "train", "where images come from"),
    "metric": Slot(Metric, False, False, "evaluate", "quality on the test split"),
    "reporter": Slot(Reporter, False, False, "", "renders records in another format"),
    "executor": Slot(Executor, False, False, "", "runs the stages"),
    "tracker": Slot(Tracker, True, False, "", "tells an experiment tracker of a run"),
}
"""Every slot by name, in the order in which a trial uses them."""
