"""What can be measured: names, units, which direction is better, and the stage that each comes from.

A suite names metrics (``latency``); a record holds quantities (``latency_b1_ms``, ``latency_b32_ms``). This module is
the one place that knows how the first become the second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Quantity:
    """One column of a table.

    Attributes:
        key: its name in a record's ``metrics``.
        label: the column's header, without the unit.
        unit: of the displayed value; empty for counts and shares.
        better: which direction is an improvement.
        stage: the stage that yields it.
        factor: displayed value = recorded value x factor.
    """

    key: str
    label: str
    unit: str
    better: Better
    stage: str
    factor: float = 1.0


_QUALITY = {
    "accuracy": Quantity("accuracy", "accuracy", "%", "higher", "evaluate", 100),
    "top5": Quantity("top5", "top-5", "%", "higher", "evaluate", 100),
    "f1_macro": Quantity("f1_macro", "F1 macro", "%", "higher", "evaluate", 100),
    "precision_macro": Quantity("precision_macro", "precision macro", "%", "higher", "evaluate", 100),
    "recall_macro": Quantity("recall_macro", "recall macro", "%", "higher", "evaluate", 100),
    "nll": Quantity("nll", "NLL", "nats", "lower", "evaluate"),
    "ece": Quantity("ece", "ECE", "%", "lower", "evaluate", 100),
}
_COST = {
    "params": Quantity("params", "params", "k", "lower", "profile", 1e-3),
    "params_trainable": Quantity("params_trainable", "trainable", "k", "neither", "profile", 1e-3),
    "params_nonzero": Quantity("params_nonzero", "non-zero", "k", "lower", "profile", 1e-3),
    "flops": Quantity("flops", "multiply-adds", "M", "lower", "profile", 1e-6),
    "size": Quantity("size_bytes", "size", "KiB", "lower", "profile", 1 / 1024),
    "size_deflated": Quantity("size_deflated_bytes", "deflated", "KiB", "lower", "profile", 1 / 1024),
    "size_onnx": Quantity("size_onnx_bytes", "ONNX", "KiB", "lower", "profile", 1 / 1024),
    "train_time": Quantity("train_seconds", "training", "s", "lower", "train"),
    "memory_train": Quantity("memory_train_mib", "training memory", "MiB", "lower", "train"),
    "energy_train": Quantity("energy_train_j", "training energy", "J", "lower", "train"),
    "co2_train": Quantity("co2_train_mg", "training CO2", "mg", "lower", "train"),
    "memory": Quantity("memory_inference_mib", "memory", "MiB", "lower", "memory"),
    "memory_weights": Quantity("memory_weights_mib", "weights", "MiB", "lower", "memory"),
    "memory_activations": Quantity("memory_activations_mib", "activations", "MiB", "lower", "memory"),
    "energy": Quantity("energy_inference_mj", "energy", "mJ/image", "lower", "energy"),
    "co2": Quantity("co2_inference_ug", "CO2", "µg/image", "lower", "energy"),
    "prepare_time": Quantity("prepare_seconds", "preparing", "s", "lower", "latency"),
    "size_served": Quantity("size_served_bytes", "served size", "KiB", "lower", "latency", 1 / 1024),
    "agreement": Quantity("agreement", "agreement", "%", "higher", "latency", 100),
    "max_difference": Quantity("max_difference", "largest difference", "", "lower", "latency"),
    "accuracy_served": Quantity("accuracy_served", "served accuracy", "%", "higher", "latency", 100),
}
# One column for each batch size; ``{n}`` is it.
_BY_BATCH = {
    "latency": Quantity("latency_b{n}_ms", "latency b{n}", "ms", "lower", "latency"),
    "latency_p95": Quantity("latency_b{n}_p95_ms", "p95 b{n}", "ms", "lower", "latency"),
    "latency_p99": Quantity("latency_b{n}_p99_ms", "p99 b{n}", "ms", "lower", "latency"),
    "throughput": Quantity("throughput_b{n}", "throughput b{n}", "images/s", "higher", "latency"),
}

METRICS: tuple[str, ...] = (*_QUALITY, *_COST, *_BY_BATCH)
"""Every metric that a suite can name without a plugin."""


def quantities(metrics: Sequence[str], batch_sizes: Sequence[int]) -> list[Quantity]:
    """The columns behind a suite's metrics, in order.

    Args:
        metrics: names from ``METRICS``; any other is a plugin's, recorded under its own name, and read here without the
            plugin that knows more of it.
        batch_sizes: latency's batch sizes.
    """
    fixed = {**_QUALITY, **_COST}
    columns: list[Quantity] = []
    for name in metrics:
        if name in _BY_BATCH:
            by_batch = _BY_BATCH[name]
            columns += [
                replace(by_batch, key=by_batch.key.format(n=n), label=by_batch.label.format(n=n)) for n in batch_sizes
            ]
        else:
            columns.append(fixed.get(name) or Quantity(name, name, "", "neither", "evaluate"))
    return columns


def ratio_key(batch_size: object) -> str:
    """Key of a latency's ratio to the reference's."""
    return f"latency_b{batch_size}_ratio"


def ratio_beside(column: Quantity) -> Quantity | None:
    """The ratio to the reference's that stands beside a median latency; None beside anything else."""
    found = re.fullmatch(r"latency_b(\d+)_ms", column.key)
    return Quantity(ratio_key(found[1]), f"ratio b{found[1]}", "×", "lower", "latency") if found else None


def is_ratio(column: Quantity) -> bool:
    """Whether a column is made by ``ratio_beside``."""
    return re.fullmatch(ratio_key(r"\d+"), column.key) is not None


def smallest_step(column: Quantity, records: Iterable[Mapping[str, Any]]) -> float:
    """The step in which a quantity moves, in the recorded unit: for a share of the test split, that of one image.

    Args:
        column: the quantity.
        records: of one dataset; the first that holds a confusion matrix tells the size of the split.

    Returns:
        0 for what is no such share, and where no record tells.
    """
    if column.unit != "%":
        return 0.0
    for record in records:
        images = sum(map(sum, (record.get("details") or {}).get("confusion") or ()))
        if images:
            return float(1 / images)
    return 0.0
