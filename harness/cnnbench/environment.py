"""Where a trial ran: versions, hardware, threads and source revision, for the record. Imports no torch by itself."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from cnnbench.meters import rapl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.devices import Device

PACKAGES = ("cnnbench", "torch", "torchvision", "torch_xla", "torch_tpu", "numpy", "codecarbon")


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
    if place.kind == "cuda" and (driver := nvidia_driver()):
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


def other_machine(before: Mapping[str, str], after: Mapping[str, str], *, threads_known: bool = False) -> str:
    """What tells the machines of two records apart where timings are concerned; empty if they count as one.

    The models of the processor and of the device that computes, and the cores usable where the number of threads is not
    known by itself. Host names, clocks, kernels, memory and drivers do not count: all of them differ between two
    machines, or two days, whose timings belong together.

    Args:
        before: ``environment`` of one record.
        after: of the other; what one of them does not tell is not held against it.
        threads_known: the caller compares the threads used, so that further idle cores do not matter.

    Returns:
        Both sides of what differs, e.g. ``AMD EPYC 7763, Intel Xeon 8370C``.
    """
    told = ["cpu", "device"] if threads_known else ["cpu", "device", "cores_usable"]
    for name in told:
        one, other = before.get(name, ""), after.get(name, "")
        if one and other and _model(one) != _model(other):
            return f"{one}, {other}" if name != "cores_usable" else f"{one} cores, {other} cores"
    return ""


def _model(name: str) -> str:
    """A model's name without what systems spell differently: case, spaces, trade marks."""
    return " ".join(re.sub(r"\((r|tm)\)", " ", name.lower()).split())


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


def energy_source(device: Device, powercap: Path = rapl.POWERCAP) -> str:
    """How energy is likely to be obtained here; each figure carries what it really was.

    Args:
        device: where the run computes.
        powercap: where the kernel shows RAPL's counters.
    """
    names = {"cpu": "CPU", "ram": "RAM", "machine": "machine"}
    counted = [names[component] for component in rapl.find(powercap).components]
    host = f"{' and '.join(counted)} measured by RAPL" if counted else "CPU estimated, power x time"
    return f"{host}; GPU measured by NVML where it has a counter" if device.kind == "cuda" else host


def git_revision(folder: Path) -> str:
    """Commit of the repository that holds ``folder``, marked where tracked files differ from it; empty if none."""
    commit = _output("git", "-C", str(folder), "rev-parse", "--short=12", "HEAD")
    if not commit:
        return ""
    changed = _output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with uncommitted changes" if changed else commit


def nvidia_driver() -> str:
    """Version of NVIDIA's driver; empty where there is none."""
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
