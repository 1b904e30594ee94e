"""Optimizers that scale each parameter's step by its gradient's history."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Lt

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.optimizer._parameters import can_fuse, trainable


@technique("optimizer", "adam")
class Adam:
    """Steps scaled by running moments of the gradient.

    w <- w - lr m / (sqrt(v) + eps) with bias-corrected running means m of g and v of g², whose rates are ``beta1`` and
    ``beta2`` (Kingma & Ba 2015, algorithm 1, whose values are the defaults).

    Helps where scales of gradients differ between layers: no normalization, attention. Known to generalize somewhat
    worse than tuned SGD with momentum on image classification (Wilson et al. 2017).
    """

    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer."""
        parameters = trainable(model)
        return torch.optim.Adam(
            parameters, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=can_fuse(parameters)
        )


@technique("optimizer", "adamw")
class AdamW:
    """Adam with decoupled weight decay.

    As ``adam``, with its ``beta1``, ``beta2`` and ``eps``, and w <- w (1 - lr weight_decay) before each step
    (Loshchilov & Hutter 2019, algorithm 2), on every parameter. Defaults are PyTorch's.

    Helps where Adam overfits. Known not to matter over a few epochs, where lr x weight_decay x steps is far below 1.
    """

    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8
    weight_decay: Annotated[float, Ge(0)] = 0.01

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer."""
        parameters = trainable(model)
        return torch.optim.AdamW(
            parameters,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=can_fuse(parameters),
        )


@technique("optimizer", "rmsprop")
class RmsProp:
    """Steps scaled by a running mean of the squared gradient.

    v <- alpha v + (1 - alpha) g² and w <- w - lr g / (sqrt(v) + eps), through momentum where it is above 0 (Hinton's
    lecture 6e, 2012). The learning rate's default is his; alpha and eps are PyTorch's.

    Helps reproduce mobile networks that were trained with it (MobileNet, EfficientNet). Known to need a warm-up, having
    no bias correction: its first steps are 1 / sqrt(1 - alpha) times too long.
    """

    lr: Annotated[float, Gt(0)] = 1e-3
    alpha: Annotated[float, Ge(0), Lt(1)] = 0.99
    eps: Annotated[float, Gt(0)] = 1e-8
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return torch.optim.RMSprop(trainable(model), lr=self.lr, alpha=self.alpha, eps=self.eps, momentum=self.momentum)


TECHNIQUES = (Adam, AdamW, RmsProp)
