"""The families under their own names, against torchvision's published figures, timm, and the papers' numbers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
import torchvision.models
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import Unsupported
from cnnbench.options import options_of
from cnnbench_plugins.architecture.scaling import Depth, Width
from cnnbench_plugins.model.convnext import ConvNeXt
from cnnbench_plugins.model.densenet import DenseNet
from cnnbench_plugins.model.efficientnet import EfficientNet
from cnnbench_plugins.model.mobilenet_v1 import MobileNetV1
from cnnbench_plugins.model.mobilenet_v2 import MobileNetV2
from cnnbench_plugins.model.mobilenet_v3 import MobileNetV3
from cnnbench_plugins.model.shufflenet_v2 import ShuffleNetV2
from cnnbench_plugins.model.squeezenet import SqueezeNet
from cnnbench_plugins.model.vgg import VGG

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED = {
    "vgg11": VGG(norm=False),
    "vgg13_bn": VGG(13),
    "vgg16_bn": VGG(16),
    "vgg19": VGG(19, norm=False),
    "mobilenet_v2": MobileNetV2(),
    "mobilenet_v3_small": MobileNetV3(),
    "mobilenet_v3_large": MobileNetV3("large"),
    "shufflenet_v2_x0_5": ShuffleNetV2(0.5),
    "shufflenet_v2_x1_0": ShuffleNetV2(),
    "shufflenet_v2_x1_5": ShuffleNetV2(1.5),
    "shufflenet_v2_x2_0": ShuffleNetV2(2.0),
    "efficientnet_b0": EfficientNet(),
    "squeezenet1_0": SqueezeNet("1.0"),
    "squeezenet1_1": SqueezeNet(),
    "densenet121": DenseNet(),
    "densenet161": DenseNet(161),
    "convnext_tiny": ConvNeXt(),
    "convnext_base": ConvNeXt("base"),
}
# Built by the same lines as others.
REPEATS = {
    "vgg13_bn",
    "vgg19",
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "densenet161",
    "convnext_base",
}
SMALL = [
    VGG(width=4),
    VGG(13, norm=False, width=4),
    MobileNetV1(0.125),
    MobileNetV2(0.1),
    MobileNetV3(width=0.1),
    ShuffleNetV2(0.5),
    SqueezeNet(),
    SqueezeNet("1.0"),
    DenseNet(blocks=(2, 2), growth_rate=4),
    ConvNeXt("atto"),
]


def build(make, shape=(3, 224, 224), classes=1000, device="meta"):
    with torch.device(device):
        return make(shape, classes)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, shape=(3, 224, 224)) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() / 2


def last_side(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Pixels along a side of the last feature map that has more than one."""
    found: list[int] = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _m, _i, out: found.append(out.shape[-1]))
    model.eval()(torch.empty(1, *shape, device="meta"))
    return [side for side in found if side > 1][-1]


@pytest.mark.parametrize("arch", [pytest.param(a, marks=pytest.mark.slow if a in REPEATS else ()) for a in PUBLISHED])
def test_published_networks_have_torchvisions_parameters_multiply_adds_and_names(arch: str) -> None:
    meta = torchvision.models.get_model_weights(arch).DEFAULT.meta
    model = build(PUBLISHED[arch])
    assert count(model) == meta["num_params"]
    assert macs(model) / 1e9 == pytest.approx(meta["_ops"], abs=5.1e-4)  # published to three decimals
    with torch.device("meta"):
        reference = torchvision.models.get_model(arch).state_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in reference.items()}


def test_initial_weights_are_torchvisions() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SqueezeNet()((3, 64, 64), 10)
        torch.manual_seed(0)
        reference = torchvision.models.squeezenet1_1(num_classes=10)
    for name, value in reference.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_vgg_is_initialized_by_fan_out() -> None:
    model = VGG(width=16, norm=False, small_head=False)((3, 32, 32), 10)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=0.15)
            assert not layer.bias.any()
        elif isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert not layer.bias.any()


@pytest.mark.parametrize(
    ("width", "parameters", "millions"),
    [(1.0, 4_231_976, 569), (0.75, 2_585_560, 325), (0.5, 1_331_592, 149), (0.25, 470_072, 41)],
)
def test_mobilenet_v1_has_the_papers_costs(width: float, parameters: int, millions: int) -> None:
    """Howard et al. 2017, table 6: 4.2, 2.6, 1.3, 0.5 million parameters; 569, 325, 149, 41 million multiply-adds."""
    model = build(MobileNetV1(width))
    assert count(model) == parameters
    assert round(macs(model) / 1e6) == millions
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == 28


def test_mobilenet_v1_computes_what_timms_does() -> None:
    """timm pads and clips as MobileNetV1 was published: ReLU6, which nothing reaches here."""
    efficientnet = pytest.importorskip("timm.models.efficientnet")
    shape = (3, 64, 64)
    ours = MobileNetV1(0.25)(shape, 7).eval()
    reference = efficientnet._gen_mobilenet_v1("mobilenetv1_100", channel_multiplier=0.25, num_classes=7).eval()
    theirs = list(reference.parameters())
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs, strict=True):
            mine.add_(torch.randn(mine.shape, generator=generator), alpha=0.05)
            other.copy_(mine)
        images = torch.rand(2, *shape, generator=generator)
        expected = reference(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(images), expected)


def test_small_convnexts_are_timms() -> None:
    timm = pytest.importorskip("timm")
    for size in ("atto", "femto", "pico", "nano"):
        with torch.device("meta"):
            assert count(build(ConvNeXt(size))) == count(timm.create_model(f"convnext_{size}"))


def test_small_networks_of_the_papers() -> None:
    # Huang et al. 2017, table 2: DenseNet-BC, 100 layers, k = 12: 0.8M; without the norm behind its first convolution.
    dense = build(DenseNet(blocks=(16, 16, 16), growth_rate=12), (3, 32, 32), 10)
    assert count(dense) == 769_162 + 2 * 24
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in dense.modules()) == 100
    assert count(build(VGG(norm=False), (3, 32, 32), 10)) == 132_863_336 - 123_642_856 + 513 * 10
    # Sandler et al. 2018, table 4: MobileNetV2 (1.4) has 6.9M parameters and 585M multiply-adds. The paper's own text
    # keeps the last layer at 1,280 channels below 1, as here; its code and torchvision widen it above.
    model = build(MobileNetV2(1.4))
    assert round(macs(model) / 1e6) == pytest.approx(585, abs=5)


@pytest.mark.parametrize("make", SMALL, ids=repr)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 40)], ids=str)
def test_networks_train_on_small_gray_and_odd_images(make, shape) -> None:
    model = make(shape, 5).to(memory_format=torch.channels_last)
    assert model.training
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    logits = model(images)
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model.eval()(images[:1]).isfinite().all()


@pytest.mark.parametrize("make", SMALL, ids=repr)
def test_models_copy_and_pass_between_stages(make, tmp_path: Path) -> None:
    model = make((1, 16, 16), 3).eval()
    save_model(tmp_path / "model", copy.deepcopy(model), nn.Identity())
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(load_model(tmp_path / "model").model.eval()(images), model(images))


@pytest.mark.parametrize(
    ("make", "ratio"),
    [
        (MobileNetV1(0.125), 2),
        (MobileNetV2(0.1), 2),
        (MobileNetV3(width=0.1), 2),
        (ShuffleNetV2(0.5), 4),
        (DenseNet(blocks=(2, 2), growth_rate=4), 4),
        (ConvNeXt("atto"), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_small_stem_keeps_two_to_four_times_the_pixels(make, ratio: int) -> None:
    shape = (3, 64, 64)
    sides = []
    for small in (True, False):
        model = build(type(make)(**{**vars(make), "small_stem": small}), shape, 5)
        sides.append(last_side(model, shape))
    assert sides[0] == ratio * sides[1]
    # Under 64 pixels, and only there, it comes by itself.
    strides = []
    for side in (63, 64):
        convs = (m for m in build(make, (3, side, side), 5).modules() if isinstance(m, nn.Conv2d))
        strides.append(next(convs).stride[0])
    assert strides[1] == 2 * strides[0]


def test_vgg_leaves_out_pools_that_have_one_pixel_left() -> None:
    for side, pools in ((8, 3), (28, 4), (32, 5), (224, 5)):
        model = build(VGG(width=4), (1, side, side), 10)
        assert sum(isinstance(m, nn.MaxPool2d) for m in model.modules()) == pools


@pytest.mark.parametrize(
    "make", [VGG(16, width=8), MobileNetV1(0.5), MobileNetV2(0.5), MobileNetV3(width=0.5)], ids=repr
)
def test_width_is_scaled_by_the_architecture_slot(make) -> None:
    wider = Width(multiplier=2)(make)
    assert type(wider)(**{**vars(make), "width": 2 * make.width}) == wider
    shape = (3, 32, 32)
    ratio = count(build(wider, shape, 10)) / count(build(make, shape, 10))
    assert 2.3 < ratio < 4


@pytest.mark.parametrize(
    ("change", "make", "reason"),
    [
        (Width(multiplier=0.7), ShuffleNetV2(), "width must be 0.5, 1.0, 1.5 or 2.0, not 0.7: the nearest is 0.5"),
        (Depth(), VGG(), "expected one of 11, 13, 16, 19, got 22"),
        (Depth(multiplier=1.5), DenseNet(), "expected one of 121, 161, 169, 201, got 182"),
    ],
)
def test_what_the_papers_have_not_is_refused(change, make, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        change(make)


def test_wrong_options_say_what_is_right() -> None:
    with pytest.raises(ValueError, match="expected one of 'small', 'large', got 'big'"):
        options_of(MobileNetV3)["size"].check("big")
    with pytest.raises(ValueError, match=r"expected one of '1\.0', '1\.1', got '1_1'"):
        options_of(SqueezeNet)["version"].check("1_1")
    with pytest.raises(ValueError, match="expected a list of one or more integers >= 1, got"):
        options_of(DenseNet)["blocks"].check([])
    with pytest.raises(ValueError, match=r"the nearest is 2\.0"):
        ShuffleNetV2(3.0)


def test_networks_that_shrink_images_to_nothing_say_so() -> None:
    with pytest.raises(Unsupported, match="squeezenet can't take 3 x 8 x 8 images: "):
        SqueezeNet(small_stem=False)((3, 8, 8), 10)
