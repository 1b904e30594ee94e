"""The command ``cnnbench``: errors become one line and an exit code; heavy imports wait until needed.

Exit codes: 0 all trials ok; 1 some failed, diverged or ran out of time (the table still prints); 2 bad usage or a bad
suite; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import cnnbench
from cnnbench.errors import CnnbenchError, SuiteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.errors import Problem
    from cnnbench.plugins import PluginHost, PluginProblem
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
        from cnnbench.registry import nearest

        unknown = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if unknown:
            choices = [word.strip(" '") for word in unknown[2].split(",")]
            message = f"{message.partition(':')[0]}: unknown {unknown[1]!r}: {nearest(unknown[1], choices)}"
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def refuse(self, word: str) -> NoReturn:
        """End over a word that no argument takes."""
        from cnnbench.registry import nearest

        option, _, _ = word.partition("=")
        hint = nearest(option, re.findall(r"--[a-z]+", self.format_help())) if word.startswith("-") else ""
        kind = "option" if word.startswith("-") else "argument"
        self.error(f"unknown {kind} {option!r}" + (f": {hint}" if hint.startswith("did you mean") else ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? for ±, and the run is not lost
    try:
        try:
            return _answer(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the interpreter flushes what is left
        return OK


def _answer(arguments: Sequence[str]) -> int:
    """Run one command; errors become a line for people and an exit code."""
    parser = _parser()
    if not arguments:
        parser.print_help()
        return USAGE
    given, unknown = parser.parse_known_args(arguments)
    if "suites" in given and not any(word.startswith("-") for word in unknown):
        given.suites += map(Path, unknown)  # argparse takes no suites after an option: run a.toml --quiet b.toml
    elif unknown:
        given.parser.refuse(min(unknown, key=lambda word: not word.startswith("-")))
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

    def command(name: str, answer: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
        made.set_defaults(command=answer, parser=made)
        return made

    run = command("run", _run, "run suites to their tables")
    run.add_argument("suites", nargs="*", metavar="SUITE", type=Path, help="suite files (TOML)")
    _suite_overrides(run)
    run.add_argument("--executor", default="local", metavar="NAME", help="local (worker processes) or inline")
    run.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one a core on CPU)")
    run.add_argument("--results", type=Path, metavar="DIR", help="results folder (default: results/<suite>)")
    run.add_argument("--cache", type=Path, metavar="DIR", help="stage cache (default: the user's cache folder)")
    run.add_argument("--fresh", action="store_true", help="run everything again, whatever is on disk")
    run.add_argument("--quiet", action="store_true", help="no progress, only the table")

    plan = command("plan", _plan, "what would run, and what is on disk already")
    plan.add_argument("suite", nargs="?", metavar="SUITE", type=Path, help="a suite file (TOML)")
    _suite_overrides(plan)
    plan.add_argument("--results", type=Path, metavar="DIR", help="results folder (default: results/<suite>)")
    plan.add_argument("--cache", type=Path, metavar="DIR", help="stage cache (default: the user's cache folder)")

    listing = command("list", _list, "techniques by slot, one line each")
    listing.add_argument("slot", nargs="?", metavar="SLOT", help="only this slot")
    listing.add_argument("--markdown", action="store_true", help="everything about all of them, as a Markdown page")

    show = command("show", _show, "one technique: options, formula, source, caveats")
    show.add_argument("name", metavar="NAME", help="a name, or SLOT/NAME")

    compat = command("compat", _compat, "which techniques can act on a model, by two training steps each")
    compat.add_argument("models", nargs="+", metavar="MODEL", help="a model's name, torchvision's, or module:callable")
    compat.add_argument("--slot", action="append", default=[], metavar="SLOT", help="only this slot (may be repeated)")
    compat.add_argument("--image", default="3x64x64", metavar="CxHxW", help="shape of the images (default: 3x64x64)")
    compat.add_argument("--classes", type=int, default=10, metavar="K", help="number of classes (default: 10)")
    compat.add_argument("--output", type=Path, metavar="FILE", help="write the page there instead of printing it")

    report = command("report", _report, "render the table of finished results again")
    report.add_argument("results", metavar="RESULTS", type=Path, help="a folder with records.jsonl, or such a file")
    report.add_argument("--format", default="terminal", metavar="NAME", help="terminal, markdown, csv or json")
    report.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")

    command("schema", _schema, "JSON Schema of suite files, for editors")
    command("doctor", _doctor, "devices, energy sources, extras and data found on this machine")
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
    _warn_of(host.problems)
    return host


def _warn_of(problems: Sequence[PluginProblem]) -> None:
    for text, count in Counter(map(str, problems)).items():  # a hook may fail at every epoch
        print(f"cnnbench: warning: {text}" + (f" ({count} times)" if count > 1 else ""), file=sys.stderr)


def _load(path: Path, given: argparse.Namespace, host: PluginHost) -> Suite:
    """A suite with the command line's changes; data and device are looked for too, before anything runs."""
    from cnnbench.needs import check_device
    from cnnbench.suite import load

    suite = load(path, host.registry, data=True)
    if given.seeds is not None:
        if given.seeds < 1:
            raise UsageError(f"--seeds: expected at least 1, got {given.seeds}")
        suite = replace(suite, seeds=tuple(range(given.seeds)))
    if given.device is not None:
        return replace(suite, device=given.device)
    check_device(suite)
    return suite


def _no_suite(command: str) -> UsageError:
    """Which suites there are to choose from, for who named none."""
    from cnnbench.text import listed

    found = listed(sorted(path.as_posix() for path in Path("suites").glob("*.toml")))
    return UsageError(f"{command}: which suite? " + (f"Here are {found}" if found else "Expected a suite file (TOML)"))


def _results(given: argparse.Namespace, suite: Suite) -> Path:
    folder: Path | None = given.results
    return folder if folder is not None else Path("results") / suite.name


def _run(given: argparse.Namespace) -> int:
    if not given.suites:
        raise _no_suite("run")
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
    for name, count in Counter(suite.name for suite in suites).items():
        if count > 1:
            raise UsageError(
                f"{count} of the suites would write to results/{name}: run them one by one, with --results"
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
        known = len(host.problems)
        summary = run_suite(suite, host, options, make_progress(quiet=given.quiet))
        _warn_of(host.problems[known:])
        everything_ok &= summary.clean
        print(render(list(summary.records), "terminal", source=options.results))
    return OK if everything_ok else SOME_FAILED


def _plan(given: argparse.Namespace) -> int:
    from cnnbench.execute.cache import StageCache, default_cache
    from cnnbench.outlook import outlook
    from cnnbench.run import default_workers, find_place
    from cnnbench.store import Store

    if given.suite is None:
        raise _no_suite("plan")
    host = _host()
    known = len(host.problems)
    suite = _load(given.suite, given, host)
    place = find_place(suite.device, suite.measure.latency.threads)
    store, cache = Store(_results(given, suite)), StageCache(given.cache or default_cache())
    text = outlook(suite, host, place, store, cache, default_workers(place), given.only)
    _warn_of(host.problems[known:])
    print(text)
    return OK


def _list(given: argparse.Namespace) -> int:
    from cnnbench.cards import listing

    if given.markdown:
        from cnnbench.catalogue import catalogue

        print(catalogue(_host().registry))
        return OK
    print(listing(_host().registry, given.slot))
    return OK


def _show(given: argparse.Namespace) -> int:
    from cnnbench.cards import card_text

    print(card_text(_host().registry, given.name))
    return OK


def _compat(given: argparse.Namespace) -> int:
    from cnnbench import compat, compat_page
    from cnnbench.devices import resolve
    from cnnbench.registry import nearest

    for slot in given.slot:
        if slot not in compat.SLOTS:
            raise UsageError(f"--slot: unknown slot {slot!r}: {nearest(slot, compat.SLOTS)}")
    shape = re.fullmatch(r"([13])x([1-9]\d*)x([1-9]\d*)", given.image)
    if shape is None:
        raise UsageError(f"--image: expected CxHxW with C 1 or 3, such as 3x64x64, got {given.image!r}")
    if given.classes < 2:
        raise UsageError(f"--classes: expected at least 2, got {given.classes}")
    registry, device = _host().registry, resolve("cpu")
    models = [(text, compat.parse_model(text, registry)) for text in given.models]
    splits = compat.random_splits((int(shape[1]), int(shape[2]), int(shape[3])), given.classes)
    verdicts = []
    for technique in compat.candidates(registry, given.slot or compat.SLOTS):
        for text, model in models:
            verdict = compat.try_technique(technique, model, text, splits, registry, device)
            verdicts.append(verdict)
            print(f"{technique.slot} {technique.name} on {text}: {verdict.status}", file=sys.stderr)
    again = compat_page.command_line(given.models, given.slot, given.image, given.classes, given.output)
    _put(compat_page.page(verdicts, command=again, image=given.image, classes=given.classes), given.output)
    print(compat_page.totals(verdicts), file=sys.stderr)
    return OK


def _report(given: argparse.Namespace) -> int:
    from cnnbench.store import open_results

    found = open_results(given.results)
    for problem in found.problems:
        print(f"cnnbench: warning: {found.path}: {problem}", file=sys.stderr)
    _put(_rendered(list(found.records), given.format, given.results), given.output)
    return OK


def _put(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file."""
    if output is None:
        print(text)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output: {output} can't be written: {error.strerror}") from error


def _rendered(records: list[dict[str, Any]], form: str, source: Path) -> str:
    """Records in one of the harness's formats, or a plugin's; plugins are loaded only for theirs."""
    from cnnbench.registry import nearest
    from cnnbench.tables import FORMATS, render

    if form in FORMATS:
        return render(records, form, source=source)
    from cnnbench.options import make
    from cnnbench.types import Choice

    registry = _host().registry
    names = registry.names("reporter")
    if form not in names:
        raise UsageError(f"unknown format {form!r}: {nearest(form, [*FORMATS, *names])}")
    return str(make(Choice("reporter", form), registry)(records))


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
