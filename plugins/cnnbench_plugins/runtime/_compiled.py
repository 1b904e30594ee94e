"""A model compiled by torch.compile, once for each batch size."""

from __future__ import annotations

import types
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch._inductor import config
from torch._inductor.utils import fresh_cache

from cnnbench.errors import Unsupported
from cnnbench.quiet import quiet
from cnnbench.stages.profile import saved_bytes
from cnnbench_plugins.compressor._int8 import cpp_compiler
from cnnbench_plugins.runtime._serving import Serving, check_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from cnnbench.slots import ServingContext


def serve(model: nn.Module, context: ServingContext, mode: str) -> Serving:
    """Compile for the example's batch size now and for others when they come.

    Raises:
        Unsupported: no compiler, or the model can't be compiled in one graph; one line says why.
    """
    check_device("compile", context, "cpu", "cuda")
    if cpp_compiler() is None:
        raise Unsupported("torch.compile needs a C++ compiler (such as g++), and there is none on the PATH")
    if mode == "reduce-overhead" and context.example.device.type != "cuda":
        raise Unsupported("compile: mode 'reduce-overhead' records CUDA graphs, which a CPU has not; use 'default'")
    model.eval()
    deploy = getattr(model, "deploy", None)
    run = _Compiled(model, mode, context.folder) if deploy is None else _deployed(model, context, mode)
    try:
        run(context.example)
    except Exception as error:
        raise Unsupported(f"torch.compile: {_first_line(error)}") from error
    return Serving(run, saved_bytes(model))


def _deployed(model: Any, context: ServingContext, mode: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network that knows how to compile kernels of its own."""
    if mode != "default":
        raise Unsupported(f"compile: {type(model).__name__} has kernels of its own, which mode {mode!r} does not reach")
    with _cold(context.folder):
        run = model.deploy(context.example)
    if run is model:
        raise Unsupported(f"compile: no kernels for {type(model).__name__}: {model.kernels_reason}")
    return _Cold(run, context.folder)


class _Compiled:
    """One compilation for each input that torch would compile anew for."""

    def __init__(self, model: nn.Module, mode: str, folder: Path) -> None:
        self._model = model
        self._mode = mode
        self._folder = folder
        self._ready: dict[tuple[object, ...], Callable[[torch.Tensor], torch.Tensor]] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        key = _key(images)
        with torch.inference_mode():
            run = self._ready.get(key)
            if run is None:
                run = self._compile(images)
                self._ready[key] = run
            logits = run(images)
            # A CUDA graph writes every result into the same memory.
            return logits.clone() if self._mode in {"reduce-overhead", "max-autotune"} else logits

    def _compile(self, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        model = self._model

        def forward(images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = model(images)
            return logits

        # torch keeps what it compiled with a function's code and compiles one code for few inputs only: each gets a
        # code object of its own, else models of one class, or many batch sizes, would meet that limit.
        own = types.FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
        run: Callable[[torch.Tensor], torch.Tensor] = torch.compile(own, dynamic=False, fullgraph=True, mode=self._mode)
        with _cold(self._folder):
            run(images)
        return run


class _Cold:
    """Calls something that compiles at the first call with each input."""

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], folder: Path) -> None:
        self._run = run
        self._folder = folder
        self._seen: set[tuple[object, ...]] = set()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        key = _key(images)
        if key in self._seen:
            return self._run(images)
        with _cold(self._folder):
            logits = self._run(images)
        self._seen.add(key)
        return logits


def _key(images: torch.Tensor) -> tuple[object, ...]:
    """What torch compiles anew for."""
    return images.shape, images.stride(), torch.get_num_threads()


@contextmanager
def _cold(folder: Path) -> Iterator[None]:
    """Frozen weights, an empty cache that is deleted afterwards, nothing on the screen, no helper processes."""
    with (
        quiet("torch._dynamo", "torch._inductor", "torch.utils._pytree", "torch.utils.cpp_extension"),
        config.patch(freezing=True, compile_threads=1),
        fresh_cache(dir=str(folder)),
    ):
        yield


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
