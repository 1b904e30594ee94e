"""The plugin author's pages do what they say: each slot's example is a file that a suite names and uses as shown."""

from __future__ import annotations

import json
import math
import re
import runpy
import sys
import time
from pathlib import Path

import pytest
from sklearn.metrics import balanced_accuracy_score

from cnnbench.cli import main
from cnnbench.slots import SLOTS
from cnnbench.store import open_results

SECTIONS = runpy.run_path(str(Path(__file__).with_name("plugin_pages.py")))["SECTIONS"]

# What every example's suite begins with, where the example does not say it.
HEAD = {
    "question": 'question = "Does the example run?"',
    "dataset": 'dataset = { name = "digits", train_size = 200, test_size = 60 }',
    "model": 'model = { name = "vgg", width = 2 }',
    "seeds": "seeds = 1",
    "device": 'device = "cpu"',
}
RECIPE = '[recipe]\nepochs = 2\nbatch_size = 32\noptimizer = { name = "sgd", lr = 0.05 }\n'
MEASURE = '[measure]\nmetrics = ["accuracy", "params"]\n'
TIMED = '[measure]\nmetrics = ["accuracy", "latency"]\nlatency = { batch_sizes = [1], max_seconds = 0.02 }\n'


IN_SUITES = [slot for slot, (_, language, _) in SECTIONS.items() if language == "toml"]


def _suite(use, measure=MEASURE):
    """A whole suite around an example's part of one."""
    key = use.partition(" =")[0]
    head = {**HEAD, key: use} if key in HEAD else HEAD
    tables = "" if key in HEAD else use
    if "[recipe]" in tables:
        own = tables.removeprefix("[recipe]\n").partition(" =")[0]
        recipe = "".join(line for line in RECIPE.splitlines(keepends=True) if not line.startswith(own))
        tables = tables.replace("[recipe]\n", recipe)
    else:
        tables = f"{RECIPE}\n{tables}"
    return "\n".join([*head.values(), tables, "" if "[measure]" in tables else measure])


def _loss(record, epoch=-1):
    return record["details"]["history"][epoch]["train_loss"]


def _learns_otherwise(arms, _text):
    """The same network by its size, and another course of training under the same draws."""
    baseline = arms.pop("baseline")
    for record in arms.values():
        assert record["metrics"]["params"] == baseline["metrics"]["params"]
        assert _loss(record, 0) != _loss(baseline, 0)


def _is_wider(arms, _text):
    assert 3.5 < arms["twice as wide"]["metrics"]["params"] / arms["baseline"]["metrics"]["params"] < 4


def _is_squeezed(arms, _text):
    assert _loss(arms["baseline"]) < _loss(arms["squeezing"]) < _loss(arms["squeezing harder"])


def _stops(arms, _text):
    record = arms["stop at 5 %"]
    assert record["details"]["training"]["epochs_trained"] == len(record["details"]["history"]) == 1
    assert len(arms["baseline"]["details"]["history"]) == 2


def _is_rounded(arms, _text):
    nonzero = [arms[name]["metrics"]["params_nonzero"] for name in ("rounded, then folded", "rounded", "baseline")]
    assert nonzero == sorted(nonzero)
    assert nonzero[1] < nonzero[2]


def _is_served(arms, text):
    assert "weights are kept in 32 bits" in " ".join(text.split())
    assert {"accuracy_served", "latency_b1_ms"} <= set(arms["bf16"]["metrics"])


def _decays(arms, _text):
    """By 1 / (1 + 4 t), the last step being the eleventh of twelve, 0-based: 180 images in batches of 32, twice."""
    assert arms["baseline"]["details"]["history"][-1]["learning_rate"] == pytest.approx(0.05 / (1 + 4 * 11 / 12))


def _is_bounded(arms, _text):
    """A distance of two distributions: no further than 2, and with ten classes near 0.9 at first."""
    assert 0 < _loss(arms["baseline"], 0) < 2 < math.log(10)


def _is_tiny(arms, _text):
    assert arms["baseline"]["metrics"]["params"] == (9 * 16 + 16) + 2 * 16 + (16 * 10 + 10)


def _has_two_classes(arms, _text):
    assert [sum(row) for row in arms["baseline"]["details"]["confusion"]] == [30, 30]


def _agrees_with_scikit_learn(arms, text):
    pairs = [
        (true, predicted)
        for true, row in enumerate(arms["baseline"]["details"]["confusion"])
        for predicted, count in enumerate(row)
        for _ in range(count)
    ]
    assert arms["baseline"]["metrics"]["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(*zip(*pairs, strict=True))
    )
    assert "balanced_accuracy" in text


EFFECTS = {
    "architecture": _is_wider,
    "convolution": _learns_otherwise,
    "pooling": _learns_otherwise,
    "norm": _learns_otherwise,
    "activation": _learns_otherwise,
    "initializer": _learns_otherwise,
    "augmentation": _learns_otherwise,
    "regularizer": _is_squeezed,
    "strategy": _stops,
    "compressor": _is_rounded,
    "runtime": _is_served,
    "schedule": _decays,
    "loss": _is_bounded,
    "model": _is_tiny,
    "dataset": _has_two_classes,
    "metric": _agrees_with_scikit_learn,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Of all examples, whose baseline is one."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def example(tmp_path, monkeypatch, cache):
    """Saves an example and runs a suite that names its file: exit code, and records by arm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("CNNBENCH_CACHE", str(cache))

    def run(slot, use, *options):
        text = _suite(use, TIMED if slot in {"runtime", "executor"} else MEASURE)
        Path(f"example_{slot}.py").write_text(SECTIONS[slot][0], "utf-8")
        text = f'plugins = ["example_{slot}.py"]\n{text}'
        Path("suite.toml").write_text(text, "utf-8")
        given = options if "--executor" in options else (*options, "--executor", "inline")
        code = main(["run", "suite.toml", "--results", "results", "--quiet", *given])
        return code, {record["arm"]: record for record in open_results(Path("results")).records}

    return run


def test_there_is_one_example_for_each_slot_in_order():
    assert list(SECTIONS) == list(SLOTS)


@pytest.mark.parametrize("slot", IN_SUITES)
def test_an_example_works_as_shown(slot, example, capsys):
    code, _, use = SECTIONS[slot]
    status, arms = example(slot, use)
    assert [record["reason"] for record in arms.values()] == [None] * len(arms)
    assert status == 0
    assert set(arms) == {"baseline", *re.findall(r'^"(.*?)" = ', use, re.MULTILINE)}
    name = re.search(rf'@technique\("{slot}", "(\w+)"', code)[1]
    for record in arms.values():
        if record["arm"] != "baseline" or len(arms) == 1:
            assert name in json.dumps(record["settings"]) or name in record["metrics"]
    if slot in EFFECTS:
        EFFECTS[slot](arms, capsys.readouterr().out)


def _options(slot):
    """The words after the suite or the folder in the example's command line."""
    return SECTIONS[slot][2].split()[3:]


def test_the_reporter_prints_the_arms(example, capsys):
    status, arms = example("reporter", '[arms]\n"untrained" = { recipe = { epochs = 1 } }')
    assert status == 0
    capsys.readouterr()
    Path("example_reporter.py").rename("podium.py")  # as its command line calls it
    assert main(["report", "results", *_options("reporter")]) == 0
    lines = capsys.readouterr().out.splitlines()
    shares = [record["metrics"]["accuracy"] for record in arms.values()]
    assert [float(line.rpartition(" ")[2].rstrip("%")) / 100 for line in lines] == pytest.approx(
        sorted(shares, reverse=True), abs=1e-4
    )
    assert {line.partition(". ")[2].partition(":")[0] for line in lines} == set(arms)


def test_the_executor_rests_before_what_is_measured(example, monkeypatch):
    rests, sleep = [], time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: rests.append(seconds) if seconds == 2 else sleep(seconds))
    status, _ = example("executor", "", *_options("executor"), "--fresh")
    assert status == 0
    assert rests == [2]  # before latency; nothing else is measured


def test_the_tracker_writes_what_it_is_told(example):
    status, arms = example("tracker", "", *_options("tracker"), "--fresh")
    assert status == 0
    events = [json.loads(line) for line in Path("results/events.jsonl").read_text("utf-8").splitlines()]
    history = arms["baseline"]["details"]["history"]
    assert events == [
        *({"arm": "baseline", "seed": 0, "epoch": one["epoch"], "loss": one["train_loss"]} for one in history),
        {"arm": "baseline", "seed": 0, "status": "ok"},
    ]
