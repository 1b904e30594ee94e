"""Unstructured pruning by first-order saliency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Lt

from cnnbench import technique
from cnnbench_plugins.compressor._finetune import finetune
from cnnbench_plugins.compressor._gradients import weight_saliency
from cnnbench_plugins.compressor._sparsity import Scope, nonzeros, prune

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import CompressionContext, Observer


@technique("compressor", "prune_gradient")
class PruneGradient:
    """Sets the weights whose removal would change the loss least, by first order, to zero, then fine-tunes the others.

    A weight's score is the sum over the batches of one epoch of |w * dL/dw|, the first term of the Taylor expansion of
    the loss around w = 0: Molchanov et al. 2017 (Pruning Convolutional Neural Networks for Resource Efficient
    Inference, section 2.2, there for feature maps), and SNIP's connection sensitivity (Lee et al. 2019, equation 5),
    on a trained network. The absolute value is taken batch by batch: the gradient of the whole training split is near
    zero at the end of training, whatever the weight does. Gradients are those of the arm's own training loss,
    augmentation included, in training mode. round(sparsity * n) of the n conv and linear weights go; ``scope``,
    ``epochs`` and their defaults as in ``prune_magnitude``.

    Helps: where layers differ in scale, so that magnitudes do not compare between them.
    Known not to help: latency, FLOPs or memory on dense hardware; above plain magnitude in many comparisons (Blalock et
    al. 2020, What is the State of Neural Network Pruning).

    Attributes:
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.9
    scope: Scope = "global"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Prune in place; raises ``NoEffect`` where no weight becomes zero."""
        nonzeros(model)
        scores = weight_saliency(model, context)

        def train(observer: Observer) -> None:
            finetune(model, context, self.epochs, self.learning_rate, observer)

        prune(model, lambda name, _: scores[name], [self.sparsity], self.scope, train)
        return model


TECHNIQUES = (PruneGradient,)
