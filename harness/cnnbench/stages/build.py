"""From an arm's settings to a model that is ready to train, and to the procedure that trains it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cnnbench.errors import NoEffect, TrialError
from cnnbench.options import make
from cnnbench.stages.train import Procedure
from cnnbench.surgery import apply_surgery

if TYPE_CHECKING:
    from cnnbench.data import Splits
    from cnnbench.devices import Device
    from cnnbench.registry import Registry
    from cnnbench.seeds import Streams
    from cnnbench.types import Choice, Settings

SURGERY_SLOTS = ("convolution", "pooling", "norm", "activation")


@dataclass(frozen=True)
class Builder:
    """Builds models and procedures for one arm on one device.

    Attributes:
        settings: the arm's.
        registry: where techniques come from.
        splits: the data, on the device.
        device: where models go.
    """

    settings: Settings
    registry: Registry
    splits: Splits
    device: Device

    def techniques(self, slot: str) -> list[Any]:
        """The arm's techniques of a slot, made."""
        return [make(choice, self.registry) for choice in self.settings.techniques.get(slot, ())]

    def model(self, streams: Streams, notes: list[str] | None = None) -> nn.Module:
        """A fresh model on the device, before training.

        Args:
            streams: ``init`` seeds the modules' own initialization, ``initializer`` the technique's, ``layers`` what
                regularizers insert.
            notes: remarks for the record are appended here.

        Raises:
            TrialError: a technique can't act on the model or changed nothing.
        """
        spec = make(self.settings.model, self.registry)
        for technique in self.techniques("architecture"):
            spec = technique(spec)
        with streams.default_generator("init"):
            model = spec(self.splits.image_shape, self.splits.num_classes)
            if not isinstance(model, nn.Module):
                raise TrialError(
                    f"model {self.settings.model.name!r} returned {type(model).__name__}, not an nn.Module"
                )
            for slot in SURGERY_SLOTS:
                for technique in self.techniques(slot):
                    report = apply_surgery(slot, technique, model)
                    if report.unreached and notes is not None:
                        notes.append(f"{slot}: could not reach {', '.join(report.unreached)}")
        for regularizer in self.techniques("regularizer"):
            if hasattr(regularizer, "prepare") and not regularizer.prepare(model, streams.generator("layers")):
                raise NoEffect(f"{type(regularizer).__name__} found no layer to act on in {self.settings.model.name!r}")
        for initializer in self.techniques("initializer"):
            with torch.no_grad():
                initializer(model, streams.generator("initializer"))
        return model.to(self.device.torch)

    def with_model(self, model: Choice) -> Builder:
        """The same for another model, such as a student."""
        return replace(self, settings=replace(self.settings, model=model))

    def input_module(self) -> nn.Module:
        """Input normalization fitted on the training split; none named means 0..1 as it is."""
        fitted = [technique(self.splits.train_images) for technique in self.techniques("input")]
        return nn.Sequential(*fitted).to(self.device.torch).eval()

    def procedure(self, input_module: nn.Module) -> Procedure:
        """How the arm trains."""
        recipe = self.settings.recipe
        channels_last = recipe.channels_last
        return Procedure(
            splits=self.splits,
            input=input_module,
            augmentations=self.techniques("augmentation"),
            regularizers=self.techniques("regularizer"),
            optimizer=make(recipe.optimizer, self.registry),
            schedule=make(recipe.schedule, self.registry),
            loss=make(recipe.loss, self.registry),
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            precision=recipe.precision,
            channels_last=self.device.channels_last_helps if channels_last is None else channels_last,
            device=self.device,
        )
