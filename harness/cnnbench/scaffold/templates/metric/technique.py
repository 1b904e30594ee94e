"""The error that is left where the network may abstain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Le

from cnnbench import technique

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("metric", "template_name")
class Template:
    """Share of errors among the images of which the network is surest.

    Geifman & El-Yaniv 2017, https://arxiv.org/abs/1705.08500, section 2, the selective risk: of the N images, the
    max(1, round(coverage N)) whose largest class probability is highest are kept, from probabilities [N, K] and labels
    [N]; the value is the share of them that is wrong, 0..1, lower being better. Coverage 1 makes it 1 - accuracy.

    Helps to compare networks that may hand doubtful images to a person. Known not to help where every image must be
    answered: then it is accuracy that counts.

    Attributes:
        coverage: share of the images that is answered.
    """

    # An option is a typed field. Suites name a metric without options, so they get the default; for a metric at another
    # coverage, make a second class with a name of its own.
    coverage: Annotated[float, Gt(0), Le(1)] = 0.9

    def __call__(self, probabilities: torch.Tensor, labels: torch.Tensor) -> float:
        """One finite number from probabilities, float64 [N, K] on the CPU, and labels, int64 [N]."""
        confidence, predicted = probabilities.max(1)
        answered = confidence.argsort(descending=True, stable=True)[: max(1, round(self.coverage * len(labels)))]
        return float((predicted[answered] != labels[answered]).double().mean())
