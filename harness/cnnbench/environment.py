"""Where a trial ran: versions, hardware, threads and source revision, for the record. Imports no torch by itself."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from cnnbench.devices import Device

PACKAGES = ("cnnbench", "torch", "torchvision", "numpy", "codecarbon")
RAPL = Path("/sys/class/powercap")


def versions() -> dict[str, str]:
    """Versions of what decides results, by distribution; those installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def manifest(device: str, folder: Path | None = None) -> dict[str, str]:
    """What a record says of the place it comes from.

    Args:
        device: where the run computes, as ``devices.resolve`` knows it.
        folder: the suite's, whose repository's revision is told if it lies in one.

    Raises:
        UsageError: there is no such device.
    """
    from cnnbench.devices import resolve

    place = resolve(device)
    facts = {
        "python": platform.python_version(),
        **versions(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": f"{psutil.cpu_count(logical=False) or '?'} physical, {os.cpu_count() or '?'} logical",
        "cores_usable": str(usable_cores()),
        "ram": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "device": place.describe(),
        "energy": energy_source(place),
    }
    if "OMP_NUM_THREADS" in os.environ:
        facts["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    if place.kind == "cuda" and (driver := _nvidia_driver()):
        facts["driver"] = driver
    if folder is not None and (revision := git_revision(folder)):
        facts["revision"] = revision
    return facts


def machine_identity(device: Device) -> str:
    """What must be equal for latency and energy of two runs to belong together: processor or GPU model, and cores.

    Neither clocks nor host names, so that it is the same tomorrow and on the next machine of the kind.
    """
    host = f"{cpu_model()}, {usable_cores()} cores"
    return host if device.kind == "cpu" else f"{device.describe()}, {host}"


@cache
def cpu_model() -> str:
    """Model of the CPU, e.g. ``AMD EPYC 7763``; the architecture where the system doesn't tell."""
    for read in (_cpu_of_linux, _cpu_of_mac, platform.processor):
        if model := read():
            return " ".join(model.split())
    return platform.machine()


def usable_cores() -> int:
    """Cores that this process may use: physical ones, fewer where it is bound to some."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, psutil.cpu_count(logical=False) or bound)


def rapl_counters() -> tuple[list[Path], list[Path]]:
    """Energy counters of the CPU: all that there are, and those that this user may read."""
    there = sorted(RAPL.glob("*/energy_uj"))
    return there, [counter for counter in there if os.access(counter, os.R_OK)]


def energy_source(device: Device) -> str:
    """How energy is likely to be obtained here; each figure carries what it really was."""
    _, readable = rapl_counters()
    host = "CPU measured by RAPL" if readable else "CPU estimated, power x time"
    return f"{host}; GPU measured by NVML where it has a counter" if device.kind == "cuda" else host


def git_revision(folder: Path) -> str:
    """Commit of the repository that holds ``folder``, marked where tracked files differ from it; empty if none."""
    commit = _output("git", "-C", str(folder), "rev-parse", "--short=12", "HEAD")
    if not commit:
        return ""
    changed = _output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with uncommitted changes" if changed else commit


def _nvidia_driver() -> str:
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]


def _cpu_of_linux() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((value for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"), "")


def _cpu_of_mac() -> str:
    return _output("sysctl", "-n", "machdep.cpu.brand_string") if platform.system() == "Darwin" else ""


def _output(*command: str) -> str:
    """What a command prints; empty where it is not installed, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - no shell
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()
