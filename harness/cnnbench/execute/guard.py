"""Keeps what one task does to its process from the next: found after a task, told of, and put back.

What can be put back for sure is a note in the record. What may have spread before it was put back (torch's functions
replaced by others) fails the trial, and the process is worth no further task: ``Guard.spoiled`` says so.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cnnbench.errors import TrialError
from cnnbench.execute.children import below, end_leftovers
from cnnbench.execute.patches import Names, foundations, torchs
from cnnbench.execute.state import PARTS, Part, enter, generators, seed_all, set_generators, working_folder
from cnnbench.execute.threads import left_since
from cnnbench.execute.threads import running as threads
from cnnbench.seeds import Streams
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class Spoiled(TrialError):  # noqa: N818 - reads as what happened
    """A technique changed what every task of the process goes through."""


@dataclass
class Findings:
    """What a task left changed; known once its block has ended.

    Attributes:
        notes: what was put back, a sentence each.
        spoiled: what can't be put back for sure; None where there is nothing.
        worn: the process should take no further task, though what this one measured stands.
    """

    notes: list[str] = field(default_factory=list)
    spoiled: str | None = None
    worn: bool = False

    def noted(self, result: dict[str, Any]) -> dict[str, Any]:
        """A stage's result with the notes.

        Raises:
            Spoiled: it is worth nothing.
        """
        if self.spoiled is not None:
            raise Spoiled(self.spoiled)
        return {**result, "notes": [*result.get("notes", ()), *self.notes]} if self.notes else result


class Guard:
    """Watches the tasks of one process.

    Args:
        folder: an empty one, the working directory of every task: what a task writes there is removed. None: tasks run
            where the process does, and files stay.

    Attributes:
        spoiled: the process is worth no further task.
        watching: a task runs; what may interrupt it must not interrupt what comes before and after.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.spoiled = False
        self.watching = False
        self._folder = folder
        self._process = os.getpid()

    @contextmanager
    def around(self, spec: Mapping[str, Any]) -> Iterator[Findings]:
        """Watch one task.

        Args:
            spec: the task's plain data: its seed and family start the global random generators.
        """
        found = Findings()
        outside, states = working_folder(), generators()
        if self._folder is not None:
            enter(str(self._folder))
        before, running = [part.read() for part in PARTS], below()
        beside = threads()
        names, of_torch = Names(foundations()), Names(torchs())
        with warnings.catch_warnings():
            filters = list(warnings.filters)
            seed_all(Streams(spec.get("seed", 0), f"{spec.get('family', '')}/global"))
            try:
                self.watching = True
                yield found
            finally:
                self.watching = False
                replaced = names.put_back()  # first: all that follows goes through them
                if os.getpid() != self._process:  # a child that a technique forked, which must not go on as its parent
                    os._exit(0)
                spoiled, self.spoiled = self.spoiled, True  # until all below is done
                faulthandler.cancel_dump_traceback_later()  # it would end the process in the midst of another task
                self._put_back(found, before, replaced, of_torch)
                if blanket := [one for one in warnings.filters if one not in filters and _catches_all(one)]:
                    found.notes.append(
                        f"a technique changed the warnings filters ({blanket[0][0]} for all); they were put back"
                    )
                if ended := end_leftovers(running):
                    found.notes.append(f"a technique left processes running ({listed(ended, 5)}); they were ended")
                if alive := left_since(beside):
                    found.notes.append(
                        f"a technique left threads running ({listed(alive, 5)}); its process took no further task"
                    )
                    found.worn = True
                self._clear(found)
                set_generators(states)
                if outside is not None:
                    with suppress(OSError):
                        os.chdir(outside)
                self.spoiled = spoiled or found.spoiled is not None or found.worn

    def _put_back(self, found: Findings, before: list[Any], replaced: list[str], names: Names) -> None:
        """Set what a task left changed to what it was.

        Args:
            found: takes what is told.
            before: what each part was.
            replaced: names that were put back already.
            names: torch's, which are still to be.
        """
        lasting = []
        for part, value in zip(PARTS, before, strict=True):
            try:
                words, back = _put_back(part, value)
            except Exception:  # noqa: BLE001 - whatever a technique made of it: the rest is put back all the same
                words, back = part.name, False
            if words is not None and back:
                found.notes.append(f"a technique changed {words}; it was put back")
            elif words is not None and part.mild:
                found.notes.append(f"a technique changed {words} of the process, which can't be put back")
                found.worn = True
            elif words is not None:
                lasting.append(words)
        replaced = [*replaced, *names.put_back()]  # last: torch.Storage goes with the default dtype
        if replaced:
            found.spoiled = (
                f"a technique replaced {listed(replaced, 3)}, which all trials of a worker process share: "
                "let it subclass or wrap in place of that"
            )
        elif lasting:
            found.spoiled = f"a technique changed {listed(lasting)} for the whole process, which can't be put back"

    def _clear(self, found: Findings) -> None:
        """Empty the working directory."""
        if self._folder is None:
            return
        written = sorted(os.listdir(self._folder))  # noqa: PTH208 - names alone
        for name in written:
            path = self._folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        if written:
            found.notes.append(
                f"a technique wrote into the working directory ({listed(written, 5)}), "
                "which is each worker's own and was emptied"
            )


def _put_back(part: Part, before: Any) -> tuple[str | None, bool]:
    """What changed in a few words, None where nothing did, and whether it is as it was."""
    after = part.read()
    wanted = part.stays(before, after)
    if after == wanted:
        return None, True
    if part.write is not None:
        part.write(wanted)
    return part.told(wanted, after), part.write is not None and bool(part.read() == wanted)


def _catches_all(entry: tuple[Any, ...]) -> bool:
    """Whether a warnings filter is for everything: libraries add narrower ones as they are imported."""
    _, message, category, module, line = entry
    return message is None and module is None and line == 0 and category is Warning
