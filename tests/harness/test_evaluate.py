from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from cnnbench.devices import Device
from cnnbench.errors import Diverged, TrialError
from cnnbench.stages.evaluate import (
    confusion,
    evaluate,
    expected_calibration_error,
    log_softmax,
    predict,
    quality,
    top_k_accuracy,
)

CPU = Device("cpu")


@st.composite
def scored(draw):
    """Logits and labels; few samples against many classes, so classes are often absent from one or both."""
    classes, count = draw(st.integers(2, 12)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.normal(0, draw(st.floats(0.1, 20)), (count, classes)), rng.integers(0, classes, count)


@settings(deadline=None, max_examples=60)
@given(scored())
def test_agrees_with_scikit_learn_and_torchmetrics(case) -> None:
    logits, labels = case
    classes = logits.shape[1]
    every = list(range(classes))
    got = quality(logits, labels)
    predicted = logits.argmax(1)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    probabilities = torch.from_numpy(logits).softmax(1)
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "precision_macro": precision.mean(),
        "recall_macro": recall.mean(),
        "f1_macro": f1.mean(),
        "nll": torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item(),
        "ece": multiclass_calibration_error(probabilities, torch.from_numpy(labels), classes, n_bins=15).item(),
    }
    if classes > 5:
        expected["top5"] = multiclass_accuracy(
            probabilities, torch.from_numpy(labels), classes, top_k=5, average="micro"
        ).item()
    # A confidence that rounds to 1 falls outside torchmetrics' last bin, and at most that sample's share is at stake.
    if probabilities.max() > 1 - 1e-7:
        expected["ece"] = got.metrics["ece"]
    assert got.metrics == pytest.approx(expected, rel=1e-5, abs=1e-6)
    per_class = got.details["per_class"]
    for name, values in {"precision": precision, "recall": recall, "f1": f1, "support": support}.items():
        assert per_class[name] == pytest.approx(values.tolist())
    assert got.details["confusion"] == reference.confusion_matrix(labels, predicted, labels=every).tolist()


def test_a_class_absent_from_the_split_counts_as_zero() -> None:
    got = quality(np.eye(4)[[0, 1, 2, 2]] * 9, np.array([0, 1, 2, 2]))  # class 3: never present, never predicted
    assert got.metrics["accuracy"] == 1
    assert got.metrics["f1_macro"] == got.metrics["recall_macro"] == got.metrics["precision_macro"] == 0.75
    assert got.details["per_class"]["support"] == [1, 1, 2, 0]


def test_top5_is_reported_only_beyond_five_classes() -> None:
    labels = np.array([0, 1])
    assert "top5" not in quality(np.zeros((2, 5)), labels).metrics
    assert quality(np.zeros((2, 6)), labels).metrics["top5"] == 1


def test_ties_go_to_the_first_class() -> None:
    even = np.full((4, 4), 0.25)
    labels = np.arange(4)
    assert [top_k_accuracy(even, labels, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1]


def test_calibration_error_by_hand() -> None:
    # Bins of a fifth: 0.55 and 0.6 share (0.4, 0.6], one of two right; 1.0 is in the last bin, wrong.
    probabilities = np.array([[0.55, 0.45], [0.4, 0.6], [1.0, 0.0]])
    gap = abs((1 - 0.55) + (0 - 0.6)) + abs(0 - 1.0)
    assert expected_calibration_error(probabilities, np.array([0, 0, 1]), bins=5) == pytest.approx(gap / 3)


def test_calibration_error_where_all_is_certain() -> None:
    probabilities = np.eye(3)
    assert expected_calibration_error(probabilities, np.arange(3)) == 0
    assert expected_calibration_error(probabilities, np.array([1, 2, 0])) == 1


def test_huge_logits_stay_finite() -> None:
    got = quality(np.array([[1e300, 0.0], [0.0, 1e4]]), np.array([0, 0]))
    assert got.metrics["nll"] == pytest.approx(5e3)
    assert np.allclose(np.exp(log_softmax(np.array([[700.0, 710.0]]))).sum(), 1)


def test_confusion_has_true_classes_in_rows() -> None:
    assert confusion(np.array([1, 1, 0]), np.array([0, 1, 0]), 2).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_prediction_does_not_depend_on_the_batches(batch_size) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    inputs = torch.randn(20, 3, 2, 2)
    got = predict(model, inputs, batch_size, CPU)
    assert got.dtype == np.float64
    assert np.allclose(got, model(inputs).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_not_finite_diverge(bad) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :1, 0, 0] > 5, bad, x[:, :2, 0, 0])

    inputs = torch.zeros(6, 2, 1, 1)
    inputs[4] = 9
    with pytest.raises(Diverged, match="1 of 6 images"):
        evaluate(model, inputs, torch.zeros(6, dtype=torch.int64), 2, CPU)


def test_outputs_of_another_shape_and_empty_splits_are_named() -> None:
    inputs, labels = torch.zeros(4, 3, 1, 1), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(TrialError, match=r"\(4, 3\), expected \(4, 10\)"):
        evaluate(lambda x: x.flatten(1), inputs, labels, 10, CPU)
    with pytest.raises(TrialError, match="no images"):
        evaluate(lambda x: x.flatten(1), inputs[:0], labels[:0], 3, CPU)
