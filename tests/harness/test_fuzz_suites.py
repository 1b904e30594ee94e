"""Whatever bytes a suite file holds: a suite, or a list of mistakes with their places."""

from __future__ import annotations

import importlib.util
import random
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.errors import SuiteError
from cnnbench.plugins import PluginHost
from cnnbench.suite import Suite, parse

_spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
assert _spec is not None
assert _spec.loader is not None
mutations = importlib.util.module_from_spec(_spec)
sys.modules["mutations"] = mutations
_spec.loader.exec_module(mutations)

SUITES = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "suites").glob("*.toml"))]
PIECES = (b"[", b"{", b'"""', b"=", b"\n", b".", b"inf", b"-9e999", b"1979-05-27T07:32:00", b"\x00", b"\xff", b"0x")


@pytest.fixture(scope="module")
def registry():
    return PluginHost.discover().registry


def outcome(content, registry, **options):
    """A suite or mistakes; anything else goes through."""
    try:
        found = parse(content, "suites/any.toml", registry, **options)
    except SuiteError as error:
        problems = error.problems
    else:
        assert isinstance(found, Suite)
        return found
    assert problems
    for problem in problems:
        assert problem.file == "suites/any.toml"
        assert str(problem).isprintable(), str(problem)
    return None


def mutant(number):
    rng = random.Random(number)
    content = rng.choice(SUITES)
    if rng.randrange(4) == 0:
        raw = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(len(raw) + 1)
            raw[place : place + rng.randrange(4)] = rng.choice([rng.randbytes(rng.randrange(4)), *PIECES])
        return bytes(raw)
    return mutations.toml(mutations.damaged(tomllib.loads(content.decode()), rng, rng.choice([1, 1, 2, 4])))


def test_the_writer_of_toml_keeps_a_suite_as_it_is(registry):
    for content in SUITES:
        raw = tomllib.loads(content.decode())
        assert tomllib.loads(mutations.toml(raw).decode()) == raw


def test_damaged_suites_are_suites_or_mistakes(registry):
    assert SUITES
    outcomes = [outcome(mutant(number), registry, imports=number % 2 == 0) for number in range(40)]
    assert any(outcomes)
    assert not all(outcomes)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_damaged_suites_are_suites_or_mistakes(registry):
    for number in range(100_000, 110_000):
        outcome(mutant(number), registry, data=number % 3 == 0, imports=number % 2 == 0)


def test_a_name_that_turns_the_line_round_is_not_shown_as_it_is(registry):
    assert outcome(SUITES[0] + '\n[recipe]\n"\u202eevil" = 1\n'.encode(), registry) is None
    with pytest.raises(SuiteError, match="\ufffdevil"):
        parse(b'question = "?"\n[recipe]\n"\xe2\x80\xaeevil" = 1\n', "suites/any.toml", registry)
    assert outcome(b'question = "?"\n[baseline]\nnorm = { "x\\ny" = 1 }\n', registry) is None


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_bytes_are_suites_or_mistakes(registry, content):
    assert outcome(content, registry) is None
