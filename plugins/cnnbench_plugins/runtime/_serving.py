"""What the runtimes here return, and what several of them ask first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.lazy import torch
    from cnnbench.slots import ServingContext


class Serving:
    """A prepared model: called with model inputs [N, C, H, W], it gives logits [N, K].

    Attributes:
        size_bytes: of the file or files that one would ship.
        remarks: for the table's footnotes.
    """

    def __init__(
        self, run: Callable[[torch.Tensor], torch.Tensor], size_bytes: int, remarks: Sequence[str] = ()
    ) -> None:
        """Serve by ``run``."""
        self._run = run
        self.size_bytes = size_bytes
        self.remarks = tuple(remarks)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self._run(images)

    def close(self) -> None:
        """Let go of sessions, graphs and thread pools."""
        self._run = _closed


def _closed(images: torch.Tensor) -> torch.Tensor:
    raise RuntimeError(f"called with {len(images)} images after it was closed")


def check_device(runtime: str, context: ServingContext, *kinds: str) -> None:
    """Raise ``Unsupported`` where the model is on another kind of device than ``cpu`` or ``cuda``, as named."""
    found = context.example.device.type
    if found not in kinds:
        raise Unsupported(f"{runtime} serves on {' or '.join(kinds)}; the model is on {found}")
