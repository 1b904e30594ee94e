"""What a training step takes with a technique, on the baseline that suits it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.errors import UsageError
from cnnbench.options import label
from cnnbench.slots import SLOTS
from cnnbench.step_cost import step_costs
from cnnbench.try_fit import STREAMS, Asked, Fitter, unusable
from cnnbench.try_report import step_line

if TYPE_CHECKING:
    from cnnbench.registry import Entry
    from cnnbench.targets import Target

THREADS = 1
"""Of a step on the CPU, as trainings have in a run."""
SECONDS = 1.0
"""For one technique's steps, where nothing else is asked of it."""


def acts_in_training(entry: Entry) -> bool:
    """Whether a technique has a part in training steps that can be compared with a baseline's."""
    return SLOTS[entry.card.slot].stage == "train" and entry.card.slot != "dataset"


def loop_cost(entry: Entry, target: Target) -> str:
    """The cost of a technique in the training loop, on one line; empty where it has none, or can't be used.

    Args:
        entry: the technique.
        target: that it belongs to.
    """
    registry = target.host.registry
    if not acts_in_training(entry) or unusable(entry, registry):
        return ""
    try:
        trial = Fitter(Asked(device="cpu"), Path("try.toml"), (), registry).fit([entry])
        if not trial.arms:
            return ""
        builder = next(iter(trial.arms.values())).builder
        cost = step_costs(trial.baseline, {"": builder}, STREAMS, SECONDS, THREADS)[""]
    except UsageError:
        raise
    except Exception:  # noqa: BLE001 - what comes out of a technique is what the rules tell of
        return ""
    model = label(trial.baseline.settings.model, registry)
    return f"cost in the loop: {step_line(cost)}, with {model} on one thread of the CPU"
