"""``cnnbench check`` of techniques that end their process, or never come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from cnnbench.check_process import Checker
from cnnbench.cli import main
from cnnbench.errors import UsageError
from cnnbench.targets import Target, find
from cnnbench.testing.kit import KIT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")

HEAD = """
import os
import signal
import sys
import time

from cnnbench import hookimpl, technique

"""

TECHNIQUE = """
@technique("augmentation", "{name}")
class {name}:
    '''Does what is to be survived.'''

    def __call__(self, images, targets, generator):
        {does}
        return images, targets

"""

HOOK = """
@hookimpl
def cnnbench_register_techniques():
    return [{names}]
"""

RULES = [rule for rule in KIT if rule.name in {"waivers", "usable", "inputs-unchanged", "same-draws"}]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """``plugin(name=statement, ...)``: writes ill.py with a technique of each name, whose call begins so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(**techniques):
        made = [TECHNIQUE.format(name=name, does=does) for name, does in techniques.items()]
        (tmp_path / "ill.py").write_text(HEAD + "".join(made) + HOOK.format(names=", ".join(techniques)), "utf-8")
        return tmp_path / "ill.py"

    return write


def line_of(path, words):
    return next(number for number, line in enumerate(path.read_text("utf-8").splitlines(), 1) if words in line)


def test_what_ends_its_process_costs_its_own_rules_alone(plugin, capsys):
    path = plugin(faulting="os.kill(os.getpid(), signal.SIGSEGV)", healthy="pass", leaving="os._exit(3)")
    words = [word for rule in RULES for word in ("--rule", rule.name)]
    assert main(["check", "ill.py", *words]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    faulting, rest = out.split("augmentation healthy ")
    healthy, leaving = rest.split("augmentation leaving ")
    assert faulting.startswith("augmentation faulting breaks 1 of 4 rules\n  kept: waivers\n  BROKEN usable\n")
    assert "    found: the process was ended by SIGSEGV (a fault in compiled code)\n" in faulting
    assert f"    where: ill.py:{line_of(path, 'signal.SIGSEGV')}\n" in faulting
    assert "not checked: inputs-unchanged, same-draws: the rule 'usable' is broken" in faulting
    assert healthy.startswith("keeps 4 rules\n")
    assert "  kept: waivers\n  BROKEN usable\n" in leaving
    assert "found: the process ended by itself with exit code 3" in " ".join(leaving.split())
    assert f"    where: ill.py:{line_of(path, 'class leaving')}\n" in leaving
    assert out.endswith("2 of 3 techniques break a rule (6 kept, 2 broken, 4 not checked)\n")


@pytest.mark.parametrize(
    ("does", "last", "text"),
    [
        ("os.path.exists('used') or (open('used', 'x').close(), os._exit(4))", "kept", ""),
        ("os._exit(4)", "not checked", "it ends as the rule 'inputs-unchanged' tells"),
    ],
    ids=["once", "ever"],
)
def test_another_process_goes_on_with_the_next_rule(plugin, tmp_path, does, last, text):
    plugin(leaving=does)
    target = find("ill.py", tmp_path)
    with Checker(target) as checker:
        found = checker.findings(target.entries[0], [rule for rule in RULES if not rule.gate])
    assert {one.rule.name: one.status for one in found} == {
        "waivers": "kept",
        "inputs-unchanged": "broken",
        "same-draws": last,
    }
    assert found[-1].text == text


def test_a_technique_that_exits_breaks_the_rule(plugin, tmp_path):
    path = plugin(quitting="sys.exit('enough')")
    target = find("ill.py", tmp_path)
    with Checker(target) as checker:
        found = checker.findings(target.entries[0], RULES[:2])
    assert [one.status for one in found] == ["kept", "broken"]
    assert found[1].text == "SystemExit: enough"
    assert found[1].place == f"ill.py:{line_of(path, 'sys.exit')}"


def test_a_step_that_ends_the_process_has_no_cost(plugin, tmp_path):
    plugin(leaving="os._exit(3)")
    target = find("ill.py", tmp_path)
    with Checker(target) as checker:
        text = checker.cost(target.entries[0])
    assert text.startswith("cost in the loop: not known, the process ended by itself with exit code 3")


def test_what_loads_here_alone_is_told(plugin, tmp_path):
    plugin(healthy="pass")
    target = find("ill.py", tmp_path)
    (tmp_path / "ill.py").write_text("x = 1\n", "utf-8")
    told = r"^ill\.py can't be loaded in a process of its own: ill\.py: has no function with @hookimpl"
    with Checker(Target("ill.py", target.host, target.entries)) as checker, pytest.raises(UsageError, match=told):
        checker.findings(target.entries[0], RULES)


def test_ctrl_c_ends_a_check_that_never_would(plugin, tmp_path):
    plugin(endless="open('pid', 'w').write(f'{os.getpid()}.')\n        while True: time.sleep(0.1)")
    command = [sys.executable, "-m", "cnnbench", "check", "ill.py", "--rule", "usable"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    note = tmp_path / "pid"
    try:
        while not (note.exists() and note.read_text("ascii").endswith(".")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "cnnbench: interrupted\n")
    assert not psutil.pid_exists(int(note.read_text("ascii").rstrip(".")))
