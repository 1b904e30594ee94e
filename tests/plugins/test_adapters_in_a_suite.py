"""Other packages' techniques from a suite's text to its records, with the guards of faults.md looking on."""

from __future__ import annotations

import importlib.util

import pytest

from cnnbench.plugins import PluginHost
from cnnbench.progress import make_progress
from cnnbench.runner import RunOptions, run_suite
from cnnbench.suite import parse
from cnnbench.technique import Requirement

pytest.importorskip("timm")
pytest.importorskip("kornia")
pytest.importorskip("torch_pruning")

SUITE = """
question = "Do other packages' techniques go all the way?"
dataset = { name = "digits", train_size = 40, test_size = 50, validation = 0.3 }
model = { name = "resnet", depth = 8, width = 8 }
seeds = 1
device = "cpu"

[recipe]
epochs = 1
batch_size = 16

[arms]
"norm" = { norm = { name = "timm", layer = "evonorms0", options = { groups = 4 } } }
"activation" = { activation = { name = "timm", layer = "hard_mish" } }
"dropblock" = { regularizer = { name = "timm_dropblock", p = 0.3, block_size = 2 } }
"rotation" = { augmentation = { name = "kornia", transform = "RandomRotation", options = { degrees = 30.0 } } }
"pruned" = { compressor = { name = "torch_pruning", epochs = 0 } }

[measure]
metrics = ["accuracy", "nll", "params"]
"""


def records_of(text, tmp_path):
    host = PluginHost.discover()
    suite = parse(text.encode(), str(tmp_path / "suite.toml"), host.registry)
    options = RunOptions(results=tmp_path / "results", cache=tmp_path / "cache", executor="inline")
    return {record["arm"]: record for record in run_suite(suite, host, options, make_progress(quiet=True)).records}


@pytest.mark.slow
def test_every_arm_trains_differs_and_leaves_the_process_as_it_was(tmp_path):
    records = records_of(SUITE, tmp_path)
    assert {arm: record["reason"] for arm, record in records.items()} == dict.fromkeys(records)
    notes = {arm: record["details"].get("notes", []) for arm, record in records.items()}
    (line,) = notes.pop("dropblock")
    assert line.startswith("dropout before batch norm")
    assert not any(notes.values()), notes
    found = [record["metrics"]["nll"] for record in records.values()]
    assert len(set(found)) == len(found)
    assert records["pruned"]["metrics"]["params"] < 0.5 * records["baseline"]["metrics"]["params"]


def test_a_missing_package_skips_with_its_install_line(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    gone = {"timm", "kornia", "torch_pruning"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name in gone else find(name, *more))
    lines = {
        "norm": "timm needs timm, which is not installed: pip install 'cnnbench[timm]'",
        "rotation": "kornia needs kornia, which is not installed: pip install 'cnnbench[kornia]'",
        "pruned": "torch_pruning needs torch_pruning, which is not installed: pip install 'cnnbench[compress]'",
    }
    arms = "\n".join(line for line in SUITE.splitlines() if not line.startswith('"') or line.split('"')[1] in lines)
    records = records_of(arms, tmp_path)
    assert {arm: records[arm]["status"] for arm in lines} == dict.fromkeys(lines, "skipped")
    assert {arm: records[arm]["reason"] for arm in lines} == lines


def test_an_install_line_names_the_distribution_whose_extra_it_is():
    assert Requirement("faiss", "search", "cnnbench-squeezing").install == "pip install 'cnnbench-squeezing[search]'"
    assert Requirement("faiss", "search").install == "pip install 'cnnbench[search]'"
    assert Requirement("torch.nn", "x").installed
    assert not Requirement("no_such_package.inner", "x").installed
