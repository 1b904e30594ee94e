"""What ``cnnbench check`` and ``cnnbench try`` are pointed at: a file, a module, a distribution or a technique."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.errors import UsageError
from cnnbench.local_plugins import LocalPlugin, locate_plugin
from cnnbench.plugins import GROUP, PluginHost
from cnnbench.registry import nearest
from cnnbench.slots import SLOTS
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cnnbench.registry import Entry


@dataclass(frozen=True)
class Target:
    """What was meant.

    Attributes:
        name: as it was given.
        host: with its plugin loaded beside the installed ones.
        entries: its techniques, in the order of the registry; at least one.
    """

    name: str
    host: PluginHost
    entries: tuple[Entry, ...]

    @property
    def plugins(self) -> tuple[LocalPlugin, ...]:
        """The plugins that a suite has to name to know its techniques; none where they are installed."""
        return self.host.local


def find(target: str, folder: Path) -> Target:
    """The techniques that a word of the command line means.

    Args:
        target: path of a ``.py`` file; a dotted module; the name of an installed distribution or of its entry point;
            ``SLOT/NAME`` or ``NAME`` of a technique that is registered.
        folder: paths are relative to it, and modules are looked for in it first.

    Raises:
        UsageError: it means nothing, or several things, or a plugin that does not load or has no technique; names the
            nearest that there is.
    """
    if not target.strip():
        raise UsageError("the target is an empty text: expected a .py file, a module, a distribution or a technique")
    slot, slash, name = target.partition("/")
    if slash and slot in SLOTS and not name.endswith(".py"):
        host = PluginHost.discover()
        return Target(target, host, (host.registry.get(slot, name),))
    if _is_path(target, folder):
        return _of_file(target, folder)
    host = PluginHost.discover()
    found = _of_name(target, host)
    if found:
        return Target(target, host, found)
    _check_installed(target, host)
    if all(part.isidentifier() for part in target.split(".")):
        try:
            local = locate_plugin(target, folder)
        except UsageError as error:
            raise UsageError(_unknown(target, folder, host)) from error
        return _of_local(target, local)
    raise UsageError(_unknown(target, folder, host))


def _is_path(target: str, folder: Path) -> bool:
    return target.endswith((".py", ".toml")) or "/" in target or "\\" in target or (folder / target).is_file()


def _of_file(target: str, folder: Path) -> Target:
    path = folder / Path(target).expanduser()
    slot, _, name = target.partition("/")
    if slot.isidentifier() and name.isidentifier() and not (folder / slot).exists():
        raise UsageError(_no_slot(target, slot, name))
    if path.suffix == ".toml":
        raise UsageError(f"{target} is a suite, expected a plugin: cnnbench run {target} runs it")
    if path.is_dir():
        raise UsageError(_folder(target, path))
    host = PluginHost.discover()
    own = tuple(entry for entry in host.registry if _lies_in(entry, path))
    if own:  # of an installed package, whose modules may import each other
        return Target(target, host, own)
    return _of_local(target, locate_plugin(target, folder))


def _no_slot(target: str, slot: str, name: str) -> str:
    """One line on ``SLOT/NAME`` where there is no such slot."""
    of_name = [f"{entry.card.slot}/{name}" for entry in PluginHost.discover().registry if entry.card.name == name]
    hint = f"did you mean {_either(of_name)}?" if of_name else nearest(slot, SLOTS)
    return f"unknown target {target!r}: {slot!r} is neither a slot nor a folder here: {hint}"


def _folder(target: str, path: Path) -> str:
    """One line on a folder, which is no target; names a plugin's file in it, where there is one."""
    plugins = (one for one in sorted(path.glob("*.py")) if "@hookimpl" in one.read_text("utf-8", "replace"))
    first = next((one.name for one in plugins), None)
    inside = f" (such as {target.rstrip('/')}/{first})" if first else ""
    return f"{target} is a folder: expected a .py file{inside}, a module or an installed distribution"


def _lies_in(entry: Entry, path: Path) -> bool:
    try:
        return Path(inspect.getfile(entry.cls)).resolve() == path.resolve()
    except (OSError, TypeError):  # made in an interactive session
        return False


def _of_local(target: str, local: LocalPlugin) -> Target:
    host = PluginHost.discover(local=[local])
    entries = tuple(entry for entry in host.registry if entry.owner == local.owner)
    if not entries:
        raise UsageError(_fault(target, local.name, host))
    return Target(target, host, entries)


def _fault(target: str, name: str, host: PluginHost) -> str:
    """Why a plugin of the host brings no technique, in one line."""
    causes = [problem.cause for problem in host.problems if problem.owner.plugin == name]
    if not causes:
        return f"{target} has hooks, and no technique to look at"
    return causes[0] if causes[0].startswith(Path(target).name) else f"{target}: {causes[0]}"


def _of_name(word: str, host: PluginHost) -> tuple[Entry, ...]:
    """The registered techniques that a word means; none if it means none.

    Raises:
        UsageError: it means several things.
    """
    techniques = tuple(entry for entry in host.registry if entry.card.name == word)
    package = tuple(entry for entry in host.registry if _is_of(entry, word))
    if package and set(map(id, techniques)) <= set(map(id, package)):
        return package
    meanings = [f"{entry.card.slot}/{word}" for entry in techniques]
    if package:
        raise UsageError(
            f"{word!r} is the name of a package and of a technique: say {_either(meanings)}, or its module"
        )
    if len(techniques) > 1:
        raise UsageError(f"{len(techniques)} techniques are called {word!r}: say {_either(meanings)}")
    return techniques


def _is_of(entry: Entry, word: str) -> bool:
    """Whether a word is the distribution, the entry point or the module that a technique comes from."""
    of_package = word == entry.owner.plugin or _normal(word) == _normal(entry.owner.distribution)
    return of_package or f"{entry.cls.__module__}.".startswith(f"{word}.")


def _normal(name: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_installed(word: str, host: PluginHost) -> None:
    """Raise where a word is an installed distribution or entry point that brings no technique."""
    for point in importlib.metadata.entry_points(group=GROUP):
        names = {point.name, point.value, point.module}
        if word in names or (point.dist and _normal(point.dist.name) == _normal(word)):
            raise UsageError(_fault(word, point.name, host))
    try:
        found = importlib.metadata.distribution(word)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return
    if _normal(found.name) == _normal(word) and not _importable_here(word):
        raise UsageError(f"{word} is installed, but names no plugin: expected an entry point in group {GROUP!r}")


def _importable_here(word: str) -> bool:
    return word.isidentifier() and Path(f"{word}.py").is_file()


def _unknown(target: str, folder: Path, host: PluginHost) -> str:
    """One line on a word that means nothing."""
    if target in SLOTS:
        own = [f"{target}/{name}" for name in host.registry.names(target)]
        return f"{target!r} is a slot: name one of its techniques" + (f", as {listed(own, 3)}" if own else "")
    if (folder / target).is_dir():
        return _folder(target, folder / target)
    names: Iterable[str] = {
        *(entry.card.name for entry in host.registry),
        *(entry.owner.distribution for entry in host.registry),
        *(path.name for path in folder.glob("*.py")),
    }
    hint = nearest(target, sorted(names))
    expected = "expected a .py file, a module, an installed distribution, or a technique as SLOT/NAME"
    return f"unknown target {target!r}: {hint if hint.startswith('did you mean') else expected}"


def _either(words: Sequence[str]) -> str:
    return " or ".join(sorted(words))
