"""A published folder against itself: its files are made again from its records, and compared byte by byte.

It finds what was changed after publishing, by hand or by another version, and what is missing. It can't find records
that were invented whole: for those there is the trial that is run again, see ``rerun``.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile, zip_longest
from typing import TYPE_CHECKING, Any, Final, get_args

from cnnbench.errors import CnnbenchError, StoreError
from cnnbench.execute.interface import Status
from cnnbench.paths import content_within
from cnnbench.publication import MANIFEST, Publication, digest, make, suite_file
from cnnbench.publish import manifest_of
from cnnbench.record_lines import modern
from cnnbench.store import FILE, open_results
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_TEXTS: Final = (".md", ".py", ".tex", ".toml", ".jsonl", ".html", ".svg", ".json")
_LINES: Final = 4
"""Of a difference, as many are shown."""
_WIDEST: Final = 160


@dataclass(frozen=True)
class Finding:
    """What was found of one file, or of one thing that the folder says.

    Attributes:
        place: the file, relative to the folder; then a colon and a record, if it is about that.
        fault: what is wrong with it; empty where all is well.
        excerpt: lines of the difference.
    """

    place: str
    fault: str = ""
    excerpt: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Its file."""
        return FILE if self.place.startswith(f"{FILE}: ") else self.place


@dataclass(frozen=True)
class Verification:
    """All that was found.

    Attributes:
        findings: in the order of the files.
        cause: likely reason of the faults; empty where none is known.
        publication: as it would be published now; None where the records don't allow that.
    """

    findings: tuple[Finding, ...]
    cause: str
    publication: Publication | None

    @property
    def clean(self) -> bool:
        """Nothing is wrong."""
        return not self.wrong

    @property
    def wrong(self) -> tuple[str, ...]:
        """The files that anything is wrong with."""
        return _files_of(finding for finding in self.findings if finding.fault)

    @property
    def sum(self) -> str:
        """What all of it comes to, in one line."""
        wrong, count = self.wrong, len(_files_of(self.findings))
        if self.publication is None:
            return f"{listed(wrong)}: with this fault no other file could be compared"
        if wrong:
            return f"{len(wrong)} of {count} files {'differs' if len(wrong) == 1 else 'differ'}: {listed(wrong)}"
        return f"all {count} files match the records"


def _files_of(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.file for finding in findings))


def verify(folder: Path) -> Verification:
    """Compare a published folder with what its records and its suite file come to.

    Raises:
        StoreError: the folder is not published, or holds no records that can be read; names the nearest that does.
    """
    found = open_results(folder)
    said = manifest_of(folder)
    findings = [Finding(FILE, f"{problem}") for problem in found.problems]
    findings += _faults(found.records)
    suite = "the suite file"
    try:
        suite = suite_file(found.records[-1])
        publication = make(found.records, _read(folder, suite), partial(content_within, folder))
    except CnnbenchError as error:
        return Verification((*findings, Finding(suite, str(error))), "", None)
    findings += _files(folder, publication, said)
    differ = [name for name in ("ok", "planned") if said.get(name) != getattr(publication, name)]
    findings += [
        Finding(MANIFEST, f"says {name} {said.get(name)}, the records {getattr(publication, name)}") for name in differ
    ] or [Finding(MANIFEST)]
    result = Verification(tuple(findings), "", publication)
    return result if result.clean else Verification(result.findings, _cause(said), publication)


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise StoreError(f"can't be read: {error.strerror or error}") from error


def _files(folder: Path, publication: Publication, said: Mapping[str, Any]) -> Iterator[Finding]:
    """One finding for each file that is or should be there."""
    for name in dict.fromkeys([*publication.files, *map(str, said["files"])]):
        path = folder / name
        made = publication.files.get(name)
        if made is None:
            yield Finding(name, "is listed as published, but no file of this name is made from the records")
        elif not path.is_file():
            yield Finding(name, "is missing")
        else:
            yield _compared(name, path.read_bytes(), made, said["files"].get(name))


def _compared(name: str, there: bytes, made: bytes, published: object) -> Finding:
    # Records of an earlier schema are published as they were; what is made of them is of the present one.
    same = there == made or (name == FILE and modern(there) == made)
    if same and published == digest(there):
        return Finding(name)
    if same:
        return Finding(name, f"is as the records make it, but {MANIFEST} has another sha256 of it")
    how = "changed after publishing" if published != digest(there) else "as published, but renders differently now"
    return Finding(name, f"differs ({how})", _excerpt(name, there, made))


def _excerpt(name: str, there: bytes, made: bytes) -> tuple[str, ...]:
    """The first lines that differ: ``-`` as they are there, ``+`` as they should be."""
    if not name.endswith(_TEXTS):
        return (f"{len(there)} bytes there, {len(made)} as rendered now",)
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (there, made))
    changed: list[str] = []
    for tag, first, last, start, stop in difflib.SequenceMatcher(None, old, new).get_opcodes():
        if tag != "equal":
            for one, other in zip_longest(old[first:last], new[start:stop]):
                pairs = zip(one or "", other or "", strict=False)
                same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                changed += [f"-{_around(one, same)}"] if one is not None else []
                changed += [f"+{_around(other, same)}"] if other is not None else []
    more = [f"... and {len(changed) - _LINES} more lines"] if len(changed) > _LINES else []
    return (*changed[:_LINES], *more)


def _around(line: str, place: int) -> str:
    """A line; of a long one the part around a place."""
    start = max(0, min(place - _WIDEST // 4, len(line) - _WIDEST))
    end = start + _WIDEST
    return ("… " if start else "") + printable(line[start:end]) + (" …" if end < len(line) else "")


def _faults(records: tuple[dict[str, Any], ...]) -> Iterator[Finding]:
    """What in records contradicts itself, or is nothing that a run writes."""
    statuses = get_args(Status)
    for number, record in enumerate(records, start=1):
        where = f"{FILE}: record {number} ({record['arm']}, seed {record['seed']})"
        planned = record.get("planned") or {}
        if record["status"] not in statuses:
            yield Finding(where, f"status {record['status']!r}, expected one of {listed(statuses)}")
        if record["arm"] not in planned.get("arms", [record["arm"]]):
            yield Finding(where, "its arm is not among the planned ones")
        if record["seed"] not in planned.get("seeds", [record["seed"]]):
            yield Finding(where, "its seed is not among the planned ones")
        metrics = record.get("metrics") or {}
        wrong = [name for name, value in metrics.items() if value is not None and not _number(value)]
        if wrong:
            yield Finding(where, f"{listed(wrong)}: expected a number")
        if record["status"] == "ok" and not metrics:
            yield Finding(where, "ok, and without any metric")
        confusion = (record.get("details") or {}).get("confusion")
        if record["status"] == "ok" and confusion and _number(metrics.get("accuracy")):
            right = sum(row[place] for place, row in enumerate(confusion)) / max(1, sum(map(sum, confusion)))
            if not math.isclose(right, metrics["accuracy"], abs_tol=1e-9):
                fault = f"accuracy {metrics['accuracy']:.6f}, and its confusion matrix has {right:.6f}"
                yield Finding(where, fault)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _cause(said: Mapping[str, Any]) -> str:
    """Versions that differ between now and when it was published."""
    versions = said.get("versions") or {}
    differ = [f"{name} {there}, here {_version(name)}" for name, there in versions.items() if there != _version(name)]
    return f"published with {listed(differ)}: other versions may render otherwise" if differ else ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
