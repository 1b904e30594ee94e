"""The key ``against`` of an arm: what is accepted, what is told, and what it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.errors import SuiteError
from cnnbench.matrix import arms
from cnnbench.reader import Reader
from cnnbench.references import BASELINE, read_references
from cnnbench.suite import parse

if TYPE_CHECKING:
    from cnnbench.registry import Registry
    from cnnbench.suite import Suite

HEAD = 'question = "Why?"\ndataset = "digits"\nmodel = "resnet"\nplacebo = true\n'
ARMS = """[arms]
"group" = { norm = "group", against = "relu" }
"relu" = { activation = "relu" }
"tanh" = { activation = "tanh" }
"both" = { norm = "group", activation = "relu", against = "group" }
"""


def read(text: str, registry: Registry) -> Suite:
    return parse(text.encode(), "s.toml", registry)


def mistakes(text: str, registry: Registry) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        read(text, registry)
    return [str(problem).removeprefix("s.toml:") for problem in caught.value.problems]


def test_every_arm_has_a_reference_but_the_baseline(fake_registry: Registry) -> None:
    found = {arm.name: arm.against for arm in arms(read(HEAD + ARMS, fake_registry))}
    assert found == {
        "baseline": "",
        "group": "relu",
        "relu": "baseline",
        "tanh": "baseline",
        "both": "group",
        "placebo": "baseline",
    }


def test_it_changes_nothing_else_of_the_arm(fake_registry: Registry) -> None:
    compared = read(HEAD + ARMS, fake_registry).arms[0]
    plain = read(HEAD + ARMS.replace(', against = "relu"', ""), fake_registry).arms[0]
    assert (compared.settings, compared.changes) == (plain.settings, plain.changes)


def test_the_baseline_may_be_named(fake_registry: Registry) -> None:
    suite = read(HEAD + '[arms]\na = { norm = "group", against = "baseline" }', fake_registry)
    assert suite.arms[0].against == "baseline"


def test_what_an_arm_is_compared_with_runs_too(fake_registry: Registry) -> None:
    suite = read(HEAD + ARMS, fake_registry)
    assert [arm.name for arm in arms(suite, ["both"])] == ["baseline", "group", "relu", "both"]
    assert [arm.name for arm in arms(suite, ["tanh"])] == ["baseline", "tanh"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("against = 3", "expected the name of another arm or 'baseline', got 3"),
        ('against = "me"', "arm 'me' can't be compared with itself"),
        ('against = "thee"', "expected another arm of [arms] or 'baseline', got 'thee': did you mean 'three'?"),
        (
            'against = "placebo"',
            "expected another arm of [arms] or 'baseline', got 'placebo': known are baseline, three",
        ),
    ],
)
def test_mistakes_name_their_place(table: str, expected: str, fake_registry: Registry) -> None:
    text = f'{HEAD}[arms]\n"me" = {{ norm = "group", {table} }}\n"three" = {{ activation = "tanh" }}\n'
    assert mistakes(text, fake_registry) == [f"6: arms.me.against: {expected}"]


def test_a_circle_is_told_once(fake_registry: Registry) -> None:
    text = ARMS.replace('activation = "relu" }\n"tanh"', 'activation = "relu", against = "group" }\n"tanh"')
    assert mistakes(HEAD + text, fake_registry) == [
        "6: arms.group.against: references lead round in a circle: 'group' against 'relu' against 'group'"
    ]


def test_an_arm_with_nothing_but_a_reference_changes_nothing(fake_registry: Registry) -> None:
    text = HEAD + '[arms]\na = { against = "b" }\nb = { norm = "group" }'
    assert mistakes(text, fake_registry) == ["6: arms.a: arm 'a' comes to the same settings as the baseline"]


def test_a_slip_in_the_key_is_seen(fake_registry: Registry) -> None:
    text = HEAD + '[arms]\na = { norm = "group", agianst = "b" }\nb = { activation = "tanh" }'
    assert mistakes(text, fake_registry) == [
        "6: arms.a.agianst: unknown key 'agianst' in an arm: did you mean 'against'?"
    ]


@pytest.mark.parametrize(
    "place", ['against = "a"\n', '[baseline]\nagainst = "a"\n', '[design]\nagainst = ["a", "b"]\n']
)
def test_it_belongs_in_an_arm_alone(place: str, fake_registry: Registry) -> None:
    assert any("'against' belongs in an arm of [arms]" in text for text in mistakes(HEAD + place, fake_registry))


@given(st.lists(st.integers(-1, 6), max_size=7))
def test_after_reading_all_references_lead_to_the_baseline(chosen: list[int]) -> None:
    names = [f"arm {i}" for i in range(len(chosen))]
    table = {
        name: {} if to < 0 else {"against": names[to % len(names)]} for name, to in zip(names, chosen, strict=True)
    }
    reader = Reader(None, None)  # type: ignore[arg-type] - neither is looked at
    references = read_references(table, reader)
    for name in names:
        steps, at = 0, name
        while at != BASELINE:
            at, steps = references[at], steps + 1
            assert steps <= len(names)
    written = {name: item.get("against", BASELINE) for name, item in table.items()}
    assert (references == written) == (not reader.problems)
