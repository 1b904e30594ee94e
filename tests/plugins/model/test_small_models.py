from __future__ import annotations

import pickle
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cnnbench_plugins.model.lenet import LeNet
from cnnbench_plugins.model.plain import Plain
from cnnbench_plugins.model.resnet import ResNet

SHAPES = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (3, 20, 33)]
MODELS = [
    LeNet(),
    Plain(1),
    Plain(2),
    Plain(9, width=4),
    Plain(7, norm=False),
    ResNet(),
    ResNet(14, width=4, shortcut="pad"),
    ResNet(residual=False),
]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def names(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("make", MODELS, ids=repr)
def test_finite_logits_and_gradients(make: LeNet | Plain | ResNet, shape: tuple[int, int, int]) -> None:
    model = make(shape, 7)
    logits = model(torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("make", MODELS, ids=repr)
def test_every_module_is_called_once_and_no_activation_functionally(make: LeNet | Plain | ResNet) -> None:
    model, calls = make((3, 32, 32), 10), Counter[str]()
    leaves = [name for name, module in model.named_modules() if not list(module.children())]
    for name in leaves:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.update([name]))
    model(torch.rand(2, 3, 32, 32))
    assert set(calls.values()) == {1}
    assert set(calls) == set(leaves)
    traced = torch.fx.symbolic_trace(model)
    functions = {node.target.__name__ for node in traced.graph.nodes if node.op == "call_function"}
    assert functions <= {"add", "getitem", "pad"}
    assert ("pad" in functions) == (getattr(make, "shortcut", "") == "pad")
    assert not [node for node in traced.graph.nodes if node.op == "call_method"]


@pytest.mark.parametrize("make", MODELS, ids=repr)
def test_no_bias_before_batch_norm_and_pickles(make: LeNet | Plain | ResNet) -> None:
    model = make((1, 28, 28), 10).eval()
    modules = list(model.modules())
    has_norm = any(isinstance(module, nn.BatchNorm2d) for module in modules)
    for module in modules:
        if isinstance(module, nn.Conv2d):
            assert (module.bias is None) == has_norm
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), model(images))


@pytest.mark.parametrize("make", [LeNet(), Plain(), ResNet()], ids=repr)
def test_weights_come_from_the_default_generator_alone(make: LeNet | Plain | ResNet) -> None:
    built = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            built.append(make((1, 8, 8), 10).state_dict())
    for name, value in built[0].items():
        assert torch.equal(value, built[1][name]), name


@pytest.mark.parametrize(("shape", "expected"), [((1, 32, 32), 61_706), ((1, 28, 28), 61_706), ((3, 32, 32), 62_006)])
def test_lenet_has_the_papers_parameters(shape: tuple[int, int, int], expected: int) -> None:
    assert count(LeNet()(shape, 10)) == expected


def test_lenet_at_8x8() -> None:
    # 8 -> 4 -> 2 pixels, so 16 * 4 features.
    expected = (25 + 1) * 6 + (25 * 6 + 1) * 16 + (64 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert count(LeNet()((1, 8, 8), 10)) == expected


@settings(deadline=None, max_examples=15)
@given(depth=st.integers(1, 33), width=st.integers(1, 6), norm=st.booleans(), channels=st.sampled_from([1, 3]))
def test_plain_parameters(depth: int, width: int, norm: bool, channels: int) -> None:
    model = Plain(depth, width, norm)((channels, 28, 28), 10)
    expected, before = 0, channels
    for layer in range(depth):
        short, rest = divmod(depth, 3)
        ends = [short + (rest > 0), 2 * short + (rest > 0) + (rest > 1)]
        after = width * (1 if layer < ends[0] else 2 if layer < ends[1] else 4)
        expected += 9 * before * after + (2 if norm else 1) * after
        before = after
    assert count(model) == expected + (before + 1) * 10
    assert len(names(model, nn.Conv2d)) == len(names(model, nn.ReLU)) == depth
    assert len(names(model, nn.BatchNorm2d)) == (depth if norm else 0)


def resnet_count(depth: int, width: int, channels: int, classes: int, *, projection: bool) -> int:
    n, w = (depth - 2) // 6, width
    convolutions = 9 * (channels * w + 2 * n * w * w)
    convolutions += 9 * (w * 2 * w + (2 * n - 1) * 4 * w * w)
    convolutions += 9 * (2 * w * 4 * w + (2 * n - 1) * 16 * w * w)
    norms = 2 * (w + 2 * n * w + 2 * n * 2 * w + 2 * n * 4 * w)
    shortcuts = (w * 2 * w + 2 * 2 * w + 2 * w * 4 * w + 2 * 4 * w) if projection else 0
    return convolutions + norms + shortcuts + (4 * w + 1) * classes


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_resnet_parameters(depth: int, shortcut: str) -> None:
    model = ResNet(depth, 16, shortcut=shortcut)((3, 32, 32), 10)
    assert count(model) == resnet_count(depth, 16, 3, 10, projection=shortcut == "projection")
    main = [name for name in (*names(model, nn.Conv2d), *names(model, nn.Linear)) if "shortcut" not in name]
    assert len(main) == depth


def test_resnet20_has_the_papers_parameters() -> None:
    assert count(ResNet(20, 16, shortcut="pad")((3, 32, 32), 10)) == 269_722
    assert count(ResNet(20, 16, residual=False)((3, 32, 32), 10)) == 269_722
    assert count(ResNet(20, 16)((3, 32, 32), 10)) == 272_474


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_a_block_whose_last_norm_is_zero_passes_its_shortcut_on(shortcut: str) -> None:
    model = ResNet(14, 4, shortcut=shortcut)((3, 16, 16), 10).eval()
    block = model.get_submodule("stage2.0")
    nn.init.zeros_(block.norm2.weight)
    images = torch.rand(2, 4, 16, 16)
    out = block(images)
    assert out.shape == (2, 8, 8, 8)
    if shortcut == "pad":
        assert torch.equal(out[:, :4], images[:, :, ::2, ::2])
        assert not out[:, 4:].any()
    else:
        assert torch.equal(out, block.shortcut(images).relu())


def test_without_residuals_nothing_is_added() -> None:
    traced = torch.fx.symbolic_trace(ResNet(residual=False)((1, 8, 8), 10))
    assert not [node for node in traced.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(("depth", "message"), [(10, "nearest are 8 and 14"), (19, "nearest are 14 and 20")])
def test_resnet_depth_is_6n_plus_2(depth: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"6n \\+ 2, not {depth}: the {message}"):
        ResNet(depth)
