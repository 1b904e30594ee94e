"""ExecuTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import ServingContext
    from cnnbench_plugins.runtime._serving import Serving


@technique("runtime", "executorch", requires=(Requirement("executorch", "executorch"),))
class ExecuTorch:
    """Serves the model as an ExecuTorch program with XNNPACK's kernels, as on a phone, here on the CPU.

    Lowered to the XNNPACK delegate, one program for each batch size; size is that of the first. Operators that XNNPACK
    lacks run on portable kernels, which are slow; a footnote names them. Its thread pool belongs to the whole process
    and is set to as many threads as PyTorch would use.

    Helps depthwise and small networks, on ARM CPUs, for which XNNPACK is written first, and on x86; and in size:
    neither PyTorch nor Python is shipped. Known not to help models with operators that XNNPACK lacks.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; raises ``Unsupported``."""
        from cnnbench_plugins.runtime._executorch import serve

        return serve(model, context)


TECHNIQUES = (ExecuTorch,)
