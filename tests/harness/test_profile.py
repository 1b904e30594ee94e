from __future__ import annotations

import copy
import io
import warnings
import zlib

import pytest
import torch
import torchvision
from torch import nn

from cnnbench import convert
from cnnbench.cli import main
from cnnbench.convert import to_onnx
from cnnbench.options import complete, make
from cnnbench.plugins import PluginHost
from cnnbench.stages.profile import (
    count_flops,
    count_nonzero,
    count_parameters,
    deflated_bytes,
    onnx_bytes,
    profile,
    saved_bytes,
)
from cnnbench.store import open_results
from cnnbench.types import Choice


def _published(name: str) -> tuple[nn.Module, int, float, torch.Tensor]:
    """A torchvision model without storage, its published parameters and multiply-adds (billions), and an input."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    (size,) = weights.transforms().crop_size
    options = {"googlenet": {"aux_logits": False, "init_weights": False}, "inception_v3": {"init_weights": False}}
    # RegNet's constructor computes widths with tensors, which must hold values.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        model = torchvision.models.get_model(name, weights=None, **options.get(name, {})).to("meta")
    example = torch.empty(1, 3, size, size, device="meta")
    return model.eval(), weights.meta["num_params"], weights.meta["_ops"], example


def _agrees(name: str) -> None:
    model, parameters, ops, example = _published(name)
    assert count_parameters(model)["params"] == parameters
    assert count_flops(model, example) / 1e9 == pytest.approx(ops, abs=5.1e-4)  # published to three decimals


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5", "vit_b_16"])
def test_agrees_with_what_torchvision_publishes(name) -> None:
    _agrees(name)


def _small_models() -> list[str]:
    names = torchvision.models.list_models(module=torchvision.models)
    return [n for n in names if torchvision.models.get_model_weights(n).DEFAULT.meta["num_params"] < 100e6]


@pytest.mark.slow
@pytest.mark.parametrize("name", _small_models())
def test_agrees_with_torchvision_on_every_model_below_100m_parameters(name) -> None:
    _agrees(name)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 6 * 6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


EXAMPLE = torch.zeros(5, 1, 8, 8)


def test_by_hand() -> None:
    torch.manual_seed(0)
    model = Small().eval()
    model.conv.weight.requires_grad_(False)
    with torch.no_grad():
        model.conv.weight[0] = 0
    got = profile(model, EXAMPLE)
    parameters = 36 + 8 + 1450
    assert got.metrics["params"] == parameters
    assert got.metrics["params_trainable"] == parameters - 36
    assert got.metrics["params_nonzero"] == parameters - 9 - 4  # also the norm's shifts, which start at 0
    assert got.metrics["flops"] == 36 * 36 + 1440  # one image, whatever the example holds
    assert (got.methods, got.notes) == ({}, [])
    assert count_nonzero(model) == got.metrics["params_nonzero"]


def test_a_shared_weight_counts_once() -> None:
    layer = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(layer, layer))["params"] == 12


def test_size_is_that_of_the_file(tmp_path) -> None:
    model = Small()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    # An archive writes its own name into every member's; nothing else differs.
    assert saved_bytes(model) == pytest.approx((tmp_path / "model.pt").stat().st_size, abs=200)
    assert saved_bytes(model) > 4 * 1494


def test_a_view_counts_without_the_storage_behind_it() -> None:
    model = nn.Linear(4, 4, bias=False)
    alone = saved_bytes(model)
    model.weight = nn.Parameter(torch.zeros(1000, 4)[:4])
    assert saved_bytes(model) == alone


def test_deflated_size_is_zlibs_of_the_raw_tensors() -> None:
    torch.manual_seed(0)
    model = Small()
    raw = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
    assert deflated_bytes(model) == len(zlib.compress(raw, 6))


def test_zeros_shrink_the_deflated_size_alone() -> None:
    torch.manual_seed(0)
    dense = Small()
    sparse = copy.deepcopy(dense)
    with torch.no_grad():
        sparse.head.weight[torch.rand(10, 144) < 0.9] = 0
    assert deflated_bytes(sparse) < 0.3 * deflated_bytes(dense)
    assert saved_bytes(sparse) == saved_bytes(dense)
    assert count_flops(sparse, EXAMPLE[:1]) == count_flops(dense, EXAMPLE[:1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8, torch.bool])
def test_every_type_can_be_deflated(dtype) -> None:
    model = nn.Module()
    model.register_buffer("values", torch.zeros(1000).to(dtype))
    assert deflated_bytes(model) == len(zlib.compress(bytes(1000 * dtype.itemsize), 6))


def test_sparse_and_scalar_state_can_be_deflated() -> None:
    model = nn.Module()
    model.register_buffer("scalar", torch.tensor(1.5))
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    assert deflated_bytes(model) > 0


def test_a_nominal_size_is_said_to_be_one() -> None:
    model = Small()
    model.deployed_bytes = 123
    got = profile(model, EXAMPLE)
    assert got.metrics["size_bytes"] == 123
    assert got.methods == {"size_bytes": "nominal"}


class Fused(nn.Module):
    """A model whose arithmetic the counter does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1)[:, :4, None] * self.weight).sum(1)


def test_what_cannot_be_counted_is_absent_with_a_note() -> None:
    got = profile(Fused(), EXAMPLE)
    assert "flops" not in got.metrics
    assert got.notes == ["multiply-adds: Fused runs operators that can't be counted"]


def test_what_cannot_be_counted_may_say_what_it_came_from() -> None:
    model = Fused()
    model.flops_of_source = 16
    got = profile(model, EXAMPLE)
    assert got.metrics["flops"] == 16
    assert got.notes == []


def test_a_model_without_products_computes_none() -> None:
    got = profile(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)).eval(), EXAMPLE)
    assert got.metrics["flops"] == 0


def test_attention_is_counted_and_the_fast_path_restored() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    tokens = 5
    projections = tokens * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 16)
    scores = 2 * tokens * tokens * 8
    example = torch.zeros(1, tokens, 8)
    for enabled in (True, False):
        torch.backends.mha.set_fastpath_enabled(enabled)
        try:
            assert count_flops(layer, example) == projections + scores
            assert torch.backends.mha.get_fastpath_enabled() is enabled
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def test_profiling_leaves_the_model_as_it_was() -> None:
    model = Small().eval()
    before = io.BytesIO()
    torch.save(model, before)
    profile(model, EXAMPLE)
    after = io.BytesIO()
    torch.save(model, after)
    assert after.getvalue() == before.getvalue()


def test_onnx_size_is_that_of_the_file_that_export_writes(tmp_path) -> None:
    pytest.importorskip("onnxscript")
    model = Small().eval()
    to_onnx(model, EXAMPLE, tmp_path / "model.onnx")
    got = profile(model, EXAMPLE[:1], onnx=True)
    assert got.metrics["size_onnx_bytes"] == (tmp_path / "model.onnx").stat().st_size > 4 * 1494
    assert got.notes == []


def test_onnx_size_is_not_taken_unless_asked_for(monkeypatch) -> None:
    monkeypatch.setattr("cnnbench.stages.profile.to_onnx", None)
    assert "size_onnx_bytes" not in profile(Small().eval(), EXAMPLE).metrics


def test_without_onnx_the_note_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(convert, "find_spec", lambda name: None)
    got = profile(Small().eval(), EXAMPLE, onnx=True)
    assert "size_onnx_bytes" not in got.metrics
    assert got.notes == ["ONNX size: needs onnx, which is not installed: pip install 'cnnbench[onnx]'"]


def test_a_suite_that_asks_for_it_gets_the_onnx_size(tmp_path, tiny_suite) -> None:
    pytest.importorskip("onnxscript")
    suite = tmp_path / "small.toml"
    suite.write_text(tiny_suite({}, ("size_onnx",)), encoding="utf-8")
    folders = ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache")]
    assert main(["run", str(suite), *folders, "--executor", "inline", "--quiet"]) == 0
    (record,) = open_results(tmp_path / "results").records
    assert record["metrics"]["size_onnx_bytes"] > 4 * record["metrics"]["params"]


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


def test_what_has_no_onnx_form_is_absent_with_a_note() -> None:
    pytest.importorskip("onnxscript")
    got = profile(Branching().eval(), EXAMPLE, onnx=True)
    assert "size_onnx_bytes" not in got.metrics
    (note,) = got.notes
    assert note.startswith("ONNX size: torch.export can't trace Branching: ")
    assert "\n" not in note


def test_int8_takes_a_quarter_on_disk_and_in_onnx() -> None:
    pytest.importorskip("torchao")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 256, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(256, 10)).eval()
    images = torch.rand(64, 1, 8, 8)
    registry = PluginHost.discover().registry
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's own, where it is imported first
        int8 = make(complete(Choice("compressor", "quantize_ptq"), registry), registry)(model, _Context(images))
    before, after = profile(model, images, onnx=True).metrics, profile(int8, images, onnx=True).metrics
    weights = sum(p.numel() for p in model.parameters())
    for key in ("size_bytes", "size_onnx_bytes"):
        assert before[key] > 4 * weights
        assert weights < after[key] < 0.3 * before[key], key
    assert onnx_bytes(int8, images) == after["size_onnx_bytes"]


class _Context:
    """As much of a compressor's context as calibration reads."""

    device = torch.device("cpu")

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def calibration(self, count: int) -> torch.Tensor:
        return self.images[:count]
