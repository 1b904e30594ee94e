"""``pytest suites/``: suite files as test files, each trial an item, latencies in pytest-benchmark's own table.

pytest loads this module wherever cnnbench is installed, so nothing heavy is imported until a suite is collected, and a
suite is collected only where its file or its folder is named: a bare ``pytest`` starts no training. The items of one
file are run together when the first of them is due, since latencies of arms are taken in turn; each item then tells how
its own trial ended.
"""

from __future__ import annotations

import os
import warnings
from argparse import ArgumentTypeError
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cnnbench.errors import CnnbenchError, SuiteError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from _pytest._code.code import ExceptionInfo, TerminalRepr

    from cnnbench.matrix import Trial
    from cnnbench.plugins import PluginHost
    from cnnbench.runner import RunOptions
    from cnnbench.suite import Suite

Record = dict[str, Any]

_COMPARING = ("autosave", "save", "json", "compare")
"""Options of pytest-benchmark that keep or compare latencies: with one of them they are taken anew."""
_HOST = pytest.StashKey["PluginHost"]()
_RAN = pytest.StashKey["list[SuiteFile]"]()


class TrialFailed(Exception):  # noqa: N818 - reads as what happened
    """A trial did not end as ok; its text is all that is to be said."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What can be asked of suites run by pytest."""
    group = parser.getgroup("cnnbench", "suites of cnnbench")
    group.addoption(
        "--cnnbench-results", type=Path, metavar="DIR", help="records go to DIR/<suite> (default: results/<suite>)"
    )
    group.addoption("--cnnbench-cache", type=Path, metavar="DIR", help="stage cache (default: the user's cache folder)")
    group.addoption("--cnnbench-seeds", type=_seeds, metavar="N", help="seeds 0 to N-1 in place of the suite's, or 5-9")
    group.addoption("--cnnbench-fresh", action="store_true", help="run everything again, whatever is on disk")
    group.addoption("--cnnbench-no-import", action="store_true", help="refuse suites that name code to import")
    parser.addini("cnnbench_no_import", "refuse suites that name code to import", type="bool", default=False)
    parser.addini(
        "cnnbench_suites",
        "suite files in a folder that is named: glob patterns (default: suites/*.toml)",
        type="args",
        default=["suites/*.toml"],
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to run suites in several processes, before any of them starts.

    Raises:
        UsageError: suites are asked for under pytest-xdist.
    """
    config = session.config
    if config.getoption("dist", "no") != "no" and any(_asked_suites(config)):
        raise pytest.UsageError(
            "suites can't run under pytest-xdist: latency needs the machine to itself; leave -n out, or give -n 0"
        )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    """A suite file that is named, or stands in a folder that is named."""
    if not _is_suite(file_path, parent.config):
        return None
    file: SuiteFile = SuiteFile.from_parent(parent, path=file_path)
    return file


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Look that no two suites share a results folder.

    Raises:
        UsageError: two do.
    """
    paths = {item.path for item in items if isinstance(item, SuiteTrial)}
    for name, count in Counter(path.stem for path in paths).items():
        if count > 1:
            raise pytest.UsageError(f"{count} of the suites would write to results/{name}: run them one by one")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_benchmark_compare_machine_info(
    machine_info: Mapping[str, Any], compared_benchmark: Mapping[str, Any]
) -> Generator[None, object, object]:
    """Let a run's own file be compared with on a machine of its kind, of which it says less than others do."""
    with warnings.catch_warnings():
        if _recorded_here(compared_benchmark, machine_info):
            warnings.simplefilter("ignore")
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, object, object]:
    """Tell how sure the latencies are, and what disturbed them, as the run's own table does.

    After pytest-benchmark's table, which ends with an error where a latency got worse: just then it matters.
    """
    try:
        return (yield)
    finally:
        for file in config.stash.get(_RAN, ()):
            notes = file.notes()
            if notes:
                terminalreporter.write_sep("-", f"cnnbench: {_shown(file.path).as_posix()}")
            for note in notes:
                terminalreporter.write_line(note)


class SuiteFile(pytest.File):
    """A suite file; makes its items, and runs those that are left after selection together.

    Attributes:
        suite: as it was read.
        host: with the suite's own plugins.
    """

    suite: Suite
    host: PluginHost
    _ended: Mapping[tuple[str, str, int], Record] | None = None
    _fault: Exception | None = None

    def collect(self) -> Iterator[SuiteTrial]:
        """An item for each trial, arm by arm: ``group norm[0]`` is arm ``group norm`` under seed 0.

        Of a suite over several datasets ``group norm[digits, 0]``.

        Raises:
            CollectError: the suite has mistakes; each with file and line.
        """
        from cnnbench.matrix import trials
        from cnnbench.needs import check_machine
        from cnnbench.opening import open_suite

        try:
            refused = self.config.getoption("cnnbench_no_import") or self.config.getini("cnnbench_no_import")
            common = self._common_host()
            suite, self.host = open_suite(_shown(self.path), common, data=True, imports=not refused)
            check_machine(suite)
        except SuiteError as error:
            raise self.CollectError(str(error)) from error
        for problem in self.host.problems[len(common.problems) :]:
            self.warn(pytest.PytestWarning(f"cnnbench: {problem}"))
        seeds = self.config.getoption("cnnbench_seeds")
        self.suite = suite if seeds is None else replace(suite, seeds=seeds)
        for trial in trials(self.suite):
            where = f"{trial.dataset}, " if len(self.suite.datasets) > 1 else ""
            name = f"{trial.arm.name}[{where}{trial.seed}]"
            # The id is given as text, as --lf reads it from its file: made from the name it would not be equal to that.
            nodeid = f"{self.nodeid}::{name}"
            yield SuiteTrial.from_parent(self, name=name, nodeid=nodeid, trial=trial)

    def record(self, trial: Trial) -> Record:
        """How a trial ended; runs the file's selected items if that has not been done."""
        if self._fault is not None:
            raise self._fault
        if self._ended is None:
            try:
                self._ended = self._run()
            except Exception as error:
                self._fault = error  # it costs hours to hear it again from the next item
                raise
        return self._ended[trial.dataset, trial.arm.name, trial.seed]

    def notes(self) -> list[str]:
        """What is to be said of the latencies of the file's run."""
        from cnnbench.frame import by_dataset
        from cnnbench.notices import latency_notes
        from cnnbench.quantities import quantities

        measure = self.suite.measure
        shown = quantities(measure.metrics, measure.latency.batch_sizes)
        # Without rows: what is said of a table's ratios has no place beside pytest-benchmark's.
        runs = by_dataset(list((self._ended or {}).values())).values()
        return list(dict.fromkeys(note for trials in runs for note in latency_notes(trials, (), shown)))

    def _run(self) -> Mapping[tuple[str, str, int], Record]:
        from cnnbench.progress import make_progress
        from cnnbench.runner import run_suite

        chosen = [item for item in self.session.items if isinstance(item, SuiteTrial) and item.parent is self]
        arms, seeds = {item.trial.arm.name for item in chosen}, {item.trial.seed for item in chosen}
        datasets = {item.trial.dataset for item in chosen}
        suite = replace(
            self.suite,
            seeds=tuple(seed for seed in self.suite.seeds if seed in seeds),
            datasets=tuple(one for one in self.suite.datasets if one.label in datasets),
        )
        progress = make_progress(quiet=self.config.getoption("capture") != "no")
        records = run_suite(suite, self.host, self._options(arms), progress).records
        self.config.stash.setdefault(_RAN, []).append(self)
        return {(record["dataset"], record["arm"], record["seed"]): record for record in records}

    def _options(self, arms: set[str]) -> RunOptions:
        from cnnbench.execute.cache import default_cache
        from cnnbench.matrix import arms as all_arms
        from cnnbench.runner import RunOptions

        config = self.config
        results = config.getoption("cnnbench_results") or Path("results")
        whole = {arm.name for arm in all_arms(self.suite)} == arms
        return RunOptions(
            results=config.invocation_params.dir / results / self.suite.name,
            cache=config.getoption("cnnbench_cache") or default_cache(),
            fresh=config.getoption("cnnbench_fresh"),
            remeasure=any(config.getoption(f"benchmark_{name}", None) for name in _COMPARING),
            only=() if whole else tuple(arms),
        )

    def _common_host(self) -> PluginHost:
        """The installed plugins, for all suites of the session; what is wrong with them is a warning."""
        from cnnbench.plugins import PluginHost

        if _HOST not in self.config.stash:
            self.config.stash[_HOST] = host = PluginHost.discover()
            for problem in host.problems:
                self.warn(pytest.PytestWarning(f"cnnbench: {problem}"))
        return self.config.stash[_HOST]


class SuiteTrial(pytest.Item):
    """One trial: passes if its record is ok, is skipped if that is.

    Attributes:
        trial: which one.
    """

    fixturenames: ClassVar = ["benchmark"]  # what pytest-benchmark knows its own by, for --benchmark-only and -skip

    def __init__(self, *, trial: Trial, **more: Any) -> None:
        super().__init__(**more)
        self.trial = trial
        if any(map(self.config.pluginmanager.hasplugin, ("timeout", "pytest_timeout"))):
            self.add_marker(pytest.mark.timeout(0))  # the first item takes the time of all; suites have time_limit

    def runtest(self) -> None:
        """Hand the trial's latencies to pytest-benchmark, or raise what it ended with."""
        from cnnbench.samples import benchmarks

        assert isinstance(self.parent, SuiteFile)
        record = self.parent.record(self.trial)
        if record["status"] == "skipped":
            pytest.skip(record["reason"])
        if record["status"] != "ok":
            head = f"{self.trial.arm.name}, seed {self.trial.seed}: {record['status']}: {record['reason']}"
            raise TrialFailed("\n".join(filter(None, (head, record["trace"]))))
        session = getattr(self.config, "_benchmarksession", None)
        if session is not None and not session.disabled:
            session.benchmarks.extend(benchmarks(record))

    def repr_failure(self, excinfo: ExceptionInfo[BaseException], style: Any = None) -> str | TerminalRepr:
        """Deliberate errors by their own text, without the harness's frames."""
        if isinstance(excinfo.value, TrialFailed | CnnbenchError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the item stands."""
        return self.path, 0, self.name


def _seeds(text: str) -> tuple[int, ...]:
    """A number of seeds or a range, as the command line has them."""
    from cnnbench.text import seed_range

    seeds = tuple(range(int(text))) if text.isdecimal() else seed_range(text)
    if not seeds:
        raise ArgumentTypeError(f"expected a whole number from 1 or a range such as 5-9, got {text!r}")
    return seeds


def _recorded_here(saved: Mapping[str, Any], machine: Mapping[str, Any]) -> bool:
    """Whether a file of pytest-benchmark comes from a run of cnnbench on a processor of this kind."""
    from cnnbench.samples import RECORDED_BY

    there: dict[str, Any] = saved["machine_info"]
    return RECORDED_BY.items() <= there.items() and bool(there["cpu"]["brand_raw"] == machine["cpu"].get("brand_raw"))


def _is_suite(path: Path, config: pytest.Config) -> bool:
    """Whether a file is a suite that was asked for."""
    if path.suffix != ".toml":
        return False
    named = _named(config)
    return path in named or (path.parent in named and any(map(path.match, config.getini("cnnbench_suites"))))


def _asked_suites(config: pytest.Config) -> Iterator[Path]:
    """The suite files that will be collected, by the command line alone."""
    for path in _named(config):
        yield from (file for file in ([path] if path.is_file() else path.glob("*.toml")) if _is_suite(file, config))


def _named(config: pytest.Config) -> set[Path]:
    """Files and folders named on the command line, or in ``testpaths`` where nothing is."""
    return {Path(os.path.normpath(config.invocation_params.dir / arg.partition("::")[0])) for arg in config.args}


def _shown(path: Path) -> Path:
    """A path as people would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
