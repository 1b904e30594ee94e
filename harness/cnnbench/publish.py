"""A results folder to a published one: what is checked before, where it goes, and what it leaves of other files."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cnnbench.anonymous import without_folders
from cnnbench.durable import write
from cnnbench.errors import StoreError, UsageError
from cnnbench.frame import PENDING, by_dataset
from cnnbench.paths import content_within, plain_name, within
from cnnbench.publication import MANIFEST, check_suite, digest, make
from cnnbench.record_lines import as_line
from cnnbench.store import FILE, Store, open_results
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.publication import Publication

EARLIER: Final = "earlier.jsonl"
"""Where records of earlier plans go when the folder that holds them is published."""


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes:
        folder: where.
        publication: what.
        remarks: what a reader should know, a line each.
    """

    folder: Path
    publication: Publication
    remarks: tuple[str, ...]


def publish(results: Path, root: Path, *, suite: Path | None = None, partial: bool = False) -> Published:
    """Write the latest run of a results folder to ``root/<suite>``, or in place if it lies within ``root``.

    Args:
        results: a folder with records, or a record file.
        root: the folder of published results.
        suite: the suite file; None for the copy that the run has left, or ``suites/`` where there is none.
        partial: also publish a run that has not finished.

    Raises:
        UsageError: the run is not finished; no suite file is that of the records; or the folder holds what publishing
            would destroy.
        StoreError: there are no records, or files can't be read or written.
    """
    found = open_results(results, every=True)
    records = found.records
    _finished(records, partial=partial)
    home = found.path.parent
    publication = make(records, _suite(records[-1], home, suite), bound(content_within, home))
    folder = home if _within(home, root) and found.path.name == FILE else root / _name(publication.heading)
    with _held(folder) as store:
        if folder.resolve() == home.resolve():
            store.read()  # sets aside what is damaged, which the new file has no place for
            earlier = [record for record in records if without_folders(dict(record)) not in publication.records]
        else:
            earlier = []
            _nothing_lost(folder)
        remarks = [f"{found.path}: {problem}" for problem in found.problems]
        remarks += _remarks(publication, records, earlier)
        _write(folder, publication, earlier)
    return Published(folder, publication, tuple(remarks))


def manifest_of(folder: Path) -> dict[str, Any]:
    """What ``published.json`` of a folder says.

    Raises:
        StoreError: there is none, or it can't be read.
    """
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{folder}: no {MANIFEST} in this folder: 'cnnbench publish' makes one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: can't be read: {error}") from error
    if (
        not isinstance(said, dict)
        or not isinstance(said.get("files"), dict)
        or not isinstance(said.get("versions") or {}, dict)
    ):
        raise StoreError(f"{path}: expected an object with files, as 'cnnbench publish' writes it")
    return said


def _finished(records: Sequence[Mapping[str, Any]], *, partial: bool) -> None:
    missing: Counter[str] = Counter()
    for trials in by_dataset(records).values():
        for arm in trials.arms:
            missing[arm] += sum((arm, seed) not in trials.records for seed in trials.seeds_of(arm))
    pending = missing.total()
    if pending and not partial:
        arms = listed(f"{arm} ({count})" for arm, count in missing.items() if count)
        raise UsageError(
            f"{pending} planned {'trial has' if pending == 1 else 'trials have'} no record yet: {arms}: run the suite "
            f"to its end, or publish what is there with --partial, which counts them as {PENDING}"
        )


def _suite(heading: Mapping[str, Any], home: Path, given: Path | None) -> bytes:
    """The bytes of the suite file that the records came from."""
    name = Path(str((heading.get("suite") or {}).get("file") or "suite.toml")).name
    places = [given] if given is not None else [home / name, Path("suites") / name]
    wrong: UsageError | None = None
    for place in places:
        try:
            content = place.read_bytes()
            check_suite(heading, content)
        except OSError as error:
            if given is not None:
                raise UsageError(f"--suite: {place} can't be read: {error.strerror or error}") from error
        except UsageError as error:
            wrong = wrong or UsageError(f"{place}: {error}")
        else:
            return content
    if wrong is not None:
        raise wrong if given is not None else UsageError(f"{wrong}: name the file that was run with --suite FILE")
    raise UsageError(
        f"{home}: no {name} beside the records, nor in suites/: name the file that was run with --suite FILE"
    )


def _within(home: Path, root: Path) -> bool:
    return home.resolve().is_relative_to(root.resolve()) and home.resolve() != root.resolve()


def _name(heading: Mapping[str, Any]) -> str:
    return plain_name(str((heading.get("suite") or {}).get("name") or "results"), "the suite")


@contextmanager
def _held(folder: Path) -> Iterator[Store]:
    """Against a run that writes there."""
    store = Store(folder)
    with store.exclusive():
        yield store


def _nothing_lost(folder: Path) -> None:
    """Refuse to write over records that are published nowhere."""
    path = folder / FILE
    if not path.exists():
        return
    with suppress(StoreError):
        if manifest_of(folder)["files"].get(FILE) == digest(path.read_bytes()):
            return
    raise UsageError(
        f"{path} holds records that are not published: publish them (cnnbench publish {folder}), or choose another "
        "folder with --to"
    )


def _remarks(
    publication: Publication, records: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    if earlier:
        yield f"{_counted(len(earlier), 'record')} of earlier plans moved to {EARLIER}: no part of what is published"
    kept = {record["key"]: record for record in records}
    hidden = sum(without_folders(record) != record for record in (kept[r["key"]] for r in publication.records))
    if hidden:
        yield f"folders of absolute paths left out of {_counted(hidden, 'record')}, in settings, reasons or tracebacks"
    revisions = {str((r.get("environment") or {}).get("revision") or "") for r in publication.records}
    changed = sorted(text for text in revisions if " " in text)
    if changed:
        yield f"the suite's repository was at {listed(changed)} when it ran: that state can't be checked out again"
    if len(revisions) > 1:
        yield f"the trials ran at {len(revisions)} revisions of the suite's repository"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _write(folder: Path, publication: Publication, earlier: Sequence[Mapping[str, Any]]) -> None:
    """All files, the manifest last; those that an earlier publication left and this one has not go."""
    stale: set[str] = set()
    with suppress(StoreError):
        stale = set(manifest_of(folder)["files"]) - set(publication.files)
    if earlier:
        path = within(folder, EARLIER)
        before = path.read_bytes() if path.exists() else b""
        write(path, before + b"".join(as_line(without_folders(dict(record))) for record in earlier))
    for name, content in publication.files.items():
        write(within(folder, name), content)
    for name in stale:
        with suppress(StoreError, OSError):  # a manifest is a file that anyone may have written
            within(folder, name).unlink(missing_ok=True)
    write(folder / MANIFEST, publication.manifest())
