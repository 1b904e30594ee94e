"""Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Lt

from cnnbench import technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn, torch


@technique("optimizer", "template_name")
class Template:
    """Steps of one size in every weight, in the direction of the sign of a momentum.

    Chen et al. 2023 (Lion), https://arxiv.org/abs/2302.06675, algorithm 2: with gradient g and momentum m, which starts
    at 0, w <- w - lr (sign(beta1 m + (1 - beta1) g) + weight_decay w), then m <- beta2 m + (1 - beta2) g, all of the
    weight's shape. It keeps one number for each weight, where Adam keeps two.

    Helps large batches and long runs. Known to want a learning rate 3 to 10 times lower than Adam's, and a weight decay
    as many times higher.

    Attributes:
        lr: the learning rate, which the schedule multiplies.
        beta1: share of the momentum in the step.
        beta2: share of the momentum that stays.
        weight_decay: decoupled, of every parameter.
    """

    # Options are typed fields; their constraints are checked when a suite is read, before anything runs.
    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.99
    weight_decay: Annotated[float, Ge(0)] = 0.0

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer over the parameters that are not frozen."""
        from cnnbench.scaffold.templates.optimizer.lion import Lion

        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return Lion(parameters, self.lr, self.beta1, self.beta2, self.weight_decay)
