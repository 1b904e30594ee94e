"""The normalization layers of timm."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read at run time
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.errors import Unsupported
from cnnbench.lazy import torch
from cnnbench.technique import Requirement, technique
from cnnbench_plugins._foreign import first_line, made
from cnnbench_plugins.norm._replace import channels_of, inherit

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("norm", "timm", requires=(Requirement("timm", "timm"),), example={"layer": "layernorm2d"})
class TimmNorm:
    """A normalization layer of the package timm by its name.

    R. Wightman, "PyTorch Image Models" (https://github.com/huggingface/pytorch-image-models), ``timm.layers``. Each
    layer is made for x [N, C, H, W]: ``groupnorm``, ``groupnorm1`` (Wu & He 2018); ``layernorm2d``, which normalizes
    over C at each position (Liu et al. 2022, ConvNeXt); ``rmsnorm2d``, the same without the mean (Zhang & Sennrich
    2019); ``simplenorm2d``, division by the standard deviation over C alone (timm's own); ``frn`` and
    ``frntlu`` (Singh & Krishnan 2020); ``evonorm`` B0 to S2 (Liu et al. 2020, arXiv:2004.02967). A layer with an
    activation of its own (``frn``) is made without it. ``frntlu`` and EvoNorm are nonlinear themselves, and the
    activation behind stays: their papers have none, which is ``activation = { name = "timm", layer = "identity" }``
    beside it. Scale and bias are taken over from the norm that is replaced.

    Helps where the catalogue lacks a norm, and to compare with networks of timm. EvoNorm S and ``frn`` need no batch.
    Known not to help: layers of few channels with the default of 32 groups, which must divide them; EvoNorm B after
    what recomputes batch-norm statistics (averaged weights, pruning without fine-tuning), which passes it by.

    Attributes:
        layer: timm's name.
        options: the layer's own, e.g. ``{ num_groups = 8 }``.
    """

    layer: Literal[
        "groupnorm",
        "groupnorm1",
        "layernorm2d",
        "rmsnorm2d",
        "simplenorm2d",
        "frn",
        "frntlu",
        "evonormb0",
        "evonormb1",
        "evonormb2",
        "evonorms0",
        "evonorms0a",
        "evonorms1",
        "evonorms1a",
        "evonorms2",
        "evonorms2a",
    ]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, module: nn.Module) -> nn.Module:
        """The layer for as many channels; raises ``Unsupported`` where it can't have so many."""
        from timm import layers

        nonlinear = self.layer.startswith(("frn", "evonorm"))
        make = layers.get_norm_act_layer(self.layer) if nonlinear else layers.get_norm_layer(self.layer)
        own = {"apply_act": False} if self.layer == "frn" else {}
        channels, what = channels_of(module), f"timm's {self.layer}"
        new: nn.Module = made(make, own | dict(self.options), channels, what=what)
        try:
            with torch.no_grad():
                new.eval()(torch.zeros(1, channels, 2, 2))
        except (RuntimeError, AssertionError) as error:
            raise Unsupported(f"{what} can't normalize {channels} channels: {first_line(error)}") from error
        return inherit(new, module)


TECHNIQUES = (TimmNorm,)
