"""Techniques of a script and of a notebook, each in a process of its own as users have them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cnnbench import Suite, run
from cnnbench.errors import PluginError, UsageError

TECHNIQUE = """
from cnnbench import Suite, run, technique
from torch import nn

SCALE = 1.0

class Scaled(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return SCALE * self.norm(x)

@technique("norm", "scaled")
class MyNorm:
    '''Batch norm, scaled.'''

    def __call__(self, old):
        return Scaled(old.num_features)
"""
DATA = """
DATA = {
    "question": "Does it work?", "seeds": 1, "device": "cpu",
    "dataset": {"name": "digits", "train_size": 200, "test_size": 100},
    "model": {"name": "resnet", "depth": 8, "width": 4},
    "recipe": {"epochs": 1, "batch_size": 64},
    "measure": {"metrics": ["accuracy"]},
    "arms": {"mine": {"norm": "scaled"}},
}
"""
PLAIN = DATA.replace('{"norm": "scaled"}', '{"activation": "silu"}')
MODULE = TECHNIQUE.replace("import Suite, run, technique", "import hookimpl, technique")
HOOK = "\n@hookimpl\ndef cnnbench_register_techniques():\n    return [MyNorm]\n"


def python(*words: str, folder: Path, text: str = "", **environment: str) -> str:
    """What a process prints; its stderr, where it fails."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        input=text,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("guard", ["", pytest.param('if __name__ == "__main__":\n    ', marks=pytest.mark.slow)])
def test_a_script_runs_in_worker_processes_with_and_without_a_guard(tmp_path, guard):
    (tmp_path / "s.py").write_text(
        f"from cnnbench import Suite, run\nprint('once')\n{PLAIN}\n"
        f"{guard}print(run(Suite.from_dict(DATA), cache='c', workers=2).statuses)\n"
    )
    out = python("s.py", folder=tmp_path)
    assert out.splitlines() == ["once", "{'ok': 2}"], "no worker ran the script again"


@pytest.mark.slow
def test_a_technique_of_a_script_is_run_and_its_edit_makes_results_stale(tmp_path):
    plan = "print(Suite.from_dict(DATA, techniques=[MyNorm]).plan(cache='c').text)\n"
    ran = "print(run(Suite.from_dict(DATA, techniques=[MyNorm]), cache='c').statuses)\n"
    (tmp_path / "s.py").write_text(TECHNIQUE + DATA + ran + plan)
    out = python("s.py", folder=tmp_path)
    assert "{'ok': 2}" in out
    assert "on disk: 2 of 2 trials recorded" in out
    (tmp_path / "s.py").write_text(TECHNIQUE.replace("SCALE = 1.0", "SCALE = 2.0") + DATA + plan)
    assert "on disk: 1 of 2 trials recorded" in python("s.py", folder=tmp_path)


SHELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in sys.stdin.read().split("# %%"):
    shell.run_cell(cell, store_history=True).raise_error()
"""
MADE = "suite = Suite.from_dict(DATA, techniques=[MyNorm])\n"
RAN = "results = run(suite, cache='c', quiet=True)\nprint(results.statuses)\n"
PLAN = "print(suite.plan(cache='c').text)\n"
WARNED = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    run(suite, cache="c", quiet=True)
print(*(one.message for one in caught))
"""


@pytest.mark.slow
def test_a_notebook_defines_a_technique_edits_it_and_goes_on_in_another_session(tmp_path):
    (tmp_path / "shell.py").write_text(SHELL)

    def session(*cells: str) -> str:
        text = "# %%".join(cells)
        return python("shell.py", folder=tmp_path, text=text, IPYTHONDIR=str(tmp_path / "ipython"))

    owner = "print(suite.host.registry.get('norm', 'scaled').owner)\n"
    out = session(TECHNIQUE, DATA, MADE + RAN + owner, "results", "SCALE = 2.0", MADE + PLAN, TECHNIQUE, WARNED)
    assert "{'ok': 2}\nthis session" in out
    assert "Out[4]" in out, "the last value of a cell is shown"
    assert "on disk: 1 of 2 trials recorded" in out, "an edited cell makes its results stale"
    assert "MyNorm has been defined again since the suite was made: give techniques=[MyNorm]" in out
    # A later session reads the network that the first one kept, of a class of a cell.
    more = DATA.replace('["accuracy"]', '["accuracy", "size_onnx"]')
    again = session("'moved'", TECHNIQUE, more, MADE + PLAN + RAN)
    assert "{'ok': 2}" in again
    assert "to run: 2 stages" in again, "it trains nothing anew"


@pytest.mark.slow
def test_a_class_of_a_module_that_registers_it_runs_in_worker_processes(tmp_path):
    (tmp_path / "own_norms.py").write_text(MODULE + HOOK)
    (tmp_path / "s.py").write_text(
        f"from cnnbench import Suite, run\nfrom own_norms import MyNorm\n{DATA}\n"
        "suite = Suite.from_dict(DATA, techniques=[MyNorm])\n"
        "print(suite.session_techniques)\n"
        "print(run(suite, cache='c', executor='local', workers=2).statuses)\n"
    )
    assert python("s.py", folder=tmp_path).splitlines() == ["()", "{'ok': 2}"]


def data() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(DATA, namespace)
    return namespace["DATA"]


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> type[Any]:
    """The technique of a module, which is another test's no more when this one ends."""
    monkeypatch.syspath_prepend(str(folder))
    (folder / f"{name}.py").write_text(source)
    module = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, name, module)
    return module.MyNorm


def test_a_class_that_no_module_registers_stays_in_this_process(tmp_path, monkeypatch):
    mine = loaded(tmp_path, monkeypatch, "own_norms_without_a_hook", MODULE)
    suite = Suite.from_dict(data(), techniques=[mine])
    assert suite.session_techniques == ("scaled",)
    assert suite.techniques == (mine,)
    entry = suite.host.registry.get("norm", "scaled")
    assert str(entry.owner).startswith("this session")
    assert entry.beside == tmp_path, "its code is its file, and what this imports beside it"
    for executor in ("local", "ray"):
        with pytest.raises(UsageError, match=r"^executor: other processes have no scaled, which this session defines"):
            run(suite, executor=executor)


def test_a_module_whose_hook_leaves_the_class_out_is_told(tmp_path, monkeypatch):
    mine = loaded(tmp_path, monkeypatch, "own_norms_left_out", MODULE + HOOK.replace("[MyNorm]", "[]"))
    with pytest.raises(UsageError, match="own_norms_left_out"):
        Suite.from_dict(data(), techniques=[mine])


def test_what_is_no_technique_or_has_a_name_that_is_taken_is_told(tmp_path, monkeypatch):
    with pytest.raises(PluginError, match="is not a technique"):
        Suite.from_dict(data(), techniques=[int])
    taken = loaded(tmp_path, monkeypatch, "own_norms_taken", MODULE.replace('"scaled"', '"group"'))
    with pytest.raises(PluginError, match="norm 'group' is registered twice"):
        Suite.from_dict(data(), techniques=[taken])


USER = """
from pathlib import Path
from typing import assert_type

import pandas as pd

from cnnbench import Results, Suite, SuitePlan, run, technique


@technique("activation", "mine")
class Mine:
    '''Mine.'''

    slope: float = 0.1


suite = Suite("suite.toml", techniques=[Mine])
assert_type(suite.with_(seeds=range(3)), Suite)
assert_type(suite.plan(seeds="auto"), SuitePlan)
found = run(suite, seeds=5, only="mine", time_budget="2h")
assert_type(found, Results)
assert_type(found.frame(), pd.DataFrame)
assert_type(found.verdicts, pd.DataFrame)
assert_type(found.ok, bool)
assert_type(Results.load(Path("results")).report("page.html"), Path)
assert_type(found.figure().svg, str)
run(suite, sedes=5)  # type: ignore[call-arg]
"""


@pytest.mark.slow
def test_a_user_s_script_passes_mypy_strict(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    root = Path(__file__).parents[2]
    words = ["-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    out = python(*words, str(tmp_path / "user.py"), folder=root)
    assert "Success: no issues found in 1 source file" in out
