"""A network in a format that is simulated here, and what the format would weigh."""

from __future__ import annotations

import copy
import math
import zlib
from typing import TYPE_CHECKING

import torch
from torch import nn

from cnnbench.stages.profile import saved_bytes
from cnnbench_plugins.compressor._changeable import check_changeable
from cnnbench_plugins.compressor._fake_layers import QuantizedLayer, SignInput, UniformInput

if TYPE_CHECKING:
    from collections.abc import Mapping

Formats = dict[str, tuple[int, int]]
"""By layer: bits of a weight, and bytes of its scales, zero points or codebook."""


def packed_bytes(weight: torch.Tensor, bits: int) -> int:
    """Bytes of a weight's codes: all of them one after the other, or the nonzero ones with their places.

    The second is the format of Han et al. 2016 (Deep Compression, section 2): each nonzero code with the distance to
    the one before it, in 8 bits for convolutions and 5 for linear layers; where the distance is larger, a zero is
    stored as a filler in between. The smaller of the two counts.

    Args:
        weight: [outputs, inputs, ...]; its zeros must have a code of their own for the second form.
        bits: of one code.
    """
    dense = weight.numel() * bits
    reach = 8 if weight.dim() > 2 else 5
    places = weight.detach().flatten().nonzero().flatten().cpu()
    distances = torch.diff(places, prepend=torch.tensor([-1]))
    fillers = int((distances - 1).div(2**reach, rounding_mode="floor").sum())
    return math.ceil(min(dense, (len(places) + fillers) * (bits + reach)) / 8)


class Simulated(nn.Module):
    """A network that computes in floating point with the values that a smaller format could hold.

    Quality is that of the format. There is no packed storage and there are no kernels for it here: size is nominal,
    and it is served as what it is, a network in floating point.

    Attributes:
        network: maps model inputs [N, C, H, W] to logits [N, K].
        formats: how the weights of its layers would be stored.
        kernels: what serves it.
        kernels_reason: why.
    """

    def __init__(self, network: nn.Module, formats: Mapping[str, tuple[int, int]], what: str) -> None:
        """Wrap a network whose weights hold the formats' values; ``what`` names the format, as in ``4-bit weights``."""
        super().__init__()
        self.network = network
        self.formats: Formats = dict(formats)
        self.kernels = "floating-point"
        self.kernels_reason = f"{what} simulated here: no speed is claimed"
        self._digest = self._weights_digest()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] from model inputs [N, C, H, W]."""
        logits: torch.Tensor = self.network(images)
        return logits

    @property
    def deployed_bytes(self) -> int | None:
        """Bytes of the saved file with the formats' bits in place of the weights they stand for.

        None once a later compressor has changed those weights, which then are plain numbers again.
        """
        if self._weights_digest() != self._digest:
            return None
        size = saved_bytes(self.network)
        seen: set[int] = set()
        for name, (bits, side_bytes) in self.formats.items():
            weight = _weight(self.network, name)
            assert weight is not None
            if id(weight) not in seen:  # one that layers share is stored once
                seen.add(id(weight))
                size += packed_bytes(weight, bits) + side_bytes - weight.numel() * weight.element_size()
        inputs = [m.input_quantizer for m in self.network.modules() if isinstance(m, QuantizedLayer)]
        return size + sum(quantizer.side_bytes for quantizer in inputs if isinstance(quantizer, UniformInput))

    def unsimulated(self) -> nn.Module:
        """A copy of the network that doesn't round activations: what a runtime for floating point would be given."""
        from cnnbench.surgery import replace_modules

        network = copy.deepcopy(self.network)
        for module in network.modules():
            if isinstance(module, SignInput):
                module.simulated = False
        replace_modules(network, _only_rounds, lambda module: module.get_submodule("layer"))
        return network

    def deploy(self, example: torch.Tensor) -> nn.Module:  # noqa: ARG002 - the protocol's signature
        """The network without the simulation, whose time is that of the unquantized one."""
        return self.unsimulated()

    def _weights_digest(self) -> int:
        digest = 0
        for name in self.formats:
            weight = _weight(self.network, name)
            if weight is None:
                return -1
            raw = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest = zlib.crc32(raw.numpy().data, digest)
        return digest


def plain_network(model: nn.Module) -> nn.Module:
    """The network itself where an earlier compressor's simulation holds it.

    Raises:
        Unsupported: it is an int8 graph.
    """
    check_changeable(model)
    return model.network if isinstance(model, Simulated) else model


def _only_rounds(module: nn.Module) -> bool:
    return isinstance(module, QuantizedLayer) and isinstance(module.input_quantizer, UniformInput)


def _weight(network: nn.Module, name: str) -> torch.Tensor | None:
    try:
        weight = getattr(network.get_submodule(name), "weight", None)
    except AttributeError:
        return None
    return weight if isinstance(weight, torch.Tensor) else None
