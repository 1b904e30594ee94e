"""``pytest suites/``: what is collected, what runs, how it ends, and pytest-benchmark's options on it.

Most tests put a run in place of the real one whose latencies they choose; the last one is real.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import pytest_benchmark.plugin
import pytest_timeout
import xdist.plugin

import cnnbench.pytest_plugin
import cnnbench.runner
from cnnbench.errors import StoreError
from cnnbench.matrix import trials
from cnnbench.plugins import PluginHost
from cnnbench.runner import RunSummary
from cnnbench.samples import write_benchmark_json
from cnnbench.suite import load

pytest_plugins = ["pytester"]

ARMS = {"group norm": '{ norm = { name = "group", groups = 4 } }', "SiLU": '{ activation = "silu" }'}


class FakeRun:
    """In place of ``run_suite``: every trial ends as told, each latency is 1 ms x the arm's factor."""

    def __init__(self):
        self.calls = []
        self.factors = {}
        self.bad = {}
        self.taken = {}
        self.noise = None
        self.error = None

    def __call__(self, suite, host, options, progress):
        self.calls.append((suite, options, progress))
        if self.error is not None:
            raise self.error
        records = tuple(self.record(suite, trial) for trial in trials(suite, options.only))
        write_benchmark_json(records, options.results)
        return RunSummary(records, Counter(record["status"] for record in records), 0.0)

    def record(self, suite, trial):
        arm, seed = trial.arm.name, trial.seed
        milliseconds = self.factors.get(arm, 1.0)
        taken = {"iterations": 1, "warmup": 5, "steady": True, "stopped": "precision", "threads": 1, **self.taken}
        latency = {"1": {"samples_ms": [milliseconds * f for f in (0.9, 1.0, 1.2)], **taken}}
        ended = {"status": "ok", "reason": None, "trace": None, **self.bad.get((arm, seed), {})}
        return {
            "key": f"{arm}{seed}",
            "suite": {"name": suite.name, "file": f"{suite.name}.toml"},
            "arm": arm,
            "dataset": trial.dataset,
            "role": trial.arm.role,
            "seed": seed,
            "device": "cpu",
            "environment": {"cpu": "Some CPU"},
            "metrics": {"latency_b1_ms": milliseconds},
            "details": {"latency": latency, **({"noise": self.noise} if self.noise else {})},
            **ended,
        }

    @property
    def options(self):
        return self.calls[-1][1]


@pytest.fixture(autouse=True, scope="module")
def host(tmp_path_factory, tiny_suite):
    """All plugins; and everything imported that collecting a suite imports.

    The inner pytest unloads what it was first to import, which takes time, and which not every package survives.
    """
    found = PluginHost.discover()
    file = tmp_path_factory.mktemp("first") / "first.toml"
    file.write_text(tiny_suite(ARMS), "utf-8")
    load(file, found.registry, data=True)
    return found


@pytest.fixture
def fake(monkeypatch, host):
    made = FakeRun()
    monkeypatch.setattr(cnnbench.runner, "run_suite", made)
    monkeypatch.setattr(PluginHost, "discover", lambda: host)
    # Asking the processor who it is takes a second.
    monkeypatch.setattr("pytest_benchmark.plugin.get_cpu_info", lambda: {"brand_raw": "Some CPU"})
    return made


class Place:
    """A folder with one suite, as a user's repository has it: strict, and warnings are errors."""

    def __init__(self, pytester, suite):
        self.pytester = pytester
        self.path = pytester.path
        self.plugins = [cnnbench.pytest_plugin, pytest_benchmark.plugin, pytest_timeout, xdist.plugin]
        (self.path / "suites").mkdir()
        (self.path / "suites" / "tiny.toml").write_text(suite, "utf-8")
        pytester.makeini("[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n")

    def run(self, *args):
        return self.pytester.runpytest_inprocess(*args, plugins=self.plugins)


@pytest.fixture
def place(pytester, monkeypatch, tiny_suite):
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)  # the inner pytest is no worker, though this one may be
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # looking for all there are takes a second
    return Place(pytester, tiny_suite(ARMS, ("accuracy", "latency"), seeds=2))


def ids(result):
    return [line for line in result.outlines if "::" in line]


# What is collected


def test_code_that_a_suite_names_is_refused_on_request(place):
    suite = place.path / "suites" / "tiny.toml"
    text = suite.read_text("utf-8")
    suite.write_text(re.sub("(?m)^model = .*", 'model = { name = "import", target = "own_gone:Net" }', text), "utf-8")
    result = place.run("suites", "--collect-only", "--cnnbench-no-import")
    result.stdout.fnmatch_lines(["*model.name: model 'import' imports code that the suite names*"])
    result = place.run("suites", "--collect-only", "-o", "cnnbench_no_import=true")
    result.stdout.fnmatch_lines(["*model.name: model 'import' imports code that the suite names*"])
    place.run("suites", "--collect-only").stdout.fnmatch_lines(["*no module 'own_gone'*"])


def test_it_comes_with_the_package():
    (point,) = entry_points(group="pytest11", name="cnnbench")
    assert point.value == "cnnbench.pytest_plugin"


def test_each_trial_is_an_item(place, fake):
    result = place.run("suites", "--collect-only", "-q")
    assert ids(result) == [
        f"suites/tiny.toml::{arm}[{seed}]" for arm in ("baseline", "group norm", "SiLU") for seed in (0, 1)
    ]
    assert fake.calls == []


def test_placebo_and_designs_have_items_too(place, tiny_suite):
    suite = tiny_suite(placebo=True).replace(
        "[arms]", '[design]\nkind = "one-at-a-time"\nactivation = ["relu", "silu"]'
    )
    (place.path / "suites" / "tiny.toml").write_text(suite, "utf-8")
    names = [line.partition("::")[2] for line in ids(place.run("suites", "--collect-only", "-q"))]
    assert names[0] == "baseline[0]"
    assert names[-1] == "placebo[0]"
    assert len(names) == 3


@pytest.mark.parametrize(
    ("named", "count"),
    [
        (["suites"], 6),
        (["suites/"], 6),
        (["suites/tiny.toml"], 6),
        (["suites/tiny.toml::group norm[1]"], 1),
        (["suites/tiny.toml::group norm"], 2),
        (["other/more.toml"], 6),
        (["other"], 0),
        ([], 0),
        (["."], 0),
        (["suites", "-k", "group"], 2),
        (["suites", "--cnnbench-seeds=3", "-k", "SiLU"], 3),
        (["suites", "--cnnbench-seeds=5-9", "-k", "SiLU"], 5),
        (["suites/tiny.toml::SiLU[9]", "--cnnbench-seeds=5-9"], 1),
        (["other", "-o", "cnnbench_suites=other/*.toml"], 6),
        (["suites", "-o", "cnnbench_suites=other/*.toml"], 0),
        (["-o", "testpaths=suites"], 6),
    ],
)
def test_suites_are_collected_where_they_are_named(place, tiny_suite, named, count):
    (place.path / "other").mkdir()
    (place.path / "other" / "more.toml").write_text(tiny_suite(ARMS, seeds=2), "utf-8")
    assert len(ids(place.run("--collect-only", "-q", *named))) == count


def test_mistakes_in_a_suite_are_told_with_their_lines(place, tiny_suite):
    (place.path / "suites" / "tiny.toml").write_text(
        tiny_suite({"bad": '{ norm = "grup" }', "worse": "{ nrom = 1 }"}), "utf-8"
    )
    result = place.run("suites")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["suites/tiny.toml:1?: *grup*", "suites/tiny.toml:1?: *nrom*"])
    assert "Traceback" not in result.stdout.str()


def test_a_broken_third_party_plugin_is_a_warning(place, install_plugin):
    install_plugin("broken", "raise RuntimeError('no')")
    result = place.run("suites", "--collect-only", "-W", "default")
    assert len(ids(result)) == 0
    result.stdout.fnmatch_lines(["*PytestWarning: cnnbench: plugin 'broken'*", "*6 tests collected*"])


def test_two_suites_of_one_name_are_refused(place, tiny_suite):
    (place.path / "more" / "suites").mkdir(parents=True)
    (place.path / "more" / "suites" / "tiny.toml").write_text(tiny_suite(), "utf-8")
    result = place.run("suites", "more/suites")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: 2 of the suites would write to results/tiny" in result.stderr.str()


@pytest.mark.parametrize("count", ["0", "-1", "9-5", "many"])
def test_a_senseless_number_of_seeds_is_refused(place, count):
    result = place.run("suites", f"--cnnbench-seeds={count}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"expected a whole number from 1 or a range such as 5-9, got '{count}'" in result.stderr.str()


def test_suites_do_not_run_under_xdist(place, fake):
    result = place.run("suites", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().count("suites can't run under pytest-xdist") == 1
    assert place.run("suites", "-n", "0").ret == 0


def test_where_no_suite_is_named_nothing_heavy_is_imported(place, monkeypatch):
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    place.pytester.makepyfile(
        "import sys\n"
        "def test():\n"
        "    own = {f'cnnbench.{name}' for name in ('plugins', 'suite', 'runner')}\n"
        "    heavy = {'torch', 'pandas', 'numpy', 'pydantic', *own}\n"
        "    assert 'cnnbench.pytest_plugin' in sys.modules\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    place.pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_every_option_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "pytest.md").read_text("utf-8")
    parser = pytest.Parser(_ispytest=True)
    cnnbench.pytest_plugin.pytest_addoption(parser)
    (group,) = [group for group in parser._groups if group.name == "cnnbench"]
    flags = [flag for option in group.options for flag in option.names()]
    assert sorted(flags) == sorted(set(re.findall(r"^\| `(--cnnbench-[a-z-]+)", page, re.MULTILINE)))
    assert "`cnnbench_suites`" in page


# What runs


def test_a_file_runs_once_for_all_its_items(place, fake):
    place.run("suites").assert_outcomes(passed=6)
    assert len(fake.calls) == 1
    suite, options, _ = fake.calls[0]
    assert (suite.seeds, options.only) == ((0, 1), ())
    assert options.results == place.path / "results" / "tiny"
    assert not options.fresh


def test_only_what_is_selected_runs(place, fake):
    place.run("suites", "-k", "SiLU and 1").assert_outcomes(passed=1, deselected=5)
    suite, options, _ = fake.calls[0]
    assert (suite.seeds, options.only) == ((1,), ("SiLU",))


def test_options_reach_the_run(place, fake):
    asked = ["--cnnbench-results=out", "--cnnbench-cache=stages", "--cnnbench-fresh", "--cnnbench-seeds=1"]
    place.run("suites", *asked).assert_outcomes(passed=3)
    suite, options, _ = fake.calls[0]
    assert options.results == place.path / "out" / "tiny"
    assert str(options.cache) == "stages"
    assert options.fresh
    assert suite.seeds == (0,)


def test_progress_shows_where_output_is_not_captured(place, fake):
    place.run("suites")
    place.run("suites", "-s")
    assert [type(progress).__name__ for _, _, progress in fake.calls] == ["QuietProgress", "PlainProgress"]


@pytest.mark.parametrize(
    ("asked", "anew"),
    [
        ([], False),
        (["--benchmark-only"], False),
        (["--benchmark-autosave"], True),
        (["--benchmark-save=x"], True),
        (["--benchmark-json=x.json"], True),
    ],
)
def test_what_is_saved_is_measured_anew(place, fake, asked, anew):
    place.run("suites", *asked).assert_outcomes(passed=6)
    assert fake.options.remeasure is anew


# How it ends


def test_what_failed_says_why_and_what_was_skipped_too(place, fake):
    fake.bad = {
        ("group norm", 0): {"status": "failed", "reason": "train: NoEffect: nothing to do", "trace": "Traceback of it"},
        ("group norm", 1): {"status": "diverged", "reason": "train: loss is nan"},
        ("SiLU", 0): {"status": "skipped", "reason": "silu needs nothing: pip install 'cnnbench[nothing]'"},
    }
    result = place.run("suites", "-rs")
    result.assert_outcomes(passed=3, failed=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*__ group norm?0? __*",
            "group norm, seed 0: failed: train: NoEffect: nothing to do",
            "Traceback of it",
            "*__ group norm?1? __*",
            "group norm, seed 1: diverged: train: loss is nan",
            "SKIPPED*silu needs nothing: pip install 'cnnbench?nothing?'",
        ]
    )
    assert "pytest_plugin.py" not in result.stdout.str().partition("short test summary")[0]
    assert "group norm[seed" not in result.stdout.str(), "no latency of a trial that failed"
    assert "SiLU[seed 1, batch 1]" in result.stdout.str()


def test_last_failed_and_stop_at_first(place, fake):
    fake.bad = {("group norm", seed): {"status": "crashed", "reason": "gone"} for seed in (0, 1)}
    place.run("suites", "-x").assert_outcomes(passed=2, failed=1)
    fake.bad = {}
    place.run("suites", "--lf").assert_outcomes(passed=1)
    assert fake.options.only == ("group norm",)


def test_a_run_that_cannot_start_fails_every_item_in_one_line(place, fake):
    fake.error = StoreError("results/tiny: another run is writing here")
    result = place.run("suites")
    result.assert_outcomes(failed=6)
    assert result.outlines.count("results/tiny: another run is writing here") == 6
    assert len(fake.calls) == 1


def test_a_fault_of_the_harness_keeps_its_traceback(place, fake):
    fake.error = ZeroDivisionError("by nothing")
    result = place.run("suites", "-k", "SiLU")
    result.stdout.fnmatch_lines(["*raise self.error*", "E*ZeroDivisionError: by nothing"])
    assert len(fake.calls) == 1


def test_timeouts_of_tests_are_not_for_suites(place, fake, monkeypatch):
    monkeypatch.setattr(
        fake, "record", lambda suite, trial, old=fake.record: __import__("time").sleep(0.1) or old(suite, trial)
    )
    place.run("suites", "-o", "timeout=0.3").assert_outcomes(passed=6)


# pytest-benchmark


def rows(result):
    """Names in pytest-benchmark's tables."""
    return [line.split("]")[0] + "]" for line in result.outlines if ", batch " in line and "[seed" in line]


def test_latencies_stand_in_its_table(place, fake):
    fake.factors = {"baseline": 2.0, "SiLU": 3.0}
    result = place.run("suites", "--cnnbench-seeds=1", "--benchmark-columns=median,rounds,iterations")
    result.stdout.fnmatch_lines(["*benchmark 'tiny, batch 1': 3 tests*", "Name (time in us)*"])
    found = [line.split() for line in result.outlines if "[seed" in line]
    assert [(" ".join(words[:-4]), *words[-4:]) for words in found] == [
        ("group norm[seed 0, batch 1]", "1,000.0000", "(1.0)", "3", "1"),
        ("baseline[seed 0, batch 1]", "2,000.0000", "(2.00)", "3", "1"),
        ("SiLU[seed 0, batch 1]", "3,000.0000", "(3.00)", "3", "1"),
    ]


def test_only_selected_items_stand_in_its_table(place, fake):
    assert rows(place.run("suites/tiny.toml::SiLU[0]")) == ["SiLU[seed 0, batch 1]"]


def test_without_it_items_run_and_there_is_no_table(place, fake):
    place.plugins.remove(pytest_benchmark.plugin)
    result = place.run("suites")
    result.assert_outcomes(passed=6)
    assert rows(result) == []
    assert not fake.options.remeasure


def test_only_skip_and_disable(place, fake):
    place.pytester.makepyfile(test_other="def test(): pass")
    only = place.run("suites", "test_other.py", "--benchmark-only")
    only.assert_outcomes(passed=6, skipped=1)
    skip = place.run("suites", "test_other.py", "--benchmark-skip")
    skip.assert_outcomes(passed=1, skipped=6)
    assert len(fake.calls) == 1
    disable = place.run("suites", "--benchmark-disable")
    disable.assert_outcomes(passed=6)
    assert len(rows(only)) == 6
    assert rows(disable) == []


def test_saved_runs_are_compared_and_a_slower_one_fails(place, fake):
    place.run("suites", "--benchmark-autosave").assert_outcomes(passed=6)
    against = ["suites", "--benchmark-compare", "--benchmark-compare-fail=median:5%"]
    same = place.run(*against)
    same.assert_outcomes(passed=6)
    assert same.ret == 0
    assert len(rows(same)) == 12
    assert fake.options.remeasure
    fake.factors = {"SiLU": 1.2}
    slower = place.run(*against)
    assert slower.ret != 0
    assert "Performance has regressed" in slower.stderr.str()
    assert slower.stderr.str().count("SiLU[seed 0, batch 1]") == 1


NOISY = "Noisy machine: other work took more than 5 % of a core in 1 of 1 latency sessions (median 90 %, most 90 %)."
SHORT = "Latency: the median or its ratio is not known within 2 % in 2 of 2 samplings (fewest samples: 3)"


def test_what_is_to_be_said_of_the_latencies_stands_below_its_table(place, fake):
    quiet = place.run("suites")
    assert "cnnbench: suites" not in quiet.stdout.str()
    fake.taken = {"stopped": "time"}
    fake.noise = {"others_percent": 90.0, "seconds": 10.0}
    result = place.run("suites/tiny.toml::baseline[0]", "suites/tiny.toml::SiLU[0]")
    lines = result.outlines
    (head,) = (i for i, line in enumerate(lines) if line.strip("- ") == "cnnbench: suites/tiny.toml")
    assert lines[head + 1].startswith(SHORT)
    assert lines[head + 2] == NOISY
    assert head > max(i for i, line in enumerate(lines) if "[seed" in line)


def test_they_are_told_too_when_a_latency_got_worse(place, fake):
    place.run("suites", "--benchmark-autosave")
    fake.factors, fake.noise = {"SiLU": 1.2}, {"others_percent": 90.0, "seconds": 10.0}
    result = place.run("suites", "--benchmark-compare", "--benchmark-compare-fail=median:5%")
    assert result.ret != 0
    assert result.outlines.count(NOISY) == 1


def test_cores_that_are_not_here_are_told_with_their_line(place, tiny_suite):
    text = tiny_suite(ARMS).replace("[arms]", "latency = { threads = 1000000 }\n[arms]")
    (place.path / "suites" / "tiny.toml").write_text(text, "utf-8")
    result = place.run("suites")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["suites/tiny.toml:*: measure.latency.threads: expected at most *, got 1000000"])


def test_a_run_of_the_command_line_can_be_compared_with(place, fake):
    place.run("suites").assert_outcomes(passed=6)
    saved = place.path / "results" / "tiny" / "benchmark.json"
    saved.rename(place.path / "before.json")
    result = place.run("suites", "--benchmark-compare=before.json", "--benchmark-compare-fail=mean:1%")
    result.assert_outcomes(passed=6)
    assert len(rows(result)) == 12


def test_a_run_elsewhere_is_not_compared_in_silence(place, fake, monkeypatch):
    place.run("suites")
    monkeypatch.setattr("pytest_benchmark.plugin.get_cpu_info", lambda: {"brand_raw": "Other CPU"})
    result = place.run("suites", "--benchmark-compare=results/tiny/benchmark.json")
    assert "Benchmark machine_info is different" in result.stdout.str() + result.stderr.str()


def test_a_file_of_a_run_has_the_fields_of_a_session_of_its_own(place, fake):
    place.pytester.makepyfile("def test(benchmark): benchmark(lambda: None)")
    place.run("--benchmark-json=own.json", "--benchmark-max-time=0.01")
    place.run("suites", "--benchmark-json=session.json")
    own, session, run = (
        json.loads((place.path / name).read_text("utf-8"))
        for name in ("own.json", "session.json", "results/tiny/benchmark.json")
    )
    for made in (session, run):
        assert set(made) == set(own)
        assert set(made["commit_info"]) == set(own["commit_info"])
        assert set(made["benchmarks"][0]) == set(own["benchmarks"][0])
        assert set(made["benchmarks"][0]["stats"]) == set(own["benchmarks"][0]["stats"])
        assert made["version"] == version("pytest-benchmark")
    assert session["benchmarks"] == run["benchmarks"]


# For real

REAL = """
    import sys
    from cnnbench import Requirement, hookimpl, technique

    @technique("activation", "refuses")
    class Refuses:
        '''Raises.'''

        def __call__(self, module):
            raise ValueError("not today")

    @technique("activation", "absent", requires=(Requirement("no_such_package", "nothing"),))
    class Absent:
        '''Needs what is nowhere.'''

        def __call__(self, module):
            return module

    @hookimpl
    def cnnbench_register_techniques():
        return [Refuses, Absent]
"""


@pytest.mark.slow
def test_a_suite_runs_and_is_recalled(tmp_path, monkeypatch, install_plugin, tiny_suite):
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "COV_"))]:
        monkeypatch.delenv(name)
    install_plugin("real", textwrap.dedent(REAL))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    (tmp_path / "suites").mkdir()
    arms = {"SiLU": '{ activation = "silu" }', "bad": '{ activation = "refuses" }', "no": '{ activation = "absent" }'}
    text = tiny_suite(arms, ("accuracy", "latency")).replace(
        "[arms]", "latency = { batch_sizes = [1], max_seconds = 0.05 }\n[arms]"
    )
    (tmp_path / "suites" / "tiny.toml").write_text(text, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\ntimeout = 1\n", "utf-8")

    def run(*more):
        command = [sys.executable, "-m", "pytest", "suites", "-rs", "--cnnbench-cache=stages", *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
        assert "1 failed, 2 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
        return done.stdout

    first = run()
    assert "bad, seed 0: failed: train: ValueError: not today" in first
    assert "pip install 'cnnbench[nothing]'" in first
    assert "SiLU[seed 0, batch 1]" in first
    saved = (tmp_path / "results" / "tiny" / "benchmark.json").read_text("utf-8")
    names = [bench["fullname"] for bench in json.loads(saved)["benchmarks"]]
    assert names == ["tiny.toml::baseline[seed 0, batch 1]", "tiny.toml::SiLU[seed 0, batch 1]"]
    trained = sorted((tmp_path / "stages").rglob("model.pt"), key=str)
    times = [file.stat().st_mtime_ns for file in trained]

    run("--benchmark-json=again.json")
    again = json.loads((tmp_path / "again.json").read_text("utf-8"))["benchmarks"]
    before = {bench["fullname"]: bench["stats"]["data"] for bench in json.loads(saved)["benchmarks"]}
    assert [bench["fullname"] for bench in again] == names
    assert all(bench["stats"]["data"] != before[bench["fullname"]] for bench in again), "measured anew"
    assert [file.stat().st_mtime_ns for file in trained] == times, "trainings come from the cache"
