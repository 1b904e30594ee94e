"""Common random numbers: one trial seed, split by name into independent streams.

Changing one technique must not change the draws of another: the augmentation draws from its own stream, so that
initialization and data order stay bit for bit as they were. Streams are derived by hashing, so adding one moves none.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench import xla
from cnnbench.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Streams:
    """The named random streams of one trial.

    Attributes:
        seed: the trial's seed, as the suite lists it.
        family: trials of one family and seed share all streams; the placebo arm has a family of its own.
    """

    seed: int
    family: str = ""

    def number(self, name: str) -> int:
        """A 63-bit integer that depends on nothing but seed, family and name."""
        text = f"{self.family}/{self.seed}/{name}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

    def generator(self, name: str, device: str = "cpu") -> torch.Generator:
        """A fresh generator at the start of the stream ``name``."""
        return torch.Generator(device=device).manual_seed(self.number(name))

    @contextmanager
    def default_generator(self, name: str) -> Iterator[None]:
        """Seed torch's global generators from the stream ``name`` within the context, then restore them.

        For what torch draws without asking: layers' own initialization, dropout.
        """
        # Looking at the generators of GPUs that nobody uses would take memory on each of them.
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        gpus = range(torch.cuda.device_count()) if used else ()
        number = self.number(name)
        with torch.random.fork_rng(gpus), xla.seeded(number):
            torch.manual_seed(number)
            yield

    def member(self, index: int) -> Streams:
        """Streams of the ``index``-th independent repetition of the same trial (ensemble members)."""
        return Streams(self.seed, f"{self.family}#{index}") if index else self
