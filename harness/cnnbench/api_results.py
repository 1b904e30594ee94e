"""What a run came to, for Python and notebooks: records, tables as data frames, figures, the report."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import CnnbenchWarning, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from cnnbench.failures import Failure
    from cnnbench.figures import Figure
    from cnnbench.tables import Report


class Results:
    """The results of a suite: of a run that has just ended, or of any results folder.

    At a prompt it shows the table of ``cnnbench run``, in a notebook the same as HTML. ``print(results)`` prints it.

    Attributes:
        path: the folder that holds the records.
        left_out: arm and seed of each trial that did not fit into the time budget.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        path: str | os.PathLike[str],
        *,
        left_out: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Results from records in memory.

        Args:
            records: in the order of their file.
            path: the folder or file that they came from.
            left_out: arm and seed of trials that were planned and have not run.

        Raises:
            UsageError: there are no records.
        """
        if not records:
            raise UsageError("no records to show: run the suite first")
        self.path = Path(path)
        self.left_out = tuple(left_out)
        self._records = tuple(records)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Results:
        """The results in a folder, of a run here or published.

        Args:
            path: a folder with ``records.jsonl``, or such a file.

        Raises:
            StoreError: nothing is there, or no records are in it; names the nearest place that has some.

        Warns:
            CnnbenchWarning: lines of the file are damaged; the rest is loaded.
        """
        from cnnbench.store import open_results

        found = open_results(Path(path))
        for problem in found.problems:
            warnings.warn(f"{found.path}: {problem}", CnnbenchWarning, stacklevel=2)
        return cls(found.records, path)

    @cached_property
    def records(self) -> tuple[Mapping[str, Any], ...]:
        """One for each trial of the latest run, arm by arm, as ``records.jsonl`` has them."""
        from cnnbench.frame import by_dataset

        sets = by_dataset(self._records).values()
        return tuple(record for trials in sets for _, _, record in trials.planned() if record is not None)

    @property
    def name(self) -> str:
        """The suite's."""
        return self._report.tables[0].name

    @property
    def question(self) -> str:
        """What the suite asks."""
        return self._report.tables[0].question

    @property
    def answer(self) -> str:
        """What the run answers, in sentences."""
        from cnnbench.answers import answers_of

        return "\n".join(answers_of(self._report, self._records).lines)

    @property
    def ok(self) -> bool:
        """Every trial of the run is ok, or was skipped for a stated reason: where ``cnnbench run`` exits with 0."""
        return not self.failures

    @property
    def statuses(self) -> Mapping[str, int]:
        """How many trials ended in each status."""
        return dict(Counter(record["status"] for record in self.records))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What failed, by arm and reason, with seeds and the first traceback."""
        from cnnbench.failures import failures

        return tuple(failures(self.records))

    def frame(self) -> pd.DataFrame:
        """One row for each planned trial, arm by arm.

        Columns ``dataset``, ``arm``, ``role``, ``changes``, ``seed``, ``status`` (``pending`` without a record),
        ``reason``, then one of float64 for each recorded quantity, in the unit that its key names; a trial that is not
        ok has none.
        """
        import pandas as pd

        from cnnbench.frame import by_dataset, to_frame

        frames = []
        for label, trials in by_dataset(self._records).items():
            one = to_frame(trials)
            one.insert(0, "dataset", label)
            frames.append(one)
        return pd.concat(frames, ignore_index=True)

    def table(self) -> pd.DataFrame:
        """The summary, one row for each dataset, arm and quantity: what ``--format csv`` and ``parquet`` have.

        Columns: ``dataset`` (empty where there is one), ``arm``, ``role``, ``changes``, ``reference``, ``ok`` and
        ``planned`` trials, ``quantity``; ``mean``, ``low``, ``high`` (its 95 % interval) and ``n``; the same of the
        paired difference from the reference, ``diff`` ...; how both were obtained; ``verdict``, its p-values and
        ``effect_size``; ``improvement`` with its interval. Numbers are in the recorded unit, missing where there is no
        value.
        """
        import pandas as pd

        from cnnbench.table_data import FIELDS, flat
        from cnnbench.table_parquet import COUNTS, TEXTS

        table = pd.DataFrame(list(flat(self._report)), columns=list(FIELDS))
        numbers = {name: "float64" for name in FIELDS if name not in (*TEXTS, *COUNTS)}
        return table.astype(numbers | dict.fromkeys(COUNTS, "int64"))

    @property
    def verdicts(self) -> pd.DataFrame:
        """``better``, ``worse``, ``equivalent`` or ``unresolved`` by arm and quantity, of all that is judged.

        Where the run has several datasets, rows are of dataset and arm.
        """
        table = self.table()
        several = table["dataset"].nunique() > 1
        rows = ["dataset", "arm"] if several else "arm"
        judged = table[table["verdict"].notna()]
        found: pd.DataFrame = judged.pivot(index=rows, columns="quantity", values="verdict")
        order = [tuple(key) if several else key[1] for key in judged[["dataset", "arm"]].drop_duplicates().to_numpy()]
        return found.loc[order, list(dict.fromkeys(judged["quantity"]))]

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """The report's figures in reading order; a notebook shows one where it stands last in a cell."""
        from cnnbench.figures import make_figures

        return make_figures(self._report, self._records)

    def figure(self, key: str = "forest") -> Figure:
        """One figure, shown by a notebook; its ``svg`` is text for a file, its ``png()`` are bytes.

        Args:
            key: ``forest``, ``seeds``, ``curves``, ``pareto-size-bytes`` ...: those of ``figures``.

        Raises:
            UsageError: the report has no such figure; names those that it has.
        """
        from cnnbench.registry import nearest

        known = {figure.key: figure for figure in self.figures}
        if key not in known:
            raise UsageError(f"no figure {key!r}: {nearest(key, known)}; there are {', '.join(known)}")
        return known[key]

    def render(self, format: str = "terminal") -> str | bytes:  # noqa: A002 - the command's own word
        """The tables in a format of ``cnnbench report``.

        Args:
            format: terminal, markdown, latex, csv or json, which are text, or parquet, which is bytes.

        Raises:
            UsageError: there is no such format.
        """
        from cnnbench.tables import render

        return render(self._records, format, source=self.path)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the whole report, tables and figures, as one HTML page that loads nothing from elsewhere.

        Args:
            path: its file.

        Returns:
            The file.

        Raises:
            UsageError: it can't be written.
        """
        from cnnbench.run_page import page_of

        file = Path(path)
        page = page_of(self._records, self.path, self.path if self.path.is_dir() else self.path.parent)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(page + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{file} can't be written: {error.strerror}") from error
        return file

    @cached_property
    def _report(self) -> Report:
        from cnnbench.tables import make_report

        return make_report(self._records, self.path)

    def __repr__(self) -> str:
        return str(self.render())

    def _repr_html_(self) -> str:
        from cnnbench.notebook import sheets_fragment

        return sheets_fragment(self._report.sheets, self.answer.splitlines())
