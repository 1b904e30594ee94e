"""What energy this machine can measure, why not, and what would make it better: for ``cnnbench doctor``."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from cnnbench import nvml
from cnnbench.devices import available
from cnnbench.meters import rapl
from cnnbench.meters.counters import CounterFault, update_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cnnbench.meters.counters import Counter

RULE = 'SUBSYSTEM=="powercap", KERNEL=="intel-rapl*:*", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj"'
"""Of udev: makes the counters readable whenever the system has started. The kernel keeps them from users by default,
since a fine-grained look at power can tell secrets of other programs (CVE-2020-8694)."""


def survey(powercap: Path = rapl.POWERCAP) -> list[str]:
    """Lines for people: CPU, RAM, each GPU, then what an estimate is worth.

    Args:
        powercap: where the kernel shows RAPL's counters.
    """
    lines = [*_host(powercap), *_gpus()]
    lines.append("an estimate knows nothing beyond time; tables mark it est.")
    return lines


def _host(powercap: Path) -> Iterator[str]:
    found = rapl.find(powercap)
    if found.refused:
        yield "CPU: RAPL's counters are here, but this user may not read them; estimated as power x time until then"
        yield f"  until the next start: sudo chmod a+r {powercap}/intel-rapl*:*/energy_uj"
        yield f"  for good: echo '{RULE}' | sudo tee /etc/udev/rules.d/70-rapl.rules"
        yield "  both let every user of the machine see its power (CVE-2020-8694)"
        yield "RAM: estimated with the CPU"
        return
    counted = {name: [c for c in found.counters if c.component == name] for name in found.components}
    if not counted:
        yield f"CPU: {_why_none()}; estimated as power x time"
        yield "RAM: estimated with the CPU"
        return
    faults = {name: fault for name, counters in counted.items() if (fault := _fault(counters))}
    for name, counters in counted.items():
        label = {"cpu": "CPU", "ram": "RAM", "machine": "CPU and RAM"}[name]
        other = "left out" if name == "ram" else "estimated as power x time"
        good = f"measured by RAPL ({', '.join(counter.label for counter in counters)}), of the whole machine"
        yield f"{label}: {faults[name]}; {other}" if name in faults else f"{label}: {good}"
    if "cpu" in counted and "ram" not in counted:
        yield "RAM: RAPL counts none here; left out, since an assumed power would make the sum an estimate"


def _fault(counters: Sequence[Counter]) -> str:
    """Why the counters can't be relied on; empty where they can."""
    for counter in counters:
        try:
            update_interval(counter)
        except CounterFault as fault:
            return str(fault)
    return ""


def _why_none() -> str:
    if platform.system() == "Linux":
        return "no RAPL counters here (virtual machines and containers rarely show them)"
    if platform.system() == "Windows":
        return "counters of Windows 11 are read through codecarbon where it finds them"
    return "no counters that can be read on this system"


def _gpus() -> Iterator[str]:
    for device in available():
        if device.kind == "mps":
            yield "mps: codecarbon's figure where powermetrics may be run without a password; without it none"
        if device.kind != "cuda":
            continue
        gpu = nvml.find(device)
        if gpu is None:
            yield f"{device}: NVML does not answer (no NVIDIA driver, or a part of a GPU); by codecarbon, if it can"
        elif gpu.energy_joules() is None:
            yield f"{device}: NVML has no energy counter for it (Volta or newer have one); estimated by codecarbon"
        else:
            yield f"{device}: measured by NVML, of the whole GPU, whoever uses it"
