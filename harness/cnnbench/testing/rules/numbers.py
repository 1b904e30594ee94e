"""Rules about what a module computes: under autocast, in other memory layouts, backwards, and as an ONNX file."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from cnnbench.convert import INPUT, to_onnx
from cnnbench.errors import MissingDependency, Unsupported
from cnnbench.stages.serve import ROUNDING
from cnnbench.testing.compare import difference
from cnnbench.testing.modules import BUILT, MODULES, NETWORKS, during, own, plainest, trained_on
from cnnbench.testing.networks import outputs
from cnnbench.testing.rule import Broken, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from cnnbench.testing.subject import Subject


def _autocast(subject: Subject) -> None:
    module, x = own(subject)
    expected = outputs(module, x)
    with during("under autocast to bfloat16"), torch.autocast("cpu", torch.bfloat16):
        found = outputs(module, x)
    if differs := difference(found.float(), expected, within=0.1, at="the output"):
        raise Broken(f"under autocast to bfloat16 {differs}")
    if subject.slot not in BUILT:
        return
    with during("in a training step under autocast to bfloat16"):
        with torch.autocast("cpu", torch.bfloat16):
            logits = trained_on(module, x)
        _check_gradients(module, "in a training step under autocast to bfloat16")
    if not bool(torch.isfinite(logits).all()):
        raise Broken("under autocast to bfloat16 its training outputs are not finite")


def _channels_last(subject: Subject) -> None:
    module, x = own(subject)
    expected = outputs(module, x)
    with during("in channels-last memory layout"):
        module.to(memory_format=torch.channels_last)
        found = outputs(module, x.contiguous(memory_format=torch.channels_last))
    if differs := difference(found, expected, within=1e-4, at="the output"):
        raise Broken(f"in channels-last memory layout {differs}")
    if subject.slot in BUILT:
        with during("in a training step in channels-last memory layout"):
            trained_on(module, x.contiguous(memory_format=torch.channels_last))


def _gradients(subject: Subject) -> None:
    for what, values in _ties(plainest(subject)[1]):
        module, _ = own(subject)
        with during(f"in a training step on {what}"):
            logits = trained_on(module, values)
        if not logits.requires_grad and any(p.requires_grad for p in module.parameters()):
            raise Broken(f"on {what} no gradient flows back from its outputs")
        if what == "random images":
            unreached = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
            if unreached:
                raise Broken(f"no gradient reaches parameter {unreached[0]!r}")
        _check_gradients(module, f"on {what}")


def _ties(x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Batches with images at which roots, quotients and maxima have no slope of their own.

    Never all of them: a deep network's batch norms divide by the root of eps, layer by layer, where nothing varies.
    """
    yield "random images", x
    for what, value in (("zeros", 0.0), ("one value", 0.5)):
        some = x.clone()
        some[: len(x) // 2] = value
        yield f"images of {what} among others", some
    yield "large values", x * 1e3


def _check_gradients(module: nn.Module, when: str) -> None:
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise Broken(f"{when} the gradient of parameter {name!r} is not finite")


def _onnx(subject: Subject) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingDependency(package, "onnx")
    import onnxruntime

    module, x = own(subject)
    path = subject.folder / "conformance.onnx"
    try:
        to_onnx(module, x, path)
    except MissingDependency:
        raise
    except Unsupported as error:
        raise Broken(str(error)) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (x, x[:1]):
        (found,) = session.run(None, {INPUT: batch.numpy()})
        if differs := difference(torch.from_numpy(found), outputs(module, batch), within=ROUNDING, at="the output"):
            raise Broken(f"as an ONNX file, of {len(batch)} images, {differs}")


RULES: tuple[Rule, ...] = (
    Rule(
        "autocast",
        "under autocast to bfloat16 it computes about the same, and a training step has finite gradients",
        "compute powers, exponentials and sums in float32: x.float(), then .to(x.dtype) at the end",
        _autocast,
        MODULES,
    ),
    Rule(
        "channels-last",
        "in channels-last memory layout it computes the same",
        "use reshape or flatten in place of view, and rely on no stride",
        _channels_last,
        MODULES,
    ),
    Rule(
        "gradients-finite",
        "gradients reach every parameter and are finite, on images of zeros and of one value too",
        "keep roots, quotients and logarithms away from 0: clamp(min=...) before sqrt, + eps under a quotient",
        _gradients,
        BUILT,
    ),
    Rule(
        "onnx",
        "it can be exported to ONNX, and ONNX Runtime computes the same",
        "use torch's operators alone, and no branch on values; else waives={'onnx': 'which operator ONNX lacks'}",
        _onnx,
        NETWORKS,
    ),
)
