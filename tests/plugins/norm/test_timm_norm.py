"""timm's norms: its own layers are the reference, torch's and the formulas where the adapter could go wrong."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import Unsupported, UsageError
from cnnbench.surgery import apply_surgery
from cnnbench_plugins.activation.timm import TimmActivation
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.norm.timm import TimmNorm

pytest.importorskip("timm")

NAMES = get_args(get_type_hints(TimmNorm)["layer"])
GROUPS = {"groupnorm": {"num_groups": 4}, **{name: {"groups": 4} for name in NAMES if name.startswith("evonorms")}}


def old(channels: int = 8) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, channels))
        norm.bias.copy_(torch.linspace(-1, 1, channels))
    return norm


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_takes_over_scale_and_bias_trains_and_passes_between_stages(name, tmp_path):
    before = torch.get_rng_state()
    new = TimmNorm(name, GROUPS.get(name, {}))(old())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(new.weight, old().weight)
    assert getattr(new, "bias", None) is None or torch.equal(new.bias, old().bias)
    x = images(4, 8, 5, 3).requires_grad_()
    new.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in new.parameters())
    assert x.grad.isfinite().all()
    save_model(tmp_path / "model", new.eval(), nn.Identity())
    assert torch.equal(load_model(tmp_path / "model").model.eval()(x), new(x))


def formula(name: str, x: torch.Tensor) -> torch.Tensor:
    """Before scale and bias."""
    match name:
        case "groupnorm1":
            return (x - x.mean((1, 2, 3), keepdim=True)) / (x.var((1, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        case "layernorm2d":
            return (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        case "rmsnorm2d":
            return x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
        case "simplenorm2d":
            return x / (x.var(1, keepdim=True) + 1e-6).sqrt()
        case _:
            return x / (x.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("name", ["groupnorm1", "layernorm2d", "rmsnorm2d", "simplenorm2d", "frn", "frntlu"])
def test_what_the_docstring_says_of_each(name):
    x = images(3, 8, 4, 4)
    new = TimmNorm(name)(old())
    expected = formula(name, x) * new.weight[:, None, None]
    if getattr(new, "bias", None) is not None:
        expected = expected + new.bias[:, None, None]
    if name == "frntlu":  # its threshold starts at 0
        expected = expected.clamp(min=0)
    torch.testing.assert_close(new(x), expected)


def test_evonorm_with_identities_is_the_papers_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet(depth=8, width=8)((1, 8, 8), 10)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert apply_surgery("norm", TimmNorm("evonorms0", {"groups": 4}), model).swapped == norms
    apply_surgery("activation", TimmActivation("identity"), model)
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())
    assert model(images(2, 1, 8, 8)).shape == (2, 10)


def test_what_a_layer_cannot_do():
    with pytest.raises(Unsupported, match=r"timm's groupnorm can't be made: num_channels \(8\).*num_groups \(32\)"):
        TimmNorm("groupnorm")(old())
    with pytest.raises(Unsupported, match="timm's evonorms0 can't normalize 8 channels"):
        TimmNorm("evonorms0")(old())
    # timm lets unknown words pass here: the trial would be named after an option that does nothing.
    with pytest.raises(UsageError, match="timm's evonorms0 has no option 'num_groups': did you mean 'groups'"):
        TimmNorm("evonorms0", {"num_groups": 4})(old())
