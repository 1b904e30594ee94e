from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision.models
from torch import nn

from cnnbench.errors import Unsupported, UsageError
from cnnbench_plugins.model import torchvision as module
from cnnbench_plugins.model._stems import head_of
from cnnbench_plugins.model.torchvision import TorchvisionModel, arch_names

LIGHT = ["mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0"]
OTHERS = ["densenet121", "googlenet", "mnasnet0_5", "regnet_x_400mf", "resnet18"]
STRIDE_ONLY = {"mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "mnasnet0_5", "regnet_x_400mf"}


def test_names_are_torchvisions_own_list() -> None:
    assert arch_names() == set(torchvision.models.list_models(module=torchvision.models))


def test_an_unknown_name_shows_when_the_suite_is_read() -> None:
    with pytest.raises(ValueError, match="unknown torchvision network 'resnet81': did you mean 'resnet18'"):
        TorchvisionModel("resnet81")
    with pytest.raises(ValueError, match="list_models"):
        TorchvisionModel("qqq")


@pytest.mark.parametrize("arch", LIGHT)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=str)
def test_light_networks_train_on_small_images(arch: str, shape: tuple[int, int, int]) -> None:
    model = TorchvisionModel(arch)(shape, 7)
    assert model.training
    logits = model(torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def downsampling(model: nn.Module, side: int) -> int:
    """Input pixels to a pixel of the last feature map, along one side."""
    sizes: list[int] = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    model.eval()(torch.rand(1, 3, side, side))
    last = [size for size in sizes if size > 1][-1]
    return round(side / last)


@pytest.mark.parametrize("arch", [*LIGHT, *OTHERS])
def test_the_small_stem_takes_two_to_four_times_less_away(arch: str) -> None:
    with torch.random.fork_rng():
        small, large = (TorchvisionModel(arch, small_stem=stem)((3, 64, 64), 5) for stem in (True, False))
    ratio = downsampling(large, 64) / downsampling(small, 64)
    if arch in STRIDE_ONLY:
        assert ratio == 2
    else:  # stride and pooling; without padding somewhat more than 4
        assert 3.5 <= ratio <= 5.5


@pytest.mark.parametrize("arch", [*LIGHT, *OTHERS])
def test_at_full_size_it_is_torchvisions_network(arch: str) -> None:
    options = {"aux_logits": False, "init_weights": True} if arch == "googlenet" else {}
    with torch.random.fork_rng():
        reference = torchvision.models.get_model(arch, num_classes=9, **options).state_dict()
    ours = TorchvisionModel(arch)((3, 64, 64), 9).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in reference.items()}


def test_weights_are_torchvisions_own_where_no_layer_is_replaced() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = torchvision.models.mobilenet_v2(num_classes=10).state_dict()
        torch.manual_seed(0)
        ours = TorchvisionModel("mobilenet_v2")((3, 32, 32), 10).state_dict()
    for name, value in reference.items():
        assert torch.equal(value, ours[name]), name


def test_a_replaced_convolution_is_he_initialized_by_fan_out() -> None:
    stem = TorchvisionModel("resnet18")((1, 28, 28), 10).get_submodule("conv1")
    assert (stem.in_channels, stem.kernel_size, stem.stride, stem.padding) == (1, (3, 3), (1, 1), (1, 1))
    assert stem.bias is None
    assert stem.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.15)


def test_resnet18_at_cifar_size_has_the_published_count() -> None:
    # The CIFAR version of ResNet-18 with a 3x3 stem, as in many repositories: 11.17M.
    assert sum(p.numel() for p in TorchvisionModel("resnet18")((3, 32, 32), 10).parameters()) == 11_173_962


@pytest.mark.parametrize(
    ("arch", "shape", "message"),
    [
        ("alexnet", (3, 32, 32), "alexnet can't take 3 x 32 x 32 images: "),
        ("maxvit_t", (3, 32, 32), "maxvit_t can't be built for 32 x 32 images: .*divisible"),
    ],
)
def test_images_that_are_too_small_are_a_reason_to_skip(arch: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(Unsupported, match=message) as caught:
        TorchvisionModel(arch)(shape, 10)
    assert "\n" not in str(caught.value)


def test_a_family_without_a_small_stem_says_so() -> None:
    with pytest.raises(Unsupported, match="alexnet has no small stem"):
        TorchvisionModel("alexnet", small_stem=True)((3, 64, 64), 10)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.save(TorchvisionModel("squeezenet1_1")((3, 64, 64), 10).state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_weights_are_loaded_and_another_class_count_keeps_a_fresh_head(saved: Path) -> None:
    state = torch.load(saved, weights_only=True)
    same = TorchvisionModel("squeezenet1_1", weights=saved)((3, 64, 64), 10).state_dict()
    assert all(torch.equal(same[name], value) for name, value in state.items())
    other = TorchvisionModel("squeezenet1_1", weights=saved)((3, 64, 64), 4)
    head = head_of(other)
    assert head == "classifier.1"
    for name, value in other.state_dict().items():
        assert name.startswith(head) or torch.equal(value, state[name]), name
    assert other(torch.rand(2, 3, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize(
    ("arch", "shape", "message"),
    [
        ("squeezenet1_1", (1, 64, 64), r"features.0.weight has shape \[64, 3, 3, 3\], the network \[64, 1, 3, 3\]"),
        ("squeezenet1_0", (3, 64, 64), "features.0.weight has shape"),
        ("resnet18", (3, 64, 64), r"conv1.weight is missing; is it a state dict of resnet18\?"),
    ],
)
def test_weights_that_do_not_fit(saved: Path, arch: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TorchvisionModel(arch, weights=saved)(shape, 10)


def test_weights_with_a_tensor_too_many(saved: Path) -> None:
    torch.save({**torch.load(saved, weights_only=True), "extra": torch.zeros(1)}, saved)
    with pytest.raises(UsageError, match="extra is not a tensor of squeezenet1_1"):
        TorchvisionModel("squeezenet1_1", weights=saved)((3, 64, 64), 10)


@pytest.mark.parametrize("content", [b"", b"text", SimpleNamespace, [torch.zeros(1)]])
def test_a_file_that_is_no_state_dict(tmp_path: Path, content: object) -> None:
    file = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(Unsupported, match=r"weights.pt: not a state dict of plain tensors") as caught:
        TorchvisionModel("squeezenet1_1", weights=file)((3, 64, 64), 10)
    assert "\n" not in str(caught.value)


class Touches:
    """Runs code when it is unpickled without care."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_loading_weights_runs_no_code(tmp_path: Path) -> None:
    torch.save({"weight": Touches(tmp_path / "touched")}, tmp_path / "weights.pt")
    with pytest.raises(Unsupported, match="not a state dict of plain tensors"):
        TorchvisionModel("squeezenet1_1", weights=tmp_path / "weights.pt")((3, 64, 64), 10)
    assert not (tmp_path / "touched").exists()


def test_fingerprint_follows_the_weights(saved: Path, tmp_path: Path) -> None:
    bare, loaded = TorchvisionModel("squeezenet1_1"), TorchvisionModel("squeezenet1_1", weights=saved)
    before = loaded.fingerprint()
    assert bare.fingerprint() != before
    saved.write_bytes(saved.read_bytes() + b"x")
    assert loaded.fingerprint() != before
    with pytest.raises(UsageError, match="no such file"):
        TorchvisionModel("squeezenet1_1", weights=tmp_path / "none.pt").fingerprint()


def test_a_source_that_cannot_be_read_checks_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "arch_names", frozenset)
    assert [field.name for field in fields(TorchvisionModel)] == ["arch", "small_stem", "weights"]
    with pytest.raises(UsageError, match="unknown torchvision network 'resnet81'"):
        TorchvisionModel("resnet81")((3, 32, 32), 10)
