"""The command ``cnnbench``: errors become one line and an exit code; heavy imports wait until needed.

Exit codes: 0 all trials ok; 1 some failed, diverged or ran out of time (the table still prints); 2 bad usage or a bad
suite; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import cnnbench
from cnnbench.errors import CnnbenchError, SuiteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.errors import Problem
    from cnnbench.plugins import PluginHost
    from cnnbench.suite import Suite

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

EXAMPLES = """\
examples:
  cnnbench run suites/quickstart.toml      run a suite to its table
  cnnbench plan suites/quickstart.toml     what it would run, and what is done already
  cnnbench list norm                       the techniques of a slot
  cnnbench show group                      one technique: options, formula, source
  cnnbench report results/quickstart       the table again, in any format
"""


class _Parser(argparse.ArgumentParser):
    """Says the nearest right word where an argument is not known."""

    def error(self, message: str) -> NoReturn:
        """One line, the way to help, exit code 2."""
        import re

        from cnnbench.registry import nearest

        unknown = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if unknown:
            choices = [word.strip(" '") for word in unknown[2].split(",")]
            message = f"{message.partition(':')[0]}: unknown {unknown[1]!r}: {nearest(unknown[1], choices)}"
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? for ±, and the run is not lost
    parser = _parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return USAGE
    given = parser.parse_args(arguments)
    try:
        code: int = given.command(given)
    except SuiteError as error:
        count = len(error.problems)
        print(f"{error}\ncnnbench: {count} mistake{'s' if count > 1 else ''}; nothing has run", file=sys.stderr)
        return USAGE
    except UsageError as error:
        print(f"cnnbench: {error}", file=sys.stderr)
        return USAGE
    except CnnbenchError as error:
        print(f"cnnbench: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("\ncnnbench: interrupted; finished work is kept, the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return OK
    return code


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="cnnbench",
        description="Does this technique help my CNN, on my data, on my hardware, and what does it cost?",
        epilog=EXAMPLES,
        formatter_class=plain,
    )
    parser.add_argument("--version", action="version", version=f"cnnbench {cnnbench.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=_Parser, required=True)

    run = commands.add_parser("run", help="run suites to their tables")
    run.set_defaults(command=_run)
    run.add_argument("suites", nargs="+", metavar="SUITE", type=Path, help="suite files (TOML)")
    _suite_overrides(run)
    run.add_argument("--executor", default="local", metavar="NAME", help="local (worker processes) or inline")
    run.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one a core on CPU)")
    run.add_argument("--results", type=Path, metavar="DIR", help="results folder (default: results/<suite>)")
    run.add_argument("--cache", type=Path, metavar="DIR", help="stage cache (default: the user's cache folder)")
    run.add_argument("--fresh", action="store_true", help="run everything again, whatever is on disk")
    run.add_argument("--quiet", action="store_true", help="no progress, only the table")

    plan = commands.add_parser("plan", help="what would run, and what is on disk already")
    plan.set_defaults(command=_plan)
    plan.add_argument("suite", metavar="SUITE", type=Path)
    _suite_overrides(plan)
    plan.add_argument("--results", type=Path, metavar="DIR")
    plan.add_argument("--cache", type=Path, metavar="DIR")

    listing = commands.add_parser("list", help="techniques by slot, one line each")
    listing.set_defaults(command=_list)
    listing.add_argument("slot", nargs="?", metavar="SLOT", help="only this slot")

    show = commands.add_parser("show", help="one technique: options, formula, source, caveats")
    show.set_defaults(command=_show)
    show.add_argument("name", metavar="NAME", help="a name, or SLOT/NAME")

    report = commands.add_parser("report", help="render the table of finished results again")
    report.set_defaults(command=_report)
    report.add_argument("results", metavar="RESULTS", type=Path, help="a folder with records.jsonl, or such a file")
    report.add_argument("--format", default="terminal", metavar="NAME", help="terminal, markdown, csv or json")
    report.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")

    schema = commands.add_parser("schema", help="JSON Schema of suite files, for editors")
    schema.set_defaults(command=_schema)

    doctor = commands.add_parser("doctor", help="devices, energy sources, extras and data found on this machine")
    doctor.set_defaults(command=_doctor)
    return parser


def _suite_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 in place of the suite's")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps, xla or auto in place of the suite's")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ARM", help="the baseline and this arm (may be repeated)"
    )


def _host() -> PluginHost:
    """The plugin host; what is wrong with plugins goes to stderr, the rest works on."""
    from cnnbench.plugins import PluginHost

    host = PluginHost.discover()
    for problem in host.problems:
        print(f"cnnbench: warning: {problem}", file=sys.stderr)
    return host


def _load(path: Path, given: argparse.Namespace, host: PluginHost) -> Suite:
    """A suite with the command line's changes; its data is looked for too, so that nothing runs before all is there."""
    from cnnbench.suite import load

    suite = load(path, host.registry, data=True)
    if given.seeds is not None:
        if given.seeds < 1:
            raise UsageError(f"--seeds: expected at least 1, got {given.seeds}")
        suite = replace(suite, seeds=tuple(range(given.seeds)))
    return suite if given.device is None else replace(suite, device=given.device)


def _results(given: argparse.Namespace, suite: Suite) -> Path:
    folder: Path | None = given.results
    return folder if folder is not None else Path("results") / suite.name


def _run(given: argparse.Namespace) -> int:
    host = _host()
    # Every suite is read before the first one runs: a mistake in the last must not show after an hour.
    suites: list[Suite] = []
    problems: list[Problem] = []
    for path in given.suites:
        try:
            suites.append(_load(path, given, host))
        except SuiteError as error:
            problems += error.problems
    if problems:
        raise SuiteError(problems)
    if given.results is not None and len(suites) > 1:
        raise UsageError(
            "--results names one folder, but there are several suites: leave it out, or run them one by one"
        )
    from cnnbench.execute.cache import default_cache
    from cnnbench.progress import make_progress
    from cnnbench.run import RunOptions, run_suite
    from cnnbench.tables import render

    everything_ok = True
    for suite in suites:
        options = RunOptions(
            results=_results(given, suite),
            cache=given.cache or default_cache(),
            executor=given.executor,
            workers=given.workers,
            fresh=given.fresh,
            only=tuple(given.only),
        )
        summary = run_suite(suite, host, options, make_progress(quiet=given.quiet))
        everything_ok &= summary.clean
        print(render(list(summary.records), "terminal", source=options.results))
    return OK if everything_ok else SOME_FAILED


def _plan(given: argparse.Namespace) -> int:
    from cnnbench.execute.cache import StageCache, default_cache
    from cnnbench.outlook import outlook
    from cnnbench.run import default_workers, find_place
    from cnnbench.store import Store

    host = _host()
    suite = _load(given.suite, given, host)
    place = find_place(suite.device, suite.measure.latency.threads)
    store = Store(_results(given, suite))
    print(
        outlook(
            suite, host, place, store, StageCache(given.cache or default_cache()), default_workers(place), given.only
        )
    )
    return OK


def _list(given: argparse.Namespace) -> int:
    from cnnbench.cards import listing

    print(listing(_host().registry, given.slot))
    return OK


def _show(given: argparse.Namespace) -> int:
    from cnnbench.cards import card_text

    print(card_text(_host().registry, given.name))
    return OK


def _report(given: argparse.Namespace) -> int:
    from cnnbench.store import open_results
    from cnnbench.tables import render

    found = open_results(given.results)
    for problem in found.problems:
        print(f"cnnbench: warning: {found.path}: {problem}", file=sys.stderr)
    text = render(list(found.records), given.format, source=found.path)
    if given.output is None:
        print(text)
        return OK
    try:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output: {given.output} can't be written: {error.strerror}") from error
    return OK


def _schema(_given: argparse.Namespace) -> int:
    import json

    from cnnbench.schema import json_schema

    print(json.dumps(json_schema(_host().registry), indent=2))
    return OK


def _doctor(_given: argparse.Namespace) -> int:
    from cnnbench.doctor import diagnosis

    print(diagnosis(_host()))
    return OK


if __name__ == "__main__":
    sys.exit(main())
