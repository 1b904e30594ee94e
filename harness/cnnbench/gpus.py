"""How many trials share one GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench import nvml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.devices import Device

TRIAL_MIB = 4096
"""Memory of a GPU for one trial: the process's own context, kernels' workspaces, data, and a small network's step."""
MOST = 4
"""Beyond this processes that take turns on a GPU gain little from each other."""


def trials_per_gpu(devices: Sequence[Device], cores: int) -> int:
    """Trials that run side by side on each of some GPUs: a small network's kernels leave most of one idle.

    As many as have ``TRIAL_MIB`` of the memory that is free on the fullest of them, a core each to start their kernels
    from, and ``MOST`` at most. One where that memory is not known, or a GPU takes one process alone.

    Args:
        devices: the GPUs.
        cores: of this machine, for all trials.
    """
    found = [nvml.find(device) for device in devices]
    free = [gpu.memory_free_mib() for gpu in found if gpu is not None and gpu.takes_several()]
    known = [mib for mib in free if mib is not None]
    if len(known) < len(devices) or not known:
        return 1
    return max(1, min(MOST, int(min(known) // TRIAL_MIB), cores // len(devices)))
