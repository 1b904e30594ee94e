"""A network quantized to int8, as a module that can be saved, evaluated and deployed."""

from __future__ import annotations

import importlib
import shutil
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from cnnbench_plugins.compressor._graph_codec import Nodes, decode, encode
from cnnbench_plugins.compressor._quiet import quiet_quantizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

Kernels = Literal["int8", "reference"]


class Int8Model(nn.Module):
    """An inference network whose weights are stored as int8.

    Called as a module it runs the reference graph: int8 weights and activations, arithmetic in floating point. Slow,
    but it gives the quantized network's outputs at any batch size without compiling. ``deploy`` gives the fast one.
    Weights and biases are parameters (which need no gradient), scales and zero points are buffers. For CPU only.

    Attributes:
        kernels: what the last ``deploy`` came to: ``int8``, or ``reference`` where int8 kernels could not be compiled
            (or before any).
        kernels_reason: why the kernels are not int8; empty where they are.
    """

    def __init__(self, nodes: Nodes, tensors: dict[str, torch.Tensor]) -> None:
        """Make it from ``encode``'s nodes and the tensors that they read."""
        super().__init__()
        self._nodes = nodes
        self.kernels: Kernels = "reference"
        self.kernels_reason = "not deployed"
        root = nn.Module()
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                root.register_parameter(name, tensor)
            else:
                root.register_buffer(name, tensor)
        self.graph = decode(nodes, root)
        self.training = False

    @classmethod
    def from_graph(cls, converted: fx.GraphModule) -> Int8Model:
        """Take over a converted graph with the tensors that it reads, and no others.

        Raises:
            ValueError: the graph can't be stored.
        """
        graph = converted.graph
        for node in list(graph.nodes):
            if node.op == "call_module" and not node.users:  # checks of the example's shape
                graph.erase_node(node)
        graph.eliminate_dead_code()
        names: dict[str, str] = {}
        tensors: dict[str, torch.Tensor] = {}
        for node in graph.nodes:
            if node.op != "get_attr":
                continue
            target = str(node.target)
            if target not in names:
                names[target] = f"tensor_{len(names)}"
                tensors[names[target]] = _stored(_attribute(converted, target))
            node.target = names[target]
        return cls(encode(graph), tensors)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] from model inputs [N, C, H, W], by the reference graph."""
        logits: torch.Tensor = self.graph(images)
        return logits

    def train(self, mode: bool = True) -> Int8Model:  # noqa: ARG002 - torch's signature
        """Do nothing: a converted network has inference behaviour alone."""
        return self

    def deploy(self, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Compile int8 kernels for inputs of the example's shape, where the platform has them.

        Compiling takes seconds to half a minute; each further input shape is compiled at its first call. Where there is
        no C++ compiler, or the compiled graph turns out to hold no int8 kernel, the reference graph is returned.
        ``kernels`` and ``kernels_reason`` say which.
        """
        compiled = _Compiled(self)
        self.kernels, self.kernels_reason = compiled.probe(example)
        return compiled if self.kernels == "int8" else self

    def __getstate__(self) -> dict[str, Any]:
        tensors = dict(self.graph.named_parameters()) | dict(self.graph.named_buffers())
        return {"nodes": self._nodes, "tensors": tensors}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc] # the graph's code is made anew


class _Compiled:
    """The compiled network: one compilation for each input shape, all with frozen weights."""

    def __init__(self, model: Int8Model) -> None:
        self._model = model
        self._ready: dict[tuple[object, ...], Callable[[torch.Tensor], torch.Tensor]] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        # Whatever torch would compile anew for belongs to the key: it must happen with frozen weights.
        key = (images.shape, images.stride(), torch.get_num_threads())
        with torch.inference_mode():
            run = self._ready.get(key)
            if run is None:
                run = self._ready[key] = self._compile(images)
            return run(images)

    def probe(self, example: torch.Tensor) -> tuple[Kernels, str]:
        """Compile for the example, and say what the kernels are and why."""
        from torch._dynamo.utils import counters

        if cpp_compiler() is None:
            return "reference", "no C++ compiler"
        try:
            # Importing it registers the compiler's int8 patterns; the process that quantized had, another has not.
            importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
        except ImportError as error:
            return "reference", f"torchao can't be imported: {error}"
        before = _int8_kernels(counters)
        try:
            self(example)
        except Exception as error:  # noqa: BLE001 - a compiler may fail in any way; the reference graph still runs
            return "reference", f"torch.compile: {(str(error) or type(error).__name__).splitlines()[0]}"
        if _int8_kernels(counters) == before:
            return "reference", "torch.compile found no int8 kernel for this network"
        return "int8", ""

    def _compile(self, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        from torch._inductor import config

        # A copy has code of its own, so that no number of shapes meets torch's limit on recompilations.
        graph = decode(self._model._nodes, self._model.graph)  # noqa: SLF001 - one job in two classes
        run: Callable[[torch.Tensor], torch.Tensor] = torch.compile(graph, dynamic=False)
        with quiet_quantizers(), config.patch(freezing=True, compile_threads=1):
            run(images)
        return run


def cpp_compiler() -> str | None:
    """Path of the C++ compiler that torch.compile would use, if there is one."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return shutil.which(get_cpp_compiler())
    except InvalidCxxCompiler:
        return None


def _int8_kernels(counters: Any) -> int:
    found = counters["inductor"]
    return int(found["qconv_weight_prepack_matcher_count"] + found["qlinear_weight_prepack_matcher_count"])


def _attribute(module: nn.Module, target: str) -> torch.Tensor:
    owner, _, name = target.rpartition(".")
    tensor = getattr(module.get_submodule(owner), name)
    assert isinstance(tensor, torch.Tensor)
    return tensor


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as the model keeps it: what was a weight or bias stays a parameter."""
    if isinstance(tensor, nn.Parameter) or tensor.dtype == torch.int8:
        return nn.Parameter(tensor.detach().clone(), requires_grad=False)
    return tensor.detach().clone()
