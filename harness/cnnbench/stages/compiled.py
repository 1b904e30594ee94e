"""Training steps through ``torch.compile``: forward and backward pass as programs made for one shape.

On CUDA the programs are recorded as CUDA graphs (mode ``reduce-overhead``), so that a step of many small kernels is one
launch; on CPU they are C++. Draws stay those of the eager step (``fallback_random``), so that results are equal within
float error. What is saved is the network itself, which knows nothing of this.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import types
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import Unsupported
from cnnbench.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cnnbench.devices import Device

MODES: Mapping[str, str] = {"cpu": "default", "cuda": "reduce-overhead"}
"""The mode of ``torch.compile`` by kind of device."""
_LOGGERS = ("torch._dynamo", "torch._inductor", "torch.utils._pytree", "torch.utils.cpp_extension")


def check_compiler(device: Device) -> None:
    """See that training steps can be compiled here.

    Raises:
        Unsupported: the device is not served, or what compiles for it is missing.
    """
    if device.kind not in MODES:
        raise Unsupported(f"recipe.compiled: torch.compile is used on {' and '.join(MODES)}, not on {device.kind}")
    if _cpp_compiler() is None:
        raise Unsupported("recipe.compiled: torch.compile needs a C++ compiler (such as g++), and there is none")
    if device.kind == "cuda" and importlib.util.find_spec("triton") is None:
        raise Unsupported("recipe.compiled: torch.compile needs Triton on a GPU: pip install triton")


def compiled(function: Callable[..., Any], device: Device) -> Callable[..., Any]:
    """The same function of tensors, compiled at the first call with each shape.

    A last, smaller batch has a program of its own, which later epochs find again.

    Args:
        function: of tensors on the device; it may hold networks.
        device: where it computes.

    Returns:
        The compiled function, which raises ``Unsupported`` where it can't be compiled. On CUDA what it returned is
        overwritten by its next call.

    Raises:
        Unsupported: as ``check_compiler``.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._functorch import config as autograd_config
    from torch._inductor import config, list_mode_options
    from torch._inductor.exc import InductorError

    check_compiler(device)

    def step(*inputs: torch.Tensor) -> Any:
        return function(*inputs)

    # torch keeps what it compiled with a function's code, for few networks only: each training has a code of its own.
    own = types.FunctionType(step.__code__.replace(), step.__globals__, closure=step.__closure__)
    options = {**list_mode_options(MODES[device.kind]), "fallback_random": True}
    run = torch.compile(own, dynamic=False, options=options)
    ready: set[tuple[torch.Size, ...]] = set()

    def call(*inputs: torch.Tensor) -> Any:
        if device.kind == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes in ready:
            return run(*inputs)
        with ExitStack() as cold:
            cold.enter_context(quiet(*_LOGGERS))
            cold.enter_context(_as_before())
            cold.enter_context(config.patch(compile_threads=1))  # no helper processes: the other cores have trials
            # The backward pass now, not in the first backward pass, where nobody could tell what it failed of.
            cold.enter_context(autograd_config.patch(force_non_lazy_backward_lowering=True))
            try:
                found = run(*inputs)
            except (TorchDynamoException, InductorError) as error:
                text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                raise Unsupported(f"recipe.compiled: torch.compile: {text}") from error
        ready.add(shapes)
        return found

    return call


@contextmanager
def _as_before() -> Iterator[None]:
    """Put back what the compiler leaves changed: where Python looks and how deep it goes, and variables of its own."""
    limit, path, environment = sys.getrecursionlimit(), list(sys.path), set(os.environ)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        sys.path[:] = path
        for name in os.environ.keys() - environment:
            if name.startswith("_TORCHINDUCTOR"):
                del os.environ[name]


def _cpp_compiler() -> str | None:
    """Path of the C++ compiler that torch would use, if there is one."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return shutil.which(get_cpp_compiler())
    except InvalidCxxCompiler:
        return None
