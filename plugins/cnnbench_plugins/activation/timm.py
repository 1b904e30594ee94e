"""The activations of timm."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read at run time
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.technique import Requirement, technique
from cnnbench_plugins._foreign import made

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("activation", "timm", requires=(Requirement("timm", "timm"),), example={"layer": "hard_mish"})
class TimmActivation:
    """An activation of the package timm by its name.

    R. Wightman, "PyTorch Image Models" (https://github.com/huggingface/pytorch-image-models), ``timm.layers``, in its
    exportable form, which computes the same as the one that saves memory. Not in the catalogue elsewhere are
    ``hard_mish``, x / 2 clip(x + 2, 0, 2) (D. Misra), ``quick_gelu``, x sigmoid(1.702 x), ``gelu_tanh`` (Hendrycks &
    Gimpel 2016, arXiv:1606.08415, both its approximations), ``relu6``, ``celu`` and ``hard_sigmoid``. ``identity``
    removes the activation, as beside a norm that has its own (norm ``timm``: ``evonorms0``, ``frntlu``).

    Helps to compare with networks of timm.
    Known not to help: differences between smooth activations are mostly within the noise of a few seeds.

    Attributes:
        layer: timm's name.
        options: the layer's own, e.g. ``{ negative_slope = 0.1 }``.
    """

    layer: Literal[
        "silu",
        "mish",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "prelu",
        "celu",
        "selu",
        "gelu",
        "gelu_tanh",
        "quick_gelu",
        "sigmoid",
        "tanh",
        "hard_sigmoid",
        "hard_swish",
        "hard_mish",
        "identity",
    ]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, module: nn.Module) -> nn.Module:  # noqa: ARG002 - it needs to know nothing of the module
        """The layer, not in place."""
        from timm import layers

        with layers.set_exportable(True):
            make = layers.get_act_layer(self.layer)
        new: nn.Module = made(make, self.options, what=f"timm's {self.layer}")
        return new


TECHNIQUES = (TimmActivation,)
