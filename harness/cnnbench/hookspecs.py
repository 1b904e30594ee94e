"""The hooks that a plugin may implement. Every hook is optional; results of all plugins are used.

A plugin is a module named by an entry point in group ``cnnbench``, or by a suite's ``plugins``; its functions carry
``cnnbench.hookimpl``.

A hook that goes with the next major version of the contract tells so whoever implements it, by
``@hookspec(warn_on_impl=ContractDeprecation("..."))``; an argument that goes, by ``warn_on_impl_args={name: ...}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROJECT = "cnnbench"


class ContractDeprecation(DeprecationWarning):
    """Something of the contract with plugins goes with its next major version; its text says what to use instead."""


hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def cnnbench_register_techniques() -> Iterable[type[Any]]:
    """Technique classes made with ``@technique``, of any slot but those with a hook of their own. Called at start."""
    raise NotImplementedError


@hookspec
def cnnbench_register_models() -> Iterable[type[Any]]:
    """Technique classes of slot ``model``. Called at start."""
    raise NotImplementedError


@hookspec
def cnnbench_register_datasets() -> Iterable[type[Any]]:
    """Technique classes of slot ``dataset``. Called at start."""
    raise NotImplementedError


@hookspec
def cnnbench_register_metrics() -> Iterable[type[Any]]:
    """Technique classes of slot ``metric``. Called at start."""
    raise NotImplementedError


@hookspec
def cnnbench_register_reporters() -> Iterable[type[Any]]:
    """Technique classes of slot ``reporter``. Called at start."""
    raise NotImplementedError


@hookspec
def cnnbench_register_executors() -> Iterable[type[Any]]:
    """Technique classes of slot ``executor``. Called at start."""
    raise NotImplementedError


@hookspec
def cnnbench_check_trial(trial: Mapping[str, Any]) -> str | None:
    """A reason to skip this trial, or None. Called for each trial when a plan is made.

    Args:
        trial: ``{"arm": str, "seed": int, "device": str, "settings": plain settings}``.
    """


@hookspec
def cnnbench_advise_arm(settings: Mapping[str, Any]) -> Iterable[str]:
    """What is known to go wrong where the techniques of an arm meet, a line each. Called for each arm of a plan.

    The lines are shown before the run and stand under its table; the arm runs all the same.

    Args:
        settings: plain settings.
    """
    raise NotImplementedError


@hookspec
def cnnbench_describe_environment() -> Mapping[str, str]:
    """Facts for the manifest that each record carries, e.g. a library's version. Called once a run."""
    raise NotImplementedError


@hookspec
def cnnbench_plan_ready(plan: Mapping[str, Any]) -> None:
    """The plan is made and nothing has run yet.

    Args:
        plan: ``{"suite": str, "arms": int, "trials": int, "stages": int, "cached": int, "workers": int}``.
    """


@hookspec
def cnnbench_trial_started(trial: Mapping[str, Any]) -> None:
    """A trial's first stage was handed to a worker. A trial whose stages are all in the cache ends without it.

    Args:
        trial: ``{"key": str, "dataset": label, "arm": str, "seed": int}``.
    """


@hookspec
def cnnbench_epoch_finished(trial: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """A training epoch ended in a worker.

    Args:
        trial: ``{"key": str, "dataset": label, "arm": str, "seed": int, "stage": str}``; of several trials that share
            the training, the first. The stage is ``train``, or ``compress`` where a compressor trains.
        progress: the fields of ``cnnbench.types.Progress``.
    """


@hookspec
def cnnbench_trial_finished(record: Mapping[str, Any]) -> None:
    """A trial of this run ended, whatever its status.

    Trials that were skipped when the plan was made, and those on record already, never ran: nobody is told of them.

    Args:
        record: the line that went to ``records.jsonl``.
    """


@hookspec
def cnnbench_run_finished(summary: Mapping[str, Any]) -> None:
    """The run ended.

    Args:
        summary: ``{"suite": str, "planned": int, "statuses": {status: count}, "seconds": float, "results": path}``.
    """
