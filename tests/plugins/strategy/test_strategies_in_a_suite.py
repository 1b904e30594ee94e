"""From a suite's text to what stands under its table."""

from __future__ import annotations

import pytest

from cnnbench.plugins import PluginHost
from cnnbench.progress import make_progress
from cnnbench.runner import RunOptions, run_suite
from cnnbench.suite import parse
from cnnbench.tables import make_table

SUITE = """
question = "Do strategies go all the way?"
dataset = { name = "digits", train_size = 60, test_size = 50, validation = 0.3 }
model = { name = "resnet", depth = 8, width = 2 }
seeds = 1
device = "cpu"

[recipe]
epochs = 6
batch_size = 16
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9 }
schedule = "cosine"

[arms]
"stopped" = { strategy = { name = "early_stopping", patience = 1, min_delta = 9 } }
"pretrained" = { strategy = { name = "transfer", source = "digits", pretrain_epochs = 1, gradual = 0.5 } }
"all" = { strategy = ["test_time_augmentation", { name = "deep_ensemble", k = 2 }, "swa", "progressive_resizing"] }
"both" = { strategy = ["ema", "swa"] }

[measure]
metrics = ["accuracy", "params"]
"""


@pytest.mark.slow
def test_remarks_end_under_the_table_and_contradictions_as_reasons(tmp_path):
    host = PluginHost.discover()
    suite = parse(SUITE.encode(), str(tmp_path / "suite.toml"), host.registry)
    options = RunOptions(results=tmp_path / "results", cache=tmp_path / "cache", executor="inline")
    records = {record["arm"]: record for record in run_suite(suite, host, options, make_progress(quiet=True)).records}
    reasons = {arm: record["reason"] for arm, record in records.items()}
    assert reasons.pop("both").endswith("ema and swa each decide which weights a training ends with: name one of them")
    assert set(reasons.values()) == {None}, reasons
    assert records["all"]["metrics"]["params"] == 2 * records["baseline"]["metrics"]["params"]
    assert records["stopped"]["details"]["training"]["stopped_epoch"] == 1
    notes = make_table(list(records.values())).notes
    # After 2 of 6 epochs a cosine stands at (1 + cos(pi / 3)) / 2.
    (line,) = [note for note in notes if note.startswith("stopped: early_stopping ended training")]
    assert line.endswith("the schedule had the learning rate still at about 80 %")
    (line,) = [note for note in notes if note.startswith("pretrained: transfer")]
    assert line.endswith("tensors came from digits; the classifier started fresh")
