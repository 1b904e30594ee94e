"""What a model holds and computes: parameters, multiply-adds and bytes, without timing anything."""

from __future__ import annotations

import io
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.convert import to_onnx
from cnnbench.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@dataclass(frozen=True)
class Profile:
    """What a model comes to.

    Attributes:
        metrics: scalars, keyed as in ``cnnbench.quantities``; one that can't be told is absent.
        methods: ``nominal`` for a size that no file here has.
        notes: why a scalar is absent.
    """

    metrics: dict[str, float]
    methods: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def profile(model: nn.Module, example: torch.Tensor, *, onnx: bool = False) -> Profile:
    """Parameters, multiply-adds for one image, and size.

    A model may carry ``flops_of_source`` (int), multiply-adds counted before a conversion that hides them from the
    counter, and ``deployed_bytes`` (int), the size of a format that has no packed storage here.

    Args:
        model: in eval mode, on the example's device.
        example: one or more model inputs [N, C, H, W]; the first is used.
        onnx: write an ONNX file too, which takes seconds, for its size.
    """
    metrics: dict[str, float] = {**count_parameters(model), "params_nonzero": count_nonzero(model)}
    methods: dict[str, str] = {}
    notes: list[str] = []
    flops = count_flops(model, example[:1])
    if flops == 0 and any(p.dim() > 1 for p in model.parameters()):
        # The counter knows torch's own operators; a fused integer kernel is none of them.
        flops = int(getattr(model, "flops_of_source", 0))
        if flops == 0:
            notes.append(f"multiply-adds: {type(model).__name__} runs operators that can't be counted")
    if flops or not notes:
        metrics["flops"] = flops
    deployed = getattr(model, "deployed_bytes", None)
    if isinstance(deployed, int):
        metrics["size_bytes"] = deployed
        methods["size_bytes"] = "nominal"
    else:
        metrics["size_bytes"] = saved_bytes(model)
    metrics["size_deflated_bytes"] = deflated_bytes(model)
    if onnx:
        try:
            metrics["size_onnx_bytes"] = onnx_bytes(model, example)
        except Unsupported as error:
            notes.append(f"ONNX size: {error}")
    return Profile(metrics, methods, notes)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """``params`` and ``params_trainable``; a tensor that layers share counts once, buffers don't."""
    parameters = list(model.parameters())
    return {
        "params": sum(p.numel() for p in parameters),
        "params_trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }


def count_nonzero(model: nn.Module) -> int:
    """Parameters that are not exactly 0."""
    return sum(int(torch.count_nonzero(p.detach())) for p in model.parameters())


def count_flops(model: nn.Module, example: torch.Tensor) -> int:
    """Multiply-adds of convolutions, matrix products and attention for ``example`` [1, C, H, W].

    Half of what torch's ``FlopCounterMode`` counts, which takes a multiplication and an addition for two. Elementwise
    work, normalization and pooling are not counted, as is usual; zeros in the weights are, since dense kernels
    multiply by them.
    """
    with _slow_attention(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    return int(counter.get_total_flops()) // 2


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Attention by matrix products: the counter does not know every fused kernel of every torch."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def saved_bytes(model: nn.Module) -> int:
    """Bytes of the file that ``torch.save(model.state_dict(), ...)`` writes: weights, buffers, names, archive.

    A tensor that is a view into a larger storage counts with its own elements alone, as a file made for shipping would
    hold it.
    """
    state = {name: _compact(value) for name, value in model.state_dict().items()}
    file = io.BytesIO()
    torch.save(state, file)
    return file.getbuffer().nbytes


def onnx_bytes(model: nn.Module, example: torch.Tensor) -> int:
    """Bytes of the network's ONNX file: weights and graph.

    Args:
        model: in eval mode, on the example's device.
        example: model inputs [N, C, H, W].

    Raises:
        Unsupported: it can't be written as ONNX, or a package for that is missing; one line says which.
    """
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as folder:
        file = Path(folder) / "model.onnx"
        to_onnx(model, example[:1], file)
        return file.stat().st_size


def deflated_bytes(model: nn.Module) -> int:
    """Bytes of the state's tensors, one after the other, deflated by zlib at level 6: what zeros are worth."""
    deflate = zlib.compressobj(level=6)
    size = 0
    for value in model.state_dict().values():
        for tensor in _plain_tensors(value):
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            size += len(deflate.compress(raw.numpy().data))
    return size + len(deflate.flush())


def _compact(value: Any) -> Any:
    if type(value) is torch.Tensor and value.layout is torch.strided:
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    return value


def _plain_tensors(value: Any) -> Iterator[torch.Tensor]:
    """The dense tensors behind a state's entry: itself, or what a quantized or sparse tensor is made of."""
    if not isinstance(value, torch.Tensor):
        return
    if hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        for name in names:
            yield from _plain_tensors(getattr(value, name))
    elif value.layout is torch.sparse_coo:
        yield from (value.coalesce().indices(), value.coalesce().values())
    else:
        yield value
