"""Training that starts from what a network learned elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - read at run time
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import torch
from cnnbench.slots import Observer, StrategyKind
from cnnbench.technique import technique
from cnnbench.types import Choice, DataOptions, InSlot
from cnnbench_plugins._state_file import fingerprint, read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.lazy import nn
    from cnnbench.slots import TrainingRun
    from cnnbench.types import Trained


def load_features(model: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> tuple[int, int]:
    """Copy every tensor of the model's own name and shape, but for the classifier's, in place.

    Args:
        model: any classifier; its last linear layer or convolution keeps its fresh weights.
        state: tensors by name.
        where: what the tensors come from, for messages.

    Returns:
        How many tensors were copied, and of how many.

    Raises:
        NoEffect: none fits.
        Unsupported: less than half of them fit; names the first that doesn't.
    """
    from cnnbench_plugins.strategy._layers import classifier

    head = classifier(model)
    own = {name: value for name, value in model.state_dict().items() if head is None or not name.startswith(f"{head}.")}
    fitting = [name for name, value in own.items() if name in state and state[name].shape == value.shape]
    if not fitting:
        raise NoEffect(f"transfer: no tensor of {where} has name and shape of one of the model's {len(own)}")
    if 2 * len(fitting) < len(own):
        first = next(name for name in own if name not in fitting)
        other = f"has shape {list(state[first].shape)} there" if first in state else "is missing there"
        raise Unsupported(
            f"transfer: only {len(fitting)} of the model's {len(own)} tensors fit {where}: "
            f"{first} {list(own[first].shape)} {other}"
        )
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(state[name])
    return len(fitting), len(own)


class Pretrained(Observer):
    """Puts weights into a model before its first step, and freezes layers epoch by epoch.

    Attributes:
        loaded: tensors copied, and of how many.
        trained_parameters: numbers that train in the first epoch.
    """

    def __init__(
        self, state: Mapping[str, torch.Tensor], where: str, trainable: Callable[[int, int, int], int]
    ) -> None:
        self._state = state
        self._where = where
        self._trainable = trainable
        self._held: dict[nn.Parameter, None] = {}
        self.loaded = (0, 0)
        self.trained_parameters = 0

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Load at the start; leave as many of the last layers trainable as this epoch has."""
        from cnnbench_plugins.strategy._layers import freeze, layers

        if epoch == 0:
            self.loaded = load_features(model, self._state, self._where)
        groups = layers(model)
        first = len(groups) - self._trainable(len(groups), epoch, epochs)
        for parameter in list(self._held):
            parameter.requires_grad_(True)
        self._held = {p: None for group in groups[:first] for p in freeze(group)}
        if epoch == 0:
            self.trained_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)

    def release(self) -> None:
        """Make all parameters trainable again, for whatever follows the training."""
        for parameter in self._held:
            parameter.requires_grad_(True)


@technique("strategy", "transfer", example={"source": {"name": "shapes", "train_images": 40, "test_images": 40}})
class Transfer:
    """Start from weights that were learned elsewhere, with a new classifier.

    They come from a dataset (``source``: the same network is first trained on it for ``pretrain_epochs``, by default as
    long as the arm trains, on ``pretrain_size`` of its training images, brought to this dataset's shape) or from a file
    (``weights``: a state dict by ``torch.save``, or safetensors). Every tensor of the same name and shape is taken
    over; the last linear layer (or convolution, where that classifies) starts fresh. How many tensors fitted is said
    under the table.

    ``mode``: ``finetune`` trains everything on from there; with ``gradual`` > 0 the classifier alone in the first
    epoch, then from the last layer to the first more and more, all of them once that share of the epochs is over
    (ULMFiT, Howard & Ruder 2018, section 3.3, which frees one layer an epoch). ``freeze`` keeps the first ``frozen``
    share of the layers as they came (Yosinski et al. 2014, section 2). ``linear_probe`` trains the classifier alone.
    Frozen layers get no update at all, and their batch norms neither take nor update statistics of the batch. Layers
    are the linear ones and convolutions in order of definition, each with the norm behind it. After training nothing is
    frozen any more.

    Helps with few images, most where source and target are alike. Known to gain little with plenty of images (He et al.
    2019, Rethinking ImageNet Pre-training); frozen features fall behind where the target differs (Kornblith et al.
    2019). Pretraining costs training time and energy, which the record counts, and so does every member of an ensemble.
    """

    acts_on: ClassVar[StrategyKind] = "training"

    source: Annotated[Choice, InSlot("dataset")] | None = None
    weights: Path | None = None
    pretrain_epochs: Annotated[int, Ge(1)] | None = None
    pretrain_size: Annotated[int, Ge(1)] | None = None
    mode: Literal["finetune", "freeze", "linear_probe"] = "finetune"
    frozen: Annotated[float, Gt(0), Lt(1)] = 0.5
    gradual: Annotated[float, Ge(0), Le(1)] = 0.0

    def __post_init__(self) -> None:
        if (self.source is None) is (self.weights is None):
            raise ValueError("set one of source (a dataset to pretrain on) and weights (a file)")
        if self.weights is not None and (self.pretrain_epochs or self.pretrain_size):
            raise ValueError("pretrain_epochs and pretrain_size go with source, not with weights")
        if self.gradual and self.mode != "finetune":
            raise ValueError(f"gradual goes with mode = 'finetune', not {self.mode!r}")

    def fingerprint(self) -> str:
        """Digest of the weights' file, where there is one. Raises ``UsageError`` where it is missing."""
        return fingerprint(self.weights) if self.weights else ""

    def trainable(self, layers: int, epoch: int, epochs: int) -> int:
        """How many of the last of so many layers train in 0-based ``epoch``."""
        if self.mode == "linear_probe":
            return 1
        if self.mode == "freeze":
            return max(1, layers - max(1, round(self.frozen * layers)))
        freeing = round(self.gradual * epochs)
        return layers if epoch >= freeing else 1 + math.ceil((layers - 1) * epoch / freeing)

    def __call__(self, run: TrainingRun) -> Trained:
        """Find the weights, then train from them.

        Raises:
            NoEffect: no tensor fits the model.
            Unsupported: less than half of them fit.
        """
        state, where = self._state(run)
        start = Pretrained(state, where, self.trainable)
        trained = run.fit(start)
        start.release()
        loaded, of = start.loaded
        notes = {**trained.notes, "loaded_tensors": loaded, "trained_parameters": start.trained_parameters}
        remark = f"transfer: {loaded} of {of} tensors came from {where}; the classifier started fresh"
        return replace(trained, notes=notes, remarks=[*trained.remarks, remark])

    def _state(self, run: TrainingRun) -> tuple[Mapping[str, torch.Tensor], str]:
        if self.weights is not None:
            return read_state(self.weights), self.weights.name
        assert self.source is not None
        data = DataOptions(train_size=self.pretrain_size, validation=0.0)
        pretraining = run.on(self.source, data, self.pretrain_epochs or run.epochs)
        return pretraining.fit().model.state_dict(), self.source.name


TECHNIQUES = (Transfer,)
