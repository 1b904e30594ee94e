"""What any tracker is told of a run."""

from __future__ import annotations

import pytest

from cnnbench_plugins.tracker._observer import Observer, params_of


class Library:
    """Writes down what it is told."""

    def __init__(self):
        self.trials = {}
        self.reports = []
        self.closed = []

    def open(self, name):
        assert name not in self.trials
        self.trials[name] = Log()
        return self.trials[name]

    def table(self, report):
        self.reports.append(report)

    def close(self, *, complete):
        self.closed.append(complete)


class Log:
    def __init__(self):
        self.points = []
        self.end = None
        self.abandoned = False

    def curve(self, stage, epoch, values):
        assert self.end is None
        self.points.append((stage, epoch, values))

    def finish(self, status, reason, params, metrics):
        assert self.end is None
        self.end = (status, reason, params, metrics)

    def abandon(self):
        self.abandoned = True


@pytest.fixture
def told(finished_run):
    library = Library()
    observer = Observer(library)
    finished_run.tell(observer)
    observer.close()
    return library


def test_every_trial_is_told_of_once_and_ends_with_its_record(told, finished_run):
    assert list(told.trials) == [
        "baseline, seed 0, digits",
        "50 % / ümlaut, seed 0, digits",
        "50 % / ümlaut, seed 1, digits",
        "baseline, seed 1, digits",
    ]
    status, reason, params, metrics = told.trials["baseline, seed 1, digits"].end
    assert (status, reason, metrics) == ("ok", "", finished_run.records["baseline/1"]["metrics"])
    assert (params["arm"], params["seed"], params["suite"]) == ("baseline", 1, "tricks")
    status, reason, _, metrics = told.trials["50 % / ümlaut, seed 1, digits"].end
    assert (status, reason, metrics) == ("diverged", "train: loss is nan in epoch 1", {})
    assert not any(log.abandoned for log in told.trials.values())


def test_live_epochs_count_through_each_stage_and_are_not_told_again(told):
    points = told.trials["baseline, seed 0, digits"].points
    assert [(stage, epoch) for stage, epoch, _ in points] == [("train", 1), ("train", 2), ("compress", 1)]
    assert points[1][2] == {"train_loss": 0.25, "validation_accuracy": 0.75, "learning_rate": 0.05}
    assert points[2][2] == {"learning_rate": 0.05}  # what is not finite has no place in a curve


def test_without_live_epochs_the_curve_is_the_records(told):
    points = told.trials["baseline, seed 1, digits"].points
    assert [(stage, epoch, values["train_loss"]) for stage, epoch, values in points] == [
        ("train", 1, 1.5),
        ("train", 2, 1.25),
    ]
    assert len(told.trials["50 % / ümlaut, seed 1, digits"].points) == 1  # diverged after an epoch


def test_at_the_end_stands_the_table_and_the_run_is_closed_as_complete(told):
    (report,) = told.reports
    assert [row.arm for row in report.tables[0].rows] == ["baseline", "50 % / ümlaut"]
    assert told.closed == [True]


def test_a_run_that_is_broken_off_abandons_what_is_open(finished_run):
    library = Library()
    observer = Observer(library)
    trial = {"key": "k", "dataset": "digits", "arm": "a", "seed": 3, "stage": "train"}
    observer.cnnbench_epoch_finished(trial=trial, progress={"epoch": 0, "train_loss": 1.0})
    observer.close()
    assert library.trials["a, seed 3, digits"].abandoned
    assert library.closed == [False]


def test_settings_are_flat(finished_run):
    params = params_of(finished_run.records["50 % / ümlaut/0"])
    assert params["recipe.optimizer"] == "sgd"
    assert params["recipe.optimizer.lr"] == 0.05
    assert params["recipe.epochs"] == 2
    assert (params["norm"], params["norm.groups"]) == ("group", 8)
    assert (params["augmentation.0"], params["augmentation.1"], params["augmentation.1.alpha"]) == (
        "flip",
        "mixup",
        0.2,
    )
    assert (params["dataset"], params["data.validation"]) == ("digits", 0.1)
    assert "data.train_size" not in params
    assert not [name for name in params if "techniques" in name]
