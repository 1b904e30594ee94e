"""Compiled training steps: what is compiled and when, what is refused, and that results are the eager ones."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn

from cnnbench import cli
from cnnbench.artifact import load_model
from cnnbench.devices import Device
from cnnbench.errors import Unsupported
from cnnbench.execute.patches import Names, torchs
from cnnbench.stages import compiled as module
from cnnbench.stages.compiled import check_compiler, compiled

CPU = Device("cpu")


class Compiler:
    """Stands in for ``torch.compile``: keeps what it is asked for, and the shapes that it would make programs for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[dict[str, Any]] = []
        self.codes: list[object] = []
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, function: Any, **how: Any) -> Any:
        self.asked.append(how)
        self.codes.append(function.__code__)

        def run(*inputs: torch.Tensor) -> Any:
            if self.error is not None:
                raise self.error
            self.shapes.append(tuple(inputs[0].shape))
            return function(*inputs)

        return run


@pytest.fixture
def compiler(monkeypatch) -> Compiler:
    found = Compiler()
    monkeypatch.setattr(torch, "compile", found)
    monkeypatch.setattr(module, "_cpp_compiler", lambda: "g++")
    return found


def test_one_program_for_each_shape_with_the_eager_draws(compiler):
    run = compiled(nn.Identity(), CPU)
    for count in (4, 3, 4):
        assert run(torch.ones(count, 2)).shape == (count, 2)
    (how,) = compiler.asked
    assert how["dynamic"] is False
    assert how["options"]["fallback_random"] is True
    assert not how["options"].get("triton.cudagraphs")


def test_each_training_has_a_code_of_its_own(compiler):
    for _ in range(2):
        compiled(nn.Identity(), CPU)
    assert len({id(code) for code in compiler.codes}) == 2


def test_a_gpu_records_graphs_and_is_told_of_each_step(compiler, monkeypatch):
    steps = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(1))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name == "triton")
    run = compiled(nn.Identity(), Device("cuda", 0))
    run(torch.ones(2))
    run(torch.ones(2))
    assert compiler.asked[0]["options"]["triton.cudagraphs"] is True
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("device", "cpp", "packages", "words"),
    [
        ("mps", "g++", (), "is used on cpu and cuda, not on mps"),
        ("xla", "g++", (), "is used on cpu and cuda, not on xla"),
        ("cpu", None, (), r"needs a C\+\+ compiler"),
        ("cuda", "g++", (), "needs Triton on a GPU"),
    ],
)
def test_where_it_can_t_be_compiled_one_line_says_why(monkeypatch, device, cpp, packages, words):
    monkeypatch.setattr(module, "_cpp_compiler", lambda: cpp)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name in packages or None)
    with pytest.raises(Unsupported, match=words) as caught:
        check_compiler(Device(device))
    assert str(caught.value).startswith("recipe.compiled: ")
    assert "\n" not in str(caught.value)


def test_a_network_that_can_t_be_compiled_is_unsupported(compiler):
    compiler.error = torch._dynamo.exc.BackendCompilerFailed(
        SimpleNamespace(__name__="inductor"), ValueError("no such kernel\nmore"), None
    )
    with pytest.raises(Unsupported, match=r"recipe\.compiled: torch\.compile: ") as caught:
        compiled(nn.Identity(), CPU)(torch.ones(1))
    assert "\n" not in str(caught.value)


def test_an_error_of_the_network_s_own_stays_what_it_is(compiler):
    compiler.error = ValueError("mine")
    with pytest.raises(ValueError, match="mine"):
        compiled(nn.Identity(), CPU)(torch.ones(1))


def run(
    tiny_suite: Any, folder: Any, arms: dict[str, str], batch: int = 64, **top: Any
) -> dict[tuple[str, int], dict[str, Any]]:
    text = tiny_suite(arms, **top).replace("epochs = 1", "epochs = 2")
    (folder / "suite.toml").write_text(text.replace("batch_size = 64", f"batch_size = {batch}"))
    folders = ["--results", str(folder), "--cache", str(folder / "cache"), "--executor", "inline"]
    cli.main(["run", str(folder / "suite.toml"), "--quiet", *folders])
    lines = (folder / "records.jsonl").read_text().splitlines()
    return {(record["arm"], record["seed"]): record for record in map(json.loads, lines)}


def model_of(record: dict[str, Any], folder: Any) -> nn.Module:
    key = record["stages"]["train"]
    return load_model(folder / "cache" / key[:2] / key / "model.pt").model


def test_the_loop_trains_through_it_and_saves_the_network_itself(tiny_suite, tmp_path, compiler):
    arms = {
        "compiled": "{ recipe = { compiled = true } }",
        "both": "{ recipe = { stacked = true, compiled = true } }",
    }
    records = run(tiny_suite, tmp_path, arms, seeds=2)
    assert {record["status"] for record in records.values()} == {"ok"}
    # 180 training images in batches of 64, two epochs: the last batch has a program of its own, and no other has.
    one_network = [(n, 1, 8, 8) for n in (64, 64, 52)] * 2
    as_one = [(n, 2, 1, 8, 8) for n in (64, 64, 52)] * 2
    assert sorted(compiler.shapes) == sorted([*one_network * 2, *as_one])
    assert len(compiler.asked) == 3, "the rehearsals compile nothing"
    for seed in range(2):
        plain, alone, stacked = (model_of(records[arm, seed], tmp_path) for arm in ("baseline", "compiled", "both"))
        assert type(plain) is type(alone) is type(stacked)
        for own, one, two in zip(*(model.state_dict().values() for model in (plain, alone, stacked)), strict=True):
            assert torch.equal(own, one)
            torch.testing.assert_close(own, two, rtol=1e-2, atol=1e-3)


def test_without_a_compiler_the_arm_is_skipped(tiny_suite, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_cpp_compiler", lambda: None)
    records = run(tiny_suite, tmp_path, {"compiled": "{ recipe = { compiled = true } }"})
    assert records["baseline", 0]["status"] == "ok"
    record = records["compiled", 0]
    assert record["status"] == "skipped"
    assert record["reason"].startswith("rehearse: recipe.compiled: torch.compile needs a C++ compiler")


@pytest.mark.parametrize(("function", "expected"), [(F.relu, []), (lambda x: x, ["torch.nn.functional.relu"])])
def test_what_the_compiler_wraps_is_not_taken_for_a_technique_s_doing(monkeypatch, function, expected):
    monkeypatch.setattr(F, "relu", F.relu)  # set back afterwards
    names = Names(torchs())
    F.relu = torch._dynamo.disable(function)
    assert names.put_back() == expected


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiling is most of it
def test_compiled_steps_give_the_eager_weights(tiny_suite, tmp_path):
    arms = {
        "compiled": "{ recipe = { compiled = true } }",
        "dropout": '{ regularizer = "dropout" }',
        "dropout compiled": '{ regularizer = "dropout", recipe = { compiled = true } }',
        "both": "{ recipe = { stacked = true, compiled = true } }",
    }
    records = run(tiny_suite, tmp_path, arms, seeds=2, batch=60)
    assert {record["status"] for record in records.values()} == {"ok"}
    # What the compiler changes in the process is not held against anybody.
    notes = {note for record in records.values() for note in record["details"]["notes"]}
    assert not [note for note in notes if note.startswith("a technique")]
    for eager, other in (("baseline", "compiled"), ("dropout", "dropout compiled"), ("baseline", "both")):
        for seed in range(2):
            pair = [model_of(records[arm, seed], tmp_path) for arm in (eager, other)]
            for one, two in zip(*(model.state_dict().values() for model in pair), strict=True):
                torch.testing.assert_close(one, two, rtol=1e-2, atol=2e-3)
