"""Weights from files and by torchvision's names, the network being out of reach."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision.models
from torch import nn

from cnnbench.errors import Unsupported, UsageError
from cnnbench.options import options_of
from cnnbench_plugins.model.convnext import ConvNeXt
from cnnbench_plugins.model.densenet import DenseNet
from cnnbench_plugins.model.mobilenet_v1 import MobileNetV1
from cnnbench_plugins.model.mobilenet_v2 import MobileNetV2
from cnnbench_plugins.model.mobilenet_v3 import MobileNetV3
from cnnbench_plugins.model.shufflenet_v2 import ShuffleNetV2
from cnnbench_plugins.model.torchvision import TorchvisionModel
from cnnbench_plugins.model.vgg import VGG

SHAPE = (3, 32, 32)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A stand-in for what torchvision would download."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = torchvision.models.shufflenet_v2_x0_5().state_dict()
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_args, **_options: state)
    return state


@pytest.mark.parametrize(
    "make",
    [ShuffleNetV2(0.5, weights="DEFAULT"), TorchvisionModel("shufflenet_v2_x0_5", weights="IMAGENET1K_V1")],
    ids=lambda make: type(make).__name__,
)
def test_without_a_network_one_line_says_so(make, offline: None) -> None:
    with pytest.raises(Unsupported, match=r"of shufflenet_v2_x0_5 can't be had from https.*no route to host") as caught:
        make(SHAPE, 10)
    assert "\n" not in str(caught.value)


def test_nothing_is_downloaded_unless_named(offline: None) -> None:
    ShuffleNetV2(0.5)(SHAPE, 10)


def test_published_weights_come_in_with_a_fresh_classifier(published) -> None:
    before = torch.get_rng_state()
    fresh = ShuffleNetV2(0.5, small_stem=True)((3, 24, 24), 10)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    model = ShuffleNetV2(0.5, weights="DEFAULT")(SHAPE, 10)
    assert torch.equal(torch.get_rng_state(), after), "the arm's stream does not depend on where weights come from"
    state = model.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in state.items() if not name.startswith("fc."))
    assert torch.equal(model.fc.weight, fresh.fc.weight)
    same = ShuffleNetV2(0.5, weights="DEFAULT")(SHAPE, 1000)
    assert torch.equal(same.fc.weight, published["fc.weight"])


def test_gray_images_do_not_fit_published_weights(published) -> None:
    with pytest.raises(
        UsageError, match=r"weights DEFAULT: conv1.0.weight has shape \[24, 3, 3, 3\].*images' channels"
    ):
        ShuffleNetV2(0.5, weights="DEFAULT")((1, 32, 32), 10)


def test_weights_that_torchvision_has_not() -> None:
    with pytest.raises(
        UsageError, match="has no weights IMAGENET1K_V2 of shufflenet_v2_x0_5; it has IMAGENET1K_V1, DEF"
    ):
        ShuffleNetV2(0.5, weights="IMAGENET1K_V2")(SHAPE, 10)


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (MobileNetV2, {"width": 0.5}, "published for width 1 only"),
        (MobileNetV3, {"width": 0.5}, "published for width 1 only"),
        (VGG, {"width": 32}, "published for width 64 only"),
        (DenseNet, {"growth_rate": 12}, "published for the paper's networks only"),
        (ConvNeXt, {"size": "atto"}, "published for sizes from tiny up only"),
    ],
)
def test_names_of_weights_go_with_published_networks(cls, options, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cls(**options, weights="DEFAULT")
    cls(**options, weights=Path("weights.pt"))
    cls(weights="DEFAULT")


def test_a_name_is_a_name_and_all_else_a_path() -> None:
    option = options_of(VGG)["weights"]
    assert option.check("DEFAULT") == "DEFAULT"
    assert option.check("weights/vgg.pt") == Path("weights/vgg.pt")
    assert option.check("./DEFAULT") == Path("DEFAULT")
    assert option.check(None) is None


@pytest.mark.parametrize(
    "make",
    [VGG(width=4), MobileNetV1(0.125), MobileNetV2(0.1), DenseNet(blocks=(2, 2), growth_rate=4)],
    ids=repr,
)
def test_files_of_weights(make, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    saved = make(SHAPE, 10)
    torch.save(saved.state_dict(), file)
    loaded = type(make)(**{**vars(make), "weights": file})
    same = loaded(SHAPE, 10).state_dict()
    assert all(torch.equal(same[name], value) for name, value in saved.state_dict().items())
    other = loaded(SHAPE, 4)
    last = [name for name, module in other.named_modules() if isinstance(module, nn.Linear)][-1]
    state = saved.state_dict()
    differing = {name for name, value in other.state_dict().items() if not torch.equal(value, state[name])}
    assert differing <= {f"{last}.weight", f"{last}.bias"}
    assert f"{last}.weight" in differing
    assert loaded.fingerprint() != make.fingerprint()
    before = loaded.fingerprint()
    file.write_bytes(file.read_bytes() + b"x")
    assert loaded.fingerprint() != before
    file.unlink()
    with pytest.raises(UsageError, match="no such file"):
        loaded.fingerprint()


def test_vggs_small_head_takes_features_of_the_large_one(tmp_path: Path) -> None:
    large = VGG(width=2, small_head=False)(SHAPE, 10)
    torch.save(large.state_dict(), tmp_path / "weights.pt")
    small = VGG(width=2, weights=tmp_path / "weights.pt")(SHAPE, 10)
    for name, value in small.features.state_dict().items():
        assert torch.equal(value, large.features.state_dict()[name]), name
    assert small.classifier.weight.shape == (10, 16)
