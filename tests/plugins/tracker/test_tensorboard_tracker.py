"""TensorBoard's event files, read back by its own reader."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from cnnbench_plugins.tracker.tensorboard import TensorBoard

if importlib.util.find_spec("tensorboard") is None:
    pytest.skip("needs tensorboard", allow_module_level=True)


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def text(events, tag):
    (event,) = events.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


@pytest.fixture
def folder(finished_run):
    observer = TensorBoard()(finished_run.facts)
    finished_run.tell(observer)
    observer.close()
    (folder,) = (Path(finished_run.facts["results"]) / "tensorboard").iterdir()
    return folder


def test_a_trials_curves_metrics_status_and_settings(folder):
    events = read(folder / "baseline_seed_0_digits")
    assert [(e.step, e.value) for e in events.Scalars("train/train_loss")] == [(1, 0.5), (2, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("compress/learning_rate")] == [(1, pytest.approx(0.05))]
    assert [e.value for e in events.Scalars("final/accuracy")] == [pytest.approx(0.9)]
    assert text(events, "status") == "ok"
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    given = HParamsPluginData.FromString(plugin).session_start_info.hparams
    assert given["recipe.optimizer.lr"].number_value == 0.05
    assert given["arm"].string_value == "baseline"


def test_each_trial_has_a_folder_and_the_run_has_the_table(folder):
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "baseline_seed_0_digits",
        "baseline_seed_1_digits",
        "50_ümlaut_seed_0_digits",
        "50_ümlaut_seed_1_digits",
    }
    failed = read(folder / "50_ümlaut_seed_1_digits")
    assert text(failed, "status") == "diverged: train: loss is nan in epoch 1"
    assert "| baseline" in text(read(folder), "table")


def test_names_that_a_folder_can_not_tell_apart_do_not_mix(finished_run):
    from cnnbench_plugins.tracker._tensorboard import EventFiles

    files = EventFiles(finished_run.facts)
    for name in ("a b", "a/b", ".."):
        files.open(name).abandon()
    (folder,) = (Path(finished_run.facts["results"]) / "tensorboard").iterdir()
    assert {path.name for path in folder.iterdir()} == {"a_b", "a_b-2", "_"}
    assert text(read(folder / "a_b-2"), "status") == "interrupted"
