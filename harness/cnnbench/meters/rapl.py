"""RAPL, the energy counters of Intel and AMD processors, as Linux shows them under ``/sys/class/powercap``.

Each energy is counted once: processor packages and, beside them, the DRAM domains. Cores and the uncore are part of
their package. The platform domain (psys) holds the packages and more, and stands in only where no package is shown. The
same counters may be shown again through the MMIO interface, and dies of one package may all show the package's counter.
(Linux kernel documentation, "Power Capping Framework"; Intel SDM volume 3, section "RAPL Interfaces".)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cnnbench.meters.counters import Counter

POWERCAP = Path("/sys/class/powercap")
SAME_JOULES = 1.0
"""Dies whose counters differ by less show one counter, read at two moments; true ones are far apart."""


@dataclass(frozen=True)
class Rapl:
    """What RAPL offers here.

    Attributes:
        counters: those to read; empty where there are none, or not all of them can be read.
        refused: energy files that are needed, and that this user may not read.
    """

    counters: tuple[Counter, ...] = ()
    refused: tuple[Path, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        """What the counters count for: ``cpu``, ``ram``, ``machine``."""
        return tuple(dict.fromkeys(counter.component for counter in self.counters))


@dataclass(frozen=True)
class _Zone:
    folder: Path
    name: str
    component: str

    @property
    def energy(self) -> Path:
        return self.folder / "energy_uj"

    def read(self) -> float:
        """Joules. Raises OSError or ValueError."""
        return int(self.energy.read_text(encoding="ascii")) / 1e6

    def counter(self) -> Counter:
        try:
            span = int((self.folder / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
        except (OSError, ValueError):
            span = None
        return Counter(self.component, self.name, "RAPL", "machine", self.read, span)


def find(root: Path = POWERCAP) -> Rapl:
    """The counters of this machine.

    Args:
        root: where the kernel shows its power capping zones.
    """
    zones = _zones(root)
    packages = [zone for zone in zones if zone.component == "cpu"]
    chosen = packages or [zone for zone in zones if zone.component == "machine"]
    refused = tuple(zone.energy for zone in chosen if not os.access(zone.energy, os.R_OK))
    if refused:
        return Rapl(refused=refused)
    memory = [zone for zone in zones if zone.component == "ram" and packages]
    # Main memory of one socket alone would be a part of the sum.
    if all(os.access(zone.energy, os.R_OK) for zone in memory):
        chosen = [*chosen, *memory]
    return Rapl(tuple(zone.counter() for zone in _apart(chosen)))


def _zones(root: Path) -> list[_Zone]:
    """Packages, DRAM and the platform, each once; where two interfaces show one, that which can be read."""
    found: dict[str, _Zone] = {}
    folders = sorted(root.glob("intel-rapl*:*"), key=lambda folder: (not folder.name.startswith("intel-rapl:"), folder))
    for folder in folders:
        name, (control, _, place) = _text(folder / "name"), folder.name.partition(":")
        if not (folder / "energy_uj").exists():
            continue
        if name.startswith("package") and ":" not in place:
            zone = _Zone(folder, name, "cpu")
        elif name == "psys":
            zone = _Zone(folder, name, "machine")
        elif name == "dram":
            package = _text(root / f"{control}:{place.partition(':')[0]}" / "name")
            zone = _Zone(folder, f"{name} of {package}", "ram")
        else:
            continue
        other = found.get(zone.name)
        if other is None or not os.access(other.energy, os.R_OK):
            found[zone.name] = zone
    return list(found.values())


def _apart(zones: list[_Zone]) -> list[_Zone]:
    """``zones`` without dies that show another die's counter."""
    kept: list[_Zone] = []
    seen: dict[str, list[float]] = {}
    for zone in zones:
        if "-die-" not in zone.name:
            kept.append(zone)
            continue
        try:
            joules = zone.read()
        except (OSError, ValueError):
            kept.append(zone)  # whoever reads it will be told why
            continue
        others = seen.setdefault(zone.component, [])
        if not any(joules > 0 and abs(joules - other) < SAME_JOULES for other in others):
            kept.append(zone)
        others.append(joules)
    return kept


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
