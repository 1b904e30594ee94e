"""``cnnbench new``: what it writes works at once, for every slot, and nothing of it has to be deleted first."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnbench
from cnnbench.cli import main
from cnnbench.contract_version import CONTRACT
from cnnbench.errors import UsageError
from cnnbench.opening import open_suite
from cnnbench.options import options_of
from cnnbench.plugins import PluginHost
from cnnbench.scaffold.imports import take_apart
from cnnbench.scaffold.names import names_of_file, names_of_project
from cnnbench.slots import SLOTS
from cnnbench.suite import load
from cnnbench.try_operate import OPERATING
from cnnbench.try_suite import ARM_SLOTS

TEMPLATES = Path(cnnbench.__file__).parent / "scaffold" / "templates"
HELPERS = {
    "activation": "layers",
    "convolution": "layers",
    "input": "layers",
    "norm": "layers",
    "optimizer": "lion",
    "pooling": "layers",
}
OWN_HOOK = {
    "model": "cnnbench_register_models",
    "dataset": "cnnbench_register_datasets",
    "metric": "cnnbench_register_metrics",
    "reporter": "cnnbench_register_reporters",
    "executor": "cnnbench_register_executors",
}
FOR_AUTHORS = {
    *("cnnbench", "cnnbench.errors", "cnnbench.lazy", "cnnbench.slots", "cnnbench.testing", "cnnbench.types"),
    *("cnnbench.execute.inline", "cnnbench.execute.interface", "cnnbench.plugins"),
}


def new(name, slot, output):
    return main(["new", name, "--slot", slot, "--output", str(output)])


def new_for_each_slot(name, output):
    """One for each slot, whose name takes the place of ``{}``; says nothing."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert {new(name.format(slot), slot, output) for slot in SLOTS} == {0}


def install(package, site):
    """Leave a package in ``site`` as pip would; its version and entry points are those of its pyproject."""
    project = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    module = project["name"].replace("-", "_")
    shutil.copytree(package / module, site / module)
    meta = site / f"{module}-{project['version']}.dist-info"
    meta.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (meta / "METADATA").write_text(head, "utf-8")
    points = [f"{name} = {value}" for name, value in project["entry-points"]["cnnbench"].items()]
    (meta / "entry_points.txt").write_text("\n".join(["[cnnbench]", *points, ""]), "utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A package for each slot, ``my-norm`` for norm; ``site``, where all of them are installed; and ``all/tests``."""
    folder = tmp_path_factory.mktemp("new")
    new_for_each_slot("my-{}", folder)
    (folder / "all" / "tests").mkdir(parents=True)
    (folder / "site").mkdir()
    for slot in SLOTS:
        install(folder / f"my-{slot}", folder / "site")
        shutil.copy(folder / f"my-{slot}" / "tests" / f"test_my_{slot}.py", folder / "all" / "tests")
    shutil.copy(folder / "my-norm" / "pyproject.toml", folder / "all")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A plugin in a file for each slot, and its suite."""
    folder = tmp_path_factory.mktemp("files")
    new_for_each_slot("a_{}.py", folder)
    return folder


@pytest.fixture
def imported_anew(monkeypatch):
    """What a test imports is forgotten afterwards, and where from."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("my_", "a_")):
            del sys.modules[name]


@pytest.fixture
def installed(folder, monkeypatch, imported_anew):
    """A host that finds all packages installed."""
    monkeypatch.syspath_prepend(str(folder / "site"))
    return PluginHost.discover()


def run_tests(folder, *more):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *more]
    return subprocess.run(command, cwd=folder / "all", env=env, capture_output=True, text=True, check=False)


# The package


@pytest.mark.parametrize("slot", SLOTS)
def test_a_package_has_all_that_one_needs(folder, slot):
    root = folder / f"my-{slot}"
    helper = [f"my_{slot}/{HELPERS[slot]}.py"] if slot in HELPERS else []
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()) == sorted(
        [
            *(".github/workflows/tests.yml", ".gitignore", "README.md", "pyproject.toml"),
            *(f"my_{slot}/__init__.py", f"my_{slot}/technique.py", *helper),
            *(f"suites/my-{slot}.toml", f"tests/test_my_{slot}.py"),
        ]
    )
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == f"my-{slot}"
    assert project["dependencies"] == [f"cnnbench>={cnnbench.__version__}"]
    assert project["entry-points"]["cnnbench"] == {f"my_{slot}": f"my_{slot}"}
    assert not {"license", "authors"} & set(project)  # which are the author's to say
    init = (root / f"my_{slot}" / "__init__.py").read_text("utf-8")
    assert f"def {OWN_HOOK.get(slot, 'cnnbench_register_techniques')}()" in init
    assert f'\nCNNBENCH_CONTRACT = "{CONTRACT[0]}.{CONTRACT[1]}"\n' in init
    for path in root.rglob("*.*"):
        if path.is_file():
            text = path.read_text("utf-8")
            assert not re.search(r"template|scaffold", text, re.IGNORECASE), path
            assert text.endswith("\n"), path
            assert not text.endswith("\n\n"), path


@pytest.mark.parametrize("slot", SLOTS)
def test_a_readme_says_what_is_true_of_its_slot(folder, slot):
    text = " ".join((folder / f"my-{slot}" / "README.md").read_text("utf-8").split())
    assert ("compares it with a baseline" in text) == (slot in ARM_SLOTS)
    assert ("A digest of its code" in text) == (slot in {*ARM_SLOTS, "metric"})
    assert ("No result depends on it" in text) == (slot in OPERATING)
    assert ("its `fingerprint` returns" in text) == (slot == "dataset")
    assert "pip install PATH_OR_URL_OF_CNNBENCH" in text


def test_lines_of_a_readme_are_of_one_length(folder):
    for path in folder.glob("my-*/README.md"):
        assert max(map(len, path.read_text("utf-8").splitlines())) <= 120


def test_every_package_offers_its_technique_with_a_checked_option_and_a_description(installed):
    assert installed.problems == []
    for slot in SLOTS:
        entry = installed.registry.get(slot, f"my_{slot}")
        assert str(entry.owner) == f"my-{slot} 0.1.0"
        assert entry.cls.__name__ == f"My{slot.capitalize()}"
        assert options_of(entry.cls), slot
        document = entry.cls.__doc__
        assert "\n    Helps" in document
        assert "Known" in document
        attributes = document.partition("Attributes:")[2]
        assert set(options_of(entry.cls)) <= set(re.findall(r"\w+", attributes)), slot


@pytest.mark.parametrize("slot", SLOTS)
def test_a_packages_suite_asks_its_question_of_digits_and_uses_the_technique(folder, installed, slot):
    path = folder / f"my-{slot}" / "suites" / f"my-{slot}.toml"
    suite = load(path, installed.registry, data=True)
    assert path.read_text("utf-8").startswith('question = "')
    assert "digits" in [one.choice.name for one in suite.datasets]
    assert len(suite.seeds) == 3
    settings = [suite.baseline, *(arm.settings for arm in suite.arms)]
    used = {
        *(choice.name for one in settings for found in one.techniques.values() for choice in found),
        *(
            choice.name
            for one in settings
            for choice in (one.model, *vars(one.recipe).values())
            if hasattr(choice, "name")
        ),
        *(one.choice.name for one in suite.datasets),
        *suite.measure.metrics,
    }
    assert f"my_{slot}" in used or slot in ("reporter", "executor", "tracker")
    readme = (folder / f"my-{slot}" / "README.md").read_text("utf-8")
    assert f"my_{slot}" in readme.partition("## Use")[2].partition("## Check")[0]


def test_the_tests_of_what_techniques_compute_pass(folder):
    done = run_tests(folder, "-k", "not test_conformance")
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"^(\d+) passed, \d+ deselected", done.stdout, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) >= len(SLOTS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_tests_of_each_package_pass(folder):
    done = run_tests(folder)
    assert done.returncode == 0, done.stdout[-20000:]


def test_listing_techniques_imports_no_torch(folder):
    modules = ", ".join(f"my_{slot}" for slot in SLOTS)
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed")
def test_the_code_is_formatted_and_keeps_ruffs_rules(folder, files):
    for root, more in ((folder, ["--exclude", "all,site"]), (files, ["--isolated", "--line-length", "120"])):
        for command in (["check"], ["check", "--select", "I"], ["format", "--check"]):
            line = ["ruff", *command, "--no-cache", *more, "."]
            done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("slot", ["norm", "optimizer", "dataset", "reporter"])
def test_the_next_steps_work_in_a_fresh_environment(folder, tmp_path, slot, capsys):
    """pip builds and installs it; then the commands that are printed, as they are printed, but for pip's network."""
    assert new(f"fresh-{slot}", slot, tmp_path) == 0
    steps = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert steps[1] == 'pip install -e ".[test]"'
    steps[1] = "pip install --no-deps --no-build-isolation ."
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "venv").glob("**/site-packages")
    above = [path for path in sys.path if path]
    (site / "above.pth").write_text("".join(f"{path}\n" for path in above), "utf-8")
    scripts = tmp_path / "venv" / "bin"
    for name, module in {"pip": "pip", "pytest": "pytest", "cnnbench": "cnnbench"}.items():
        script = scripts / name
        script.write_text(f'#!/bin/sh\nexec "{scripts}/python" -m {module} "$@"\n', "utf-8")
        script.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "CNNBENCH_CACHE": str(tmp_path / "cache"),
    }
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(steps)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert (tmp_path / f"fresh-{slot}" / "results" / f"fresh-{slot}" / "records.jsonl").is_file()


# A single file


@pytest.mark.parametrize("slot", SLOTS)
def test_a_file_is_a_plugin_that_its_suite_names(files, folder, imported_anew, monkeypatch, slot):
    suite, host = open_suite(files / f"a_{slot}.toml", PluginHost.discover(), data=True)
    assert host.problems == []
    assert suite.question
    assert [plugin.name for plugin in host.local] == [f"a_{slot}.py"]
    single = host.registry.get(slot, f"a_{slot}").cls
    monkeypatch.syspath_prepend(str(folder / "site"))
    package = PluginHost.discover().registry.get(slot, f"my_{slot}").cls
    assert single.__doc__ == package.__doc__.replace(f"my_{slot}", f"a_{slot}")
    assert options_of(single).keys() == options_of(package).keys()
    text = (files / f"a_{slot}.py").read_text("utf-8")
    assert not re.search(r"template|scaffold", text, re.IGNORECASE)


def test_a_file_is_run_by_its_suite(tmp_path, monkeypatch, imported_anew, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "cache"))
    assert main(["new", "my_norm.py", "--slot", "norm"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "wrote my_norm.py, my_norm.toml; next:"
    assert [line.strip() for line in out.splitlines()[2:]] == [
        "cnnbench check my_norm.py",
        "cnnbench try my_norm.py",
        "cnnbench run my_norm.toml",
    ]
    text = Path("my_norm.toml").read_text("utf-8").replace("epochs = 8", "epochs = 1").replace('"latency"', '"flops"')
    Path("my_norm.toml").write_text(text, "utf-8")
    assert main(["run", "my_norm.toml", "--seeds", "1", "--device", "cpu", "--executor", "inline", "--quiet"]) == 0
    assert "my_norm, eps 0.1" in capsys.readouterr().out


# Names


@pytest.mark.parametrize(
    ("written", "project", "module", "cls"),
    [
        ("my-norm", "my-norm", "my_norm", "MyNorm"),
        ("My_Norm", "my-norm", "my_norm", "MyNorm"),
        ("lab_norm--2d", "lab-norm-2d", "lab_norm_2d", "LabNorm2d"),
        ("frn", "frn", "frn", "Frn"),
    ],
)
def test_one_name_follows_everywhere(written, project, module, cls, tmp_path):
    assert vars(names_of_project(written)) == {"project": project, "module": module, "cls": cls}
    assert new(written, "loss", tmp_path) == 0
    source = (tmp_path / project / module / "technique.py").read_text("utf-8")
    assert f'@technique("loss", "{module}")\nclass {cls}:' in source
    assert f"class Test{cls}(" in (tmp_path / project / "tests" / f"test_{module}.py").read_text("utf-8")


_NO_FILE = "is no name for a plugin's file: expected small letters, digits and underscores, such as"
MISTAKES = [
    ("my norm", "is no name for a package: expected letters, digits and hyphens, such as 'my-norm'"),
    ("-norm", "is no name for a package: expected letters, digits and hyphens, such as 'norm'"),
    ("", "is no name for a package: expected letters, digits and hyphens, such as 'my-norm'"),
    (
        "x.txt",
        "is no name for a plugin: expected a file that ends with .py or a package's name without dots, such as 'x.py'",
    ),
    ("json.pyc", "such as 'my_json.py' or 'json-pyc'"),
    ("3d", "for names of modules and techniques begin with a letter: choose another name, say 'my-3d'"),
    ("class", "'class' can't be used, for class is a word of Python's own: choose another name, say 'my-class'"),
    ("None", "'None' can't be used, for None is a word of Python's own: choose another name, say 'my-none'"),
    ("json", "'json' can't be used, for json is a module of Python's own library: choose another name, say 'my-json'"),
    ("suites", "a package has suites/ for something else: choose another name, say 'my-suites'"),
    ("test-norm", "pytest would take a class called TestNorm for tests: choose another name, say 'my-test-norm'"),
    ("torch", f"a distribution torch {importlib.metadata.version('torch')} is installed already: choose another name"),
    ("cnnbench-plugins", "there is a module 'cnnbench_plugins' already"),
    ("group", f"there is a norm 'group' already, of cnnbench {cnnbench.__version__}: choose another name"),
    ("unsupported", "the class would be called Unsupported, as something is that its code uses: choose another name"),
    ("my-norm.py", f"'my-norm.py' {_NO_FILE} 'my_norm.py'"),
    ("3d.py", f"'3d.py' {_NO_FILE} 'my_3d.py'"),
    ("json.py", "for json is a module of Python's own library: choose another name, say 'my_json.py'"),
    ("group.py", f"there is a norm 'group' already, of cnnbench {cnnbench.__version__}: choose another name"),
]


@pytest.mark.parametrize(("name", "message"), MISTAKES, ids=[name for name, _ in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(name, message, tmp_path, capsys):
    assert main(["new", "--slot=norm", "--output", str(tmp_path), "--", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_slot_names_the_nearest(tmp_path, capsys):
    assert new("my-norm", "nrom", tmp_path) == 2
    assert capsys.readouterr().err == "cnnbench: --slot: unknown slot 'nrom': did you mean 'norm'?\n"
    assert new("my-init", "init", tmp_path) == 2
    assert capsys.readouterr().err == "cnnbench: --slot: unknown slot 'init': did you mean 'initializer'?\n"


def test_a_name_that_another_plugin_has_says_whose_it_is(install_plugin, tmp_path, capsys):
    install_plugin(
        "lab_norms",
        "from cnnbench import hookimpl, technique\n\n@technique('norm', 'mine')\nclass Mine:\n    '''Mine.'''\n\n"
        "@hookimpl\ndef cnnbench_register_techniques():\n    return [Mine]\n",
    )
    assert new("mine", "norm", tmp_path) == 2
    assert "there is a norm 'mine' already, of lab_norms 1.0: choose another name" in capsys.readouterr().err
    assert new("mine", "loss", tmp_path) == 0, "another slot is another matter"


@pytest.mark.parametrize("name", ["my-norm", "my_norm.py"])
def test_nothing_is_written_over(name, tmp_path, capsys):
    assert new(name, "norm", tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert new(name, "loss", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / name} exists, and nothing is ever written over" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_suite_beside_a_file_that_is_new_is_not_written_over_either(tmp_path, capsys):
    (tmp_path / "my_norm.toml").write_text("mine")
    assert new("my_norm.py", "norm", tmp_path) == 2
    assert "my_norm.toml exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["my_norm.toml"]


def test_a_folder_that_can_not_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert new("my-norm", "norm", tmp_path / "file") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "can't be written" in line


def test_the_slot_has_to_be_named(capsys):
    with pytest.raises(SystemExit):
        main(["new", "my-norm"])
    assert "--slot" in capsys.readouterr().err


@given(
    st.text(st.characters(codec="utf-8"), max_size=12) | st.from_regex(r"[A-Za-z0-9._-]{1,12}(\.py)?", fullmatch=True)
)
def test_any_name_serves_or_is_told_of_with_one_that_does(written):
    read = names_of_file if written.endswith(".py") else names_of_project
    try:
        names = read(written)
    except UsageError as error:
        (line,) = str(error).splitlines()
        assert read(re.findall(r"'([a-z0-9_.-]+)'", line)[-1])
        return
    assert names.module.isidentifier()
    assert re.fullmatch(r"[a-z][a-z0-9_-]*", names.module)
    assert names.cls.isidentifier()


# The templates


def test_templates_use_only_what_is_meant_for_authors():
    for path in TEMPLATES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "cnnbench":
                inside = str(node.module).startswith("cnnbench.scaffold.templates.")
                assert inside or node.module in FOR_AUTHORS, f"{path}: {node.module}"


@pytest.mark.parametrize(
    "path", sorted(TEMPLATES.rglob("*.py")), ids=lambda path: path.relative_to(TEMPLATES).as_posix()
)
def test_taking_a_module_apart_loses_nothing(path):
    source = path.read_text("utf-8")
    taken = take_apart(source)
    again = take_apart(taken.text("mine"))
    assert again == taken
    assert taken.body in source


def test_imports_that_do_not_fit_on_a_line_are_wrapped():
    names = [f"a_rather_long_name_{n}" for n in range(8)]
    text = take_apart(f'"""Doc."""\nfrom z import {", ".join(names)}\nimport a\nfrom mine import x\n\nz = 1\n').text(
        "mine"
    )
    assert text.splitlines()[2:5] == ["import a", "from z import (", "    a_rather_long_name_0,"]
    assert text.endswith(")\n\nfrom mine import x\n\nz = 1\n")
