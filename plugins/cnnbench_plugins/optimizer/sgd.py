"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Lt

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.optimizer._parameters import can_fuse, trainable


@technique("optimizer", "sgd")
class Sgd:
    """Stochastic gradient descent with momentum.

    v <- momentum v + g + weight_decay w and w <- w - lr v; with ``nesterov`` the step is along g + momentum v
    (Sutskever et al. 2013; as PyTorch writes them, without dampening). ``weight_decay`` is coupled and acts on every
    parameter; the regularizers ``l2`` and ``weight_decay`` leave norms and biases out. Defaults: He et al. 2016.

    Helps most convolutional networks with normalization, given a schedule. Known to need its learning rate tuned where
    there is no normalization.
    """

    lr: Annotated[float, Gt(0)] = 0.1
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer."""
        parameters = trainable(model)
        optimizer = torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=can_fuse(parameters),
        )
        if self.momentum:
            # A velocity of 0 is what the first step starts from. The fused step can't make it later for some of the
            # parameters, where layers join a training that has begun.
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer


TECHNIQUES = (Sgd,)
