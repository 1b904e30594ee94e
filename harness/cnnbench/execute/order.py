"""Which of several stages that could start goes first.

What can't work is told before anything costs time. Then the longest training begins first: one that began last would
leave the other workers idle. What trains nothing is short, ends trials, and finds the model that it needs still in its
worker's memory: it goes before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnbench.plan import Stage

_AT_ONCE = -(10**9)


def place_in_line(stage: Stage, seed: int) -> tuple[int, int]:
    """Lower goes first; equal ones go in the order of the plan.

    Args:
        stage: exclusive ones are compared with each other alone, and so are the others.
        seed: the first that needs it.
    """
    if stage.exclusive:
        return seed, 0
    settings = stage.task.get("settings", {})
    match stage.kind:
        case "rehearse":
            return -1, 0
        case "train":
            return 0, -_epochs(settings.get("recipe", {}))
        case "compress":
            return 0, -sum(
                _epochs(choice["options"]) for choice in settings.get("techniques", {}).get("compressor", ())
            )
    return 0, _AT_ONCE


def _epochs(options: Mapping[str, Any]) -> int:
    """Epochs that a technique's options ask for, by the name that such options have."""
    own = sum(value for name, value in options.items() if name.endswith("epochs") and isinstance(value, int))
    return own + sum(_epochs(value) for value in options.values() if isinstance(value, Mapping))
