"""Quality of a classifier on a split: pure functions on probabilities and labels, in float64.

Shapes: probabilities [N, K] with rows that sum to 1, labels [N] with values 0 .. K - 1, a prediction is the row's first
largest entry. Macro averages go over all K classes and count a ratio 0/0 as 0, as scikit-learn does with
``labels=range(K), zero_division=0``: a class that is neither predicted nor present lowers the average.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cnnbench.errors import Diverged, TrialError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from cnnbench.devices import Device
    from cnnbench.slots import Metric

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

ECE_BINS = 15


@dataclass(frozen=True)
class Quality:
    """What an evaluation yields.

    Attributes:
        metrics: scalars, keyed as in ``cnnbench.quantities``.
        details: ``per_class`` (lists over classes of precision, recall, f1 and support) and ``confusion`` [K, K], rows
            the true classes.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


def evaluate(
    model: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    device: Device,
    batch_size: int = 1000,
    extra: Mapping[str, Metric] | None = None,
) -> Quality:
    """Predict a split and score it.

    Args:
        model: maps model inputs [n, C, H, W] to logits [n, K]; a module is expected in eval mode.
        inputs: model inputs [N, C, H, W].
        labels: int64 [N].
        num_classes: K.
        device: where the model lives.
        batch_size: images a forward pass.
        extra: metrics of plugins by name.

    Raises:
        Diverged: an output is not finite.
        TrialError: the outputs are not [N, K], there is nothing to evaluate, or a plugin's metric gives no number.
    """
    if len(labels) == 0:
        raise TrialError("the split to evaluate has no images")
    logits = predict(model, inputs, batch_size, device)
    if logits.shape != (len(labels), num_classes):
        raise TrialError(f"the model's outputs have shape {logits.shape}, expected ({len(labels)}, {num_classes})")
    found = quality(logits, labels.cpu().numpy())
    probabilities = torch.from_numpy(np.exp(log_softmax(logits)))
    for name, metric in (extra or {}).items():
        value: object = metric(probabilities, labels.cpu())
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise TrialError(f"metric {name!r} gave {value!r}, not a finite number")
        found.metrics[name] = float(value)
    return found


def predict(
    model: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, batch_size: int, device: Device
) -> Floats:
    """Logits [N, K] in float64 on the host.

    Raises:
        Diverged: an output is not finite.
    """
    with device.inference():
        batches = [part.to(device.torch) for part in torch.split(inputs, batch_size)]
        device.flush()
        parts = []
        for batch in batches:
            parts.append(model(batch))
            device.flush()
        logits: Floats = torch.cat(parts).cpu().double().numpy()  # cpu first: some devices have no float64
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise Diverged(f"outputs are not finite for {broken} of {len(logits)} images")
    return logits


def quality(logits: Floats, labels: Integers) -> Quality:
    """Every metric from logits [N, K] and labels [N]."""
    classes = logits.shape[1]
    log_probabilities = log_softmax(logits)
    probabilities: Floats = np.exp(log_probabilities)
    matrix = confusion(probabilities.argmax(axis=1), labels, classes)
    per_class = class_scores(matrix)
    metrics = {
        "accuracy": top_k_accuracy(probabilities, labels, 1),
        "f1_macro": float(per_class["f1"].mean()),
        "precision_macro": float(per_class["precision"].mean()),
        "recall_macro": float(per_class["recall"].mean()),
        "nll": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "ece": expected_calibration_error(probabilities, labels),
    }
    if classes > 5:
        metrics["top5"] = top_k_accuracy(probabilities, labels, 5)
    return Quality(
        metrics,
        {"per_class": {name: values.tolist() for name, values in per_class.items()}, "confusion": matrix.tolist()},
    )


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of the probabilities, row by row, safe against overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def top_k_accuracy(probabilities: Floats, labels: Integers, k: int) -> float:
    """Share of samples whose class is among the k most probable; of equal entries the earlier class comes first."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)
    return float((rank < k).mean())


def confusion(predictions: Integers, labels: Integers, classes: int) -> Integers:
    """Counts [K, K]: entry (i, j) is the number of samples of class i predicted as j."""
    cells = np.bincount(labels * classes + predictions, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def class_scores(matrix: Integers) -> dict[str, Any]:
    """Precision, recall, F1 and support [K] of each class from a confusion matrix [K, K]; 0/0 counts as 0."""
    hits = matrix.diagonal().astype(np.float64)
    predicted, support = matrix.sum(axis=0), matrix.sum(axis=1)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, predicted + support),
        "support": support,
    }


def expected_calibration_error(probabilities: Floats, labels: Integers, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of the top label's confidence, by their shares.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 5; bin m holds confidences in ((m-1)/M, m/M].
    """
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def _ratio(part: Floats, whole: Integers) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
