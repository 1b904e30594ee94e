"""Tells whether anybody wrote into tensors that several trials share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLED = 1 << 14
"""Words of eight bytes that are kept of each tensor, at equal distances: all of a small one."""
_WORD = 8


class Unchanged:
    """Tensors as they are now.

    Writing through torch shows in a tensor's version. Writing past torch (through ``.data``, or NumPy) shows in the
    words that are kept.

    Args:
        tensors: dense ones; any views of them count as they do.
        sampled: keep words too. They are kept anyway of those made in inference mode, which have no version.
    """

    def __init__(self, tensors: Iterable[torch.Tensor], *, sampled: bool = True) -> None:
        self._known = [
            (one, _version(one), [part.clone() for part in _sample(one)] if sampled or one.is_inference() else None)
            for one in tensors
        ]

    def still(self) -> bool:
        """Whether they are as they were."""
        return all(
            _version(one) == version and (words is None or all(map(torch.equal, _sample(one), words)))
            for one, version, words in self._known
        )


def _version(tensor: torch.Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version  # noqa: SLF001 - what torch itself goes by


def _sample(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Words, a row of bytes each, and the bytes after the last: a view may start anywhere, where no word does."""
    data = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8)
    whole = len(data) // _WORD
    words = data[: whole * _WORD].view(whole, _WORD)
    return words[:: -(-whole // SAMPLED) or 1], data[whole * _WORD :]
