"""The results of a model card: what is the file's own, and what was taken of a runtime's."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from cnnbench.model_card import Check, Handover, _results

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
sys.modules["synthetic_records"] = synthetic
_spec.loader.exec_module(synthetic)
Run, wobble = synthetic.Run, synthetic.wobble

SERVED = ("latency b1", "ratio b1", "energy", "served size", "served accuracy", "memory")


def records(runtime="", seeds=2):
    """Of a baseline that takes long, and of an arm that is served faster."""
    arms = {}
    for arm, slow in (("baseline", 1500.0), ("int8", 1.0)):
        arms[arm] = {
            "accuracy": wobble(0.9, 0.01),
            "params": 1000.0,
            "latency_b1_ms": wobble(0.1065 * slow, 0.3),
            "energy_inference_mj": wobble(0.0021 * slow, 0.3),
            "memory_inference_mib": 12.0,
            "size_served_bytes": 2048.0,
            "accuracy_served": 0.8,
        }
    arms["int8"]["latency_b1_ratio"] = 1 / 1500
    metrics = ("accuracy", "params", "latency", "energy", "memory", "size_served", "accuracy_served")
    made = Run(arms, seeds=seeds, spread=0.3, metrics=metrics)
    for record in made.of("int8"):
        record["settings"]["techniques"]["runtime"] = [{"slot": "runtime", "name": runtime, "options": {}}] * bool(
            runtime
        )
    return made.records


def results(made):
    record = next(one for one in made if one["arm"] == "int8")
    what = Handover(record, "onnx", Path("model.onnx"), 4096, (1, 8, 8), ["a", "b"], "", False, Check("none"))
    return "\n".join(_results(what, made))


def test_what_a_runtime_served_stands_apart_and_is_said_not_to_be_the_file():
    first, sentence, second = results(records("onnxruntime_int8")).partition(
        r"As served by onnxruntime\_int8, **which is not this file**:"
    )
    assert sentence
    assert [label for label in SERVED if f"| {label} |" in first] == []
    assert [label for label in SERVED if f"| {label} |" not in second] == []
    for label in ("accuracy", "Δ accuracy", "params"):
        assert f"| {label} |" in first
        assert f"| {label} |" not in second


def test_without_a_runtime_all_figures_are_the_networks_own():
    text = results(records())
    assert "not this file" not in text
    assert all(f"| {label} |" in text for label in SERVED)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_what_is_small_beside_the_baseline_is_not_printed_as_nothing(seeds):
    made = records(seeds=seeds)
    if seeds == 2:
        made = [one for one in made if (one["arm"], one["seed"]) != ("int8", 1)]
    for label in ("latency b1", "energy"):
        (line,) = re.findall(rf"^\| {label} \|.*", results(made), re.MULTILINE)
        values = re.findall(r"\| ([\d.]+)", line)
        assert len(values) == 2
        assert min(map(float, values)) > 0


def test_verdicts_are_those_of_the_whole_run():
    made = records(seeds=3)
    planned = {"arms": ["baseline", "int8", "other"], "seeds": [0, 1, 2]}
    made += [{**one, "arm": "other", "key": f"other{one['seed']}"} for one in made if one["arm"] == "int8"]
    text = results([{**one, "planned": planned} for one in made])
    assert "Holm-adjusted over the 2 arms of each metric" in text
    assert "one arm, so nothing to adjust" not in text
    assert re.search(r"^\| verdict \| unresolved \(n=3\) \|", text, re.MULTILINE)
    assert "| other |" not in text
