"""Residual connections on or off."""

from __future__ import annotations

from typing import Any, Literal

from cnnbench.technique import technique
from cnnbench_plugins.architecture._options import changed, option_of


@technique("architecture", "residual")
class ResidualConnections:
    """Takes a network's residual connections away, or puts them in.

    He et al. 2016 (https://arxiv.org/abs/1512.03385, section 3.3): a block computes F(x) + shortcut(x) with them and
    F(x) without; all else stays as it is. Where a shortcut is a projection (1x1 convolution and batch norm, at the
    first block of a stage) its weights go with it: C_in C_out + 2 C_out parameters; otherwise nothing changes but one
    addition for each output value. Acts on models that have the option ``residual``.

    Helps: networks of some 20 layers and more, which hardly train without (figure 6 there); also speeds up the first
    epochs of shallower ones.
    Known not to help: networks of less than about 10 layers with batch norm, which train as well without.

    Raises ``Unsupported`` for networks without the option, and ``NoEffect`` where it has the value already.

    Attributes:
        shortcuts: ``off`` takes them away, ``on`` puts them in.
    """

    shortcuts: Literal["on", "off"] = "off"

    def __call__(self, model: Any) -> Any:
        """The same network with or without shortcuts."""
        option_of(model, "residual")
        return changed(model, "residual", self.shortcuts == "on")


TECHNIQUES = (ResidualConnections,)
