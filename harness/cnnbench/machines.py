"""Which machine a record comes from, and what of it may stand beside records of another machine.

Quality belongs to the type of device, as keys have it: a CPU gives what another CPU gives. Times, energy and memory
belong to the model of processor and device, and to the cores that could be used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cnnbench.quality import of_machine, quality
from cnnbench.quantities import quantities

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Record = dict[str, Any]
BORROWED: Final = "borrowed_from"
"""Field of a record whose quality stands among the records of another machine; says from which it comes."""

_OF_MACHINE: Final = ("latency", "energy", "energy_train", "noise", "memory")
"""What details hold of the machine."""


class Machine(NamedTuple):
    """A kind of machine; two of them are equal whose times may stand in one column.

    Attributes:
        kind: type of device, e.g. ``cpu``.
        device, cpu: models, without what systems spell differently.
        cores: usable ones.
    """

    kind: str
    device: str = ""
    cpu: str = ""
    cores: str = ""

    @property
    def label(self) -> str:
        """For people and for names of folders."""
        models = dict.fromkeys(filter(None, (self.device, self.cpu)))
        cores = f"{self.cores} cores" if self.cores else ""
        return ", ".join([self.kind, *models, *filter(None, [cores])])


def machine_of(record: Mapping[str, Any], *, quality_only: bool) -> Machine:
    """The machine of a record; where only quality is asked for, the type of its device."""
    kind = str(record.get("device") or "").partition(":")[0]
    if quality_only:
        return Machine(kind)
    known = record.get("environment") or {}
    device, cpu = (_model(str(known.get(name) or "")) for name in ("device", "cpu"))
    return Machine(kind, device, cpu, str(known.get("cores_usable") or ""))


def asks_for_quality_alone(heading: Mapping[str, Any]) -> bool:
    """Whether a suite has no metric that belongs to a machine."""
    measure = heading.get("measure") or {}
    columns = quantities(list(measure.get("metrics") or ["accuracy"]), [1])
    return not any(of_machine(column.key) for column in columns)


def borrowed(record: Mapping[str, Any], machine: Machine) -> Record:
    """What of a record may stand among those of another machine: its quality, and where it comes from."""
    details = {name: value for name, value in (record.get("details") or {}).items() if name not in _OF_MACHINE}
    note = f"some seeds ran on another machine ({machine.label}): their quality is joined, their times are not"
    details["notes"] = list(dict.fromkeys([*(details.get("notes") or ()), note]))
    kept = quality(record)
    methods = {key: way for key, way in (record.get("methods") or {}).items() if key in kept}
    changed = {"metrics": kept, "methods": methods, "details": details, "seconds": {}, "workers": None}
    return {**record, **changed, BORROWED: machine.label}


def folder_names(machines: Iterable[Machine]) -> dict[Machine, str]:
    """A name for each machine's folder: distinct, in lower case, and the same whatever their order."""
    names: dict[Machine, str] = {}
    for machine in sorted(machines):
        name = re.sub(r"[^a-z0-9]+", "-", machine.label.lower()).strip("-") or "machine"
        taken = sum(
            other == name or re.fullmatch(rf"{re.escape(name)}-\d+", other) is not None for other in names.values()
        )
        names[machine] = f"{name}-{taken + 1}" if taken else name
    return names


def _model(name: str) -> str:
    return " ".join(re.sub(r"\((r|tm)\)", " ", name, flags=re.IGNORECASE).split())
