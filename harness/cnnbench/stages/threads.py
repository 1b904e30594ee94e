"""Intra-op threads of torch for a while."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def intra_op_threads(count: int) -> Iterator[int]:
    """``count`` threads within the block, what there was after it. Weights depend on the number in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)
