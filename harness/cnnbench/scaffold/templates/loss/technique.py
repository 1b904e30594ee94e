"""Focal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from cnnbench import technique
from cnnbench.lazy import F

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("loss", "template_name")
class Template:
    """Cross-entropy that counts less what the network is sure of already.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4, for targets that may be mixed: from logits [N, K], p
    their softmax, and class probabilities t [N, K], the mean over N of sum over K of t (1 - p)^gamma (-log p). With
    gamma 0 it is cross-entropy.

    Helps where easy images are so many that their small losses drown those of the hard ones. Known not to help where
    labels are wrong: those images are the hardest of all.

    Attributes:
        gamma: how much less sure predictions count.
    """

    # An option is a typed field; its constraint is checked when a suite is read, before anything runs.
    gamma: Annotated[float, Ge(0)] = 2.0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Scalar from logits [N, K] and class probabilities [N, K]."""
        log_p = F.log_softmax(logits, 1)
        unsure = -log_p.expm1()  # 1 - p, exact near p = 1 too
        return -(targets * unsure.clamp_min(1e-12) ** self.gamma * log_p).sum(1).mean()
