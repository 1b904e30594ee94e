from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.stages.remarks import remarks
from cnnbench_plugins.model.convnext import ConvNeXt
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.regularizer.timm import TimmDropBlock

layers = pytest.importorskip("timm.layers")


def layer(**options: object) -> nn.Module:
    technique = TimmDropBlock(**options)
    return technique(nn.Identity())[1].train()


@pytest.mark.parametrize("options", [{}, {"couple_channels": False}, {"with_noise": True}])
def test_blocks_are_timms(options):
    x = torch.rand(4, 3, 12, 12) + 1
    reference = layers.DropBlock2d(0.2, 3, **options).train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = reference(x)
        torch.manual_seed(3)
        assert torch.equal(layer(p=0.2, block_size=3, **options)(x), expected)


def test_one_mask_serves_all_channels_unless_told_otherwise():
    x = torch.ones(8, 6, 16, 16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        coupled, free = layer(block_size=3)(x) == 0, layer(block_size=3, couple_channels=False)(x) == 0
    assert coupled.any()
    assert torch.equal(coupled, coupled[:, :1].expand_as(coupled))
    assert not torch.equal(free, free[:, :1].expand_as(free))


def test_what_is_no_map_passes_and_channels_may_come_last():
    drop = layer(p=0.5, block_size=2)
    for x in (torch.ones(64, 10), torch.ones(64, 10, 1, 1)):
        assert torch.equal(drop(x), x)
    drop.channels_last = True
    dropped = drop(torch.ones(4, 8, 8, 5)) == 0
    assert dropped.any()
    assert torch.equal(dropped, dropped[..., :1].expand_as(dropped))


def test_it_grows_with_the_epochs_rests_in_eval_and_passes_between_stages(tmp_path):
    technique, x = TimmDropBlock(p=0.5, block_size=3), torch.rand(2, 3, 16, 16)
    model = ResNet(depth=8, width=4)((3, 16, 16), 10)
    before = model.eval()(x)
    activations = sum(isinstance(m, nn.ReLU) for m in model.modules())
    assert technique.prepare(model, torch.Generator()) == activations
    assert torch.equal(model(x), before)
    technique.epoch(model, 1, 3)
    shares = {m.share for m in model.modules() if hasattr(m, "share")}
    assert shares == {0.5}
    save_model(tmp_path / "model", model, nn.Identity())
    assert torch.equal(load_model(tmp_path / "model").model.eval()(x), before)
    assert any("dropout before batch norm" in line for line in remarks(model))


def test_convnext_has_its_channels_last():
    model = ConvNeXt()((3, 32, 32), 10).train()
    TimmDropBlock(p=0.3, block_size=2).prepare(model, torch.Generator())
    assert any(getattr(m, "channels_last", False) for m in model.modules())
    model(torch.rand(2, 3, 32, 32)).sum().backward()
