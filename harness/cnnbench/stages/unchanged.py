"""Tells whether anybody wrote into tensors that several trials share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLED = 1 << 14
"""Words of eight bytes that are kept of each tensor, at equal distances: all of a small one."""


class Unchanged:
    """Tensors as they are now.

    Writing through torch shows in a tensor's version. Writing past torch (through ``.data``, or NumPy) shows in the
    words that are kept.

    Args:
        tensors: contiguous ones; any views of them count as they do.
        sampled: keep words too.
    """

    def __init__(self, tensors: Iterable[torch.Tensor], *, sampled: bool = True) -> None:
        self._known = [
            (one, one._version, _sample(one).clone() if sampled else None)  # noqa: SLF001 - what torch itself goes by
            for one in tensors
        ]

    def still(self) -> bool:
        """Whether they are as they were."""
        return all(
            one._version == version and (words is None or torch.equal(_sample(one), words))  # noqa: SLF001
            for one, version, words in self._known
        )


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    data = tensor.detach().reshape(-1)
    data = data[: data.numel() * data.element_size() // 8 * 8 // data.element_size()].view(torch.int64)
    return data[:: -(-data.numel() // SAMPLED) or 1]
