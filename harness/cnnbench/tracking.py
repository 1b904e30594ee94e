"""Experiment trackers that a run is told to, chosen by name."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cnnbench.errors import MissingDependency, UsageError
from cnnbench.options import make
from cnnbench.registry import nearest
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cnnbench.plugins import PluginHost
    from cnnbench.registry import Registry
    from cnnbench.suite import Suite


def check_trackers(names: Sequence[str], registry: Registry) -> None:
    """Look for the trackers before anything runs.

    Raises:
        UsageError: unknown name, or one whose packages are not installed, with the line that installs them.
    """
    known = registry.names("tracker")
    for name in names:
        if name not in known:
            raise UsageError(f"--tracker: unknown tracker {name!r}: {nearest(name, known)}")
        for need in registry.get("tracker", name).card.requires:
            if find_spec(need.module) is None:
                raise UsageError(f"--tracker: {name} {MissingDependency(need.module, need.extra, need.distribution)}")


@contextmanager
def tracked(host: PluginHost, names: Sequence[str], suite: Suite, results: Path) -> Iterator[None]:
    """Tell the run within the block to trackers. Whatever one of them does, the run goes on, see ``host.problems``.

    Args:
        host: whose hooks they implement.
        names: of trackers that are there.
        suite: that is run.
        results: its folder.
    """
    if not names:
        yield
        return
    from cnnbench.devices import resolve

    run = {
        "suite": suite.name,
        "question": suite.question,
        "sha256": suite.sha256,
        "device": str(resolve(suite.device)),
        "results": str(results),
    }
    with ExitStack() as stack:
        for name in dict.fromkeys(names):
            owner = replace(host.registry.get("tracker", name).owner, plugin=f"tracker {name}")
            stack.enter_context(host.observing(partial(make(Choice("tracker", name), host.registry), dict(run)), owner))
        yield
