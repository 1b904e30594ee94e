"""cnnbench from Python and notebooks: ``from cnnbench import Suite, run``.

The same runs as the command line's, with the same defaults, the same records in the same folders, and results as data
frames. ``docs/python.md`` is the tutorial.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.api_plan import SuitePlan
from cnnbench.api_results import Results
from cnnbench.api_source import Seeds, names, warn_of_plugins
from cnnbench.api_suite import Suite
from cnnbench.calls import check_address, looks, place_data, records_folder
from cnnbench.errors import UsageError
from cnnbench.execute.cache import default_cache
from cnnbench.execute.local import start_fork_server
from cnnbench.progress import make_progress
from cnnbench.runner import RunOptions, run_suite
from cnnbench.session import warn_of_later
from cnnbench.store import FILE
from cnnbench.text import listed, seconds_of
from cnnbench.tracking import check_trackers, tracked

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from cnnbench.plugins import PluginHost
    from cnnbench.progress import Progress
    from cnnbench.suite import Suite as Definition

__all__ = ["Results", "Seeds", "Suite", "SuitePlan", "run"]


def run(
    suite: Suite | str | os.PathLike[str],
    *,
    seeds: Seeds | Literal["auto"] | None = None,
    device: str | None = None,
    only: str | Sequence[str] = (),
    techniques: Sequence[type[Any]] | None = None,
    results: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    executor: str | None = None,
    address: str | None = None,
    workers: int | None = None,
    fresh: bool = False,
    time_budget: str | float | None = None,
    tracker: str | Sequence[str] = (),
    quiet: bool = False,
) -> Results:
    """Run a suite to its results, as ``cnnbench run`` does.

    What is on disk already does not run again: called twice, the second call only reads. Each trial is recorded when it
    ends, so a run that was interrupted goes on where it was. Progress goes to stderr.

    A script needs no ``if __name__ == "__main__"`` around it: worker processes do not run the script again.

    Args:
        suite: a suite, or the path of its file.
        seeds: a number of seeds, 0 to N-1, or the seeds themselves, in place of the suite's; ``auto`` adds seeds only
            to arms that are still undecided, up to the suite's ``most_seeds``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xla`` or ``auto`` in place of the suite's.
        only: arms to run beside the baseline; all if there are none.
        techniques: classes made with ``@technique`` that the suite names, in place of those that it was made with.
            Those that no importable module registers, such as a notebook's, run in this process, one stage at a time.
        results: folder of the records, ``results/<suite>`` if None.
        cache: folder of stages' results, the user's cache folder if None.
        executor: ``local`` (worker processes), ``inline`` (this process), ``ray``, or a plugin's; None for ``local``,
            or ``inline`` where techniques are this session's.
        address: of a Ray cluster: ``HOST:PORT``, ``auto`` or ``local``.
        workers: worker processes; as cores and memory allow if None.
        fresh: run everything again, whatever is on disk.
        time_budget: ``"90m"``, ``"2h"``, or seconds: run the whole seeds that fit. What is left out is in the results'
            ``left_out``.
        tracker: ``mlflow``, ``tensorboard`` or ``wandb``, or several of them, to be told of the run.
        quiet: no progress.

    Returns:
        The results. Trials that failed are among them: see ``ok`` and ``failures``.

    Raises:
        SuiteError: the suite has mistakes, or asks for what this machine has not; nothing has run.
        UsageError: an argument can't be used as it is; nothing has run.
        KeyboardInterrupt: Ctrl-C, or a notebook's stop; workers are ended, finished work is kept.

    Warns:
        CnnbenchWarning: something is wrong with a plugin or a tracker, and the run goes on.
    """
    with _in_words_of_python():
        if not isinstance(suite, Suite):
            suite = Suite(suite, techniques=techniques or ())
        elif techniques is not None:
            suite = suite.with_(techniques=techniques)
        check_address(address, executor)
        warn_of_later(suite.techniques)
        executor = _executor(suite, executor)
        definition = suite.changed(seeds, device, here=executor != "ray")
        options = RunOptions(
            results=Path(results or records_folder(definition)),
            cache=Path(cache or default_cache()),
            executor=executor,
            address=address,
            workers=workers,
            fresh=fresh,
            only=names(only),
            looks=looks(definition, seeds),
            time_budget=_seconds(time_budget),
        )
        check_trackers(names(tracker), suite.host.registry)
        return _carried_out(definition, suite.host, options, names(tracker), make_progress(quiet=quiet))


def _carried_out(
    suite: Definition, host: PluginHost, options: RunOptions, trackers: Sequence[str], progress: Progress
) -> Results:
    place_data()
    if options.executor == "local" and (options.fresh or not (options.results / FILE).exists()):
        start_fork_server()  # it imports torch while the run is planned
    known = len(host.problems)
    try:
        with tracked(host, trackers, suite, options.results):
            summary = run_suite(suite, host, options, progress)
    except KeyboardInterrupt:
        # Raised anew: the way through the harness is nobody's concern.
        raise KeyboardInterrupt("finished work is kept: the same call goes on from here") from None
    finally:
        warn_of_plugins(host, known)
    left_out = [(t.trial.arm.name, t.trial.seed) for t in summary.left_out]
    return Results(summary.records, options.results, left_out=left_out)


def _executor(suite: Suite, asked: str | None) -> str:
    """The executor: worker processes, unless techniques are this process's alone.

    Raises:
        UsageError: another was asked for, which can't have them.
    """
    if not suite.session_techniques:
        return asked or "local"
    if asked not in (None, "inline"):
        raise UsageError(
            f"--executor: other processes have no {listed(suite.session_techniques)}, which this session defines: "
            "leave it out to run here, or put the techniques into a file that the suite's plugins key names"
        )
    return "inline"


def _seconds(budget: str | float | None) -> float | None:
    """A time budget in seconds.

    Raises:
        UsageError: it is no duration.
    """
    try:
        return seconds_of(budget) if isinstance(budget, str) else budget
    except ValueError as error:
        raise UsageError(f"--time-budget: {error}") from None


@contextmanager
def _in_words_of_python() -> Iterator[None]:
    """Have usage errors name arguments in place of the command line's options."""
    try:
        yield
    except UsageError as error:
        if type(error) is not UsageError:
            raise
        words = re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", "_"), str(error))
        raise UsageError(words) from error.__cause__
