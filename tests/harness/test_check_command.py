"""``cnnbench check``: what it says of techniques that keep the kit's rules, and of those that don't."""

from __future__ import annotations

import sys

import pytest

from cnnbench import check_report
from cnnbench.cli import main
from cnnbench.commands import check as command_module
from cnnbench.plugins import PluginHost
from cnnbench.testing.finding import Finding
from cnnbench.testing.kit import KIT

DIM = '''
import torch

from cnnbench import hookimpl, technique


@technique("augmentation", "dim", waives={"odd-sizes": "only tried on even ones"})
class Dim:
    """Darkens each image by half."""

    def __call__(self, images, targets, generator):
        torch.rand(1)
        return images / 2, targets


@hookimpl
def cnnbench_register_techniques():
    return [Dim]
'''


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """``check(*words)``: exit code, what is said, what is told of mistakes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "dim.py").write_text(DIM, "utf-8")

    def run(*words):
        code = main(["check", *words])
        return code, *capsys.readouterr()

    yield run
    sys.modules.pop("dim", None)


def test_a_broken_rule_is_told_with_what_happened_and_its_fix(check):
    code, out, err = check("dim.py")
    assert (code, err) == (1, "")
    assert out.startswith("augmentation dim breaks ")
    rule = next(rule for rule in KIT if rule.name == "state-as-found")
    begin = out.index("  BROKEN state-as-found\n    rule: ")
    places = [out.index(word, begin) for word in ("    found: ", "    where: dim.py:", "    fix: ")]
    assert places == sorted(places)
    assert rule.holds.split()[0] in out
    assert "  waived: odd-sizes: only tried on even ones" in out
    assert "  cost in the loop: " in out
    assert out.splitlines()[-1].startswith("1 of 1 technique breaks a rule (")
    assert all(len(line) <= 80 for line in out.splitlines()[:-1])


def test_some_rules_alone(check):
    code, out, err = check("dim.py", "--rule", "inputs-unchanged", "--rule", "usable")
    assert (code, err) == (0, "")
    assert out == (
        "augmentation dim keeps 2 rules\n  kept: usable, inputs-unchanged\n1 technique: every rule is kept (2 kept)\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dim.py", "--rule", "state-as-fond"], "--rule: unknown rule 'state-as-fond': did you mean 'state-as-found'?"),
        ([], "check: expected a target"),
        (["dmi.py"], "no such file 'dmi.py': did you mean 'dim.py'?"),
    ],
)
def test_mistakes(check, words, told):
    code, out, err = check(*words)
    assert (code, out) == (2, "")
    assert told in err


def test_the_rules_are_listed_each_with_its_fix(check):
    code, out, _ = check("--rules")
    assert code == 0
    for rule in KIT:
        assert f"\n{rule.name} (" in f"\n{out}"
    assert out.count("\n  fix: ") == len(KIT)
    assert out.splitlines()[-1] == f"{len(KIT)} rules"
    assert all(len(line) <= 80 for line in out.splitlines())


def test_many_techniques_are_told_in_short(check, monkeypatch):
    monkeypatch.setattr(command_module, "MANY", 0)
    code, out, _ = check("dim.py", "--rule", "usable")
    assert (code, out) == (0, "augmentation dim keeps 1 rule\n1 technique: every rule is kept (1 kept)\n")


def test_what_could_not_be_checked_says_what_installs_it():
    entry = PluginHost.discover().registry.get("norm", "group")
    lacks = "needs onnx, which is not installed: pip install 'cnnbench[onnx]'"
    findings = [Finding(rule, "norm 'group'", "not checked", lacks) for rule in KIT[:3]]
    text = check_report.technique(entry, findings, short=True)
    names = ", ".join(rule.name for rule in KIT[:3])
    assert " ".join(text.split()) == f"norm group keeps 0 rules not checked: {names}: {lacks}"
    assert check_report.summary(findings, 1) == "1 technique: no rule is broken (3 not checked)"


def test_a_trace_is_shown_where_the_technique_raised():
    entry = PluginHost.discover().registry.get("norm", "group")
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no luck'
    findings = [Finding(KIT[0], "norm 'group'", "broken", "ValueError: no luck", "x.py:1", trace)]
    text = check_report.technique(entry, findings, short=True)
    assert "    where: x.py:1\n" in text
    assert text.endswith("\n".join(f"      {line}" for line in trace.splitlines()))
