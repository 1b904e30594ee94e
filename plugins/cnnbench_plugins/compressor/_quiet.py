"""Holds back what libraries say about themselves while they are imported or compile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.quiet import quiet

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

# torchao registers classes in a way that this torch calls deprecated; the C++ compiler's set-up looks for CUDA.
_TALKATIVE = ("torch.utils._pytree", "torch.utils.cpp_extension")


def quiet_quantizers() -> AbstractContextManager[None]:
    """No warnings, and only errors of those loggers."""
    return quiet(*_TALKATIVE)
