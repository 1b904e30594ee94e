from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import UsageError
from cnnbench.options import make
from cnnbench.plugins import PluginHost
from cnnbench.types import Choice
from cnnbench_plugins.activation.timm import TimmActivation

layers = pytest.importorskip("timm.layers")

NAMES = get_args(get_type_hints(TimmActivation)["layer"])
FORMULAS = {
    "hard_mish": lambda x: x / 2 * (x + 2).clamp(0, 2),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "identity": lambda x: x,
    "celu": lambda x: x.clamp(min=0) + (x.exp() - 1).clamp(max=0),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_timms_not_in_place_and_passes_between_stages(name, tmp_path):
    x = torch.linspace(-4, 4, 97).requires_grad_()
    new = TimmActivation(name)(nn.ReLU(inplace=True))
    assert not getattr(new, "inplace", False)
    y = new(x)
    torch.testing.assert_close(y, layers.create_act_layer(name)(x))  # the one that saves memory
    if name in FORMULAS:
        torch.testing.assert_close(y, FORMULAS[name](x))
    y.sum().backward()
    assert x.grad.isfinite().all()
    save_model(tmp_path / "model", new, nn.Identity())
    assert torch.equal(load_model(tmp_path / "model").model(x), y)


def test_options_are_the_layers_own():
    assert TimmActivation("leaky_relu", {"negative_slope": 0.5})(nn.ReLU())(torch.tensor(-2.0)) == -1
    with pytest.raises(UsageError, match="has no option 'negative_slop': did you mean 'negative_slope'"):
        TimmActivation("leaky_relu", {"negative_slop": 0.5})(nn.ReLU())


def test_an_unknown_name_is_a_mistake_of_the_suite():
    registry = PluginHost.discover().registry
    with pytest.raises(UsageError, match="got 'hardmish': did you mean 'hard_mish'"):
        make(Choice("activation", "timm", {"layer": "hardmish"}), registry)
