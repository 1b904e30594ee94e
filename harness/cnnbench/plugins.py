"""The host: loads plugins, fills the registry, and calls hooks. Nobody else touches pluggy's relay.

Plugins come in three ways: an installed package names a module in an entry point; a suite, or ``--plugin``, names a
Python file, or a module (``local_plugins``). Whichever it is, the module's hooks are called alike.

A plugin that fails to import, to register or to answer a hook is reported by distribution and cause in
``PluginHost.problems``; everything else works on.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
import traceback
import warnings
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from cnnbench import contract_version, hook_answers, hookspecs
from cnnbench.errors import PluginError, UsageError, words_of
from cnnbench.hook_answers import AnswerError
from cnnbench.hookspecs import ContractDeprecation
from cnnbench.importing import located
from cnnbench.interrupt import ctrl_c
from cnnbench.local_plugins import LocalPlugin, fault_of, import_plugin
from cnnbench.registry import Owner, Registry
from cnnbench.technique import CARD, card_of
from cnnbench.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

GROUP = "cnnbench"
SLOW_IMPORT_SECONDS = 30.0
"""A plugin that takes longer to import is told of."""
_FAILED = object()
"""In place of what a plugin's code returns, where it raised."""

# Which slots each registration hook accepts; techniques are all the rest.
_OWN_HOOK = {
    "model": "cnnbench_register_models",
    "dataset": "cnnbench_register_datasets",
    "metric": "cnnbench_register_metrics",
    "reporter": "cnnbench_register_reporters",
    "executor": "cnnbench_register_executors",
}


@dataclass(frozen=True)
class PluginProblem:
    """What went wrong with a plugin.

    Attributes:
        owner: whose it is.
        cause: one line.
        trace: the traceback, where there is one.
        usable: the plugin offers all that it should nonetheless.
    """

    owner: Owner
    cause: str
    trace: str = ""
    usable: bool = False

    def __str__(self) -> str:
        return f"plugin {self.owner.plugin!r} of {self.owner}: {self.cause}"


class PluginHost:
    """Loaded plugins, their techniques, and a typed method for each hook.

    Attributes:
        registry: techniques of all plugins.
        problems: what is wrong with plugins.
        local: the plugins that are not installed, in the order of loading, each with the digest of its code.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._owners: dict[str, Owner] = {}
        self.registry = Registry()
        self.problems: list[PluginProblem] = []
        self.local: tuple[LocalPlugin, ...] = ()

    @classmethod
    def discover(
        cls,
        without: Mapping[str, str] | None = None,
        tell: Callable[[str], object] = lambda _plugin: None,
        local: Sequence[LocalPlugin] = (),
    ) -> PluginHost:
        """A host with every installed plugin loaded and registered; the harness's own come first, local ones last.

        Args:
            without: plugins that are left out, by the name of their entry point or of the local plugin, with the
                reason.
            tell: called with the name of each plugin before it is imported.
            local: plugins that are not installed.
        """
        host = cls()
        points = importlib.metadata.entry_points(group=GROUP)
        for point in sorted(points, key=lambda p: (_owner(p).distribution != "cnnbench", p.name)):
            if without and point.name in without:
                host._add(PluginProblem(_owner(point), without[point.name]))
                continue
            tell(point.name)
            host.load(point)
        for plugin in local:
            if without and plugin.name in without:
                host._add(PluginProblem(plugin.owner, without[plugin.name]))
                host.registry.absent[plugin.name] = without[plugin.name]
                continue
            tell(plugin.name)
            host.load_local(plugin)
        return host

    def with_local(self, local: Sequence[LocalPlugin]) -> PluginHost:
        """Another host with the same plugins, and local ones loaded after them."""
        host = PluginHost()
        with _deprecations():  # told already
            for name, plugin in self._manager.list_name_plugin():
                if name in self._owners:
                    host._manager.register(plugin, name=name)
                    host._owners[name] = self._owners[name]
        host.registry = self.registry.copy()
        host.problems, host.local = list(self.problems), self.local
        for one in local:
            host.load_local(one)
        return host

    def load(self, point: importlib.metadata.EntryPoint) -> None:
        """Import the plugin behind an entry point and register what it offers."""
        owner = _owner(point)
        if owner.distribution != "cnnbench" and not self._fits(owner, _declared(point)):
            return
        began = time.monotonic()
        module = self._attempt(owner, f"failed to import {point.value}", point.load)
        if module is _FAILED or not self._fits(owner, getattr(module, contract_version.NAME, None)):
            return
        seconds = time.monotonic() - began
        if seconds > SLOW_IMPORT_SECONDS and owner.distribution != "cnnbench":
            wait = f"took {duration(seconds)} to import, which every command and every worker waits for"
            cause = f"{wait}: let it import what is heavy where it is used"
            self._add(PluginProblem(owner, cause, usable=True))
        self.register(module, owner)

    def load_local(self, plugin: LocalPlugin) -> None:
        """Import a plugin that is not installed and register what it offers."""
        owner, known = plugin.owner, len(self.problems)
        found = self._imported(plugin) if self._fits(owner, _declared_in(plugin.file)) else None
        if found is not None and self._fits(owner, getattr(found[0], contract_version.NAME, None)):
            module, digest = found
            self.local += (replace(plugin, digest=digest),)
            if not self._manager.is_registered(module):  # the module of an installed plugin has come in by its own door
                self.register(module, owner, plugin.beside)
                if len(self.problems) == known and (lack := self._lack(module, owner)):
                    self._add(PluginProblem(owner, lack))
        if lacks := [problem for problem in self.problems[known:] if not problem.usable]:
            self.registry.absent[plugin.name] = lacks[0].cause

    def _imported(self, plugin: LocalPlugin) -> tuple[ModuleType, str] | None:
        with ctrl_c() as pressed, redirect_stdout(sys.stderr):
            try:
                return import_plugin(plugin)
            except UsageError as error:
                self._add(PluginProblem(plugin.owner, str(error)))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and pressed():
                    raise
                trace = "".join(traceback.format_exception(error))
                self._add(PluginProblem(plugin.owner, fault_of(plugin, error), trace))
        return None

    def _fits(self, owner: Owner, declared: object) -> bool:
        """Whether a plugin was built for this contract, as far as it says; reported where it was not."""
        if refusal := contract_version.refusal(declared):
            self._add(PluginProblem(owner, refusal))
        return refusal is None

    def _lack(self, module: ModuleType, owner: Owner) -> str:
        """What is missing in a module that offers nothing; an empty text where all is well."""
        if any(entry.owner == owner for entry in self.registry):
            return ""
        own = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
        made = [one for one in own if CARD in vars(one)]
        if made:
            hook = _OWN_HOOK.get(card_of(made[0]).slot, "cnnbench_register_techniques")
            names = ", ".join(one.__name__ for one in made)
            return (
                f"has techniques and registers none: add 'from cnnbench import hookimpl' and the function "
                f"'@hookimpl def {hook}(): return [{names}]'"
            )
        if self._manager.get_hookcallers(module):
            return ""  # it watches, or answers questions
        return "has no function with @hookimpl, so that it adds nothing: write one of the hooks of docs/plugins.md"

    def register(self, plugin: object, owner: Owner, beside: Path | None = None) -> None:
        """Register a plugin (a module or an object with hook implementations) and what it offers.

        Args:
            plugin: what implements hooks.
            owner: whose it is.
            beside: of a local plugin, see ``registry.Entry``.
        """
        if owner.plugin in self._owners:
            taken = self._owners[owner.plugin]
            self._add(PluginProblem(owner, f"its name is taken by a plugin of {taken}; not loaded"))
            return
        self._owners[owner.plugin] = owner
        try:
            with _deprecations() as deprecated:
                self._manager.register(plugin, name=owner.plugin)
                self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            self._report(owner, "is not a valid plugin", error)
            self._manager.unregister(name=owner.plugin)
            return
        for text in deprecated:
            self._add(PluginProblem(owner, text, usable=True))
        hooks = ("cnnbench_register_techniques", *_OWN_HOOK.values())
        for hook in hooks:
            for impl in getattr(self._manager.hook, hook).get_hookimpls():
                if impl.plugin_name == owner.plugin:
                    self._collect(hook, impl.function, owner, beside)

    @contextmanager
    def observing(self, make: Callable[[], object], owner: Owner) -> Iterator[None]:
        """Have the hooks of an observer called within the block, and its ``close()``, if it has one, at its end.

        Whatever it raises, in being made too, is a problem and nothing else.

        Args:
            make: makes the observer.
            owner: whose it is; the plugin's name must be taken by none.
        """
        observer = self._attempt(owner, "can't observe this run", make)
        if observer is _FAILED:
            yield
            return
        self.register(observer, owner)
        try:
            yield
        finally:
            if self._manager.has_plugin(owner.plugin):
                self._manager.unregister(name=owner.plugin)
            del self._owners[owner.plugin]
            self._attempt(owner, "close failed", getattr(observer, "close", lambda: None))

    def _collect(self, hook: str, offer: Callable[[], Iterable[type[Any]]], owner: Owner, beside: Path | None) -> None:
        classes = self._attempt(owner, f"{hook} failed", lambda: hook_answers.classes(hook, offer()))
        for cls in () if classes is _FAILED else classes:
            try:
                slot = card_of(cls).slot
                wanted = _OWN_HOOK.get(slot, "cnnbench_register_techniques")
                if wanted != hook:
                    raise PluginError(f"{cls.__qualname__} has slot {slot!r}: return it from {wanted}, not {hook}")
                self.registry.add(cls, owner, beside)
            except PluginError as error:
                self._add(PluginProblem(owner, str(error)))

    def _attempt(self, owner: Owner, what: str, call: Callable[[], Any]) -> Any:
        """What a plugin's code returns, or ``_FAILED``: what it raises is reported, and Ctrl-C alone goes through."""
        with ctrl_c() as pressed, redirect_stdout(sys.stderr):  # what it prints is no part of a table
            try:
                return call()
            except AnswerError as error:
                self._add(PluginProblem(owner, str(error)))
                return _FAILED
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and pressed():
                    raise
                self._report(owner, what, error)
                return _FAILED

    def _report(self, owner: Owner, what: str, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error))
        self._add(PluginProblem(owner, f"{what}: {words_of(error)}", trace))

    def _add(self, problem: PluginProblem) -> None:
        self.problems.append(problem)
        self.registry.remarks.append(str(problem))

    def _each(self, hook: str, into: Callable[[Any], Any], **arguments: Any) -> Iterator[tuple[Owner, Any]]:
        """Results of one hook, plugin by plugin in order of loading; one that raises is reported and passed over.

        Args:
            hook: its name.
            into: makes of a result what the caller needs; what it raises is the plugin's fault too.
            arguments: by the hook's own names; each plugin gets a copy of its own, to keep or to change.
        """
        for impl in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            owner = self._owners[impl.plugin_name]
            given = {name: deepcopy(arguments[name]) for name in impl.argnames}
            call = partial(lambda function, given: into(function(**given)), impl.function, given)
            result = self._attempt(owner, f"{hook} failed", call)
            if result is not _FAILED:
                yield owner, result

    def check_trial(self, trial: Callable[[], Mapping[str, Any]]) -> str | None:
        """The first reason that a plugin gives to skip a trial, with its name, or None.

        Args:
            trial: makes what the hook is given; called only where a plugin has that hook.
        """
        if not self._manager.hook.cnnbench_check_trial.get_hookimpls():
            return None
        answers = self._each("cnnbench_check_trial", hook_answers.reason, trial=trial())
        return next((f"{reason} ({owner.plugin})" for owner, reason in answers if reason), None)

    def advise_arm(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """What plugins have to say of an arm's combination of techniques."""
        advice = self._each("cnnbench_advise_arm", hook_answers.advice, settings=settings)
        return tuple(line for _, lines in advice for line in lines)

    def describe_environment(self) -> dict[str, str]:
        """Facts that plugins add to the manifest; on a clash the plugin loaded first wins."""
        facts: dict[str, str] = {}
        for owner, (answer, cut) in self._each("cnnbench_describe_environment", hook_answers.facts):
            facts = {**answer, **facts}
            if cut:
                self._add(PluginProblem(owner, cut, usable=True))
        return facts

    def plan_ready(self, plan: Mapping[str, Any]) -> None:
        """Tell observers that the plan is made."""
        self._tell("cnnbench_plan_ready", plan=plan)

    def trial_started(self, trial: Mapping[str, Any]) -> None:
        """Tell observers that a trial's first stage was handed out."""
        self._tell("cnnbench_trial_started", trial=trial)

    def epoch_finished(self, trial: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Tell observers that an epoch ended."""
        self._tell("cnnbench_epoch_finished", trial=trial, progress=progress)

    def trial_finished(self, record: Mapping[str, Any]) -> None:
        """Tell observers that a trial ended."""
        self._tell("cnnbench_trial_finished", record=record)

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        """Tell observers that the run ended."""
        self._tell("cnnbench_run_finished", summary=summary)

    def _tell(self, hook: str, **arguments: Any) -> None:
        for _ in self._each(hook, lambda _ignored: None, **arguments):
            pass


def _owner(point: importlib.metadata.EntryPoint) -> Owner:
    name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown distribution", "?")
    return Owner(point.name, name, version)


def _declared(point: importlib.metadata.EntryPoint) -> object:
    """The contract that the source behind an entry point says it was built for."""
    spec = located(point.module)
    return _declared_in(Path(spec.origin)) if spec is not None and spec.has_location and spec.origin else None


def _declared_in(file: Path) -> object:
    try:
        return contract_version.declared(file.read_bytes())
    except OSError:
        return None


@contextmanager
def _deprecations() -> Iterator[list[str]]:
    """What of the contract is deprecated and used by a plugin that is registered in the block, filled at its end."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    for one in caught:
        if isinstance(one.message, ContractDeprecation):
            texts.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
