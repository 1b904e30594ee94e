"""How techniques of each slot are used by the kit: as the harness uses them, on something tiny."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.testing.uses import (
    architecture,
    augmentation,
    compressor,
    dataset,
    executor,
    initializer,
    loss,
    metric,
    model,
    optimizer,
    regularizer,
    reporter,
    runtime,
    schedule,
    strategy,
    surgery,
    tracker,
)
from cnnbench.testing.uses import input as input_

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.testing.subject import SlotUse

USES: Mapping[str, SlotUse] = {
    "architecture": architecture,
    "convolution": surgery,
    "pooling": surgery,
    "norm": surgery,
    "activation": surgery,
    "initializer": initializer,
    "input": input_,
    "augmentation": augmentation,
    "regularizer": regularizer,
    "strategy": strategy,
    "compressor": compressor,
    "runtime": runtime,
    "optimizer": optimizer,
    "schedule": schedule,
    "loss": loss,
    "model": model,
    "dataset": dataset,
    "metric": metric,
    "reporter": reporter,
    "executor": executor,
    "tracker": tracker,
}
