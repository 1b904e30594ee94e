"""The command line as a person meets it: help, mistakes, tables in every format, and how fast it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cnnbench
from cnnbench.cli import main
from cnnbench.store import Store

MISTAKES = """
question = "Which?"
dataset = "digits"
model = { name = "resnet", dpeth = 8 }
seeds = 0
[arms]
"a" = { nrom = "group" }
"b" = { norm = "gruop" }
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """``command(*arguments)`` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse
            code = end.code
        return code, *capsys.readouterr()

    return run


def record(arm: str, seed: int, **more: Any) -> dict[str, Any]:
    return {
        "key": f"{arm}{seed}",
        "suite": {"name": "norms", "question": "Which norm?", "sha256": "0" * 64, "file": "norms.toml"},
        "arm": arm,
        "role": "baseline" if arm == "baseline" else "arm",
        "changes": "",
        "seed": seed,
        "status": "ok",
        "planned": {"arms": ["baseline", "group norm"], "seeds": [0, 1]},
        "measure": {"primary": "accuracy", "metrics": ["accuracy"]},
        "device": "cpu",
        "metrics": {"accuracy": 0.9 + seed / 100},
        **more,
    }


@pytest.fixture
def results(tmp_path) -> Path:
    store = Store(tmp_path / "results" / "norms")
    for arm in ("baseline", "group norm"):
        for seed in (0, 1):
            store.append(record(arm, seed))
    return store.folder


def test_nothing_given_shows_the_help_and_is_a_mistake(command):
    code, out, _ = command()
    assert code == 2
    for word in ("run", "plan", "list", "show", "report", "schema", "doctor", "examples:"):
        assert word in out


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plan", "-h"], ["report", "--help"]])
def test_help_is_no_mistake(command, arguments):
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("usage: cnnbench")


def test_version(command):
    assert command("--version")[:2] == (0, f"cnnbench {cnnbench.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "cnnbench: argument COMMAND: unknown 'rnu': did you mean 'run'? (see cnnbench --help)"),
        (["run", "a.toml", "--fersh"], "cnnbench run: unknown option '--fersh': did you mean '--fresh'?"),
        (["run", "--wrkers=3", "a.toml"], "cnnbench run: unknown option '--wrkers': did you mean '--workers'?"),
        (["run", "a.toml", "--bogus-thing"], "cnnbench run: unknown option '--bogus-thing' (see cnnbench run --help)"),
        (["list", "norm", "pool"], "cnnbench list: unknown argument 'pool' (see cnnbench list --help)"),
        (
            ["run", "a.toml", "--seeds", "x"],
            "cnnbench run: argument --seeds: expected a number, a range such as 5-9, or auto, got 'x'",
        ),
        (["report"], "cnnbench report: the following arguments are required: RESULTS"),
    ],
)
def test_mistakes_in_the_command_are_one_line_with_what_was_meant(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["run", "plan"])
def test_without_a_suite_the_command_names_those_at_hand(command, name):
    assert command(name) == (2, "", f"cnnbench: {name}: which suite? Expected a suite file (TOML)\n")
    Path("suites").mkdir()
    for suite in ("norms", "inits"):
        Path("suites", f"{suite}.toml").touch()
    found = f"cnnbench: {name}: which suite? Here are suites/inits.toml, suites/norms.toml\n"
    assert command(name) == (2, "", found)


def test_every_mistake_of_every_suite_is_told_and_nothing_is_written(command):
    Path("one.toml").write_text(MISTAKES)
    Path("two.toml").write_text("question = ")
    code, out, err = command("run", "one.toml", "two.toml", "missing.toml")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    for start, words in [
        ("one.toml:4: model", "'depth'"),
        ("one.toml:5: seeds", "0"),
        ("one.toml:7: arms.a.nrom", "'norm'"),
        ("one.toml:8: arms.b.norm", "'group'"),
        ("two.toml:1", "not TOML"),
        ("missing.toml", "no such file"),
    ]:
        assert any(line.startswith(start) and words in line for line in lines), (start, lines)
    assert lines[-1] == f"cnnbench: {len(lines) - 1} mistakes; nothing has run"
    assert sorted(path.name for path in Path().iterdir()) == ["one.toml", "two.toml"]


def test_missing_data_is_told_before_anything_runs(command):
    Path("s.toml").write_text('question = "?"\nmodel = "lenet"\ndataset = { name = "folder", path = "cats" }\n')
    code, _, err = command("run", "s.toml")
    assert code == 2
    assert err.startswith("s.toml:3: dataset: ")
    assert "cats" in err
    assert [path.name for path in Path().iterdir()] == ["s.toml"]


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex", "html", "csv", "json"])
def test_report_prints_and_writes_every_format(command, results, name):
    code, out, err = command("report", str(results), "--format", name)
    assert (code, err) == (0, "")
    assert "group norm" in out
    if name == "json":
        json.loads(out)
    assert command("report", str(results / "records.jsonl"), "--format", name)[0] == 0
    code, printed, _ = command("report", str(results), "--format", name, "--output", "deep/down/table")
    assert (code, printed) == (0, "")
    assert Path("deep/down/table").read_text(encoding="utf-8") == out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "cnnbench: nowhere: no such folder or file"),
        (["results/nroms"], "cnnbench: results/nroms: no such folder or file: did you mean 'norms'?"),
        (["results"], "cnnbench: results: no records.jsonl in this folder: did you mean results/norms?"),
        (["results/norms", "--format", "markdwon"], "cnnbench: "),
        (["results/norms", "--output", "results"], "cnnbench: --output: results can't be written: Is a directory"),
    ],
)
def test_report_says_in_one_line_what_it_can_not_do(command, results, arguments, message):
    code, out, err = command("report", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert "markdwon" not in arguments or "did you mean 'markdown'?" in err


def test_report_writes_bytes_to_a_file_or_a_pipe(command, results, monkeypatch):
    import pandas as pd

    assert command("report", str(results), "--format", "parquet", "--output", "deep/table.parquet") == (0, "", "")
    table = pd.read_parquet("deep/table.parquet")
    assert set(table["arm"]) == {"baseline", "group norm"}
    piped = subprocess.run(
        [sys.executable, "-m", "cnnbench", "report", str(results), "--format", "parquet"],
        capture_output=True,
        check=True,
        timeout=100,
    )
    assert piped.stdout == Path("deep/table.parquet").read_bytes()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, err = command("report", str(results), "--format", "parquet")
    assert (code, out) == (2, "")
    assert err == "cnnbench: --format parquet is not text: expected --output FILE, or a pipe\n"


def test_report_warns_of_a_torn_line_and_shows_the_rest(command, results):
    with (results / "records.jsonl").open("a") as file:
        file.write('{"schema": 1, "key": "torn')
    code, out, err = command("report", str(results))
    assert code == 0
    assert "group norm" in out
    assert err.startswith("cnnbench: warning: ")
    assert "line 5: torn" in err


def test_list_and_show_answer_from_the_registry(command):
    code, out, _ = command("list", "norm")
    assert code == 0
    assert out.startswith("norm: ")
    code, out, _ = command("show", "group")
    assert code == 0
    assert "groups" in out
    code, out, err = command("show", "gruop")
    assert (code, out, err) == (2, "", "cnnbench: unknown technique 'gruop': did you mean 'group'?\n")


def test_schema_is_json_that_knows_the_installed_techniques(command, install_plugin):
    source = '''
from cnnbench import hookimpl, technique

@technique("activation", "swoosh")
class Swoosh:
    """Swooshes."""
    def __call__(self, module):
        return module

@hookimpl
def cnnbench_register_techniques():
    return [Swoosh]
'''
    install_plugin("thirdparty", source)
    code, out, _ = command("schema")
    assert code == 0
    assert json.loads(out)["type"] == "object"
    assert '"swoosh"' in out
    assert "[thirdparty]" in command("list", "activation")[1]


def test_doctor_looks_at_everything_and_names_the_source_of_energy(command, install_plugin):
    source = '''
from cnnbench import hookimpl, technique

@technique("dataset", "haunted")
class Haunted:
    """Fails when it is looked for."""
    def fingerprint(self):
        raise ZeroDivisionError("boo")

@hookimpl
def cnnbench_register_datasets():
    return [Haunted]
'''
    install_plugin("haunt", source)
    install_plugin("broken", "import no_such_module")
    code, out, _ = command("doctor")
    assert code == 0
    sections = {part.partition("\n")[0]: part for part in out.strip().split("\n\n")}
    assert list(sections) == ["software", "devices", "energy", "plugins", "extras", "data", "folders"]
    assert "torch 2." in sections["software"]
    assert "cpu: " in sections["devices"]
    assert "measured by RAPL" in sections["energy"] or "estimated" in sections["energy"]
    assert "haunt 1.0: 1 technique" in [line.strip() for line in sections["plugins"].splitlines()]
    assert "not loaded: plugin 'broken' of broken 1.0: failed to import" in sections["plugins"]
    assert "digits: found" in sections["data"]
    assert "folder: asks for options" in sections["data"]
    assert "haunted: fails with ZeroDivisionError: boo" in sections["data"]
    assert "stage cache: " in sections["folders"]


def test_a_broken_plugin_is_a_warning_and_the_command_works(command, install_plugin):
    install_plugin("broken", "import no_such_module")
    code, out, err = command("list", "norm")
    assert code == 0
    assert "group" in out
    assert err.startswith("cnnbench: warning: plugin 'broken' of broken 1.0: failed to import broken: ModuleNotFound")
    assert err.count("\n") == 1


WITHOUT_TORCH = """
import contextlib, io, sys
from cnnbench.cli import main

for arguments in (["--help"], ["list"], ["show", "group"], ["run"], ["run", "bad.toml"], ["plan", "bad.toml"],
                  ["run", "missing.toml"], ["schema"], ["report", "nowhere"], ["list", "nrom"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            main(arguments)
    heavy = {"torch", "torchvision", "codecarbon", "pandas", "scipy"} & sys.modules.keys()
    if arguments == ["--help"]:
        heavy |= {"msgspec", "numpy", "pydantic", "rich"} & sys.modules.keys()
    assert not heavy, f"cnnbench {' '.join(arguments)} imports {heavy}"
"""


def test_help_lists_and_mistakes_answer_without_torch(tmp_path):
    (tmp_path / "bad.toml").write_text(MISTAKES)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes close otherwise elsewhere")
@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["schema"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(arguments, unbuffered):
    """As in ``cnnbench list | head -1``: the pipe is closed before the command writes."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cnnbench", *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
            timeout=100,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_without_unicode_shows_the_table_all_the_same(results):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "cnnbench", "report", str(results)],
        capture_output=True,
        env=environment,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"group norm" in done.stdout
