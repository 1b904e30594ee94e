"""Half precision: 16-bit floating point in place of 32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench import technique
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext

HalfType = Literal["bf16", "fp16"]


def cast(model: nn.Module, example: torch.Tensor, dtype: HalfType) -> nn.Module:
    """Cast weights to 16 bits, in place, all but batch norms, whose statistics need the digits.

    Args:
        model: in floating point.
        example: one or more model inputs [N, C, H, W], on which the cast network must run.
        dtype: ``bf16`` or ``fp16``.

    Returns:
        A module that takes and gives 32 bits.

    Raises:
        Unsupported: fp16 on a CPU; or the network can't compute in this type, or overflows.
        NoEffect: it has nothing to cast.
    """
    from cnnbench_plugins.compressor._half import HalfModel
    from cnnbench_plugins.compressor._simulated import plain_network

    if dtype == "fp16" and example.device.type == "cpu":
        raise Unsupported("fp16 on a CPU is emulated and many times slower than fp32: use bf16, or a GPU")
    network = plain_network(model).eval()
    target = torch.bfloat16 if dtype == "bf16" else torch.float16
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    kept = {id(t) for m in network.modules() if isinstance(m, norms) for t in (*m.parameters(), *m.buffers())}
    tensors = [t for t in (*network.parameters(), *network.buffers()) if t.dtype == torch.float32 and id(t) not in kept]
    if not tensors:
        raise NoEffect("cast nothing: the model has no 32-bit weights")
    for tensor in tensors:
        tensor.data = tensor.data.to(target)
    made = HalfModel(network, target)
    try:
        with torch.no_grad():
            logits = made(example)
    except (RuntimeError, NotImplementedError) as error:
        raise Unsupported(f"{type(network).__name__} can't compute in {dtype}: {str(error).splitlines()[0]}") from error
    if not bool(logits.isfinite().all()):
        raise Unsupported(f"{type(network).__name__} overflows in {dtype}: its outputs are not finite")
    return made


@technique("compressor", "half", waives={"onnx": "ONNX has no convolution in bfloat16"})
class Half:
    """Stores and computes in 16-bit floating point; takes and gives 32.

    Micikevicius et al. 2018 (Mixed Precision Training), for inference: weights and activations in ``bf16`` (8 bits of
    exponent as fp32, 8 significant bits; Kalamkar et al. 2019) or ``fp16`` (5 bits of exponent, 11 significant bits).
    Batch norms stay in fp32, statistics and arithmetic, as their variance outranges fp16 and 8 bits are few for it; all
    other weights are really cast, so size is measured. fp16 is refused on CPUs, which emulate it. Put it last in a list
    of compressors: training on in 16 bits loses small updates.

    Helps: size, about half; latency on GPUs and on CPUs with bf16 instructions (AMX, AVX512-BF16).
    Known not to help: latency on other CPUs, which is worse; fp16 with activations above 65504.

    Attributes:
        dtype: the 16-bit format.
    """

    dtype: HalfType = "bf16"

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Cast in place; raises ``Unsupported`` or ``NoEffect``."""
        return cast(model, context.example, self.dtype)


TECHNIQUES = (Half,)
