"""Suites over several datasets: reading, planning, running, and what the other commands make of them."""

from __future__ import annotations

import json

import pytest

from cnnbench.cli import main
from cnnbench.errors import SuiteError
from cnnbench.frame import by_dataset, current
from cnnbench.matrix import trials
from cnnbench.plugins import PluginHost
from cnnbench.store import open_results
from cnnbench.suite import parse

SUITE = """
question = "Does SiLU help on both?"
dataset = [
  { name = "digits", train_size = 120, test_size = 60 },
  { name = "shapes", classes = 3, image_size = 8, train_images = 90, test_images = 60 },
]
model = { name = "resnet", depth = 8, width = 4 }
seeds = 2
device = "cpu"
placebo = true

[recipe]
epochs = 1
batch_size = 32

[arms]
SiLU = { activation = "silu" }
Mish = { activation = "mish", against = "SiLU" }

[measure]
metrics = ["accuracy", "latency"]
latency = { batch_sizes = [1], max_seconds = 0.05 }
"""


@pytest.fixture(scope="module")
def registry():
    return PluginHost.discover().registry


def read(text, registry):
    return parse(text.encode(), "both.toml", registry)


def test_every_arm_runs_on_each_dataset_under_each_seed(registry):
    suite = read(SUITE, registry)
    assert [one.label for one in suite.datasets] == ["digits", "shapes"]
    made = trials(suite)
    assert len(made) == 2 * 4 * 2
    for trial in made:
        assert trial.arm.settings.dataset.name == trial.dataset
    shown = {(t.arm.settings.dataset.name, t.arm.settings.data.train_size) for t in made}
    assert shown == {("digits", 120), ("shapes", None)}


@pytest.mark.parametrize(
    ("datasets", "labels"),
    [
        ('"digits"', ["digits"]),
        ('["digits"]', ["digits"]),
        ('["digits", { name = "digits", train_size = 99 }]', ["digits", "digits train_size=99"]),
        (
            '[{ name = "digits", test_size = 9 }, { name = "digits", test_size = 9, label_noise = 0.2 }]',
            ["digits", "digits label_noise=0.2"],
        ),
        (
            '[{ name = "shapes", classes = 3 }, { name = "shapes", classes = 4 }, "digits"]',
            ["shapes classes=3", "shapes classes=4", "digits"],
        ),
    ],
)
def test_labels_are_the_shortest_that_tell_datasets_apart(registry, datasets, labels):
    text = f'question = "?"\ndataset = {datasets}\nmodel = "resnet"\n'
    assert [one.label for one in read(text, registry).datasets] == labels


@pytest.mark.parametrize(
    ("datasets", "problem"),
    [
        ("[]", "dataset: expected at least one dataset, got an empty list"),
        ('["digits", "digits"]', "dataset[1]: 'digits' is listed twice with the same options"),
        ('["digits", "shape"]', "dataset[1]: unknown dataset 'shape': did you mean 'shapes'?"),
        ('["digits", { name = "shapes", clases = 3 }]', "dataset[1].clases: dataset 'shapes' has no option 'clases'"),
    ],
)
def test_mistakes_name_their_place_in_the_list(registry, datasets, problem):
    with pytest.raises(SuiteError) as caught:
        read(f'question = "?"\ndataset = {datasets}\nmodel = "resnet"\n', registry)
    assert problem in str(caught.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    (folder / "both.toml").write_text(SUITE, "utf-8")
    asked = ["run", str(folder / "both.toml"), "--executor", "inline", "--quiet"]
    assert main([*asked, "--results", str(folder / "results"), "--cache", str(folder / "cache")]) == 0
    return folder


def test_records_tell_datasets_apart_and_latencies_are_paired_within_one(run):
    records = open_results(run / "results").records
    found = by_dataset(records)
    assert list(found) == ["digits", "shapes"]
    assert current(records).records == found["digits"].records
    for label, of in found.items():
        assert len(of.records) == 8
        assert {r["settings"]["dataset"]["name"] for r in of.records.values()} == {label}
        assert of.records["SiLU", 0]["planned"]["datasets"] == ["digits", "shapes"]
        assert of.records["Mish", 1]["details"]["latency"]["1"]["reference_ms"]
    both = [of.records["SiLU", 0]["data"] for of in found.values()]
    assert both[0] != both[1]


def test_latency_samples_of_both_datasets_have_names_of_their_own(run):
    made = json.loads((run / "results" / "benchmark.json").read_text("utf-8"))["benchmarks"]
    names = [one["fullname"] for one in made]
    assert len(set(names)) == len(names) == 16
    assert "both.toml::SiLU[shapes, seed 1, batch 1]" in names


def test_comparing_and_exporting_ask_which_dataset(run, capsys):
    folder = str(run / "results")
    for asked in (["compare", folder, folder], ["export", folder, "--arm", "SiLU", "--cache", str(run / "cache")]):
        assert main(asked) == 2
        assert "--dataset: this run has several: expected one of 'digits', 'shapes'" in capsys.readouterr().err
        assert main([*asked, "--dataset", "shape"]) == 2
        assert "did you mean 'shapes'?" in capsys.readouterr().err
    assert main(["compare", folder, folder, "--dataset", "shapes"]) == 0
    capsys.readouterr()
    output = run / "exported"
    asked = ["export", folder, "--arm", "SiLU", "--cache", str(run / "cache"), "--format", "state_dict"]
    assert main([*asked, "--dataset", "shapes", "--output", str(output)]) == 0
    assert json.loads((output / "settings.json").read_text("utf-8"))["settings"]["dataset"]["name"] == "shapes"
