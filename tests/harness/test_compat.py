"""Which techniques act on which models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnbench.cli import main
from cnnbench.compat import candidates, parse_model, random_splits, try_technique
from cnnbench.devices import Device
from cnnbench.errors import Unsupported, UsageError
from cnnbench.options import complete, make
from cnnbench.plugins import PluginHost
from cnnbench.registry import Owner, Registry
from cnnbench.technique import technique
from cnnbench.types import Choice

DOCS = Path(__file__).parents[2] / "docs"
CPU = Device("cpu")
SPLITS = random_splits((1, 16, 16), 4)


@technique("compressor", "refuses")
class Refuses:
    """Can't act."""

    def __call__(self, model: nn.Module, context: Any) -> nn.Module:
        raise Unsupported("no such layer")


@technique("compressor", "breaks")
class Breaks:
    """Has a bug."""

    def __call__(self, model: nn.Module, context: Any) -> nn.Module:
        raise RuntimeError("a\nbug")


@pytest.fixture(scope="module")
def registry() -> Registry:
    own = PluginHost.discover().registry
    for cls in (Refuses, Breaks):
        own.add(cls, Owner("test", "test", "0"))
    return own


@pytest.fixture
def own(registry, monkeypatch) -> Choice:
    monkeypatch.syspath_prepend(str(DOCS))
    return parse_model("own_model:make", registry)


@pytest.mark.parametrize(
    ("slot", "name", "status", "reason"),
    [
        ("norm", "group", "works", ""),
        ("activation", "silu", "no effect", "F.relu (4 calls"),
        ("pooling", "avg", "no effect", "F.max_pool2d"),
        ("initializer", "zero_gamma", "works", ""),
        ("strategy", "transfer", "works", ""),
        ("strategy", "swa", "works", ""),
        ("compressor", "svd", "works", ""),
        ("compressor", "refuses", "unsupported", "no such layer"),
        ("compressor", "breaks", "fails", "RuntimeError: a bug"),
    ],
)
def test_each_status_with_its_reason(registry, own, slot, name, status, reason):
    (technique,) = (choice for choice in candidates(registry, (slot,)) if choice.name == name)
    verdict = try_technique(technique, own, "own", SPLITS, registry, CPU)
    assert verdict.status == status
    assert reason in verdict.reason
    assert "\n" not in verdict.reason
    assert bool(verdict.reason) == (status != "works")


def test_functional_calls_beside_modules_are_told_in_part(registry):
    model = parse_model("densenet121", registry)
    verdict = try_technique(
        complete(Choice("activation", "silu"), registry), model, "d", random_splits((3, 32, 32), 3), registry, CPU
    )
    assert verdict.status == "in part"
    assert "F.relu" in verdict.reason


def test_models_by_the_names_that_people_use(registry, own):
    assert parse_model("resnet", registry).name == "resnet"
    assert parse_model("regnet_x_400mf", registry).options["arch"] == "regnet_x_400mf"
    assert own.options["target"] == "own_model:make"
    with pytest.raises(UsageError, match="did you mean 'resnet'"):
        parse_model("resnot", registry)


def test_every_technique_that_needs_nothing_of_the_user_s_is_tried(registry):
    found = {(choice.slot, choice.name): choice for choice in candidates(registry)}
    assert found["compressor", "distill"].options["student"]["name"] == "plain"
    assert found["strategy", "transfer"].options["source"]["name"] == "shapes"
    for choice in found.values():
        make(choice, registry)
    assert ("model", "resnet") not in found
    assert ("augmentation", "hflip") not in found
    slots = {slot for slot, _ in found}
    assert {"norm", "regularizer", "strategy", "architecture"} <= slots
    norms = {choice.name for choice in candidates(registry, ("norm",))}
    assert norms == {*registry.names("norm")} - {"timm"}, "which needs the name of a layer"


def test_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DOCS))
    file = tmp_path / "table.md"
    code = main(["compat", "own_model:make", "--slot", "norm", "--image", "1x16x16", "--output", str(file)])
    assert code == 0
    assert "| `batch` | ✓ |" in file.read_text(encoding="utf-8")
    assert "norm group on own_model:make: works" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["resnet", "--slot", "nrom"], "unknown slot 'nrom': did you mean 'norm'?"),
        (["resnet", "--image", "64"], "--image: expected CxHxW"),
        (["resnet", "--classes", "1"], "--classes: expected at least 2"),
        (["resnot"], "did you mean 'resnet'?"),
    ],
)
def test_mistakes_are_one_line(capsys, options, message):
    assert main(["compat", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_random_images_are_the_same_every_time():
    assert torch.equal(random_splits((3, 8, 8), 5).train_images, random_splits((3, 8, 8), 5).train_images)
    assert SPLITS.num_classes == 4
