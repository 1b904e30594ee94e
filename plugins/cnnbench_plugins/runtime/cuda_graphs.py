"""CUDA graphs: the launches of a whole forward pass recorded once and replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.runtime._serving import Serving, check_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.slots import ServingContext

_WARM_UP = 3  # calls before recording, as PyTorch's notes on CUDA graphs have it


@technique("runtime", "cuda_graphs")
class CudaGraphs:
    """Records the kernels of one forward pass as a CUDA graph and replays it with a single launch.

    PyTorch notes, CUDA semantics, section CUDA Graphs. One graph for each batch size. Each call copies the images into
    the graph's own input and its output into a new tensor; both are part of its time.

    Helps small batches, where a GPU waits for Python to launch its kernels. Known not to help large batches, or models
    that decide on the host (they can't be recorded). Skipped on anything but a CUDA device.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; raises ``Unsupported``."""
        from cnnbench.errors import Unsupported
        from cnnbench.stages.profile import saved_bytes

        check_device("cuda_graphs", context, "cuda")
        model.eval()
        graphs: dict[torch.Size, Callable[[torch.Tensor], torch.Tensor]] = {}

        def run(images: torch.Tensor) -> torch.Tensor:
            replay = graphs.get(images.shape)
            if replay is None:
                replay = graphs[images.shape] = _record(model, images)
            return replay(images)

        try:
            run(context.example)
        except RuntimeError as error:
            raise Unsupported(f"cuda_graphs: the model can't be recorded: {str(error).splitlines()[0]}") from error
        return Serving(run, saved_bytes(model))


def _record(model: nn.Module, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The forward pass for inputs of this shape, recorded."""
    with torch.inference_mode():
        fixed = images.clone()
        # Warm-up runs on a stream of its own, else its allocations and lazy set-up would be recorded too.
        aside = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                model(fixed)
        torch.cuda.current_stream(images.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits: torch.Tensor = model(fixed)

    def replay(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            fixed.copy_(images)
            graph.replay()
            return logits.clone()

    return replay


TECHNIQUES = (CudaGraphs,)
