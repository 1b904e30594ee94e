"""Runtimes: a small network made ready for calls of several batch sizes."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.artifact import Artifact
from cnnbench.errors import MissingDependency, Unsupported
from cnnbench.seeds import Streams
from cnnbench.stages.serve import Context
from cnnbench.stages.train import model_inputs
from cnnbench.testing.rule import Inapplicable
from cnnbench.testing.use import Situation, Use
from cnnbench.testing.uses.compressor import builder_for, trained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from cnnbench.testing.subject import Subject

_COLOUR = Situation(height=8, width=8, batch=8)
situations = (_COLOUR, replace(_COLOUR, channels=1))
BATCH_SIZES = (1, 3)


@dataclass(frozen=True)
class Served:
    """A network that a runtime has made ready.

    Attributes:
        call: what the runtime returned.
        model: the network itself, on the same device.
        inputs: for both, [N, C, H, W].
    """

    call: Callable[[torch.Tensor], torch.Tensor]
    model: nn.Module
    inputs: torch.Tensor


@contextmanager
def served(subject: Subject, technique: Any, situation: Situation, draw: int) -> Iterator[Served]:
    """A runtime's call, closed afterwards; on the CPU, or on a GPU where it refuses the CPU and there is one.

    Raises:
        Inapplicable: it serves on none of the devices here.
    """
    refusal: Exception | None = None
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        with tempfile.TemporaryDirectory(prefix="cnnbench-", ignore_cleanup_errors=True) as folder:
            prepared = _network(subject, situation, draw).to(device)
            untouched = _network(subject, situation, draw).to(device)
            context = _context(subject, situation, draw, prepared, Path(folder))
            try:
                call = technique(prepared, context)
            except MissingDependency:
                raise
            except Unsupported as error:
                refusal = refusal or error
                continue
            try:
                yield Served(call, untouched, context.example.new_tensor(context.calibration(6).tolist()))
            finally:
                with suppress(Exception):  # a rule of its own looks at this
                    getattr(call, "close", lambda: None)()
            return
    raise Inapplicable(f"it does not serve here: {refusal}")


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Prepare a network, and call it with every batch size that it was prepared for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that runtimes lean on
        with served(subject, technique, situation, draw) as ready, torch.no_grad():
            batches = {size: ready.inputs[:size] for size in BATCH_SIZES}
            result = {size: ready.call(batch.clone()).clone() for size, batch in batches.items()}
            plain = {size: ready.model(batch) for size, batch in batches.items()}
    return Use(given={}, before={}, result=result, plain=plain)


def _network(subject: Subject, situation: Situation, draw: int) -> nn.Module:
    return trained(builder_for(subject.registry, situation), Streams(draw, "conformance"))


def _context(subject: Subject, situation: Situation, draw: int, model: nn.Module, folder: Path) -> Context:
    builder = builder_for(subject.registry, situation)
    input_module = builder.input_module()
    device = next(model.parameters()).device
    splits = builder.splits
    example = model_inputs(splits.test_images[: BATCH_SIZES[0]], input_module).to(device)
    artifact = Artifact(model, input_module)
    return Context(
        example, BATCH_SIZES, folder, torch.get_num_threads(), artifact, splits, Streams(draw, "conformance")
    )
