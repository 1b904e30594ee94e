"""A suite together with the plugins that it names: these are loaded first, since its techniques may be theirs."""

from __future__ import annotations

import codecs
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnbench.errors import Problem, SuiteError, UsageError
from cnnbench.local_plugins import COPIES, locate_plugin
from cnnbench.locate import Place, dotted, line_of, lines_of
from cnnbench.options import nested
from cnnbench.suite import parse
from cnnbench.text import listed, unsteered
from cnnbench.toml import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.local_plugins import LocalPlugin
    from cnnbench.plugins import PluginHost
    from cnnbench.suite import Suite

KEY = "plugins"
"""Of a suite: the plugins that it names."""


class Opened(NamedTuple):
    """A suite and what it can be run with.

    Attributes:
        suite: validated.
        host: with the suite's own plugins beside the installed ones.
    """

    suite: Suite
    host: PluginHost


def open_suite(
    file: str | Path, host: PluginHost, *, data: bool = False, imports: bool = True, copies: bool = False
) -> Opened:
    """Read and validate a suite file, and load the plugins that it names.

    Args:
        file: its path.
        host: the installed plugins; it stays as it is.
        data: see ``suite.load``.
        imports: the suite may name code to import; without, none of its plugins is.
        copies: see ``with_plugins``.

    Raises:
        SuiteError: it can't be read, is not TOML, or has mistakes, plugins that don't load among them; carries all of
            them in the order of the file.
    """
    return open_text(read_file(file), str(file), host, data=data, imports=imports, copies=copies)


def open_text(
    content: bytes, file: str, host: PluginHost, *, data: bool = False, imports: bool = True, copies: bool = False
) -> Opened:
    """``open_suite`` for bytes already read; ``file`` gives the name and the folder that paths start from."""
    names = plugin_names(content)
    if not names:
        return Opened(parse(content, file, host.registry, data=data, imports=imports), host)
    found: list[tuple[Place, str]] = []
    if imports:
        host, faults = with_plugins(host, names, Path(file).absolute().parent, copies=copies)
        found += [((KEY, index), text) for index, text in faults]
    else:
        found.append(((KEY,), "names code that is imported, which is forbidden here"))
        host = host.with_local(())
        host.registry.absent |= dict.fromkeys(names, "")
    lines = lines_of(content.decode("utf-8-sig"))
    problems = [Problem(file, line_of(lines, at), dotted(at), unsteered(text)) for at, text in found]
    try:
        suite = parse(content, file, host.registry, data=data, imports=imports)
    except SuiteError as error:
        problems += error.problems
    if problems:
        raise SuiteError(sorted(problems, key=lambda problem: problem.line))
    return Opened(replace(suite, code=code_of(host.local)), host)


class Loaded(NamedTuple):
    """A host with plugins that are not installed.

    Attributes:
        host: with those that load.
        faults: of those that don't: the index of each among the names, and why, in a line that names it.
    """

    host: PluginHost
    faults: tuple[tuple[int, str], ...]


def with_plugins(host: PluginHost, names: Sequence[str], folder: Path, *, copies: bool = False) -> Loaded:
    """Load plugins that are not installed.

    Args:
        host: stays as it is.
        names: files and modules, as people write them.
        folder: that files are relative to, and where modules are looked for first.
        copies: it is a folder of results: the copies there are the plugins that the suite was run with.
    """
    located: dict[str, LocalPlugin] = {}
    faults: list[tuple[int, str]] = []
    lost: list[str] = []
    for index, name in enumerate(names):
        if name in names[:index]:
            faults.append((index, f"{name} is listed twice"))
            continue
        try:
            located[name] = locate_plugin(name, folder, copies=copies)
        except UsageError as error:
            faults.append((index, str(error)))
            lost.append(name)
    loaded = host.with_local(tuple(located.values()))
    for problem in loaded.problems[len(host.problems) :]:
        if not problem.usable:
            name = problem.owner.plugin
            told = problem.cause.startswith(located[name].file.name)
            faults.append((names.index(name), problem.cause if told else f"{name}: {problem.cause}"))
    loaded.registry.absent = dict.fromkeys([*loaded.registry.absent, *lost], "")
    return Loaded(loaded, tuple(sorted(faults)))


def host_of_results(folder: Path, record: Mapping[str, Any], host: PluginHost, *, imports: bool) -> PluginHost:
    """The host with the plugins that a run's suite named, as the run has kept them beside its records.

    Args:
        folder: of the results.
        record: of the run.
        host: the installed plugins.
        imports: they may be imported; what lies in a folder of results may be another's.

    Raises:
        UsageError: the record's technique is of such a plugin, and they may not be imported, or don't load.
    """
    file = folder / Path(str((record.get("suite") or {}).get("file"))).name
    names = plugin_names(file.read_bytes()) if file.is_file() else []
    if not names:
        return host
    if imports:
        loaded = with_plugins(host, names, folder, copies=True)
        if loaded.faults:
            raise UsageError("\n".join(text for _, text in loaded.faults))
        return loaded.host
    for one in nested(record["settings"]):
        if one.name not in host.registry.names(one.slot):
            raise UsageError(
                f"{one.slot} {one.name!r} is of {listed(names)}, code that the run's suite names: with --allow-import "
                f"it is imported, as the run has kept it in {folder / COPIES}"
            )
    return host


def plugin_names(content: bytes) -> list[str]:
    """The plugins that a suite names, as far as it is a suite: its mistakes are told where it is read."""
    try:
        raw: Any = tomllib.loads(content.removeprefix(codecs.BOM_UTF8).decode()).get(KEY)
    except (ValueError, RecursionError):
        return []
    return [name for name in raw if isinstance(name, str)] if isinstance(raw, list) else []


def code_of(plugins: tuple[LocalPlugin, ...]) -> dict[str, bytes]:
    """Files of plugins by their path below the folder that they are imported from; none of those that are installed."""
    return {
        file.relative_to(plugin.folder).as_posix(): file.read_bytes()
        for plugin in plugins
        if plugin.beside is not None
        for file in plugin.files
    }
