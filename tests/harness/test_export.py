"""A small run, then its networks handed over in every format and read again by processes without cnnbench."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.cli import main
from cnnbench.errors import UsageError
from cnnbench.execute.cache import StageCache
from cnnbench.export import Deployed, choose, default_folder, hand_over, model_file, rebuild
from cnnbench.frame import current
from cnnbench.options import complete
from cnnbench.plugins import PluginHost
from cnnbench.store import open_results
from cnnbench.types import Choice

ARMS = {
    "SiLU": '{ activation = "silu" }',
    "half the filters": '{ compressor = { name = "prune_filters" } }',
    "int8 | *": '{ compressor = { name = "quantize_ptq" } }',
    "4 bits": '{ compressor = { name = "quantize_weights", bits = 4 } }',
}
FORMATS = ("onnx", "pt2", "state_dict")
IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))

# What a reader without cnnbench does: its import is refused.
READER = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import numpy as np
images = np.load("images.npy")
{load}
np.save("logits.npy", logits)
"""
LOAD = {
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], {"images": images})
""",
    "pt2": """
import torch
logits = torch.export.load("model.pt2").module()(torch.from_numpy(images)).detach().numpy()
""",
}
REFUSED = {
    "onnx": ("cnnbench", "cnnbench_plugins", "torch", "torchao", "onnx"),
    "pt2": ("cnnbench", "cnnbench_plugins", "torchao"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_suite) -> Path:
    """A folder with ``results`` and ``cache`` of a finished run."""
    pytest.importorskip("torchao")
    pytest.importorskip("torch_pruning")
    folder = tmp_path_factory.mktemp("run")
    suite = folder / "small.toml"
    text = tiny_suite(ARMS, ("accuracy", "params", "size"), seeds=2)
    suite.write_text(f'{text}[baseline]\ninput = "z_score"\n', encoding="utf-8")
    common = ["--results", str(folder / "results"), "--cache", str(folder / "cache"), "--executor", "inline", "--quiet"]
    assert main(["run", str(suite), *common]) == 0
    return folder


def export(run: Path, arm: str, form: str, output: Path, *more: str) -> int:
    given = ["--arm", arm, "--format", form, "--output", str(output), "--cache", str(run / "cache")]
    return main(["export", str(run / "results"), *given, *more])


def trained(run: Path, arm: str, seed: int = 0) -> nn.Module:
    """The network of a trial, straight from the cache."""
    record = choose(current(open_results(run / "results").records), arm, seed)
    artifact = load_model(model_file(record, StageCache(run / "cache")))
    return nn.Sequential(artifact.input, artifact.model).eval()


def outputs(network: nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return network(images).numpy()


def _quick_or_slow():
    quick = {("SiLU", "onnx"), ("int8 | *", "pt2")}
    for pair in itertools.product(ARMS, ("onnx", "pt2")):
        yield pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow)


@pytest.mark.parametrize(("arm", "form"), list(_quick_or_slow()))
def test_a_process_without_cnnbench_gets_the_same_outputs(run, arm, form, tmp_path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    assert export(run, arm, form, tmp_path / "out") == 0
    np.save(tmp_path / "out" / "images.npy", IMAGES.numpy())
    code = READER.format(refused=REFUSED[form], load=LOAD[form])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    wanted = outputs(trained(run, arm), IMAGES)
    # A runtime that computes in int8 may round a value that lies between two steps to the other one.
    near = 0.05 if (arm, form) == ("int8 | *", "onnx") else 1e-4
    np.testing.assert_allclose(np.load(tmp_path / "out" / "logits.npy"), wanted, atol=near * np.abs(wanted).max())


def test_int8_weights_stay_int8_in_the_files(run, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    export(run, "int8 | *", "onnx", tmp_path / "onnx")
    export(run, "int8 | *", "pt2", tmp_path / "pt2")
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    weights = [w for w in model.graph.initializer if len(w.dims) == 4 and w.dims[0] > 1]
    assert {w.data_type for w in weights} == {onnx.TensorProto.INT8}
    state = torch.export.load(tmp_path / "pt2" / "model.pt2").state_dict
    assert {w.dtype for name, w in state.items() if w.dim() == 4 and len(w) > 1} == {torch.int8}


def test_a_state_dict_makes_the_network_again(run, tmp_path) -> None:
    assert export(run, "SiLU", "state_dict", tmp_path / "out") == 0
    state = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert {type(value) for value in state.values()} == {torch.Tensor}
    network = rebuild(tmp_path / "out" / "settings.json", tmp_path / "out" / "model.pt")
    np.testing.assert_allclose(outputs(network, IMAGES), outputs(trained(run, "SiLU"), IMAGES), atol=1e-6)


@pytest.mark.parametrize("arm", ["half the filters", "int8 | *"])
def test_layers_that_a_compressor_made_are_said_to_be_more_than_tensors(run, arm, tmp_path) -> None:
    assert export(run, arm, "state_dict", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "other layers than the settings make" in card
    assert "rebuild" not in card
    state = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    network = trained(run, arm)
    assert sum(v.numel() for v in state.values()) == sum(v.numel() for v in network.state_dict().values())


@pytest.mark.parametrize("form", FORMATS)
def test_the_cards_python_runs(run, form, tmp_path, monkeypatch) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    export(run, "SiLU", form, tmp_path / "out")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(code, names)
    blank = torch.zeros(2, 1, 8, 8)
    got = np.asarray(names["logits"].detach() if isinstance(names["logits"], torch.Tensor) else names["logits"])
    np.testing.assert_allclose(got, outputs(trained(run, "SiLU"), blank), atol=1e-5)


def test_the_card_says_what_it_is_and_what_was_measured(run, tmp_path, capsys) -> None:
    export(run, "int8 | *", "state_dict", tmp_path / "out", "--seed", "1")
    printed = capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    record = choose(current(open_results(run / "results").records), "int8 | *", 1)
    assert card.startswith("---\nlibrary_name: pytorch\n")
    assert r"# small: int8 \| \*, seed 1" in card
    assert "resnet(depth=8, width=4)" in card or "resnet(width=4)" in card
    assert "quantize\\_ptq" in card
    assert "float32 [N, 1, 8, 8]" in card
    assert "classes in order: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in card
    assert "Technique, input**: z\\_score" in card
    assert re.search(r"\| size \| [\d.]+( ± [\d.]+)? KiB( [▲▼])? \|", card)
    assert f"| {100 * record['metrics']['accuracy']:.1f} % |" in card
    assert record["suite"]["sha256"] in card
    assert "same class for 100 %" in card
    assert "largest difference 0 " in printed
    assert "compared with the trained network on 100 test images" in printed
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["settings"] == record["settings"]
    assert settings["class_names"] == [str(k) for k in range(10)]


def test_a_simulated_format_is_not_sold_as_small(run, tmp_path) -> None:
    export(run, "4 bits", "pt2", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "4-bit weights are simulated here" in card
    assert "nominal" in card


def test_a_damaged_file_is_noticed(run, tmp_path, capsys, monkeypatch) -> None:
    def worse(deployed: Deployed, example: torch.Tensor, path: Path) -> None:
        other = Deployed(deployed.input, nn.Sequential(deployed.network, nn.Hardtanh(-0.01, 0.0)))
        real(other.eval(), example, path)

    from cnnbench import export as module

    real = module.to_pt2
    monkeypatch.setattr(module, "to_pt2", worse)
    export(run, "SiLU", "pt2", tmp_path / "out")
    assert "look at that comparison" in capsys.readouterr().err


def fails(capsys, code: int) -> str:
    assert code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_mistakes_are_one_line_with_the_nearest_right_name(run, tmp_path, capsys) -> None:
    assert "unknown arm 'SiLu': did you mean 'SiLU'?" in fails(capsys, export(run, "SiLu", "pt2", tmp_path / "out"))
    assert "unknown format 'onx': did you mean 'onnx'?" in fails(capsys, export(run, "4 bits", "onx", tmp_path / "out"))
    assert "no seed 7, but 0, 1" in fails(capsys, export(run, "4 bits", "pt2", tmp_path / "out", "--seed", "7"))
    assert "which arm? Here are 'baseline', 'SiLU'" in fails(capsys, main(["export", str(run / "results")]))
    assert not (tmp_path / "out").exists()


def test_an_earlier_export_is_not_overwritten(run, tmp_path, capsys) -> None:
    assert export(run, "SiLU", "state_dict", tmp_path / "out") == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert "is there already" in fails(capsys, export(run, "baseline", "pt2", tmp_path / "out"))
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_model_that_the_cache_lost_comes_back_by_the_command_named(run, tmp_path, capsys, monkeypatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = choose(current(open_results(copy / "results").records), "SiLU", 0)
    shutil.rmtree(StageCache(copy / "cache").folder(record["stages"]["train"]))
    line = fails(capsys, export(copy, "SiLU", "state_dict", tmp_path / "out"))
    command = shlex.split(line.split("make the model again: ")[1])
    monkeypatch.chdir(copy)
    assert main([*command[1:], "--executor", "inline", "--quiet"]) == 0
    assert export(copy, "SiLU", "state_dict", tmp_path / "out") == 0
    network = rebuild(tmp_path / "out" / "settings.json", tmp_path / "out" / "model.pt")
    np.testing.assert_allclose(outputs(network, IMAGES), outputs(trained(run, "SiLU"), IMAGES), atol=1e-5)


def trial(arm: str, seed: int, status: str = "ok", **more: Any) -> dict[str, Any]:
    record = {"key": f"{arm}{seed}", "arm": arm, "role": "baseline" if arm == "baseline" else "arm", "seed": seed}
    planned = {"arms": ["baseline", "a"], "seeds": [0, 1]}
    return {**record, "status": status, "planned": planned, "suite": {"name": "s", "file": "s.toml"}, **more}


def test_the_first_seed_that_is_ok_is_taken_and_never_the_best() -> None:
    scored = [trial("a", 0, "crashed", reason="killed"), trial("a", 1, metrics={"accuracy": 0.1})]
    assert choose(current(scored), "a", None)["seed"] == 1
    best_last = [trial("a", 0, metrics={"accuracy": 0.1}), trial("a", 1, metrics={"accuracy": 0.9})]
    assert choose(current(best_last), "a", None)["seed"] == 0
    with pytest.raises(UsageError, match="arm 'a', seed 0 is crashed: killed"):
        choose(current(scored), "a", 0)
    with pytest.raises(UsageError, match=r"arm 'baseline', seed 0 has not run yet: run s\.toml to its end"):
        choose(current(scored), "baseline", None)


def test_without_the_dataset_random_images_are_compared(run, tmp_path) -> None:
    """The model's own notes then tell its input shape and classes."""
    trials = current(open_results(run / "results").records)
    record = dict(choose(trials, "baseline", 0))
    artifact = load_model(model_file(record, StageCache(run / "cache")))
    gone = {"slot": "dataset", "name": "folder", "options": {"path": str(tmp_path / "gone")}}
    registry = PluginHost.discover().registry
    gone = complete(Choice.from_plain(gone), registry).plain()
    record["settings"] = {**record["settings"], "dataset": gone}
    notes = {"image_shape": [1, 8, 8], "class_names": [str(k) for k in range(10)]}
    save_model(tmp_path / "told.pt", artifact.model, artifact.input, notes)
    save_model(tmp_path / "untold.pt", artifact.model, artifact.input)
    made = hand_over([record], record, tmp_path / "told.pt", "pt2", tmp_path / "out", registry)
    assert "256 random images" in made.check.images
    assert made.check.close
    with pytest.raises(UsageError, match="input shape is not known without its dataset"):
        hand_over([record], record, tmp_path / "untold.pt", "pt2", tmp_path / "other", registry)


def test_names_become_folders_that_any_system_takes() -> None:
    record = {"arm": "50 %: a/b", "seed": 3, "suite": {"name": "my suite"}}
    assert default_folder(record, "onnx") == Path("exports/my-suite/50-a-b-seed3-onnx")
    assert default_folder({"arm": "..", "seed": 0}, "pt2").parts[:2] == ("exports", "results")
