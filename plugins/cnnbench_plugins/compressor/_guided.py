"""A student with the regressor that stands between its features and the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch


class Guided(nn.Module):
    """A student that trains together with a regressor; answers as the student alone.

    Args:
        student: from images [N, C, H, W] to logits [N, K].
        regressor: from the student's feature maps to maps of the teacher's shape.
    """

    def __init__(self, student: nn.Module, regressor: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.regressor = regressor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K]."""
        logits: torch.Tensor = self.student(images)
        return logits
