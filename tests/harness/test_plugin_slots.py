"""Slots that only plugins fill: metric, reporter, executor."""

from __future__ import annotations

import json

import pytest
from sklearn.metrics import cohen_kappa_score

from cnnbench.cli import main
from cnnbench.store import open_results

SUITE = """
question = "Does a plugin's metric count?"
dataset = { name = "digits", train_size = 200 }
model = { name = "resnet", depth = 8, width = 4 }
seeds = 1
device = "cpu"
[recipe]
epochs = 1
[measure]
metrics = ["accuracy", "kappa"]
"""

PLUGIN = '''
import torch
from cnnbench import hookimpl, technique
from cnnbench.execute.inline import InlineExecutor

@technique("metric", "kappa")
class Kappa:
    """Cohen's kappa."""
    def __call__(self, probabilities, labels):
        k = probabilities.shape[1]
        m = torch.zeros(k, k, dtype=torch.float64)
        m.index_put_((labels, probabilities.argmax(1)), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
        n = m.sum()
        chance = (m.sum(0) * m.sum(1)).sum() / n**2
        return float((m.trace() / n - chance) / (1 - chance))

@technique("metric", "broken")
class Broken:
    """No number."""
    def __call__(self, probabilities, labels):
        return float("nan")

@technique("reporter", "names")
class Names:
    """The arms' names."""
    def __call__(self, records):
        return "; ".join(sorted({r["arm"] for r in records}))

started = []

@technique("executor", "mine")
class Mine:
    """The inline executor under another name."""
    def __call__(self, workers, host):
        started.append(workers)
        return InlineExecutor(host)

@hookimpl
def cnnbench_register_metrics():
    return [Kappa, Broken]

@hookimpl
def cnnbench_register_reporters():
    return [Names]

@hookimpl
def cnnbench_register_executors():
    return [Mine]
'''


@pytest.fixture
def folder(tmp_path, monkeypatch, install_plugin):
    install_plugin("slotfiller", PLUGIN)
    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "suite.toml").write_text(SUITE)
    return tmp_path


def run(folder, *more):
    return main(["run", str(folder / "suite.toml"), "--results", str(folder / "r"), "--quiet", *more])


def test_a_plugins_metric_executor_and_reporter_are_used(folder, capsys):
    assert run(folder, "--executor", "mine") == 0
    assert "kappa" in capsys.readouterr().out
    (record,) = open_results(folder / "r").records
    labels, predictions = [], []
    for true, row in enumerate(record["details"]["confusion"]):
        for predicted, count in enumerate(row):
            labels += [true] * count
            predictions += [predicted] * count
    assert record["metrics"]["kappa"] == pytest.approx(cohen_kappa_score(labels, predictions))
    import slotfiller

    assert slotfiller.started == [None]
    assert main(["report", str(folder / "r"), "--format", "names"]) == 0
    assert capsys.readouterr().out == "baseline\n"
    assert main(["report", str(folder / "r"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_metric_without_a_number_costs_its_trial(folder, capsys):
    text = SUITE.replace('"kappa"', '"broken"')
    (folder / "suite.toml").write_text(text)
    assert run(folder, "--executor", "inline") == 1
    assert "metric 'broken' gave nan, not a finite number" in " ".join(capsys.readouterr().out.split())


def test_unknown_executors_and_formats_name_the_nearest(folder, capsys):
    assert run(folder, "--executor", "mien") == 2
    assert "unknown executor 'mien': did you mean 'mine'?" in capsys.readouterr().err
    assert run(folder, "--executor", "inline") == 0
    capsys.readouterr()
    assert main(["report", str(folder / "r"), "--format", "nams"]) == 2
    assert "did you mean 'names'?" in capsys.readouterr().err
