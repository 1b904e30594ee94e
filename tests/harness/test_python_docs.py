"""The page on Python and the notebook beside it do what they say, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from cnnbench import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.mark.slow
def test_the_snippets_run_one_after_the_other(tmp_path):
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 7
    (tmp_path / "tutorial.py").write_text("\n".join(snippets), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "tutorial.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("digits-python: Does SiLU or group norm") == 2, "the table, and the plan"
    assert "<suite>: dataset: unknown dataset 'digit': did you mean 'digits'?" in done.stdout
    assert (tmp_path / "report.html").is_file()


def test_every_argument_of_run_is_in_the_page_and_its_docstring():
    table = re.search(r"^\| argument .*?\n\n", PAGE, re.MULTILINE | re.DOTALL)[0]
    names = set(run.__annotations__) - {"suite", "return"}
    assert names == set(re.findall(r"`(\w+)=", table))
    documented = re.search(r"Args:\n(.*?)\n\n", run.__doc__, re.DOTALL)[1]
    assert names | {"suite"} == set(re.findall(r"^ {8}(\w+): ", documented, re.MULTILINE))


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.execution_count is None and cell.outputs == [] for cell in notebook.cells if "outputs" in cell)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_tables(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    shown = [output.data for cell in notebook.cells if "outputs" in cell for output in cell.outputs if "data" in output]
    assert len(shown) == 7
    assert all("text/html" in one or "image/svg+xml" in one for one in shown)
    assert [one for one in shown if "image/svg+xml" in one]
    assert "steep" in shown[-1]["text/html"]
    written = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output)
    assert "[12/12]" in written, "progress, in plain lines"
