"""Models lowered to ExecuTorch's XNNPACK delegate."""

from __future__ import annotations

import copy
import os
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.convert import to_program
from cnnbench.errors import Unsupported
from cnnbench.quiet import quiet
from cnnbench_plugins.runtime._serving import Serving, check_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from cnnbench.slots import ServingContext

_BOOKKEEPING = ("_copy", "_clone", "et_view", "sym_size")  # reshaping, which XNNPACK always leaves to others


def serve(model: nn.Module, context: ServingContext) -> Serving:
    """Lower the model for the example's batch size now and for others when they come.

    Raises:
        Unsupported: not on CPU, or the model can't be exported or lowered.
    """
    check_device("executorch", context, "cpu")
    # The delegate refuses weights in channels-last layout.
    plain = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)
    ready: dict[torch.Size, Any] = {}  # programs, which must outlive their methods

    def run(images: torch.Tensor) -> torch.Tensor:
        program = ready.get(images.shape)
        if program is None:
            program = ready[images.shape] = _loaded(_lowered(plain, images).buffer, context)
        logits: torch.Tensor = program.load_method("forward").execute([images.contiguous()])[0]
        return logits

    lowered = _lowered(plain, context.example)
    try:
        ready[context.example.shape] = _loaded(lowered.buffer, context)
        run(context.example)
    except RuntimeError as error:
        raise Unsupported(f"executorch: {_first_line(error)}") from error
    return Serving(run, len(lowered.buffer), _remarks(lowered))


def _lowered(model: nn.Module, images: torch.Tensor) -> Any:
    """A program for as many images.

    For any number it would take the exporter's guards on the example's for bounds, such as at most 15 images.
    """
    program = to_program(model, images, fixed=True)
    with _silent():
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        except Exception as error:
            raise Unsupported(f"executorch can't lower {type(model).__name__}: {_first_line(error)}") from error


def _loaded(buffer: bytes, context: ServingContext) -> Any:
    """A program ready to run with the context's threads; its method is loaded once."""
    with _silent():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if portable_lib._threadpool_get_thread_count() != context.threads:  # noqa: SLF001 - the one way there is
            portable_lib._unsafe_reset_threadpool(context.threads)  # noqa: SLF001
        program = Runtime.get().load_program(buffer)
        program.load_method("forward")
        return program


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _remarks(lowered: Any) -> list[str]:
    """Which operators XNNPACK left to the portable kernels."""
    plan = lowered.executorch_program.execution_plan[0]
    names = sorted({operator.name.rpartition("::")[2] for operator in plan.operators})
    names = [name for name in names if not name.endswith(_BOOKKEEPING)]
    return [f"not by XNNPACK but by portable kernels: {', '.join(names)}"] if names else []


@contextmanager
def _silent() -> Iterator[None]:
    """Hold back what is logged and printed while a program is lowered and loaded."""
    with quiet("", "torch.utils._pytree"), Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        yield
