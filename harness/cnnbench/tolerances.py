"""How much worse a metric may become before a comparison of two runs calls it a regression.

Without a word from the user ``DEFAULTS`` decide. What they leave out is shown and never fails: figures that say the
same again (throughput), tails and training times, which are the machine's as much as the code's.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cnnbench.errors import UsageError
from cnnbench.quantities import METRICS, quantities
from cnnbench.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cnnbench.quantities import Quantity

DRIFTING: Final = frozenset(
    {
        *("latency", "latency_p95", "latency_p99", "throughput", "prepare_time", "train_time"),
        *("energy", "energy_train", "co2", "co2_train"),
    }
)
"""Metrics that one machine gives otherwise on another day, for all seeds of a run alike."""

OF_THE_MACHINE: Final = DRIFTING | {"memory", "memory_train", "memory_weights", "memory_activations"}
"""Metrics that belong to a machine as much as to the code: never compared between two of them."""

EXACT: Final = frozenset({"params", "params_trainable", "flops", "size", "size_onnx", "size_served"})
"""Metrics that have no noise: one trial tells all."""


@dataclass(frozen=True)
class Tolerance:
    """How much worse is still no regression.

    Attributes:
        amount: a share of the value before if ``relative``, else in the recorded unit; 0 or more.
        relative: which of the two.
        text: as people read it, e.g. ``0.5 pp``, ``5 %``.
    """

    amount: float
    relative: bool
    text: str


def _share(percent: float) -> Tolerance:
    return Tolerance(percent / 100, relative=True, text=f"{percent:g} %")


_NONE = Tolerance(0.0, relative=False, text="0")

DEFAULTS: Final[Mapping[str, Tolerance]] = {
    # Quality: whatever the seeds show.
    **dict.fromkeys(
        ("accuracy", "top5", "f1_macro", "precision_macro", "recall_macro", "nll", "ece", "agreement"), _NONE
    ),
    "accuracy_served": _NONE,
    # Exact: any increase.
    **dict.fromkeys(("params", "flops", "size", "size_onnx", "size_served"), _share(0)),
    # These hang on the weights, whose last bits any change of code may move.
    **dict.fromkeys(("params_nonzero", "size_deflated"), _share(1)),
    # Two runs are not interleaved, so the machine's drift between them does not cancel in full.
    "latency": _share(5),
    **dict.fromkeys(("energy", "memory"), _share(10)),
}
"""By metric, what decides where the user names nothing."""


def parse_tolerances(texts: Sequence[str], recorded: Collection[str]) -> dict[str, Tolerance]:
    """Tolerances by metric from what ``--fail-on`` was given.

    Args:
        texts: each one ``METRIC:TOLERANCE`` or several with commas between. A tolerance is a share of the value before
            (``5%``), or an amount in the metric's unit (``0.5pp`` for a metric in percent, ``2ms``, ``10KiB``).
        recorded: metrics that the results have.

    Raises:
        UsageError: not of this form, no such metric, or one that can't regress; names the nearest right one.
    """
    found: dict[str, Tolerance] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, colon, amount = (word.strip() for word in part.partition(":"))
        if not (name and colon and amount):
            raise UsageError(
                f"--fail-on: expected METRIC:TOLERANCE, such as accuracy:0.5pp or latency:10%, got {part!r}"
            )
        quantity = _quantity(name, recorded)
        if name in found:
            raise UsageError(f"--fail-on: {name} is named twice")
        found[name] = _tolerance(part, quantity, amount)
    return found


def _quantity(name: str, recorded: Collection[str]) -> Quantity:
    if name not in METRICS and name not in recorded:
        raise UsageError(f"--fail-on: unknown metric {name!r}: {nearest(name, METRICS) or nearest(name, recorded)}")
    if name not in recorded:
        raise UsageError(f"--fail-on: these results have no {name}; they have {', '.join(sorted(recorded))}")
    (quantity,) = quantities([name], [1])
    if quantity.better == "neither":
        raise UsageError(f"--fail-on: {name} can't regress: nothing says which of its directions is better")
    return quantity


def _tolerance(part: str, quantity: Quantity, text: str) -> Tolerance:
    unit = "pp" if quantity.unit == "%" else quantity.unit.partition("/")[0]
    forms = f"{unit or 'a number'} or % (of the value before)"
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(\D*)", text)
    if match is None or not math.isfinite(float(match[1])):
        raise UsageError(f"--fail-on: {part}: expected a number from 0 with its unit: {forms}, got {text!r}")
    amount = float(match[1])
    if match[2] == "%":
        return _share(amount)
    if match[2] != unit:
        raise UsageError(f"--fail-on: {part}: expected {forms} as the unit, got {match[2]!r}")
    return Tolerance(amount / quantity.factor, relative=False, text=f"{amount:g} {unit}".strip())
