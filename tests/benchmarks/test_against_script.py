"""The harness against the script that one would write by hand: the same matrix, each run a fresh process, in turns.

Wall and CPU times are printed, with their ratio over rounds; no time is asserted. What is asserted: both trained every
cell, and their accuracies agree within noise.

``CNNBENCH_BENCHMARK_ROUNDS`` sets the number of rounds, ``CNNBENCH_BENCHMARK_BF16=1`` adds a run in bf16 to each.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUNDS = int(os.environ.get("CNNBENCH_BENCHMARK_ROUNDS", "3"))
BF16 = os.environ.get("CNNBENCH_BENCHMARK_BF16") == "1"
SEEDS = 3
SCRIPT = Path(__file__).with_name("hand_written.py")

# Latency gets for each cell about the time that the script's loop takes.
SUITE = """
question = "Is the harness faster than the script that one would write by hand?"
dataset = {dataset}
model = {{ name = "resnet", depth = 8, width = {width} }}
seeds = {seeds}
device = "cpu"

[recipe]
epochs = {epochs}
batch_size = 64
optimizer = {{ name = "sgd", lr = 0.1, momentum = 0.9 }}
schedule = "cosine"
precision = "{precision}"

[baseline]
input = "z_score"
augmentation = {augmentation}

[arms]
"mixup" = {{ augmentation = [{augmented}, "mixup"] }}
"label smoothing" = {{ regularizer = {{ name = "label_smoothing", epsilon = 0.1 }} }}
"SiLU" = {{ activation = "silu" }}
"prune 50 %" = {{ compressor = {{ name = "prune_magnitude", sparsity = 0.5, epochs = {finetune} }} }}
"prune 90 %" = {{ compressor = {{ name = "prune_magnitude", sparsity = 0.9, epochs = {finetune} }} }}
"half the filters" = {{ compressor = {{ name = "prune_filters", ratio = 0.5, epochs = {finetune} }} }}
"8-bit weights" = {{ compressor = {{ name = "quantize_weights", bits = 8 }} }}
"fold batch norm" = {{ compressor = "fold_bn" }}
"distil to half the width" = {{ compressor = {{ name = "distill", student = {student}, epochs = {epochs} }} }}

[measure]
metrics = ["accuracy", "f1_macro", "params", "size", "latency"]
latency = {{ batch_sizes = [1, 32], max_seconds = {latency} }}
"""

MEASURE = """
import ctypes, json, os, resource, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what outlives its parent is waited for here
began = time.perf_counter()
code = subprocess.call(sys.argv[2:])
wall = time.perf_counter() - began
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "wall": wall, "cpu": used.ru_utime + used.ru_stime}, file)
"""
"""Runs a command and says what it took, all processes that it started included (their CPU time on Linux alone)."""


@dataclass(frozen=True)
class Matrix:
    """One dataset's matrix as a suite; the script has the same in ``TASKS``."""

    dataset: str
    width: int
    epochs: int
    finetune: int
    augmented: str
    latency: float
    within: float
    """Accuracies may differ by this beyond chance: the splits are not the same."""

    def suite(self, precision: str, root: Path) -> str:
        return SUITE.format(
            dataset=self.dataset.format(root=root),
            width=self.width,
            seeds=SEEDS,
            epochs=self.epochs,
            finetune=self.finetune,
            augmentation=f"[{self.augmented}]",
            augmented=self.augmented,
            student=f'{{ name = "resnet", depth = 8, width = {self.width // 2} }}',
            precision=precision,
            latency=self.latency,
        )


MATRICES = {
    "digits": Matrix('"digits"', 8, 12, 2, '{ name = "translate", pixels = 1 }', 0.05, 0.03),
    "fashion-mnist": Matrix(
        '{{ name = "fashion-mnist", path = "{root}", train_size = 1500, test_size = 1000 }}',
        16,
        4,
        1,
        '{ name = "translate", pixels = 2 }, "hflip"',
        0.15,
        0.06,
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Fashion-MNIST as torchvision lays it out, unpacked."""
    from cnnbench_plugins.dataset import _idx
    from cnnbench_plugins.dataset.fashion_mnist import FashionMnist

    folder = tmp_path_factory.mktemp("data")
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, file in _idx.find(FashionMnist()._folder()).items():
        content = file.read_bytes()
        (raw / stem).write_bytes(gzip.decompress(content) if file.suffix == ".gz" else content)
    return folder


def measured(command: list[str], folder: Path) -> dict[str, float]:
    """Wall and CPU seconds of a command that runs in a folder of its own."""
    found = folder / "measured.json"
    with (folder / "log.txt").open("a") as log:
        subprocess.run(
            [sys.executable, "-c", MEASURE, str(found), *command], cwd=folder, stdout=log, stderr=log, check=True
        )
    took: dict[str, float] = json.loads(found.read_text())
    assert took["code"] == 0, (folder / "log.txt").read_text()[-2000:]
    return took


def by_arm(rows: list[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Accuracies of each arm's seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["arm"], []).append(float(row["accuracy"]))
    return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", MATRICES)
def test_the_matrix_takes_less_than_by_hand(name, root, tmp_path, capsys):
    matrix = MATRICES[name]
    precisions = ["fp32", "bf16"] if BF16 else ["fp32"]

    def by_hand(number: int) -> dict[str, float]:
        folder = tmp_path / f"script-{number}"
        folder.mkdir()
        return measured([sys.executable, str(SCRIPT), name, "--root", str(root), "--seeds", str(SEEDS)], folder)

    def harness(number: int, precision: str) -> dict[str, float]:
        folder = tmp_path / f"{precision}-{number}"
        folder.mkdir(exist_ok=True)
        (folder / "matrix.toml").write_text(matrix.suite(precision, root))
        options = ["--results", "results", "--cache", "cache"]
        return measured([sys.executable, "-m", "cnnbench", "run", "matrix.toml", *options], folder)

    took: dict[str, list[dict[str, float]]] = {}
    for number in range(ROUNDS):
        turns = [("script", lambda number=number: by_hand(number))]
        turns += [(precision, lambda number=number, p=precision: harness(number, p)) for precision in precisions]
        for what, run in turns if number % 2 == 0 else reversed(turns):  # neither always comes first
            took.setdefault(what, []).append(run())
        for precision in precisions:
            took.setdefault(f"{precision}, cached", []).append(harness(number, precision))
        with capsys.disabled():
            figures = (f"{what} {runs[-1]['wall']:.1f} s (CPU {runs[-1]['cpu']:.1f} s)" for what, runs in took.items())
            print(f"\n{name}, round {number + 1} of {ROUNDS}: {', '.join(figures)}", end="", flush=True)

    with capsys.disabled():
        print(f"\n{name}: of the script's time, median (least to most) over {ROUNDS} rounds")
        for what in took.keys() - {"script"}:
            for kind in ("wall", "cpu"):
                ratios = [own[kind] / other[kind] for own, other in zip(took[what], took["script"], strict=True)]
                print(f"  {what:14} {kind:4} {spread(ratios)}")

    with (tmp_path / "script-0" / "cells.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    theirs = by_arm(cells)
    for precision in precisions:
        lines = (tmp_path / f"{precision}-0" / "results" / "records.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert {record["status"] for record in records} == {"ok"}
        assert len(records) == len(cells) == 10 * SEEDS
        ours = by_arm([{"arm": record["arm"], **record["metrics"]} for record in records])
        assert ours.keys() == theirs.keys()
        for arm, values in ours.items():
            wanted = theirs[arm]
            noise = math.sqrt((statistics.variance(values) + statistics.variance(wanted)) / SEEDS)
            with capsys.disabled():
                print(f"  {precision} {arm:26} {statistics.mean(values):.3f}, by hand {statistics.mean(wanted):.3f}")
            assert abs(statistics.mean(values) - statistics.mean(wanted)) < matrix.within + 4 * noise
