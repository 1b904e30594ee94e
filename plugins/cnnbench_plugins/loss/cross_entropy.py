"""Cross-entropy."""

from __future__ import annotations

from cnnbench.lazy import F, torch
from cnnbench.technique import technique


@technique("loss", "cross_entropy")
class CrossEntropy:
    """Negative log-likelihood of the target distribution under the softmax of the logits.

    -1/N Σ_n Σ_k y_nk log softmax(z_n)_k, in nats, for class probabilities y [N, K] and logits z [N, K]; with one-hot
    targets the usual cross-entropy of class labels.

    Helps as the default of classification. Known to reward confidence without end on separable data (see
    ``label_smoothing``) and to follow frequent classes where classes are imbalanced.
    """

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean over the batch, a scalar."""
        return F.cross_entropy(logits, targets)


TECHNIQUES = (CrossEntropy,)
