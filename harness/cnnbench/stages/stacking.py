"""Networks of one build side by side: their weights as one stack of tensors, their losses from one forward pass.

``torch.func.functional_call`` puts the stacked tensors where the network looks for its own, and ``torch.func.vmap``
lets it see one network's at a time (torch.func, "Model ensembling"). Convolutions of K networks become one convolution
of K groups, so that K small kernels are started as one.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.func import functional_call, vmap

from cnnbench.stages.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.stages.train import Procedure


class LossOf(nn.Module):
    """A network with the loss that it trains on.

    Args:
        model: the network.
        how: its procedure: loss and precision.
    """

    def __init__(self, model: nn.Module, how: Procedure) -> None:
        super().__init__()
        self.model = model
        self._how = how

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss, a scalar, and logits [N, classes] in float32, of inputs [N, C, H, W] and targets [N, classes]."""
        with self._how.device.autocast(self._how.precision):
            logits = self.model(inputs)
        logits = logits.float()
        return self._how.loss(logits, targets), logits


class Stack:
    """K networks of one build as one.

    Args:
        models: alike but for the values of parameters and buffers. Their tensors are copied.
        how: loss and precision of all.

    Attributes:
        module: the first's structure with tensors [K, ...] in the place of its own: what an optimizer is made for.
    """

    def __init__(self, models: Sequence[nn.Module], how: Procedure) -> None:
        self._models = models
        self.module = _stacked(models)
        self._whole = LossOf(self.module, how)

        def one(
            parameters: dict[str, torch.Tensor],
            buffers: dict[str, torch.Tensor],
            inputs: torch.Tensor,
            targets: torch.Tensor,
        ) -> Any:
            return functional_call(self._whole, (parameters, buffers), (inputs, targets))

        # The batch comes first in memory: so it needs no copy to become the channels of one convolution.
        each = vmap(one, in_dims=(0, 0, 1, 0))
        parameters: dict[str, torch.Tensor] = dict(self._whole.named_parameters())
        buffers = dict(self._whole.named_buffers())

        def all_of_them(inputs: torch.Tensor, targets: torch.Tensor) -> Any:
            return each(parameters, buffers, inputs, targets)

        if how.compiled:
            from torch._dynamo import mark_static_address

            for tensor in (*parameters.values(), *buffers.values()):
                mark_static_address(tensor)  # a CUDA graph reads it where it is
        self._all = compiled(all_of_them, how.device) if how.compiled else all_of_them

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each network's loss [K] and logits [K, N, classes].

        Args:
            inputs: [N, K, C, H, W].
            targets: [K, N, classes].

        Raises:
            RuntimeError: a layer does what ``vmap`` can't do for several networks at once, such as to draw at random.
            Unsupported: it can't be compiled, and was to be.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # of an operation without arithmetic
            losses, logits = self._all(inputs, targets)
        return losses, logits

    def write_back(self) -> None:
        """Copy each network's part of the stack into the network itself."""
        with torch.no_grad():
            for tensor, owns in self._pairs():
                for own, part in zip(owns, tensor, strict=True):
                    own.copy_(part)

    def park(self, index: int, optimizer: torch.optim.Optimizer) -> None:
        """Set one network, whose values are not finite, to zeros for good: it goes on computing, and harms nobody.

        A kernel may fill up the groups of a convolution with zeros, and 0 x NaN would be NaN in its neighbours.
        """
        with torch.no_grad():
            for tensor, _ in self._pairs():
                tensor[index].zero_()
            for parameter, state in optimizer.state.items():
                for value in state.values():
                    if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                        value[index].zero_()

    def _pairs(self) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
        """Every tensor of the stack with those of the networks that it is made of."""
        tables = [_tensors(model) for model in self._models]
        return [(tensor, [table[name] for table in tables]) for name, tensor in _tensors(self.module).items()]


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name; one that has several names stands under the first."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _stacked(models: Sequence[nn.Module]) -> nn.Module:
    """A copy of the first model with the tensors of all in the place of its own."""
    module = deepcopy(models[0])
    for named in (nn.Module.named_parameters, nn.Module.named_buffers):
        made: dict[int, torch.Tensor] = {}  # a tensor that has several names is stacked once
        own, *tables = [dict(named(model, remove_duplicate=False)) for model in (module, *models)]
        for name, tensor in own.items():
            if id(tensor) not in made:
                stack = torch.stack([table[name].detach() for table in tables])
                is_parameter = isinstance(tensor, nn.Parameter)
                made[id(tensor)] = nn.Parameter(stack, tensor.requires_grad) if is_parameter else stack
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, made[id(tensor)])
    return module
