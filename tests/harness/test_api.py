"""Suites and runs from Python: the command line's, with its mistakes, its records and its table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cnnbench
from cnnbench import Suite, run
from cnnbench.cli import main
from cnnbench.errors import CnnbenchWarning, SuiteError, UsageError
from cnnbench.execute import inline
from cnnbench.runner import EXECUTORS

DATA = {
    "question": "Does it work?",
    "seeds": 2,
    "device": "cpu",
    "dataset": {"name": "digits", "train_size": 200, "test_size": 100},
    "model": {"name": "resnet", "depth": 8, "width": 4},
    "recipe": {"epochs": 1, "batch_size": 64},
    "measure": {"metrics": ["accuracy"]},
    "arms": {"silu": {"activation": "silu"}},
}


class FakeBench:
    """Does no work, and finds the same thing in the same stage."""

    broken = False

    def __init__(self, registry):
        pass

    def run(self, task, inputs, folder, tell):
        if self.broken and task["kind"] == "train" and "silu" in json.dumps(task["settings"]):
            raise RuntimeError("broken")
        return {"metrics": {"accuracy": task["seed"] / 100} if task["kind"] == "evaluate" else {}, "seconds": 0.5}

    def close(self):
        pass


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own, in which no stage does any work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inline, "Bench", FakeBench)
    monkeypatch.setattr(FakeBench, "broken", False)
    return tmp_path


def ran(suite, **more):
    return run(suite, **{"executor": "inline", "cache": "cache", "quiet": True, **more})


# Names


def test_the_package_offers_what_notebooks_need_and_imports_nothing_heavy_for_it():
    code = (
        "import sys, cnnbench\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pydantic', 'cnnbench.api'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert {'Suite', 'run', 'Results', 'technique', 'errors'} <= set(dir(cnnbench))\n"
        "from cnnbench import Suite, run, Results\n"
        "import cnnbench.runner\n"
        "from cnnbench import run as again\n"
        "assert run is again and callable(run)\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = cnnbench.runn


def test_what_is_offered_is_documented():
    from cnnbench import api

    for name in api.__all__:
        assert getattr(api, name).__doc__


# Suites


def test_the_three_ways_to_write_a_suite_are_one(here, tiny_suite):
    text = tiny_suite({"silu": '{ activation = "silu" }'}, seeds=2)
    Path("tiny.toml").write_text(text)
    one, two, three = Suite("tiny.toml"), Suite.from_toml(text, name="tiny"), Suite.from_dict(DATA, name="tiny")
    assert one.definition == two.definition
    for name in ("name", "question", "arms", "seeds", "device", "datasets", "metrics"):
        assert getattr(one, name) == getattr(two, name) == getattr(three, name), name
    assert [arm.name for arm in one.arms] == ["baseline", "silu"]
    assert Suite.from_toml(three.text, name="tiny").definition == three.definition


def test_mistakes_of_a_file_are_those_of_the_command(here, tiny_suite, capsys):
    Path("tiny.toml").write_text(tiny_suite({"silu": '{ activation = "silo" }'}, sedes=2))
    assert main(["run", "tiny.toml"]) == 2
    with pytest.raises(SuiteError) as caught:
        run("tiny.toml")
    assert capsys.readouterr().err.startswith(str(caught.value))
    assert len(caught.value.problems) == 2


def test_mistakes_in_text_have_lines_and_those_in_data_places(here):
    with pytest.raises(SuiteError) as caught:
        Suite.from_toml('question = "?"\nmodel = "resnet"\ndataset = "digit"\n', name="mine")
    assert str(caught.value) == "<mine>:3: dataset: unknown dataset 'digit': did you mean 'digits'?"
    with pytest.raises(SuiteError) as caught:
        Suite.from_dict({**DATA, "sedes": 1, "arms": {"silu": {"activation": "silo"}}})
    assert [(p.file, p.line, p.place) for p in caught.value.problems] == [
        ("<suite>", 0, "sedes"),
        ("<suite>", 0, "arms.silu.activation"),
    ]
    with pytest.raises(SuiteError, match=r"<suite>: arms\.silu\.eps: expected a value, got None"):
        Suite.from_dict({**DATA, "arms": {"silu": {"eps": None}}})


def test_a_name_that_would_lead_elsewhere_is_refused(here):
    with pytest.raises(SuiteError, match="name"):
        Suite.from_dict(DATA, name="nul")


def test_text_in_place_of_a_path_is_told(tiny_suite):
    with pytest.raises(UsageError, match=r"Suite\.from_toml takes TOML"):
        Suite(tiny_suite())


@pytest.mark.parametrize("way", [run, Suite])
def test_data_in_place_of_a_path_is_told(way):
    with pytest.raises(UsageError, match=r"^expected a Suite or a suite's path, got a mapping: Suite\.from_dict takes"):
        way(DATA)
    with pytest.raises(UsageError, match=r"^expected a Suite or a suite's path, got int$"):
        way(3)


def test_data_without_anything_is_told_as_such(here):
    with pytest.raises(SuiteError, match=r"^<suite>: nothing is in it: a suite needs question, dataset and model$"):
        Suite.from_dict({})


def test_paths_start_from_the_folder(here):
    Path("data").mkdir()
    with pytest.raises(SuiteError, match="elsewhere/pictures"):
        Suite.from_dict({**DATA, "dataset": {"name": "folder", "path": "pictures"}}, folder="elsewhere")


def test_a_copy_is_changed_and_the_suite_stays(here):
    suite = Suite.from_dict(DATA)
    more = suite.with_(seeds=3, device="auto")
    assert (more.seeds, more.device) == ((0, 1, 2), "auto")
    assert (suite.seeds, suite.device) == ((0, 1), "cpu")
    assert suite.with_(seeds=range(5, 7)).seeds == (5, 6)
    assert more.with_(techniques=[]).seeds == (0, 1, 2)


@pytest.mark.parametrize("seeds", [True, 1.5, "ten", [], [1, 1], [0.5], [-1]])
def test_what_are_no_seeds_is_told(here, seeds):
    with pytest.raises(UsageError, match=r"^seeds: expected a number, distinct seeds"):
        Suite.from_dict(DATA).with_(seeds=seeds)


def test_a_suite_shows_its_arms(here):
    suite = Suite.from_dict(DATA, name="mine")
    assert repr(suite) == "<Suite 'mine': 2 arms x 2 seeds on digits, device cpu>"
    html = suite._repr_html_()
    assert "activation=silu" in html
    assert "Does it work?" in html


def test_a_plan_is_that_of_the_command(here, tiny_suite, capsys):
    Path("tiny.toml").write_text(tiny_suite({"silu": '{ activation = "silu" }'}))
    for words, arguments in ((["--seeds", "3"], {"seeds": 3}), (["--only", "silu"], {"only": "silu"})):
        assert main(["plan", "tiny.toml", "--cache", "c", *words]) == 0
        plan = Suite("tiny.toml").plan(cache="c", **arguments)
        assert str(plan) + "\n" == capsys.readouterr().out
        assert len(plan.trials) == 2 * len(plan.trials["seed"].unique())
    assert "<pre" in plan._repr_html_()
    assert not Path("results").exists()


# Runs


def test_records_and_table_are_those_of_the_command(here, tiny_suite, capsys):
    Path("tiny.toml").write_text(tiny_suite({"silu": '{ activation = "silu" }'}, seeds=2))
    assert main(["run", "tiny.toml", "--executor", "inline", "--cache", "one", "--quiet"]) == 0
    theirs = [json.loads(line) for line in Path("results/tiny/records.jsonl").read_text().splitlines()]
    Path("results").rename("theirs")
    found = ran("tiny.toml", cache="two")
    assert found.ok
    assert str(found) + "\n" == capsys.readouterr().out
    assert found.path == Path("results/tiny")
    assert [r["key"] for r in found.records] == [r["key"] for r in theirs]
    assert found.records[0].keys() == theirs[0].keys()
    assert Path("results/tiny/tiny.toml").read_bytes() == Path("tiny.toml").read_bytes()


def test_what_is_on_disk_does_not_run_again(here, monkeypatch):
    suite = Suite.from_dict(DATA, name="tiny")
    first = ran(suite)
    monkeypatch.setattr(FakeBench, "run", None)
    assert ran(suite).records == first.records
    assert main(["run", str(first.path / "tiny.toml"), "--results", str(first.path)]) == 0, "the kept suite is it"


def test_arguments_mean_what_options_mean(here):
    suite = Suite.from_dict({**DATA, "arms": {"silu": {"activation": "silu"}, "gelu": {"activation": "gelu"}}})
    found = ran(suite, seeds=[4, 7], only="gelu", results="mine")
    assert found.path == Path("mine")
    assert {(r["arm"], r["seed"]) for r in found.records} == {(a, s) for a in ("baseline", "gelu") for s in (4, 7)}
    assert ran(suite, results="mine", fresh=True, only=["silu", "gelu"]).statuses == {"ok": 6}


def test_seeds_auto_looks_who_is_decided(here):
    found = ran(Suite.from_dict({**DATA, "statistics": {"most_seeds": 6}}), seeds="auto")
    assert found.records[0]["planned"]["looks"]


def test_a_run_without_time_says_what_it_left_out(here):
    ran(Suite.from_dict(DATA), seeds=1)
    assert ran(Suite.from_dict(DATA), seeds=2, time_budget=1e-9).left_out == (("baseline", 1), ("silu", 1))


def test_a_failure_is_a_result(here, monkeypatch):
    monkeypatch.setattr(FakeBench, "broken", True)
    found = ran(Suite.from_dict(DATA))
    assert not found.ok
    assert found.statuses == {"ok": 2, "failed": 2}
    [failure] = found.failures
    assert (failure.arm, failure.seeds) == ("silu", (0, 1))
    assert "broken" in failure.reason
    assert "Traceback" in failure.trace


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"executor": "inlin"}, r"^executor: unknown executor 'inlin': did you mean 'inline'\?"),
        ({"executor": "local", "workers": 0}, "^workers: expected at least 1, got 0"),
        ({"seeds": 0}, "^seeds: expected at least 1, got 0"),
        ({"tracker": "mlfow"}, r"^tracker: unknown tracker 'mlfow': did you mean 'mlflow'\?"),
        ({"time_budget": "soon"}, "^time_budget: "),
        ({"address": "local"}, "^address names a Ray cluster: expected executor ray beside it"),
        ({"only": "silo"}, r"suite 'suite' has no arm 'silo': did you mean 'silu'\?"),
    ],
)
def test_errors_name_arguments(here, arguments, said):
    with pytest.raises(UsageError, match=said):
        ran(Suite.from_dict(DATA), **arguments)


def test_ctrl_c_keeps_what_is_finished(here, monkeypatch):
    ended = []

    def pressed(self, task, inputs, folder, tell):
        if task["kind"] == "train":
            ended.append(task["seed"])
        if len(ended) == 2:
            import signal

            signal.raise_signal(signal.SIGINT)
        return {"metrics": {}, "seconds": 0.5}

    real = FakeBench.run
    monkeypatch.setattr(FakeBench, "run", pressed)
    suite = Suite.from_dict(DATA)
    with pytest.raises(KeyboardInterrupt, match="finished work is kept") as caught:
        ran(suite)
    assert caught.value.__suppress_context__
    kept = {path.name for path in Path("cache").rglob("result.json")}
    assert kept
    monkeypatch.setattr(FakeBench, "run", real)
    assert ran(suite).ok


def test_progress_goes_to_stderr_and_quiet_silences_it(here, capsys):
    suite = Suite.from_dict(DATA)
    ran(suite, quiet=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "[4/4] silu, seed 1: ok" in err
    ran(suite, fresh=True)
    assert capsys.readouterr() == ("", "")


def test_a_plugin_that_does_not_work_is_warned_of(here, install_plugin):
    install_plugin("broken_plugin", "raise ValueError('no')")
    with pytest.warns(CnnbenchWarning, match="broken_plugin.*ValueError: no") as caught:
        Suite.from_dict(DATA)
    assert caught[0].filename == __file__, "it points at the call"


def test_local_plugins_of_a_suite_are_loaded(here):
    Path("my_act.py").write_text(
        "from cnnbench import hookimpl, technique\n"
        "from cnnbench.lazy import nn\n\n\n"
        "@technique('activation', 'mine')\n"
        "class Mine:\n"
        "    '''ReLU again.'''\n\n"
        "    def __call__(self, old):\n"
        "        return nn.Hardswish()\n\n\n"
        "@hookimpl\n"
        "def cnnbench_register_techniques():\n"
        "    return [Mine]\n"
    )
    found = ran(Suite.from_dict({**DATA, "plugins": ["my_act.py"], "arms": {"mine": {"activation": "mine"}}}))
    assert found.ok


def test_executors_are_those_of_the_command():
    assert all(f"``{name}``" in run.__doc__ for name in EXECUTORS)
