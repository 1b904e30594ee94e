"""What plugins answer, print and do to what they are told: none of it reaches a record, a table or another plugin."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import pytest

from cnnbench import hook_answers
from cnnbench.hook_answers import MOST_CHARACTERS, MOST_FACTS, MOST_LINES, AnswerError
from cnnbench.plugins import PluginHost, PluginProblem
from cnnbench.registry import Owner
from cnnbench.tracking import tracked

NOTHING = {"dataset": {}, "data": {}, "model": {}, "recipe": {}, "techniques": {}}
HEAD = "from cnnbench import hookimpl\n"


def hook(name: str, arguments: str, body: str) -> str:
    return f"{HEAD}@hookimpl\ndef {name}({arguments}):\n    {body}\n"


def of_others(host: PluginHost) -> list[PluginProblem]:
    """Problems of plugins but the harness's own, which expect the settings of an arm."""
    return [problem for problem in host.problems if problem.owner.distribution != "cnnbench"]


def test_what_an_observer_does_to_a_record_is_its_own(install_plugin):
    for name, body in (
        ("first", "record['metrics']['accuracy'] = 0.1; record['arm'] = 'x'"),
        ("last", "record.clear()"),
    ):
        install_plugin(name, hook("cnnbench_trial_finished", "record", body))
    host = PluginHost.discover()
    record = {"arm": "norm", "metrics": {"accuracy": 0.9}}
    host.trial_finished(record)
    assert record == {"arm": "norm", "metrics": {"accuracy": 0.9}}
    assert host.problems == []


def test_each_observer_and_each_adviser_gets_a_copy_of_its_own(install_plugin):
    for name in ("first", "last"):
        install_plugin(
            name,
            hook("cnnbench_advise_arm", "settings", "settings['norm'].append(1); return [str(settings['norm'])]")
            + "@hookimpl\ndef cnnbench_run_finished(summary):\n    assert summary.pop('statuses') == {'ok': 1}\n",
        )
    host = PluginHost.discover()
    assert host.advise_arm({**NOTHING, "norm": []})[-2:] == ("[1]",) * 2
    host.run_finished({"statuses": {"ok": 1}})
    assert of_others(host) == []


def test_nothing_is_copied_where_nobody_listens():
    class Uncopied:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    PluginHost().trial_finished({"arm": Uncopied()})


def test_what_plugins_print_goes_to_the_error_output(install_plugin, capsys):
    install_plugin(
        "loud",
        "print('imported')\n"
        + hook("cnnbench_trial_finished", "record", "print('finished')")
        + "@hookimpl\ndef cnnbench_check_trial(trial):\n    print('asked')\n",
    )

    class Observer:
        def __init__(self):
            print("made")

        def close(self):
            print("closed")

    host = PluginHost.discover()
    host.trial_finished({})
    assert host.check_trial(dict) is None
    out = sys.stdout
    with host.observing(Observer, Owner("seen", "seen", "1")):
        print("the table")
    assert sys.stdout is out
    told = capsys.readouterr()
    assert told.out == "the table\n"
    assert told.err.split() == ["imported", "finished", "asked", "made", "closed"]


@pytest.mark.parametrize(
    ("name", "arguments", "returned", "cause"),
    [
        ("cnnbench_check_trial", "trial", "7", "returned 7, expected text or None"),
        ("cnnbench_check_trial", "trial", "False", "returned False, expected text or None"),
        ("cnnbench_advise_arm", "settings", "'text'", "returned 'text', expected a list of lines"),
        ("cnnbench_advise_arm", "settings", "None", "returned None, expected a list of lines"),
        ("cnnbench_advise_arm", "settings", "['a', 7]", "returned 7 as line 2, expected text"),
        ("cnnbench_describe_environment", "", "None", "returned None, expected a mapping of text to text"),
        (
            "cnnbench_describe_environment",
            "",
            "[]",
            "returned an object of type list, expected a mapping of text to text",
        ),
        ("cnnbench_register_techniques", "", "None", "returned None, expected a list of technique classes"),
        ("cnnbench_register_techniques", "", "10**5000", "returned a number beyond all bounds, expected a list of"),
    ],
)
def test_an_answer_of_the_wrong_type_is_told_in_one_line(install_plugin, name, arguments, returned, cause):
    install_plugin("wrong", hook(name, arguments, f"return {returned}"))
    host = PluginHost.discover()
    assert host.check_trial(dict) is None
    assert all("text" not in line for line in host.advise_arm(NOTHING))
    assert host.describe_environment() is not None
    (problem,) = of_others(host)
    assert str(problem).startswith(f"plugin 'wrong' of wrong 1.0: {name} {cause}")
    assert "\n" not in str(problem)
    assert not problem.trace


def test_a_reason_is_cut():
    told = hook_answers.reason("x" * 5_000_000)
    assert told == "x" * MOST_CHARACTERS + "… (5,000,000 characters in all)"
    assert hook_answers.reason("x" * MOST_CHARACTERS) == "x" * MOST_CHARACTERS
    assert hook_answers.reason("") is None
    assert hook_answers.reason(None) is None


def test_advice_is_cut_even_where_it_has_no_end():
    told = hook_answers.advice(map(str, itertools.count()))
    assert told[:-1] == tuple(map(str, range(MOST_LINES)))
    assert told[-1] == "there is more advice than 20 lines: the rest is left out"
    assert hook_answers.advice(["x"] * MOST_LINES) == ("x",) * MOST_LINES
    assert len(hook_answers.advice(["x" * 10**6])[0]) < MOST_CHARACTERS + 50
    assert hook_answers.advice([]) == ()


def test_facts_are_cut_and_the_plugin_is_told_of(install_plugin):
    install_plugin("many", hook("cnnbench_describe_environment", "", "return {str(i): i for i in range(100_000)}"))
    host = PluginHost.discover()
    facts = host.describe_environment()
    assert {facts[str(i)] for i in range(MOST_FACTS)} == set(map(str, range(MOST_FACTS)))
    assert str(MOST_FACTS) not in facts
    (problem,) = host.problems
    assert problem.cause == "cnnbench_describe_environment returned 100,000 facts: the first 100 are kept"
    assert problem.usable
    found, remark = hook_answers.facts({"a": "x" * 10**6, "b": 7})
    assert len(found["a"]) < MOST_CHARACTERS + 50
    assert found["b"] == "7"
    assert "more than 1,000 characters" in remark
    assert hook_answers.facts({"a": "b"}) == ({"a": "b"}, "")


def test_a_value_with_code_of_its_own_is_not_asked_for_its_words():
    class Odd:
        def __repr__(self):
            raise RuntimeError("no words")

    with pytest.raises(AnswerError, match="an object of type Odd"):
        hook_answers.reason(Odd())


def test_each_tracker_is_given_facts_of_its_own(install_plugin, tmp_path):
    code = "from cnnbench import hookimpl, technique\n"
    for name in ("first", "last"):
        code += (
            f'@technique("tracker", "{name}")\nclass {name.title()}:\n    """Takes what it is given."""\n'
            "    def __call__(self, run):\n        assert run.pop('suite') == 's'\n        return self\n"
        )
    install_plugin("takers", code + "@hookimpl\ndef cnnbench_register_techniques():\n    return [First, Last]\n")
    host = PluginHost.discover()
    suite = SimpleNamespace(name="s", question="?", sha256="0", device="cpu")
    with tracked(host, ["first", "last"], suite, tmp_path):
        pass
    assert host.problems == []
