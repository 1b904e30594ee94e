"""What a single call changes in a suite, and where its records go: the same from the command line and from Python.

Every command imports this: what takes time to import waits until it is needed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cnnbench.errors import UsageError

if TYPE_CHECKING:
    from cnnbench.suite import Suite

AUTO: Final = "auto"
"""In place of a number of seeds: as many as each arm needs."""


def changed(suite: Suite, seeds: tuple[int, ...] | int | str | None, device: str | None, *, here: bool = True) -> Suite:
    """The suite as one call has it; device and cores are looked for too, before anything runs.

    Args:
        suite: as its file says.
        seeds: a number of them, themselves, ``auto``, or None for the suite's own.
        device: None for the suite's own.
        here: it is to run on this machine, and not on a cluster, whose nodes are looked at instead.

    Raises:
        SuiteError: the machine has not what the suite asks for.
        UsageError: fewer than one seed, or ``auto`` for a quantity that can't decide.
    """
    from cnnbench.needs import check_machine

    if seeds == AUTO:
        from cnnbench.adaptive import check_primary

        check_primary(suite)
        suite = replace(suite, seeds=tuple(range(suite.inference.most_seeds)))
    elif isinstance(seeds, tuple):
        suite = replace(suite, seeds=seeds)
    elif isinstance(seeds, int):
        if seeds < 1:
            raise UsageError(f"--seeds: expected at least 1, got {seeds}")
        suite = replace(suite, seeds=tuple(range(seeds)))
    if here:
        check_machine(suite, device=device is None)
    return suite if device is None else replace(suite, device=device)


def looks(suite: Suite, seeds: object) -> tuple[int, ...]:
    """Numbers of seeds after which a call looks who is decided; none where all arms get the same seeds."""
    from cnnbench.stats.looks import looks_for

    return looks_for(suite.inference.most_seeds) if seeds == AUTO else ()


def records_folder(suite: Suite) -> Path:
    """Where a suite's records go if nothing else is said."""
    return Path("results") / suite.name


def check_address(address: str | None, executor: str | None) -> None:
    """See that an address goes with the executor that takes one.

    Raises:
        UsageError: it does not.
    """
    if address is not None and executor != "ray":
        raise UsageError("--address names a Ray cluster: expected --executor ray beside it")


def place_data() -> None:
    """Make the folder of datasets absolute: stages run in other working directories."""
    if data := os.environ.get("CNNBENCH_DATA"):
        os.environ["CNNBENCH_DATA"] = os.path.abspath(data)  # noqa: PTH100 - resolve() would follow links
