"""The ten minutes of docs/plugins.md as they stand there; and every documented technique keeps the kit's rules."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.cli import main

_pages = runpy.run_path(str(Path(__file__).with_name("plugin_pages.py")))
SECTIONS = _pages["SECTIONS"]
_TEN = re.search(r"^## Ten minutes$(.*?)^## ", _pages["GUIDE"], re.MULTILINE | re.DOTALL)[1]
_BLOCKS = _pages["BLOCK"].findall(_TEN)
(CODE,) = (text for language, text in _BLOCKS if language == "python")
(SUITE,) = (text for language, text in _BLOCKS if language == "toml")
INSTALL, *COMMANDS = [text.strip() for language, text in _BLOCKS if language == "sh"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the two files that the page has one write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "cache"))
    Path("my_norm.py").write_text(CODE, "utf-8")
    Path("my_norm.toml").write_text(SUITE, "utf-8")
    return tmp_path


def _type(line, *more):
    """What a user types, in a process of its own: exit code, and all that it says."""
    words = shlex.split(line)
    assert words[0] == "cnnbench"
    done = subprocess.run(
        [sys.executable, "-m", *words, *more], capture_output=True, encoding="utf-8", timeout=250, check=False
    )
    return done.returncode, " ".join(f"{done.stdout} {done.stderr}".split())


def test_the_path_is_install_check_try_run():
    assert INSTALL == "python3 -m venv .venv && . .venv/bin/activate && pip install ."
    assert COMMANDS == ["cnnbench check my_norm.py", "cnnbench try my_norm.py", "cnnbench run my_norm.toml"]


def test_the_suite_names_the_file_and_is_planned(place, capsys):
    assert main(["plan", "my_norm.toml"]) == 0
    told = capsys.readouterr().out
    assert "RMS norm, large eps  norm=my_norm(eps=0.1)" in told
    assert "5 arms x 5 seeds = 25 trials" in told


@pytest.mark.slow
def test_the_first_command_finds_nothing_to_mend(place):
    code, told = _type(COMMANDS[0])
    assert (code, "1 technique: no rule is broken" in told) == (0, True), told


@pytest.mark.slow
def test_the_second_command_compares_it(place):
    code, told = _type(COMMANDS[1])
    assert code == 0, told
    assert re.search(r"baseline 3/3 .* my_norm 3/3 ", told)


@pytest.mark.slow
def test_the_third_command_runs_it(place):
    code, told = _type(COMMANDS[2], "--seeds", "1", "--only", "RMS norm", "--quiet")
    assert code == 0, told
    assert re.search(r"RMS norm +1/1 ", told)


@pytest.mark.slow
@pytest.mark.parametrize("slot", SECTIONS)
def test_an_example_keeps_the_rules_of_the_kit(slot, place):
    Path("my_example.py").write_text(SECTIONS[slot][0], "utf-8")
    code, told = _type("cnnbench check my_example.py")
    assert (code, "no rule is broken" in told) == (0, True), told
