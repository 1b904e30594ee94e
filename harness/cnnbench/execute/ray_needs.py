"""What a suite asks of every node of a cluster: the same packages and plugins, and the user's own code.

Code that is not installed as packages are (an editable install, a folder on ``PYTHONPATH``) is sent along; what is
installed must be installed on each node, and be the same there.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.environment import versions
from cnnbench.errors import UsageError
from cnnbench.importing import installed
from cnnbench.key_text import digest
from cnnbench.keys import code_digest, measuring_digest
from cnnbench.matrix import arms
from cnnbench.options import nested
from cnnbench.plain import settings_plain
from cnnbench.quantities import METRICS
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cnnbench.local_plugins import LocalPlugin
    from cnnbench.registry import Registry
    from cnnbench.suite import Suite

_TARGET = re.compile(r"([A-Za-z_]\w*)[\w.]*:[A-Za-z_][\w.]*")
"""``package.module:callable``, by convention the way in which an option names code of the user's."""
_OWN = frozenset({"cnnbench", "cnnbench_plugins"})
_MOST_MIB = 100


@dataclass(frozen=True)
class Needs:
    """What must be on each node.

    Attributes:
        techniques: slots and names of the techniques that the suite uses.
        optional: modules of optional packages that these ask for.
        code: files to send along, by their path below a folder of ``sys.path``.
        local: plugins that are not installed.
    """

    techniques: tuple[tuple[str, str], ...]
    optional: tuple[str, ...]
    code: Mapping[str, bytes] = field(repr=False)
    local: tuple[LocalPlugin, ...] = ()

    def local_in(self, folder: Path) -> tuple[LocalPlugin, ...]:
        """The plugins that are not installed, on a node that has the code in a folder."""

        def sent(plugin: LocalPlugin) -> bool:
            path = plugin.module.replace(".", "/")
            return f"{path}.py" in self.code or f"{path}/__init__.py" in self.code

        return tuple(replace(plugin, folder=folder) if sent(plugin) else plugin for plugin in self.local)


def needs_of(suite: Suite, registry: Registry, local: tuple[LocalPlugin, ...] = ()) -> Needs:
    """What a suite asks of a node.

    Args:
        suite: what is to run.
        registry: of this process.
        local: plugins that are not installed.

    Raises:
        UsageError: the code to send along is too large.
    """
    choices = list(_choices(suite))
    techniques = tuple(sorted({(choice.slot, choice.name) for choice in choices}))
    entries = [registry.get(*technique) for technique in techniques]
    optional = tuple(sorted({need.module.partition(".")[0] for e in entries for need in e.card.requires}))
    tops = [entry.cls.__module__.partition(".")[0] for entry in entries]
    tops += [found[1] for choice in choices for text in _texts(choice.options) if (found := _TARGET.fullmatch(text))]
    tops += [plugin.module.partition(".")[0] for plugin in local]
    code = {**_local_code(tops), **suite.code}
    for entry in entries:
        if any(name.partition("/")[0].removesuffix(".py") == entry.cls.__module__.partition(".")[0] for name in code):
            code |= _metadata(entry.owner.distribution)
    return Needs(techniques, optional, code, local)


def packages_here(needs: Needs, registry: Registry) -> dict[str, str]:
    """Version of everything that decides results, by name; with the digest of the sources where these are read.

    Args:
        needs: which techniques and optional packages count.
        registry: of this process.
    """
    found = {"python": sys.version.partition(" ")[0], **versions()}
    own = digest([code_digest(), measuring_digest()])
    found["cnnbench"] = f"{found.get('cnnbench', '?')} (sources {own[:8]})"
    for module in needs.optional:
        try:
            found[module] = version(module)
        except PackageNotFoundError:
            found[module] = "of unknown version" if importlib.util.find_spec(module) else "absent"
    owners: dict[tuple[str, str], list[str]] = {}
    for slot, name in needs.techniques:
        if name not in registry.names(slot):
            found[f"{slot} {name!r}"] = "absent"
            continue
        entry = registry.get(slot, name)
        owners.setdefault((entry.owner.distribution, entry.owner.version), []).append(entry.source_digest)
        found[f"{slot} {name!r}"] = f"of {entry.owner}"
    for (package, number), digests in owners.items():
        found[f"plugins of {package}"] = f"{number} (sources {digest(digests)[:8]})"
    return found


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What a node has otherwise than the driver, one clause each; sources count where versions are equal."""
    return [f"{name} {there.get(name, 'absent')}, here {here[name]}" for name in here if there.get(name) != here[name]]


def _choices(suite: Suite) -> Iterator[Choice]:
    for arm in arms(suite):
        yield from nested(settings_plain(arm.settings))
    for dataset in suite.datasets:
        yield from (dataset.choice, *nested(dataset.choice.options))
    yield from (Choice("metric", name) for name in suite.measure.metrics if name not in METRICS)


def _texts(value: Any) -> Iterator[str]:
    """Every text in the options of a technique."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _local_code(tops: Iterable[str]) -> dict[str, bytes]:
    """Files of the modules and packages that are not installed, with all of that kind that they import."""
    files: dict[str, bytes] = {}
    ahead, seen = list(tops), set(_OWN)
    while ahead:
        top = ahead.pop()
        if top in seen:
            continue
        seen.add(top)
        for root, path in _local_files(top):
            files[path.relative_to(root).as_posix()] = content = path.read_bytes()
            if path.suffix == ".py":
                ahead += _imports(content)
        size = sum(map(len, files.values())) / 2**20
        if size > _MOST_MIB:
            raise UsageError(
                f"--executor ray: {top} and what it imports are {size:,.0f} MiB that would have to be sent to every "
                f"node, expected at most {_MOST_MIB}: install it on the nodes"
            )
    return files


def _local_files(top: str) -> Sequence[tuple[Path, Path]]:
    """The folder of ``sys.path`` and each file of a top-level module that is not installed; none where it is."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ()
    if spec is None or not spec.origin or not Path(spec.origin).is_file() or installed(Path(spec.origin)):
        return ()
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        return [(origin.parent, origin)]
    found = sorted(path for path in origin.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [(origin.parent.parent, path) for path in found]


def _imports(source: bytes) -> list[str]:
    """Top-level names that a module imports; none where it can't be parsed."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.append(node.module.partition(".")[0])
    return found


def _metadata(name: str) -> dict[str, bytes]:
    """What the import system needs to find the entry points of a distribution."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return {}
    folder = f"{name.replace('-', '_')}-{found.version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {found.version}\n"
    points = found.read_text("entry_points.txt") or ""
    return {f"{folder}/METADATA": head.encode(), f"{folder}/entry_points.txt": points.encode()}
