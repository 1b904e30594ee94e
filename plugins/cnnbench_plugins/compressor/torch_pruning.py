"""Structured pruning by the importances of torch-pruning."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read at run time
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from cnnbench.lazy import nn, torch
from cnnbench.technique import Requirement, technique
from cnnbench_plugins._foreign import made
from cnnbench_plugins.compressor._changeable import check_changeable
from cnnbench_plugins.compressor._channels import remove_channels
from cnnbench_plugins.compressor._finetune import finetune
from cnnbench_plugins.compressor._gradients import look_at_gradients
from cnnbench_plugins.compressor._sparsity import Scope  # noqa: TC001 - read at run time

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext

_POWERS = {"GroupTaylor": 1, "GroupHessian": 2}


@technique("compressor", "torch_pruning", requires=(Requirement("torch_pruning", "compress"),))
class TorchPruning:
    """Removes whole channels, ranked by an importance of the package torch-pruning, then fine-tunes.

    Fang et al. 2023 (DepGraph, arXiv:2301.12900), ``torch_pruning.pruner.importance``: as ``prune_filters``, with what
    that has not. For a channel with weights w, over the layers that share it:
    ``FPGM`` (He et al. 2019, CVPR): sum of distances to the layer's other filters, those in the midst of the others go;
    torch-pruning takes the distances between |w|^p, p = 2 by default, where the paper has w itself.
    ``LAMP`` (Lee et al. 2021, arXiv:2010.07611): norm^p over the sum of those that are no smaller, which compares
    layers: it needs ``scope = "global"``, within a layer it ranks as l2 does.
    ``GroupTaylor`` (Molchanov et al. 2019, CVPR): sum of |w dL/dw|.
    ``GroupHessian`` (LeCun et al. 1989, Optimal Brain Damage): sum of w² (dL/dw)², the Fisher approximation.
    ``Activation``: mean |input| of the channel over 256 training images.
    Gradients are those of the batches of one epoch, under the arm's own loss, summed as |dL/dw| or (dL/dw)²: signed
    ones cancel out at the end of training, and torch-pruning's own sum of squares keeps the last sample's alone.

    Helps: parameters, FLOPs, memory and latency, as ``prune_filters``.
    Known not to help: with fine-tuning, importances differ less than seeds do (Liu et al. 2019, Rethinking the Value of
    Network Pruning). ``scope = "global"`` can leave a layer with a single channel.

    Attributes:
        importance: torch-pruning's class, without its ending ``Importance``.
        options: the importance's own, e.g. ``{ p = 1 }`` or ``{ normalizer = "max" }``.
        ratio: of n channels floor(n * (1 - ratio)) stay.
        scope: n are the channels of each layer (with what is coupled to it), or all channels, ranked as one.
        epochs: of fine-tuning; 0 recomputes batch-norm statistics alone.
        learning_rate: of fine-tuning.
    """

    importance: Literal["FPGM", "LAMP", "GroupTaylor", "GroupHessian", "Activation"] = "FPGM"
    options: Mapping[str, Any] = field(default_factory=dict)
    ratio: Annotated[float, Gt(0), Lt(1)] = 0.5
    scope: Scope = "layer"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __post_init__(self) -> None:
        if self.importance == "LAMP" and self.scope == "layer":
            raise ValueError('LAMP ranks within a layer as l2 does: set scope = "global"')
        if "multivariable" in self.options:
            raise ValueError("multivariable needs signed gradients, which are not kept: use prune_filters with taylor")

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Prune in place; raises ``Unsupported`` or ``NoEffect``."""
        from torch_pruning import importance

        check_changeable(model)
        rank = made(getattr(importance, f"{self.importance}Importance"), self.options, what=self.importance)
        parameters = dict(model.named_parameters())

        def add(copied: nn.Module) -> None:
            for name, one in copied.named_parameters():
                if one.grad is not None:
                    power = one.grad.abs() ** _POWERS[self.importance]
                    parameters[name].grad = power if (before := parameters[name].grad) is None else before + power

        if self.importance in _POWERS:
            look_at_gradients(model, context, add)
        if self.importance == "Activation":
            with rank.compute_importance(model), torch.no_grad():
                model.eval()(context.calibration(256))
        remove_channels(model, context.example, self.ratio, rank, self.scope)
        for module in model.modules():
            vars(module).pop("_importance", None)  # Activation's; not part of the model
        finetune(model, context, self.epochs, self.learning_rate)
        return model


TECHNIQUES = (TorchPruning,)
