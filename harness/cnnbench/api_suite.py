"""A suite for Python and notebooks: read from a file, from TOML, or from plain data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.errors import CnnbenchWarning, Problem, SuiteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from cnnbench.api_plan import SuitePlan
    from cnnbench.api_source import Reading, Seeds
    from cnnbench.plan import Plan
    from cnnbench.plugins import PluginHost
    from cnnbench.suite import Arm
    from cnnbench.suite import Suite as Definition


class Suite:
    """A suite, read and validated: the comparison that ``run`` carries out.

    ``Suite("suites/quickstart.toml")`` reads a file; ``Suite.from_toml`` and ``Suite.from_dict`` take the same content
    as text and as plain data. A suite does not change: ``with_`` makes another. Within the harness suites are
    ``cnnbench.suite.Suite``, plain data: ``definition`` is that of this one.
    """

    def __init__(self, file: str | os.PathLike[str], *, techniques: Sequence[type[Any]] = ()) -> None:
        """A suite file.

        Args:
            file: its path.
            techniques: classes made with ``@technique`` that the suite may name beside those of plugins, such as one
                of a notebook's cell.

        Raises:
            SuiteError: it can't be read or has mistakes; carries all of them, each with its line.
            PluginError: one of the classes is no technique, or its slot and name are taken.
            UsageError: that is no path.

        Warns:
            CnnbenchWarning: a plugin does not work; the rest does.
        """
        from cnnbench.api_source import Source, read
        from cnnbench.toml import read_file

        given: object = file  # callers without a type checker hand in data, too
        if not isinstance(given, str | os.PathLike):
            kind = "a mapping: Suite.from_dict takes plain data" if isinstance(given, Mapping) else type(given).__name__
            raise UsageError(f"expected a Suite or a suite's path, got {kind}")
        if "\n" in str(file):
            raise UsageError("expected a suite's path, got text of several lines: Suite.from_toml takes TOML")
        self._reading = read(Source(read_file(Path(file)), str(file)), techniques)

    @classmethod
    def from_toml(
        cls,
        text: str,
        *,
        name: str = "suite",
        folder: str | os.PathLike[str] = ".",
        techniques: Sequence[type[Any]] = (),
    ) -> Suite:
        """A suite from TOML.

        Args:
            text: what a suite file holds.
            name: the suite's; records go to ``results/<name>``.
            folder: what relative paths in it start from.
            techniques: see ``Suite``.

        Raises:
            SuiteError: it has mistakes; carries all of them, each with its line.
            PluginError: see ``Suite``.
        """
        from cnnbench.api_source import Source, read

        content = text.encode("utf-8", "surrogatepass")
        return cls._of(read(Source(content, str(Path(folder) / f"{name}.toml"), f"<{name}>"), techniques))

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        name: str = "suite",
        folder: str | os.PathLike[str] = ".",
        techniques: Sequence[type[Any]] = (),
    ) -> Suite:
        """A suite from plain data.

        Args:
            data: tables, lists, text and numbers under the keys of a suite file: what ``tomllib`` would read. Tuples
                and ranges are lists, paths are text, NumPy's numbers are numbers.
            name: the suite's; records go to ``results/<name>``.
            folder: what relative paths in it start from.
            techniques: see ``Suite``.

        Raises:
            SuiteError: it has mistakes; carries all of them, each with its place.
            PluginError: see ``Suite``.
        """
        from cnnbench.api_source import Source, read
        from cnnbench.locate import dotted
        from cnnbench.toml_text import suite_text

        text, problems = suite_text(data)
        source = Source(text.encode(), str(Path(folder) / f"{name}.toml"), f"<{name}>", lines=False)
        if problems:
            raise SuiteError([Problem(source.shown, 0, dotted(place), message) for place, message in problems])
        return cls._of(read(source, techniques))

    @classmethod
    def _of(cls, reading: Reading) -> Suite:
        made = cls.__new__(cls)
        made._reading = reading  # noqa: SLF001 - its own
        return made

    @property
    def definition(self) -> Definition:
        """The validated content in full, with which all of the harness works."""
        return self._reading.suite

    @property
    def host(self) -> PluginHost:
        """Plugins that it was read with; ``host.registry`` has all techniques that it can name."""
        return self._reading.host

    @property
    def session_techniques(self) -> tuple[str, ...]:
        """Names of those of its techniques that no other process can import."""
        return self._reading.own

    @property
    def techniques(self) -> tuple[type[Any], ...]:
        """Classes that were given with it."""
        return self._reading.techniques

    def with_(
        self,
        *,
        seeds: Seeds | None = None,
        device: str | None = None,
        techniques: Sequence[type[Any]] | None = None,
    ) -> Suite:
        """A copy with something changed.

        Args:
            seeds: a number of seeds, 0 to N-1, or the seeds themselves; None leaves them.
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xla`` or ``auto``; None leaves it.
            techniques: classes in place of those it has, as after a cell was edited; the suite is read again.

        Raises:
            SuiteError: this machine has not what the copy asks for, or a technique is missing.
            UsageError: fewer than one seed.
        """
        from cnnbench.api_source import read

        reading, suite = self._reading, self.definition
        if techniques is not None:
            reading = read(reading.source, techniques)
            reading = replace(reading, suite=replace(reading.suite, seeds=suite.seeds, device=suite.device))
        return self._of(replace(reading, suite=reading.changed(seeds, device)))

    def changed(self, seeds: Seeds | Literal["auto"] | None, device: str | None, *, here: bool = True) -> Definition:
        """The validated content as one call has it; see ``run`` for the arguments and ``with_`` for the errors.

        Args:
            seeds: in place of its own; ``auto``: as many as an arm may get.
            device: in place of its own.
            here: it is to run on this machine, and not on a cluster.
        """
        return self._reading.changed(seeds, device, here=here)

    @property
    def name(self) -> str:
        """The file's name without its ending, or the one that was given."""
        return self.definition.name

    @property
    def question(self) -> str:
        """What the suite asks."""
        return self.definition.question

    @property
    def text(self) -> str:
        """Its TOML."""
        return self.definition.text

    @property
    def datasets(self) -> tuple[str, ...]:
        """Labels of its datasets."""
        return tuple(dataset.label for dataset in self.definition.datasets)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms, the baseline first, the placebo last: each with ``name``, ``role``, ``changes`` and settings."""
        from cnnbench.matrix import arms

        return tuple(arms(self.definition))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds in order."""
        return self.definition.seeds

    @property
    def device(self) -> str:
        """``auto``, ``cpu``, ``cuda`` ..."""
        return self.definition.device

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured."""
        return tuple(self.definition.measure.metrics)

    def plan(
        self,
        *,
        seeds: Seeds | Literal["auto"] | None = None,
        device: str | None = None,
        only: str | Sequence[str] = (),
        results: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> SuitePlan:
        """What ``run`` would do with the same arguments; runs nothing.

        Args:
            seeds: see ``run``.
            device: see ``run``.
            only: see ``run``.
            results: see ``run``.
            cache: see ``run``.

        Raises:
            UsageError: ``only`` names an arm that the suite has not, or there is no such device.
        """
        from cnnbench.api_plan import SuitePlan
        from cnnbench.api_source import names
        from cnnbench.calls import AUTO, records_folder
        from cnnbench.execute.cache import StageCache, default_cache
        from cnnbench.here import default_workers, find_place
        from cnnbench.outlook import outlook
        from cnnbench.plan import make_plan
        from cnnbench.store import Store

        suite = self.changed(seeds, device)
        place = find_place(suite.device, suite.measure.latency.threads)
        store = Store(Path(results or records_folder(suite)))
        text = outlook(
            suite,
            self.host,
            place,
            store,
            StageCache(Path(cache or default_cache())),
            1 if self.session_techniques else default_workers(place),
            names(only),
            adaptive=seeds == AUTO,
            warn=lambda line: warnings.warn(line, CnnbenchWarning, stacklevel=2),
        )
        return SuitePlan(text, _rows(make_plan(suite, self.host, place, names(only))))

    def __repr__(self) -> str:
        size = f"{len(self.arms)} arms x {len(self.seeds)} seeds on {', '.join(self.datasets)}"
        return f"<Suite {self.name!r}: {size}, device {self.device}>"

    def _repr_html_(self) -> str:
        from cnnbench.notebook import rows_fragment

        size = f"{len(self.seeds)} seeds on {', '.join(self.datasets)}, device {self.device}"
        rows = [(arm.name, arm.changes or "–", arm.against or "–") for arm in self.arms]
        return rows_fragment(f"{self.name}: {self.question} ({size})", ("arm", "changes", "compared with"), rows)


def _rows(plan: Plan) -> pd.DataFrame:
    import pandas as pd

    columns = ["dataset", "arm", "role", "changes", "seed", "skip"]
    rows = [
        (t.trial.dataset, t.trial.arm.name, t.trial.arm.role, t.trial.arm.changes, t.trial.seed, t.skip or "")
        for t in plan.trials
    ]
    return pd.DataFrame(rows, columns=columns)
