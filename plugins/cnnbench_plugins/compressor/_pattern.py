"""A network whose weights follow an n:m pattern, and what they would weigh packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.stages.profile import saved_bytes
from cnnbench_plugins.compressor._simulated import Simulated

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn


class SparsePattern(Simulated):
    """A network computed by dense kernels in which n of every m weights of some layers are not zero.

    Attributes:
        n, m: the pattern.
    """

    def __init__(self, network: nn.Module, layers: Collection[str], n: int, m: int) -> None:
        """Wrap a network whose ``layers`` have the pattern."""
        weights = {name: network.get_submodule(name).get_parameter("weight") for name in layers}
        bits = {name: 8 * weight.element_size() for name, weight in weights.items()}
        super().__init__(network, {name: (bits[name], 0) for name in layers}, f"{n}:{m} sparsity is")
        self.n = n
        self.m = m

    @property
    def deployed_bytes(self) -> int | None:
        """Bytes of the saved file with n values and n positions, of ceil(log2 m) bits, in place of m values.

        None once a later compressor has changed the weights.
        """
        if super().deployed_bytes is None:
            return None
        size = saved_bytes(self.network)
        weights = {
            id(w): w for w in (self.network.get_submodule(name).get_parameter("weight") for name in self.formats)
        }
        for weight in weights.values():
            values = weight.numel() // self.m * self.n
            positions = (values * (self.m - 1).bit_length() + 7) // 8
            size += positions - (weight.numel() - values) * weight.element_size()
        return size
