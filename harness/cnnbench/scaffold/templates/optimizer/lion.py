"""The optimizer itself, apart from the technique: it needs torch as soon as it is imported, the technique does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch


class Lion(torch.optim.Optimizer):
    """Sign of a momentum, with decoupled weight decay.

    Args:
        parameters: to be trained.
        lr: learning rate.
        beta1: share of the momentum in the step.
        beta2: share of the momentum that stays.
        weight_decay: of every parameter, times the learning rate.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, beta1: float, beta2: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient; returns what the closure does, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                direction = torch.lerp(parameter.grad, momentum, group["beta1"]).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
                momentum.lerp_(parameter.grad, 1 - group["beta2"])
        return loss
