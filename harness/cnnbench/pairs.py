"""Which trials of two runs belong together: the same arm, seed and settings, and for timings the same machine.

What may differ is the code: that is what two runs are compared for. An option that only one side knows is one that the
code has gained or lost, and is told; an option that both know and that differs makes it another experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from cnnbench.environment import other_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity

Record = Mapping[str, Any]

_ABSENT: Final = object()
_CHOICE: Final = {"slot", "name", "options"}
VERSIONS: Final = ("cnnbench", "torch", "torchvision", "numpy", "codecarbon", "python", "driver", "revision")
"""What of an environment is told where it differs, and refused never."""


@dataclass(frozen=True)
class Pair:
    """One trial before and after.

    Attributes:
        arm, seed: which.
        before, after: its records.
    """

    arm: str
    seed: int
    before: Record
    after: Record

    @property
    def ok(self) -> bool:
        """Both trials are ok."""
        return bool(self.before["status"] == "ok" == self.after["status"])

    @cached_property
    def another_experiment(self) -> str:
        """Why nothing of the two can be compared, or an empty string: other settings, device, or test images."""
        kinds = [str(record.get("device") or "").partition(":")[0] for record in (self.before, self.after)]
        if all(kinds) and kinds[0] != kinds[1]:
            return f"other device ({kinds[0]}, {kinds[1]})"
        prints = [record.get("data") for record in (self.before, self.after)]
        if all(prints) and prints[0] != prints[1]:
            return "other data: the datasets' fingerprints differ"
        differ = edits(self.before, self.after)
        counts = [_test_images(record) for record in (self.before, self.after)]
        if not differ:
            same = not all(counts) or counts[0] == counts[1]
            return "" if same else f"other data: {sum(counts[0])}, {sum(counts[1])} test images, or of other classes"
        path, old, new = differ[0]
        more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
        return f"other settings: {path} {_short(old)}, {_short(new)}{more}"

    def options_of_one_side(self) -> Iterator[str]:
        """Options that the code gained or lost, and paths that moved: told, as the trials are compared all the same."""
        for path, old, new in settings_changes(self.before, self.after):
            if old is _ABSENT:
                yield f"{path} = {_short(new)} is new"
            elif new is _ABSENT:
                yield f"{path} is gone"
            else:
                yield f"{path} is another path"

    def other_machine(self, quantity: Quantity) -> str:
        """Why a figure of the machine can't be compared, or an empty string: another processor, other threads."""
        threads = [_threads(record, quantity) for record in (self.before, self.after)]
        known = None not in threads
        environments = [record.get("environment") or {} for record in (self.before, self.after)]
        found = other_machine(*environments, threads_known=known)
        if found:
            return f"other machine ({found})"
        if known and threads[0] != threads[1]:
            return f"other machine ({threads[0]} threads, {threads[1]} threads)"
        return ""

    def same_code(self, stage: str) -> bool:
        """Whether a stage has one key in both runs, which holds all that the harness knows to change its result."""
        keys = [(record.get("stages") or {}).get(stage) for record in (self.before, self.after)]
        return keys[0] is not None and keys[0] == keys[1]

    @property
    def same_network(self) -> bool:
        """Whether one trained network is called as it is in both runs: same code, torch, weights and settings.

        What measures it may differ then, and so may the key of its latency. A runtime's code is in no other key.
        """
        for record in (self.before, self.after):
            if ((record.get("settings") or {}).get("techniques") or {}).get("runtime"):
                return False
        one, other = ((record.get("stages") or {}) for record in (self.before, self.after))
        return self.same_code("train") and one.get("compress") == other.get("compress")


def pairs(before: TrialSet, after: TrialSet) -> dict[str, list[Pair]]:
    """By arm in the order of the run after, the seeds that both runs have a record of."""
    found: dict[str, list[Pair]] = {}
    for arm in after.arms:
        if arm in before.arms:
            seeds = [seed for seed in after.seeds if (arm, seed) in before.records and (arm, seed) in after.records]
            found[arm] = [Pair(arm, seed, before.records[arm, seed], after.records[arm, seed]) for seed in seeds]
    return found


def settings_changes(before: Record, after: Record) -> list[tuple[str, Any, Any]]:
    """Dotted paths at which the settings of two records differ, with both values.

    ``_ABSENT`` stands on the side that lacks an option altogether: records hold every option with its default, so
    that only other code makes such a difference. A key of a mapping that users write themselves is theirs: None stands
    there.
    """
    return list(_changes(before.get("settings") or {}, after.get("settings") or {}, "", codes=True))


def edits(before: Record, after: Record) -> list[tuple[str, Any, Any]]:
    """``settings_changes`` of people: neither options that only one side's code knows nor files that have moved."""
    return [
        (path, old, new)
        for path, old, new in settings_changes(before, after)
        if _ABSENT not in (old, new) and not _moved(old, new)
    ]


def _changes(old: Any, new: Any, path: str, *, codes: bool) -> Iterator[tuple[str, Any, Any]]:
    """Walk both sides at once; ``codes`` says that which keys there are is up to the code, and not to the suite."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        choice = old.keys() == _CHOICE == new.keys()
        absent = _ABSENT if codes else None
        for name in dict.fromkeys([*old, *new]):
            options = choice and name == "options"
            inner = path if options else f"{path}.{name}".removeprefix(".")
            deeper = options or inner in {"data", "recipe"}
            yield from _changes(old.get(name, absent), new.get(name, absent), inner, codes=deeper)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, path if len(old) == 1 else f"{path}[{place}]", codes=False)
    elif old != new and not (old in (None, []) and new in (None, [])):  # a slot left out is an empty one
        yield path, old, new


def _moved(old: object, new: object) -> bool:
    """Whether two values are one file or folder as two checkouts have it."""
    if not (isinstance(old, str) and isinstance(new, str)):
        return False
    one, other = PurePath(old), PurePath(new)
    return one.is_absolute() and other.is_absolute() and one.name == other.name


def _test_images(record: Record) -> list[int]:
    """Test images of each class, as far as a record tells of the data themselves; empty where it does not."""
    return [sum(row) for row in (record.get("details") or {}).get("confusion") or ()]


def _threads(record: Record, quantity: Quantity) -> object:
    """Intra-op threads that a latency was taken with; None where the record does not tell."""
    if quantity.stage != "latency":
        return None
    samplings = (record.get("details") or {}).get("latency") or {}
    return next((sampling.get("threads") for sampling in samplings.values()), None)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]} …"
