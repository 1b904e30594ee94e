"""Holds back what libraries log about themselves while they are imported or compile."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# torchao registers classes in a way that this torch calls deprecated; the C++ compiler's set-up looks for CUDA.
_TALKATIVE = ("torch.utils._pytree", "torch.utils.cpp_extension")


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Let only errors of those loggers through, then restore their levels."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
