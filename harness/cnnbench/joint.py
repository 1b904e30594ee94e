"""Merged runs on disk: one results folder where they are of one machine, else one for each machine."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.durable import write as write_file
from cnnbench.errors import UsageError
from cnnbench.frame import by_dataset
from cnnbench.machines import BORROWED, folder_names
from cnnbench.paths import content_within, plain_name, within
from cnnbench.publication import code_files, digest
from cnnbench.record_lines import as_line
from cnnbench.store import FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.merge import Merged


def write(merged: Merged, output: Path, homes: Sequence[Path]) -> list[str]:
    """Write each run's records, and the suite file where one of the sources has it.

    Args:
        merged: what to write.
        output: the folder; for several machines each gets one of its own in it.
        homes: folders of the sources.

    Returns:
        A line for each folder.

    Raises:
        UsageError: a folder holds other records already.
        StoreError: it can't be written.
    """
    names = folder_names(merged.runs)
    folders = {machine: output / names[machine] if len(names) > 1 else output for machine in merged.runs}
    contents = {machine: b"".join(map(as_line, records)) for machine, records in merged.runs.items()}
    for machine, folder in folders.items():
        path = folder / FILE
        if path.exists() and path.read_bytes() != contents[machine]:
            raise UsageError(f"--output: {path} holds other records already: choose another folder, or remove it")
    lines = []
    for machine, records in merged.runs.items():
        folder = folders[machine]
        write_file(folder / FILE, contents[machine])
        suite = records[-1].get("suite") or {}
        content = _suite(suite, homes)
        if content is not None:
            write_file(within(folder, plain_name(Path(str(suite["file"])).name, "the suite file")), content)
        for name, code in _code(records[-1], homes).items():
            write_file(within(folder, name), code)
        lines.append(f"{folder}: {machine.label}: {_told(records)}")
    return lines


def _suite(suite: Mapping[str, Any], homes: Sequence[Path]) -> bytes | None:
    for home in homes:
        path = home / Path(str(suite.get("file"))).name
        if path.is_file() and digest(content := path.read_bytes()) == suite.get("sha256"):
            return content
    return None


def _code(heading: Mapping[str, Any], homes: Sequence[Path]) -> dict[str, bytes]:
    """Files of the suite's plugins from the first folder that has all of them."""
    for home in homes:
        with suppress(UsageError):
            return code_files(heading, partial(content_within, home))
    return {}


def _told(records: Sequence[Mapping[str, Any]]) -> str:
    trials = by_dataset(records)
    planned = sum(len(one.seeds_of(arm)) for one in trials.values() for arm in one.arms)
    ok = sum(record["status"] == "ok" for record in records)
    first = next(iter(trials.values()))
    others = sum(BORROWED in record for record in records)
    taken = f", the quality of {others} from other machines" if others else ""
    return f"{len(first.arms)} arms, {len(first.seeds)} seeds, {ok}/{planned} trials ok{taken}"
