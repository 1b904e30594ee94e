"""Every error that the harness raises on purpose.

``CnnbenchError``
    ``UsageError``             the command line or a setting is off; exit code 2
        ``SuiteError``         a suite file; carries every mistake found in it
        ``DataError``          a dataset is missing or corrupt; says where it looked and how to get it
        ``StoreError``         a results folder or record file can't be read or written
    ``PluginError``            a plugin broke the contract at registration
    ``TrialError``             costs one trial and nothing else; a technique may raise these
        ``NoEffect``           the technique changed nothing (status ``failed``)
        ``BrokenContract``     the technique handed back what its slot does not allow (status ``failed``)
        ``Diverged``           loss or outputs are not finite (status ``diverged``)
        ``Unsupported``        the technique can't act on this model or device (status ``skipped``)
            ``MissingDependency``  an optional package is absent; names its install line

``CnnbenchWarning``            what a run from Python warns of, where the command line prints a line

A ``CnnbenchError`` becomes one line for people. Anything else is a fault in code and keeps its traceback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class CnnbenchError(Exception):
    """Base of all deliberate errors; its text is one line for people."""


class CnnbenchWarning(UserWarning):
    """Something is wrong with a plugin or with records, and the rest works on."""


class UsageError(CnnbenchError):
    """What the user asked for can't be done as asked."""


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a suite file.

    Attributes:
        file: the suite's path as the user gave it.
        line: 1-based line number, 0 where none applies.
        place: dotted path of the key, e.g. ``arms."group norm".norm.groups``.
        message: what was expected and what was found, with the nearest right name where there is one.
    """

    file: str
    line: int
    place: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.place}: {self.message}" if self.place else f"{where}: {self.message}"


class SuiteError(UsageError):
    """A suite file with mistakes, all of them at once.

    Attributes:
        problems: the mistakes in the order of the file.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class DataError(UsageError):
    """A dataset is missing or corrupt."""


class StoreError(UsageError):
    """A results folder can't be read or written."""


class PluginError(CnnbenchError):
    """A plugin broke the contract when it registered."""


class TrialError(CnnbenchError):
    """Costs one trial and nothing else."""


class NoEffect(TrialError):  # noqa: N818 - reads as what happened
    """A technique changed nothing, so its row would be the baseline under another name."""


class BrokenContract(TrialError):  # noqa: N818
    """A technique handed back a value of the wrong kind, shape or device."""


class Diverged(TrialError):  # noqa: N818
    """Training loss or model outputs are not finite.

    Attributes:
        history: the epochs before, as plain data.
    """

    def __init__(self, message: str, history: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.history = list(history)


class Unsupported(TrialError):  # noqa: N818
    """A technique can't act on this model, data or device."""


class OutOfMemory(TrialError):  # noqa: N818
    """The device or the machine has no more memory.

    Attributes:
        peak_mib: the most that was held before, in MiB; None where it is not known.
    """

    def __init__(self, peak_mib: float | None) -> None:
        reached = "" if peak_mib is None else f" after reaching {peak_mib:,.0f} MiB"
        super().__init__(f"out of memory{reached}")
        self.peak_mib = peak_mib


class MissingDependency(Unsupported):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, distribution: str = "cnnbench") -> None:
        super().__init__(f"needs {package}, which is not installed: {install_line(distribution, extra)}")
        self.package = package
        self.extra = extra


def install_line(distribution: str, extra: str) -> str:
    """The command that installs a distribution with an extra."""
    return f"pip install '{distribution}[{extra}]'"


def words_of(error: BaseException) -> str:
    """Type and text of any error on one line; its text is another's code too, and may raise in its turn."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001
        text = ""
    words = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    if isinstance(error, BaseExceptionGroup):  # which says only how many there are
        return f"{words}, the first of them {words_of(error.exceptions[0])}"[:600]
    return words
