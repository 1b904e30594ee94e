"""From an arm's settings to a model that is ready to train, and to the procedure that trains it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cnnbench.data import fit_shape, load, split
from cnnbench.errors import NoEffect, TrialError
from cnnbench.options import make
from cnnbench.stages.compiled import check_compiler
from cnnbench.stages.contract import checked
from cnnbench.stages.train import Procedure, Run, calibration_inputs
from cnnbench.surgery import apply_surgery, materialize
from cnnbench.technique import card_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.data import Splits
    from cnnbench.devices import Device
    from cnnbench.registry import Registry
    from cnnbench.seeds import Streams
    from cnnbench.slots import Observer
    from cnnbench.types import Choice, DataOptions, Settings

SURGERY_SLOTS = ("convolution", "pooling", "norm", "activation")
CALIBRATION_IMAGES = 256
"""Training images that an initializer may look at."""


@dataclass(frozen=True)
class Builder:
    """Builds models and procedures for one arm on one device.

    Attributes:
        settings: the arm's.
        registry: where techniques come from.
        splits: the data, on the device.
        device: where models go.
        checked: what techniques hand back is held to their contracts; for rehearsals.
        most_epochs: no training takes more, whatever the recipe or a technique says; for rehearsals.
    """

    settings: Settings
    registry: Registry
    splits: Splits
    device: Device
    most_epochs: int | None = None
    checked: bool = False

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
                name = card_of(regularizer).name
                raise NoEffect(f"regularizer {name!r} found no layer to act on in {self.settings.model.name!r}")
        with streams.default_generator("lazy"):
            materialize(model, self.splits.image_shape)
        model.to(self.device.torch)
        for initializer in self.techniques("initializer"):
            self._initialize(model, initializer, streams)
        return model

    def _initialize(self, model: nn.Module, initializer: Any, streams: Streams) -> None:
        with torch.no_grad():
            initializer(model, streams.generator("initializer"))
            if hasattr(initializer, "calibrate"):
                images, inputs = self.splits.train_images, self.input_module()
                initializer.calibrate(model, calibration_inputs(images, inputs, streams, CALIBRATION_IMAGES))

    def with_model(self, model: Choice) -> Builder:
        """The same for another model that is what its own options say, such as a student."""
        techniques = {slot: chosen for slot, chosen in self.settings.techniques.items() if slot != "architecture"}
        return replace(self, settings=replace(self.settings, model=model, techniques=techniques))

    def input_module(self) -> nn.Module:
        """Input normalization fitted on the training split; none named means 0..1 as it is."""
        return self.fitted(self.settings.techniques.get("input", ()))

    def fitted(self, inputs: Sequence[Choice]) -> nn.Module:
        """Any other input normalization, fitted on the training split."""
        modules = [make(choice, self.registry)(self.splits.train_images) for choice in inputs]
        return nn.Sequential(*modules).to(self.device.torch).eval()

    def run(
        self,
        input_module: nn.Module,
        streams: Streams,
        *,
        observers: tuple[Observer, ...] = (),
        notes: list[str] | None = None,
        epochs: int | None = None,
    ) -> Run:
        """The arm's training run, before any strategy.

        Args:
            input_module: the fitted input normalization.
            streams: the trial's.
            observers: told of every fit.
            notes: remarks for the record are appended here.
            epochs: in place of the recipe's.
        """

        def on(dataset: Choice, data: DataOptions, epochs: int, own: Streams) -> Run:
            apart = replace(own, family=f"{own.family}/on {dataset.name}")
            there = split(load(make(dataset, self.registry)), data, apart, self.device.torch)
            there = there.with_images(lambda images: fit_shape(images, self.splits.image_shape))
            if self.most_epochs is not None:
                there = there.first(len(self.splits.train_images))
            builder = replace(self, splits=there)
            return builder.run(builder.input_module(), apart, observers=observers, epochs=epochs)

        how = self.procedure(input_module)
        return Run(
            build=lambda member: self.model(member, notes),
            how=how if epochs is None else replace(how, epochs=self.limited(epochs)),
            streams=streams,
            elsewhere=on,
            observers=observers,
        )

    def limited(self, epochs: int) -> int:
        """Epochs as they are, or as many as there may be."""
        return epochs if self.most_epochs is None else min(epochs, self.most_epochs)

    def procedure(self, input_module: nn.Module) -> Procedure:
        """How the arm trains."""
        recipe = self.settings.recipe
        channels_last = recipe.channels_last
        how = Procedure(
            splits=self.splits,
            input=input_module,
            augmentations=self.techniques("augmentation"),
            regularizers=self.techniques("regularizer"),
            optimizer=make(recipe.optimizer, self.registry),
            schedule=make(recipe.schedule, self.registry),
            loss=make(recipe.loss, self.registry),
            epochs=self.limited(recipe.epochs),
            batch_size=recipe.batch_size,
            precision=recipe.precision,
            channels_last=self.device.channels_last_helps if channels_last is None else channels_last,
            device=self.device,
            compiled=self._compiled(),
        )
        return checked(how) if self.checked else how

    def _compiled(self) -> bool:
        """Whether to compile; a rehearsal only sees that it could be done."""
        if self.settings.recipe.compiled:
            check_compiler(self.device)
        return self.settings.recipe.compiled and self.most_epochs is None
