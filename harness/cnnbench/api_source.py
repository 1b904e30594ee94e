"""How suites are read from Python: where their content comes from, with which plugins, what a call changes."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cnnbench.calls import AUTO, changed
from cnnbench.errors import CnnbenchWarning, SuiteError, UsageError
from cnnbench.expect import show
from cnnbench.opening import open_text
from cnnbench.plugins import PluginHost
from cnnbench.session import bring_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.suite import Suite

Seeds = int | tuple[int, ...] | list[int] | range
"""A number of seeds, 0 to N-1, or the seeds themselves."""


@dataclass(frozen=True)
class Source:
    """Where a suite comes from.

    Attributes:
        content: its TOML.
        file: its path; its folder is where relative paths start from, its name becomes the suite's.
        shown: the path in messages, where it is no file that people could open.
        lines: its lines are the user's own.
    """

    content: bytes
    file: str
    shown: str = ""
    lines: bool = True

    def mistakes(self, error: SuiteError) -> SuiteError:
        """Mistakes as people know the source."""
        if not self.shown:
            return error
        return SuiteError([replace(one, file=self.shown, line=one.line * self.lines) for one in error.problems])


@dataclass(frozen=True)
class Reading:
    """A suite that was read.

    Attributes:
        source: its content.
        techniques: classes that were given with it.
        host: plugins that it was read with.
        own: names of the techniques that this process alone has.
        suite: what it says.
    """

    source: Source
    techniques: tuple[type[Any], ...]
    host: PluginHost
    own: tuple[str, ...]
    suite: Suite

    def changed(self, seeds: Seeds | str | None, device: str | None, *, here: bool = True) -> Suite:
        """``calls.changed`` with what Python gives.

        Raises:
            SuiteError: this machine has not what is asked for.
            UsageError: seeds can't be used.
        """
        try:
            return changed(self.suite, plain_seeds(seeds), device, here=here)
        except SuiteError as error:
            raise self.source.mistakes(error) from None


def read(source: Source, techniques: Sequence[type[Any]]) -> Reading:
    """Read and validate a suite; what is wrong with plugins is warned of, and the rest works on.

    Raises:
        SuiteError: it has mistakes; carries all of them.
        PluginError: a class is no technique, or its slot and name are taken.
    """
    host = PluginHost.discover()
    own = bring_in(host, techniques)
    warn_of_plugins(host)
    try:
        opened = open_text(source.content, source.file, host, data=True)
    except SuiteError as error:
        raise source.mistakes(error) from None
    warn_of_plugins(opened.host, len(host.problems))
    return Reading(source, tuple(techniques), opened.host, own, opened.suite)


def plain_seeds(seeds: Seeds | str | None) -> tuple[int, ...] | int | str | None:
    """Seeds as a call takes them.

    Raises:
        UsageError: they are not what was asked for.
    """
    if seeds is None or (isinstance(seeds, str) and seeds == AUTO) or (isinstance(seeds, int) and _whole(seeds)):
        return seeds
    if isinstance(seeds, tuple | list | range) and seeds and len(set(seeds)) == len(seeds):
        given: tuple[Any, ...] = tuple(seeds)
        if all(_whole(seed) and seed >= 0 for seed in given):
            return given
    raise UsageError(f"seeds: expected a number, distinct seeds such as range(5, 10), or {AUTO!r}, got {show(seeds)}")


def _whole(seed: object) -> bool:
    return isinstance(seed, int) and not isinstance(seed, bool)


def names(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name, or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def warn_of_plugins(host: PluginHost, known: int = 0) -> None:
    """Warn of what is wrong with plugins, each problem once.

    Args:
        host: which has noted it.
        known: how many of its problems were told before.
    """
    for text, count in Counter(map(str, host.problems[known:])).items():
        times = f" ({count} times)" if count > 1 else ""
        warnings.warn(f"{text}{times}", CnnbenchWarning, stacklevel=4)
