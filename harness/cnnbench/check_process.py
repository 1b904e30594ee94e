"""Checks techniques in a process of their own: one that a technique ends costs the rule that it was at.

The process is asked for one rule at a time, so its parent knows what it was doing when it ended; another one takes up
what is left. It finds the techniques by the words of the command line, and only text passes between the two.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import re
import sys
import threading
import traceback
from contextlib import ExitStack, suppress
from dataclasses import fields
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnbench.errors import UsageError, words_of
from cnnbench.execute.children import descendants, end_all
from cnnbench.execute.local import FORK_SERVER, GRACE_SECONDS, cause_of_death, start_fork_server
from cnnbench.execute.process import main_unseen
from cnnbench.testing.check import Inspection, subject_of
from cnnbench.testing.finding import Finding
from cnnbench.testing.kit import KIT
from cnnbench.testing.place import line_of_calls, line_of_method

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from types import TracebackType

    from cnnbench.registry import Entry
    from cnnbench.targets import Target
    from cnnbench.testing.rule import Rule

_LOOK_SECONDS = 1.0
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)
_KNOWN = ("rule", "technique")
_WORDS = "words.txt"
"""In the process's folder: what Python says when the process is ended by a fault."""


class _Ask(NamedTuple):
    """What the process is to do with a technique: one rule, or none to see what a training step costs with it."""

    slot: str
    name: str
    rule: str | None


class _Ended(Exception):  # noqa: N818 - reads as what happened
    """The process has ended."""

    def __init__(self, text: str, calls: Sequence[tuple[str, int]]) -> None:
        super().__init__(text)
        self.calls = calls


class Checker:
    """Checks the techniques of a target; a context, at whose end its process ends too.

    Args:
        target: found in the working directory.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._child: _Child | None = None

    def __enter__(self) -> Checker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.end()

    def findings(self, entry: Entry, rules: Sequence[Rule]) -> list[Finding]:
        """What becomes of the rules that are for a technique's slot, in their order.

        Raises:
            UsageError: a process of its own can't load the target.
        """
        name = f"{entry.card.slot} {entry.card.name!r}"
        found: list[Finding] = []
        told: dict[tuple[str, str], str] = {}
        lost: Rule | None = None
        for rule in (one for one in rules if entry.card.slot in one.slots):
            if lost is not None:
                found.append(Finding(rule, name, "not checked", f"the rule {lost.name!r} is broken"))
                continue
            try:
                found.append(Finding(rule, name, **self._ask(entry, rule.name)))
            except _Ended as end:
                place = _place(entry, end.calls)
                first = told.setdefault((str(end), place), rule.name)
                if first == rule.name:
                    found.append(Finding(rule, name, "broken", str(end), place))
                else:
                    found.append(Finding(rule, name, "not checked", f"it ends as the rule {first!r} tells"))
                lost = rule if rule.gate else None
        return found

    def cost(self, entry: Entry) -> str:
        """What a training step takes with a technique, on one line; empty where it has no part in one."""
        try:
            line: str = self._ask(entry, None)
        except _Ended as end:
            return f"cost in the loop: not known, {end}"
        return line

    def _ask(self, entry: Entry, rule: str | None) -> Any:
        if self._child is None:
            self._child = _Child(self._target.name)
        try:
            return self._child.ask(_Ask(entry.card.slot, entry.card.name, rule))
        except _Ended:
            self._child = None
            raise


class _Child:
    """One process, from its parent's side."""

    def __init__(self, target: str) -> None:
        start_fork_server()
        context: Any = multiprocessing.get_context("forkserver" if FORK_SERVER else "spawn")
        with ExitStack() as stack:
            self._folder = stack.enter_context(TemporaryDirectory(prefix="cnnbench-"))
            self._pipe, theirs = context.Pipe()
            path = [os.path.abspath(one) for one in sys.path]  # noqa: PTH100 - "" is the working directory
            self._process = context.Process(target=_live, args=(theirs, target, str(Path.cwd()), path, self._folder))
            with main_unseen():
                self._process.start()
            theirs.close()
            stack.callback(self._kill)
            self._open = stack.pop_all()
        try:
            fault = self._answer()
        except _Ended as end:
            fault = str(end)
        except BaseException:
            self.end()
            raise
        if fault:
            self.end()
            raise UsageError(f"{target} can't be loaded in a process of its own: {fault}")

    def ask(self, what: _Ask) -> Any:
        """Its answer; raises ``_Ended``."""
        with suppress(OSError):  # it has ended: so says the answer
            self._pipe.send(what)
        return self._answer()

    def end(self) -> None:
        """End it, and all that it started."""
        self._open.close()

    def _answer(self) -> Any:
        while not wait([self._pipe, self._process.sentinel], _LOOK_SECONDS):
            if not self._process.is_alive():  # where what it forked holds both open
                break
        try:
            if self._pipe.poll():
                return self._pipe.recv()
        except (EOFError, OSError):
            pass
        self._process.join(GRACE_SECONDS)
        code = self._process.exitcode
        text = "the process closed its connection" if code is None else cause_of_death(code, "the process")
        words = Path(self._folder, _WORDS)
        said = words.read_text("utf-8", "replace") if words.exists() else ""
        self.end()
        raise _Ended(text, [(file, int(line)) for file, line in _FRAME.findall(said)])

    def _kill(self) -> None:
        self._pipe.close()
        pid = self._process.pid
        below = descendants(pid) if self._process.is_alive() else []
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        end_all(below, pid)  # it leads a group of its own


def _live(pipe: Connection[Any, Any], target: str, cwd: str, path: Sequence[str], folder: str) -> None:
    """The process: one answer for each question, until its parent is gone."""
    import faulthandler

    from cnnbench.execute.worker import keep_progress_bars_local
    from cnnbench.targets import find
    from cnnbench.try_cost import loop_cost

    _settle(cwd, path)
    keep_progress_bars_local()
    inbox: queue.SimpleQueue[_Ask] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), name="cnnbench-parent", daemon=True).start()
    rules = {rule.name: rule for rule in KIT}
    seen: dict[tuple[str, str], Inspection] = {}
    with Path(folder, _WORDS).open("w", encoding="utf-8") as words:
        faulthandler.enable(words, all_threads=False)
        try:
            found = find(target, Path(cwd))
        except UsageError as error:
            pipe.send(str(error))
            return
        pipe.send("")
        while True:
            slot, name, rule = inbox.get()
            entry = found.host.registry.get(slot, name)
            if rule is None:
                pipe.send(loop_cost(entry, found))
                continue
            if (slot, name) not in seen:
                seen.clear()
                own = Path(mkdtemp(dir=folder))
                seen[slot, name] = Inspection(subject_of(entry, found.host.registry, own))
            pipe.send(_told(seen[slot, name], rules[rule], entry))


def _told(inspection: Inspection, rule: Rule, entry: Entry) -> dict[str, str]:
    """What becomes of a rule, as text: a finding's fields but for those that the parent knows."""
    try:
        one = inspection.of(rule)
    except BaseException as error:  # noqa: BLE001 - sys.exit and the like out of a technique: no way to end a check
        calls = [(frame.filename, frame.lineno or 1) for frame in traceback.extract_tb(error.__traceback__)[::-1]]
        return {"status": "broken", "text": words_of(error), "place": _place(entry, calls)}
    return {field.name: getattr(one, field.name) for field in fields(one) if field.name not in _KNOWN}


def _place(entry: Entry, calls: Sequence[tuple[str, int]]) -> str:
    """File and line of the author's code that was reached last, else of the class; calls with the innermost first."""
    return line_of_calls(calls, entry.cls) or line_of_method("", entry.cls)


def _settle(cwd: str, path: Sequence[str]) -> None:
    """Become a process of one's own: Ctrl-C is the parent's, and what techniques print is no part of the report."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    os.dup2(2, 1)
    sys.path[:] = path
    os.chdir(cwd)


def _listen(pipe: Connection[Any, Any], inbox: queue.SimpleQueue[_Ask]) -> None:
    """Take in what is asked; without the parent, end at once."""
    while True:
        try:
            inbox.put(pipe.recv())
        except (EOFError, OSError):
            end_all(descendants(os.getpid()))
            os._exit(0)
