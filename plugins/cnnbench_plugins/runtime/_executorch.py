"""Models lowered to ExecuTorch's XNNPACK delegate."""

from __future__ import annotations

import copy
import logging
import os
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.convert import to_program
from cnnbench.errors import Unsupported
from cnnbench_plugins.compressor._quiet import quiet_loggers
from cnnbench_plugins.runtime._serving import Serving, check_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from cnnbench.slots import ServingContext


def serve(model: nn.Module, context: ServingContext) -> Serving:
    """Lower the model and load the program.

    Raises:
        Unsupported: not on CPU, or the model can't be exported or lowered.
    """
    check_device("executorch", context, "cpu")
    # The delegate refuses weights in channels-last layout.
    plain = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)
    program = to_program(plain, context.example)
    with _quiet():
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
            path = context.folder / "model.pte"
            path.write_bytes(lowered.buffer)
            if portable_lib._threadpool_get_thread_count() != context.threads:  # noqa: SLF001 - the one way there is
                portable_lib._unsafe_reset_threadpool(context.threads)  # noqa: SLF001
            method = Runtime.get().load_program(path).load_method("forward")
            assert method is not None
            method.execute([context.example.contiguous()])
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise Unsupported(f"executorch: {lines[0][:200]}") from error

    def run(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = method.execute([images.contiguous()])[0]
        return logits

    return Serving(run, path.stat().st_size, _remarks(lowered))


def _remarks(lowered: Any) -> list[str]:
    """Which operators XNNPACK left to the portable kernels."""
    plan = lowered.executorch_program.execution_plan[0]
    names = sorted({operator.name.removeprefix("aten::") for operator in plan.operators})
    return [f"not by XNNPACK but by portable kernels: {', '.join(names)}"] if names else []


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what is logged and printed while a program is lowered and loaded; its C++ side writes to stderr."""
    sys.stderr.flush()
    logging.disable(logging.ERROR)
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with quiet_loggers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
        logging.disable(logging.NOTSET)
