"""The host: finds plugins, fills the registry, and calls hooks. Nobody else touches pluggy's relay.

A plugin that fails to import, to register or to answer a hook is reported by distribution and cause in
``PluginHost.problems``; everything else works on.
"""

from __future__ import annotations

import importlib.metadata
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from cnnbench import hookspecs
from cnnbench.errors import PluginError
from cnnbench.registry import Owner, Registry
from cnnbench.technique import card_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

GROUP = "cnnbench"

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
    """

    owner: Owner
    cause: str
    trace: str = ""

    def __str__(self) -> str:
        return f"plugin {self.owner.plugin!r} of {self.owner}: {self.cause}"


class PluginHost:
    """Loaded plugins, their techniques, and a typed method for each hook."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._owners: dict[str, Owner] = {}
        self.registry = Registry()
        self.problems: list[PluginProblem] = []

    @classmethod
    def discover(cls) -> PluginHost:
        """A host with every installed plugin loaded and registered; the harness's own come first."""
        host = cls()
        points = importlib.metadata.entry_points(group=GROUP)
        for point in sorted(points, key=lambda p: (_owner(p).distribution != "cnnbench", p.name)):
            host.load(point)
        return host

    def load(self, point: importlib.metadata.EntryPoint) -> None:
        """Import the plugin behind an entry point and register what it offers."""
        owner = _owner(point)
        try:
            module = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - another's code: anything may come out of it
            self._report(owner, f"failed to import {point.value}", error)
            return
        self.register(module, owner)

    def register(self, plugin: object, owner: Owner) -> None:
        """Register a plugin (a module or an object with hook implementations) and what it offers."""
        if owner.plugin in self._owners:
            taken = self._owners[owner.plugin]
            self.problems.append(PluginProblem(owner, f"the entry point's name is taken by {taken}; not loaded"))
            return
        self._owners[owner.plugin] = owner
        try:
            self._manager.register(plugin, name=owner.plugin)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            self._report(owner, "is not a valid plugin", error)
            self._manager.unregister(name=owner.plugin)
            return
        hooks = ("cnnbench_register_techniques", *_OWN_HOOK.values())
        for hook in hooks:
            for impl in getattr(self._manager.hook, hook).get_hookimpls():
                if impl.plugin_name == owner.plugin:
                    self._collect(hook, impl.function, owner)

    @contextmanager
    def observing(self, make: Callable[[], object], owner: Owner) -> Iterator[None]:
        """Have the hooks of an observer called within the block, and its ``close()``, if it has one, at its end.

        Whatever it raises, in being made too, is a problem and nothing else.

        Args:
            make: makes the observer.
            owner: whose it is; the plugin's name must be taken by none.
        """
        try:
            observer = make()
        except Exception as error:  # noqa: BLE001 - another's code: anything may come out of it
            self._report(owner, "can't observe this run", error)
            yield
            return
        self.register(observer, owner)
        try:
            yield
        finally:
            if self._manager.has_plugin(owner.plugin):
                self._manager.unregister(name=owner.plugin)
            del self._owners[owner.plugin]
            try:
                getattr(observer, "close", lambda: None)()
            except Exception as error:  # noqa: BLE001
                self._report(owner, "close failed", error)

    def _collect(self, hook: str, offer: Callable[[], Iterable[type[Any]]], owner: Owner) -> None:
        try:
            classes = list(offer())
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._report(owner, f"{hook} failed", error)
            return
        for cls in classes:
            try:
                slot = card_of(cls).slot
                wanted = _OWN_HOOK.get(slot, "cnnbench_register_techniques")
                if wanted != hook:
                    raise PluginError(f"{cls.__qualname__} has slot {slot!r}: return it from {wanted}, not {hook}")
                self.registry.add(cls, owner)
            except PluginError as error:
                self.problems.append(PluginProblem(owner, str(error)))

    def _report(self, owner: Owner, what: str, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error))
        self.problems.append(PluginProblem(owner, f"{what}: {type(error).__name__}: {error}", trace))

    def _each(self, hook: str, **arguments: Any) -> Iterator[Any]:
        """Results of one hook, plugin by plugin in order of loading; one that raises is reported and passed over."""
        for impl in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            try:
                yield impl.function(**{name: arguments[name] for name in impl.argnames})
            except Exception as error:  # noqa: BLE001
                self._report(self._owners[impl.plugin_name], f"{hook} failed", error)

    def check_trial(self, trial: Mapping[str, Any]) -> str | None:
        """The first reason that a plugin gives to skip ``trial``, with its name, or None."""
        for impl in reversed(self._manager.hook.cnnbench_check_trial.get_hookimpls()):
            try:
                reason = impl.function(**({"trial": trial} if "trial" in impl.argnames else {}))
            except Exception as error:  # noqa: BLE001
                self._report(self._owners[impl.plugin_name], "cnnbench_check_trial failed", error)
                continue
            if reason:
                return f"{reason} ({impl.plugin_name})"
        return None

    def advise_arm(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """What plugins have to say of an arm's combination of techniques."""
        return tuple(str(line) for lines in self._each("cnnbench_advise_arm", settings=settings) for line in lines)

    def describe_environment(self) -> dict[str, str]:
        """Facts that plugins add to the manifest; on a clash the plugin loaded first wins."""
        facts: dict[str, str] = {}
        for answer in self._each("cnnbench_describe_environment"):
            facts = {**{str(k): str(v) for k, v in dict(answer).items()}, **facts}
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
        for _ in self._each(hook, **arguments):
            pass


def _owner(point: importlib.metadata.EntryPoint) -> Owner:
    name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown distribution", "?")
    return Owner(point.name, name, version)
