"""This machine as the place of a run, and how many workers it has room for."""

from __future__ import annotations

import os

from cnnbench.execute.room import free_mib, workers_for
from cnnbench.keys import Place


def find_place(device: str, measured_threads: int | None = None) -> Place:
    """Where a run would take place.

    Args:
        device: as the suite names it.
        measured_threads: intra-op threads for latency, if the suite fixes them.

    Raises:
        UsageError: there is no such device here; names those that there are.
    """
    from cnnbench.devices import resolve, side_by_side, visible_as
    from cnnbench.environment import energy_source, machine_identity

    found = resolve(device)
    together, apart = side_by_side(device)
    others = ", ".join(f"{gpu} ({gpu.describe()})" for gpu in apart)
    machine = machine_identity(found)
    return Place(
        device=str(found),
        kind=found.kind,
        machine=machine if measured_threads is None else f"{machine}, {measured_threads} measured threads",
        energy=energy_source(found),
        gpus=tuple(map(visible_as, together)) if len(together) > 1 else (),
        remark=f"left out, since {found} is a {found.describe()}: {others}" if apart else "",
    )


def default_workers(place: Place) -> int:
    """Workers for a device: on CPU one a core, since each trains on one thread, as far as there is memory for them.

    As many on each GPU as ``trials_per_gpu`` allows, likewise; one on anything else.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if place.kind == "cuda":
        from cnnbench.devices import resolve, side_by_side
        from cnnbench.gpus import trials_per_gpu

        gpus = side_by_side("cuda")[0] if place.gpus else [resolve(place.device)]
        most = min(cores, workers_for(free_mib()))
        return len(gpus) * trials_per_gpu(gpus, most)
    if place.kind != "cpu":
        return 1
    return max(1, min(cores // place.threads, workers_for(free_mib())))
