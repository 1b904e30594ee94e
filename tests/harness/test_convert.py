from __future__ import annotations

import copy
import importlib
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cnnbench import convert
from cnnbench.convert import to_onnx, to_program, to_pt2
from cnnbench.errors import MissingDependency, Unsupported

ort = pytest.importorskip("onnxruntime")
EXAMPLE = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


def small() -> nn.Module:
    torch.manual_seed(0)
    model = Small()
    for _ in range(3):
        model(torch.randn(16, 1, 8, 8))  # so that the norm's statistics are not those it starts from
    return model.eval()


def served(path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def agrees(model: nn.Module, path, shape: tuple[int, ...] = (1, 8, 8)) -> None:
    session = served(path)
    for count in (1, 3, 8):
        images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            wanted = model(images).numpy()
        (got,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


def test_onnx_agrees_with_eager_at_any_batch_size(tmp_path) -> None:
    to_onnx(small(), EXAMPLE, tmp_path / "model.onnx")
    agrees(small(), tmp_path / "model.onnx")


def test_onnx_is_one_file_with_named_ends_and_a_free_batch(tmp_path) -> None:
    to_onnx(small(), EXAMPLE, tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = served(tmp_path / "model.onnx")
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("images", ["batch", 1, 8, 8])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("logits", ["batch", 10])]


def test_a_program_agrees_with_eager_at_any_batch_size() -> None:
    program = to_program(small(), EXAMPLE[:1]).module()
    for count in (1, 3, 8):
        images = torch.rand(count, 1, 8, 8)
        torch.testing.assert_close(program(images), small()(images))


def test_the_model_stays_as_it_was(tmp_path) -> None:
    model = small()
    model.drop.train()  # an odd one out must not be put right either
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    grads = [p.requires_grad for p in model.parameters()]
    to_onnx(model, EXAMPLE, tmp_path / "model.onnx")
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == grads
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_files_hold_neither_paths_of_this_machine_nor_the_images(tmp_path) -> None:
    images = torch.full((2, 1, 8, 8), 0.123456)
    to_onnx(small(), images, tmp_path / "model.onnx")
    to_pt2(small(), images, tmp_path / "model.pt2")
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert str(Path(__file__).parent).encode() not in content
        assert str(Path(convert.__file__).parent).encode() not in content
        assert images.numpy().tobytes()[:64] not in content


def test_an_onnx_file_is_hardly_larger_than_the_weights(tmp_path) -> None:
    to_onnx(small(), EXAMPLE, tmp_path / "model.onnx")
    weights = 4 * sum(tensor.numel() for tensor in small().parameters())
    assert (tmp_path / "model.onnx").stat().st_size < weights + 2000


def test_nothing_is_said(tmp_path, capfd, recwarn, caplog) -> None:
    to_onnx(small(), EXAMPLE, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert list(recwarn) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Brain(nn.Module):
    """Computes in a type that ONNX's convolution lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3).to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.to(torch.bfloat16)).float().flatten(1)


class Inverse(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x[:, 0])


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (Branching(), "torch.export can't trace Branching: "),
        (Brain(), "Brain can't be written as ONNX: "),
        (Inverse(), "Inverse can't be written as ONNX: "),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(model, wanted, tmp_path) -> None:
    with pytest.raises(Unsupported) as caught:
        to_onnx(model.eval(), EXAMPLE, tmp_path / "model.onnx")
    assert str(caught.value).startswith(wanted)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_said_with_its_install_line(package, monkeypatch, tmp_path) -> None:
    found = convert.find_spec
    monkeypatch.setattr(convert, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(MissingDependency, match=rf"needs {package}, .*pip install 'cnnbench\[onnx\]'"):
        to_onnx(small(), EXAMPLE, tmp_path / "model.onnx")


def test_a_network_with_a_part_called_graph_can_be_exported(tmp_path) -> None:
    model = nn.Module()
    model.graph = small()
    model.forward = model.graph.forward
    to_onnx(model.eval(), EXAMPLE, tmp_path / "model.onnx")
    agrees(model, tmp_path / "model.onnx")


class Rounds(nn.Module):
    """Rounds to int8 and back by the operators that quantizers leave in a graph, ranges taken from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(-8, 8, dtype=torch.int8).view(4, 4), requires_grad=False)
        self.scales = nn.Parameter(torch.tensor([0.5, 0.25, 0.125, 1.0]))
        self.zero_points = nn.Parameter(torch.tensor([0, 1, -2, 3]), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ops = torch.ops.quantized_decomposed
        scale, zero = ops.choose_qparams.tensor(x, 0, 255, 1e-7, torch.uint8)
        x = ops.quantize_per_tensor.tensor(x, scale, zero, 0, 255, torch.uint8)
        x = ops.dequantize_per_tensor.tensor(x, scale, zero, 0, 255, torch.uint8)
        x = ops.quantize_per_tensor(x, 0.013, 7, 0, 255, torch.uint8)
        x = ops.dequantize_per_tensor(x, 0.013, 7, 0, 255, torch.uint8)
        channels = (self.weight, self.scales, self.zero_points, 0, -128, 127, torch.int8)
        return x.flatten(1)[:, :4] @ ops.dequantize_per_channel(*channels)


LOADED = """
import sys, torch
images, wanted = torch.load(sys.argv[2])
assert not hasattr(torch.ops.quantized_decomposed, "choose_qparams")
got = torch.export.load(sys.argv[1]).module()(images)
torch.testing.assert_close(got, wanted, rtol=0, atol=0)
"""


@pytest.mark.slow
def test_a_pt2_file_needs_no_operators_of_quantizers(tmp_path) -> None:
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers them
    model = Rounds().eval()
    to_pt2(model, EXAMPLE, tmp_path / "model.pt2")
    images = torch.linspace(-1, 2, 5 * 64).view(5, 1, 8, 8)
    torch.save((images, model(images).detach()), tmp_path / "wanted.pt")
    done = subprocess.run(
        [sys.executable, "-c", LOADED, tmp_path / "model.pt2", tmp_path / "wanted.pt"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
