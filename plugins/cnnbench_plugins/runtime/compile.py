"""torch.compile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import ServingContext
    from cnnbench_plugins.runtime._serving import Serving

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


@technique("runtime", "compile")
class Compile:
    """Compiles the model with ``torch.compile`` and TorchInductor: C++ on CPUs, Triton on GPUs.

    Ansel et al. 2024, PyTorch 2 (ASPLOS). One program for each batch size (``dynamic=False``), the model in one graph
    (``fullgraph=True``), its weights frozen into it (``freezing``): batch norms are folded and weights laid out for
    their kernels, as one would for a model that no longer changes. Outputs are the model's but for rounding.

    Compiling takes seconds to minutes, for each batch size anew. It starts with an empty compiler cache, so that
    ``prepare_time`` is that of the first start and equal from seed to seed. A network quantized to int8
    (``quantize_ptq``) gets its int8 kernels.

    Helps: element-wise work between convolutions; many small operators. Known not to help: networks whose time is all
    in large convolutions; start-up. Skipped where there is no C++ compiler, or where the model can't be compiled.

    Attributes:
        mode: ``torch.compile``'s. ``reduce-overhead`` records CUDA graphs and needs a GPU; ``max-autotune`` tries
            kernels out while it compiles.
    """

    mode: Mode = "default"

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; raises ``Unsupported``."""
        from cnnbench_plugins.runtime._compiled import serve

        return serve(model, context, self.mode)


TECHNIQUES = (Compile,)
