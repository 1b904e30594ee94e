"""Serving: what a runtime makes of a model is compared with the model before any time is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cnnbench.artifact import Artifact
from cnnbench.data import Splits
from cnnbench.devices import Device
from cnnbench.errors import TrialError
from cnnbench.seeds import Streams
from cnnbench.stages.serve import serve

CPU = Device("cpu")
SIZES = (1, 4)


@pytest.fixture
def artifact():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    with torch.no_grad():
        model[1].weight *= 5  # so that not all images get one class
    return Artifact(model, nn.Identity())


@pytest.fixture
def splits():
    generator = torch.Generator().manual_seed(1)

    def images(count):
        return torch.randint(0, 256, (count, 1, 3, 4), dtype=torch.uint8, generator=generator)

    labels = torch.arange(10) % 3
    return Splits(images(20), torch.arange(20) % 3, images(0), labels[:0], images(10), labels, ("a", "b", "c"))


def served(artifact, splits, tmp_path, runtime=None, **how):
    runtimes = [] if runtime is None else [runtime]
    how = {"batch_sizes": SIZES, "threads": 1, "folder": tmp_path} | how
    return serve(artifact, runtimes, splits, Streams(0), CPU, **how)


class Runtime:
    """Serves by ``call(model, inputs)``, and keeps what it was given."""

    def __init__(self, call: Any = lambda model, inputs: model(inputs), exact: bool | None = None, **carried: Any):
        self.call = call
        self.carried = carried
        self.seen: list[tuple[int, ...]] = []
        if exact is not None:
            self.exact = exact

    def __call__(self, model, context):
        self.context = context

        def call(inputs):
            self.seen.append(tuple(inputs.shape))
            return self.call(model, inputs)

        for name, value in self.carried.items():
            setattr(call, name, value)
        return call


def test_without_a_runtime_the_model_is_called_as_it_is(artifact, splits, tmp_path):
    one = served(artifact, splits, tmp_path)
    assert one.subject.call is artifact.model
    assert (one.metrics, one.notes) == ({}, [])
    assert one.weights_bytes == 4 * (12 * 3 + 3)
    one.close()


def test_a_runtime_gets_examples_calibration_and_a_folder(artifact, splits, tmp_path):
    runtime = Runtime()
    served(artifact, splits, tmp_path, runtime)
    context = runtime.context
    assert context.example.shape == (1, 1, 3, 4)
    assert (context.batch_sizes, context.threads, context.folder) == (SIZES, 1, tmp_path)
    assert context.calibration(5).shape == (5, 1, 3, 4)
    assert context.calibration(1000).shape == (20, 1, 3, 4)
    assert torch.equal(context.calibration(5), context.calibration(5))


def test_outputs_are_compared_over_the_test_split_in_batches_that_were_made_ready(artifact, splits, tmp_path):
    runtime = Runtime()
    one = served(artifact, splits, tmp_path, runtime)
    # First a call for each batch size, then ten images in batches of four, the last one filled up.
    assert runtime.seen == [(1, 1, 3, 4), (4, 1, 3, 4), (4, 1, 3, 4), (4, 1, 3, 4), (4, 1, 3, 4)]
    inputs = splits.test_images.float() / 255
    right = (artifact.model(inputs).argmax(1) == splits.test_labels).double().mean()
    assert one.metrics.pop("prepare_seconds") >= 0
    assert one.metrics == {"agreement": 1.0, "max_difference": 0.0, "accuracy_served": float(right)}


def test_how_far_they_differ_is_recorded(artifact, splits, tmp_path):
    inputs = splits.test_images.float() / 255
    logits = artifact.model(inputs).detach()
    swapped = (logits[:, [1, 0, 2]].argmax(1) == logits.argmax(1)).double().mean()
    one = served(artifact, splits, tmp_path, Runtime(lambda model, x: model(x)[:, [1, 0, 2]], exact=False))
    assert one.metrics["agreement"] == float(swapped)
    assert one.metrics["max_difference"] == pytest.approx(float((logits[:, 0] - logits[:, 1]).abs().max()))


@pytest.mark.parametrize(("exact", "works"), [(None, False), (True, False), (False, True)])
def test_an_exact_runtime_may_differ_by_rounding_alone(artifact, splits, tmp_path, exact, works):
    runtime = Runtime(lambda model, x: model(x) * 1.02, exact=exact)
    if works:
        assert served(artifact, splits, tmp_path, runtime).metrics["agreement"] == 1
    else:
        with pytest.raises(TrialError, match=r"outputs are not the model's: they differ by up to .* agreement 100.0 %"):
            served(artifact, splits, tmp_path, runtime)
    close = Runtime(lambda model, x: model(x) * 1.001, exact=exact)
    assert served(artifact, splits, tmp_path, close).metrics["max_difference"] > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, x: model(x) * float("nan"), "not finite"),
        (lambda model, x: model(x)[:, :2], r"returned \[10, 2\] for the test split, expected \[10, 3\]"),
    ],
)
def test_nonsense_fails_whether_exact_or_not(artifact, splits, tmp_path, call, message):
    with pytest.raises(TrialError, match=message):
        served(artifact, splits, tmp_path, Runtime(call, exact=False))


def test_rounding_may_differ_more_where_the_model_computes_with_integers(artifact, splits, tmp_path):
    artifact.model.deploy = lambda example: artifact.model
    one = served(artifact, splits, tmp_path, Runtime(lambda model, x: model(x) * 1.02))
    assert one.metrics["max_difference"] > 0


def test_agreement_with_a_network_that_knows_one_class_is_told_to_say_little(artifact, splits, tmp_path):
    assert served(artifact, splits, tmp_path, Runtime()).notes == []
    with torch.no_grad():
        artifact.model[1].bias[1] = 100.0
    (note,) = served(artifact, splits, tmp_path, Runtime()).notes
    assert note.startswith("the network gives every test image one class")


def test_a_runtime_that_changes_the_model_is_compared_with_what_it_was(artifact, splits, tmp_path):
    def spoil(model, inputs):
        with torch.no_grad():
            model[1].weight.zero_()
        return model(inputs)

    with pytest.raises(TrialError, match="not the model's"):
        served(artifact, splits, tmp_path, Runtime(spoil))


def test_what_a_runtime_s_function_carries_is_used(artifact, splits, tmp_path):
    closed = []
    runtime = Runtime(size_bytes=77, remarks=["fused"], close=lambda: closed.append(True))
    one = served(artifact, splits, tmp_path, runtime)
    assert (one.weights_bytes, one.metrics["size_served_bytes"], one.notes) == (77, 77, ["fused"])
    assert not closed
    one.close()
    assert closed == [True]


def test_the_comparison_can_be_left_out(artifact, splits, tmp_path):
    runtime = Runtime(lambda model, x: model(x) + 9)
    assert served(artifact, splits, tmp_path, runtime, check=False).metrics.keys() == {"prepare_seconds"}
    assert len(runtime.seen) == 2
