"""Where a trial ran: versions, hardware, threads and source revision, for the record."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path


@cache
def cpu_model() -> str:
    """Model of the CPU, e.g. ``AMD EPYC 7763``; the architecture where the system doesn't tell."""
    for read in (_cpu_of_linux, _cpu_of_mac, platform.processor):
        if model := read():
            return " ".join(model.split())
    return platform.machine()


def _cpu_of_linux() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((value for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"), "")


def _cpu_of_mac() -> str:
    if platform.system() != "Darwin":
        return ""
    return _output("sysctl", "-n", "machdep.cpu.brand_string")


def _output(*command: str, cwd: Path | None = None) -> str:
    """What a command prints; empty where it is not installed, fails or hangs."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - fixed words, no shell
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
