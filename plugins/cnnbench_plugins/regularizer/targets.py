"""Changes to the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Lt

from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("regularizer", "label_smoothing")
class LabelSmoothing:
    """Move a small share of every target to all classes alike.

    y' = (1 - epsilon) y + epsilon / K for K classes (Szegedy et al. 2016, section 7, whose epsilon is the default).

    Helps accuracy and calibration on many classes. Known to hurt distillation from the network so trained (Müller et
    al. 2019) and, since the right answer is no longer probability 1, to raise its NLL at high accuracy.
    """

    epsilon: Annotated[float, Gt(0), Lt(1)] = 0.1

    def targets(self, targets: torch.Tensor) -> torch.Tensor:
        """Smoothed class probabilities [N, K]."""
        return targets * (1 - self.epsilon) + self.epsilon / targets.shape[1]


TECHNIQUES = (LabelSmoothing,)
