from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import Unsupported, UsageError
from cnnbench_plugins.model.timm import TimmModel

if TYPE_CHECKING:
    from pathlib import Path

timm = pytest.importorskip("timm")


def test_a_network_is_timms_with_the_images_channels_and_classes() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = timm.create_model("mobilenetv3_small_050", in_chans=1, num_classes=7)
        torch.manual_seed(0)
        model = TimmModel("mobilenetv3_small_050")((1, 48, 40), 7)
    for name, value in reference.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert model.training
    assert model(torch.rand(2, 1, 48, 40)).shape == (2, 7)


def test_networks_of_fixed_size_are_built_for_the_images() -> None:
    with torch.device("meta"):
        model = TimmModel("vit_tiny_patch16_224")((1, 64, 32), 5)
        assert model(torch.empty(2, 1, 64, 32)).shape == (2, 5)


@pytest.mark.parametrize("arch", ["mobilenetv3_small_050", "resnet10t", "test_convnext", "test_vit"])
def test_models_pass_between_stages(arch: str, tmp_path: Path) -> None:
    model = TimmModel(arch)((3, 64, 64), 3).eval()
    save_model(tmp_path / "model", model, nn.Identity())
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(load_model(tmp_path / "model").model.eval()(images), model(images))


def test_unknown_names_and_impossible_sizes() -> None:
    with pytest.raises(UsageError, match="unknown timm network 'resnet81': did you mean 'resnet"):
        TimmModel("resnet81")((3, 64, 64), 10)
    with pytest.raises(UsageError, match="list_models"):
        TimmModel("qqqqqqqq")((3, 64, 64), 10)
    with pytest.raises(Unsupported, match=r"test_vit can't (be built for|take) .*3 x 3 images") as caught:
        TimmModel("test_vit")((3, 3, 3), 10)
    assert "\n" not in str(caught.value)


def test_without_a_network_pretrained_weights_are_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    with pytest.raises(Unsupported, match=r"test_resnet can't be built for 64 x 64 images: no route to host$"):
        TimmModel("test_resnet", pretrained=True)((3, 64, 64), 10)
