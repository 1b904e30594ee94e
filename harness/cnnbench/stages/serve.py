"""A model made ready to be called: by the arm's runtime, else by kernels of its own, else as it is.

Whatever serves in the model's place is compared with it on the test split before any time is taken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import TrialError
from cnnbench.stages.subject import BATCHES, Subject, make_batches
from cnnbench.stages.train import EVALUATION_BATCH, calibration_inputs, model_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cnnbench.artifact import Artifact
    from cnnbench.data import Splits
    from cnnbench.devices import Device
    from cnnbench.seeds import Streams
    from cnnbench.slots import Runtime

    Call = Callable[[torch.Tensor], torch.Tensor]

ROUNDING = 0.01
"""An exact runtime's logits stay this close to the model's, as a share of the largest: reduced precision that nobody
asked for (bf16, TF32) shows as more on all but the smallest networks, a mistake as much more."""


@dataclass(frozen=True)
class Served:
    """A model ready to be measured.

    Attributes:
        subject: the call and some of its inputs.
        metrics: what making it ready cost, and how well it agrees with the model; empty for the model itself.
        notes: for the record.
        weights_bytes: what it holds ready between calls: the runtime's own file, else the model's tensors.
        close: lets go of it.
    """

    subject: Subject
    metrics: dict[str, float]
    notes: list[str]
    weights_bytes: int
    close: Callable[[], None]


@dataclass(frozen=True)
class Context:
    """What a runtime may use beside the model; see ``slots.ServingContext``.

    Attributes:
        example: model inputs of the first batch size.
        batch_sizes: all that will be asked for.
        folder: empty, its own.
        threads: on CPU.
        artifact: the model with its input normalization.
        splits: the data.
        streams: the trial's.
    """

    example: torch.Tensor
    batch_sizes: tuple[int, ...]
    folder: Path
    threads: int
    artifact: Artifact
    splits: Splits = field(repr=False)
    streams: Streams = field(repr=False)

    def calibration(self, count: int) -> torch.Tensor:
        """Training images as model inputs, a fixed random choice of the trial's seed."""
        return calibration_inputs(self.splits.train_images, self.artifact.input, self.streams, count)


def serve(
    artifact: Artifact,
    runtimes: Sequence[Runtime],
    splits: Splits,
    streams: Streams,
    device: Device,
    *,
    batch_sizes: Sequence[int],
    threads: int,
    folder: Path,
    check: bool = True,
) -> Served:
    """Make a trained model ready for calls of some batch sizes.

    Args:
        artifact: the model, in eval mode on the device, and its input normalization.
        runtimes: the arm's, at most one.
        splits: the data.
        streams: the trial's.
        device: where it is served.
        batch_sizes: images a call.
        threads: intra-op threads on CPU, in force already.
        folder: empty; lives as long as what is returned.
        check: compare with the model on the test split.

    Raises:
        Unsupported: the runtime can't serve this model.
        TrialError: an exact runtime's outputs are not the model's.
    """
    sizes = tuple(dict.fromkeys(batch_sizes))
    model = artifact.model
    most = max(sizes) * BATCHES
    inputs = model_inputs(splits.test_images[:most], artifact.input)
    (example,) = make_batches(inputs, sizes[0], most=1)
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    replaced = bool(runtimes) or hasattr(model, "deploy")
    # Before a runtime may change the model.
    expected = _logits(artifact, splits, device) if check and replaced else None
    began = time.perf_counter()
    call, exact, notes = _made(artifact, runtimes, Context(example, sizes, folder, threads, artifact, splits, streams))
    if call is not model or device.lazy:  # a lazy device compiles what it is asked for first, the model too
        with device.inference():
            for size in sizes:
                (batch,) = make_batches(inputs, size, most=1)
                device.flush()  # else the making of the batch becomes part of what is compiled
                outputs = call(batch)  # held: a lazy device computes nothing that nobody holds
                device.synchronize()
                del outputs
    if call is model:
        return Served(Subject(model, inputs), {}, notes, weights, _nothing)
    metrics = {"prepare_seconds": time.perf_counter() - began}
    size_bytes = getattr(call, "size_bytes", None)
    if isinstance(size_bytes, int):
        metrics["size_served_bytes"] = size_bytes
        weights = size_bytes
    notes += [str(remark) for remark in getattr(call, "remarks", ())]
    if expected is not None:
        if int((expected.argmax(1) != expected[0].argmax()).sum()) == 0:
            notes.append("the network gives every test image one class: that a runtime agrees with it says little")
        metrics |= _agreement(call, expected, artifact, splits, device, max(sizes), exact=exact)
    close: Callable[[], None] = getattr(call, "close", _nothing)
    return Served(Subject(call, inputs), metrics, notes, weights, close)


def _made(artifact: Artifact, runtimes: Sequence[Runtime], context: Context) -> tuple[Call, bool, list[str]]:
    """What is called, whether its outputs must be the model's, and what is to be said of it."""
    model: Any = artifact.model
    for runtime in runtimes:
        # A simulated format is no work that a runtime would have to do.
        plain = getattr(model, "unsimulated", None)
        notes = [f"served as floating point: {model.kernels_reason}"] if plain else []
        own_kernels = plain is not None or hasattr(model, "deploy")  # integers round where floats do not
        exact = bool(getattr(runtime, "exact", True)) and not own_kernels
        return runtime(plain() if plain else model, context), exact, notes
    deploy = getattr(model, "deploy", None)
    if deploy is None:
        return model, True, []
    call = deploy(context.example)
    kernels = getattr(model, "kernels", "its own")
    reason = getattr(model, "kernels_reason", "")
    return call, False, [f"served by {kernels} kernels" + (f" ({reason})" if reason else "")]


def _logits(artifact: Artifact, splits: Splits, device: Device) -> torch.Tensor:
    """The model's own outputs on the test split."""
    inputs = model_inputs(splits.test_images, artifact.input)
    with device.inference():
        return torch.cat([artifact.model(part) for part in torch.split(inputs, EVALUATION_BATCH)]).float()


def _agreement(
    call: Call, ours: torch.Tensor, artifact: Artifact, splits: Splits, device: Device, size: int, *, exact: bool
) -> dict[str, float]:
    """How far the served outputs are the model's, over the test split."""
    inputs, labels = model_inputs(splits.test_images, artifact.input), splits.test_labels
    with device.inference():
        theirs = torch.cat([_padded(call, part, size) for part in torch.split(inputs, size)]).float().to(ours.device)
    if theirs.shape != ours.shape:
        raise TrialError(f"the runtime returned {list(theirs.shape)} for the test split, expected {list(ours.shape)}")
    if not bool(torch.isfinite(theirs).all()):
        raise TrialError("the runtime's outputs are not finite")
    difference, largest = float((theirs - ours).abs().max()), float(ours.abs().max())
    agreement = float((theirs.argmax(1) == ours.argmax(1)).double().mean())
    if exact and difference > ROUNDING * largest:
        raise TrialError(
            f"the runtime's outputs are not the model's: they differ by up to {difference:.3g} where logits reach "
            f"{largest:.3g}; top-1 agreement {100 * agreement:.1f} %"
        )
    accuracy = float((theirs.argmax(1) == labels.to(theirs.device)).double().mean())
    return {"agreement": agreement, "max_difference": difference, "accuracy_served": accuracy}


def _padded(call: Call, part: torch.Tensor, size: int) -> torch.Tensor:
    """Outputs for a part of at most ``size``, which is what was made ready: the last one is filled up."""
    rows = torch.arange(size, device=part.device) % len(part)
    return call(part if len(part) == size else part[rows].contiguous())[: len(part)]


def _nothing() -> None:
    """Hold nothing, let go of nothing."""
