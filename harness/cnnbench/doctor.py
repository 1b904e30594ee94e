"""``cnnbench doctor``: what this machine can run and measure, and what would make it better."""

from __future__ import annotations

import importlib.metadata
import platform
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cnnbench.execute.cache import default_cache
from cnnbench.meters.survey import survey

if TYPE_CHECKING:
    from cnnbench.plugins import PluginHost

CORE = ("torch", "torchvision", "pluggy", "pandas", "tabulate", "codecarbon", "pytest-benchmark")


def diagnosis(host: PluginHost) -> str:
    """The report as text, one section a topic."""
    sections = {
        "software": _software(),
        "devices": _devices(),
        "energy": survey(),
        "plugins": _plugins(host),
        "extras": _extras(host),
        "data": _data(host),
        "folders": [f"stage cache: {default_cache()} (--cache or CNNBENCH_CACHE)"],
    }
    return "\n\n".join("\n".join([name, *(f"  {line}" for line in lines)]) for name, lines in sections.items())


def _software() -> list[str]:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in CORE)
    return [f"cnnbench {importlib.metadata.version('cnnbench')}, Python {platform.python_version()}", versions]


def _devices() -> list[str]:
    from cnnbench.devices import absent, available, resolve

    lines = [f"{device}: {', '.join([device.describe(), *device.facts()])}" for device in available()]
    missing = [f"{kind} ({reason})" if reason else kind for kind, reason in absent().items()]
    return [*lines, f"not here: {', '.join(missing)}", f"auto takes {resolve('auto')}"]


def _plugins(host: PluginHost) -> list[str]:
    owners = {str(entry.owner) for entry in host.registry}
    counts = {owner: sum(str(entry.owner) == owner for entry in host.registry) for owner in sorted(owners)}
    return [f"{owner}: {count} technique{'s' * (count != 1)}" for owner, count in counts.items()] + [
        f"not loaded: {problem}" for problem in host.problems
    ]


def _extras(host: PluginHost) -> list[str]:
    needs = {need: entry for entry in host.registry for need in entry.card.requires}
    lines = []
    for need in sorted(needs, key=lambda n: n.module):
        users = ", ".join(sorted({e.card.name for e in host.registry if need in e.card.requires}))
        state = "installed" if find_spec(need.module) else f"missing: {need.install}"
        lines.append(f"{need.module} (for {users}): {state}")
    state = "installed" if find_spec("ray") else "missing: pip install 'cnnbench[ray]'"
    return [*lines, f"ray (for --executor ray): {state}"]


def _data(host: PluginHost) -> list[str]:
    """Datasets that need no options, and whether they are here."""
    from cnnbench.errors import DataError

    lines = []
    for name in host.registry.names("dataset"):
        entry = host.registry.get("dataset", name)
        try:
            dataset = entry.cls()
        except TypeError:
            lines.append(f"{name}: asks for options (cnnbench show {name})")
            continue
        try:
            dataset.fingerprint()
        except DataError as error:
            lines.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - another's code must not cost the rest of the report
            lines.append(f"{name}: fails with {type(error).__name__}: {error}")
        else:
            lines.append(f"{name}: found")
    return lines
