"""What a process holds, read before and after a technique is used, and put back."""

from __future__ import annotations

import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cnnbench.execute.state import PARTS, generators, set_generators

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANDOM = ("Python's", "NumPy's", "torch's")


@dataclass
class Left:
    """What a block left changed, a few words each; known once the block has ended."""

    changed: list[str] = field(default_factory=list)


@contextmanager
def as_found() -> Iterator[Left]:
    """Put back what the block changes of its process, and tell of it."""
    left = Left()
    before: list[Any] = [part.read() for part in PARTS]
    draws = generators()
    with warnings.catch_warnings():
        try:
            yield left
        finally:
            for name, was, now in zip(_RANDOM, draws, generators(), strict=True):
                if not _same(was, now):
                    left.changed.append(f"the state of {name} random generator")
            set_generators(draws)
            for part, was in zip(PARTS, before, strict=True):
                now = part.read()
                wanted = part.stays(was, now)
                if now != wanted:
                    left.changed.append(part.told(wanted, now))
                    if part.write is not None:
                        with suppress(Exception):
                            part.write(wanted)


def _same(was: Any, now: Any) -> bool:
    """Whether two states of a generator are equal, arrays among their parts."""
    if isinstance(was, tuple) and any(hasattr(part, "tolist") for part in was):
        return all(_same(*parts) for parts in zip(was, now, strict=True))
    return bool(was.tolist() == now.tolist() if hasattr(was, "tolist") else was == now)
