"""PyTorch as it is, in each of its two memory layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.runtime._serving import Serving, check_device

if TYPE_CHECKING:
    from cnnbench.slots import ServingContext

DEVICES = ("cpu", "cuda", "mps", "tpu")
"""Not xla: torch_xla runs nothing operator by operator, and chooses layouts itself."""


def _serve(model: nn.Module, memory_format: torch.memory_format) -> Serving:
    from cnnbench.stages.profile import saved_bytes

    model.eval().to(memory_format=memory_format)

    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(images.contiguous(memory_format=memory_format))
            return logits

    return Serving(run, saved_bytes(model))


@technique("runtime", "eager")
class Eager:
    """Calls the model in PyTorch, one operator after another, in the default memory layout.

    Nothing is fused or compiled: what ``model(x)`` costs under ``torch.inference_mode``. Weights and images are
    contiguous, [N, C, H, W]. That is made sure of here, since a model may arrive otherwise: on CPUs with AVX-512 this
    harness trains in channels-last, the weights keep that layout, and PyTorch's convolutions follow the layout of their
    weights whatever the images have. An arm without a runtime is served in the layout that its training left.

    Helps as the arm to compare other runtimes with. Known to be bound by Python's overhead on small models and batches.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; sets the model's mode and layout."""
        check_device("eager", context, *DEVICES)
        return _serve(model, torch.contiguous_format)


@technique("runtime", "channels_last")
class ChannelsLast:
    """Calls the model in PyTorch, operator by operator, with weights and images in channels-last memory layout.

    The numbers of a pixel lie side by side, [N, H, W, C] in memory; the shape stays [N, C, H, W]. Images are brought to
    that layout in each call, which is part of its time.

    Helps convolutions on CPUs with AVX-512 and on GPUs with tensor cores in half precision. Known not to help where an
    operator has no kernel for it, such as instance norm: images are then copied back and forth.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; sets the model's mode and layout."""
        check_device("channels_last", context, *DEVICES)
        return _serve(model, torch.channels_last)


TECHNIQUES = (Eager, ChannelsLast)
