"""``cnnbench list`` and ``cnnbench show``."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cnnbench.cards import card_text, find, listing
from cnnbench.errors import UsageError
from cnnbench.plugins import PluginHost
from cnnbench.registry import Owner, Registry
from cnnbench.slots import SLOTS
from cnnbench.technique import Requirement, technique
from cnnbench.types import DataOptions

PLUGIN = '''
from typing import Annotated, Literal

from annotated_types import Ge

from cnnbench import hookimpl, technique

@technique("activation", "swoosh")
class Swoosh:
    """Swooshes ``x`` to the left.

    Someone 2024, section 3. y = x - ``shift``.
    """

    shift: Annotated[float, Ge(0)] = 1.5
    side: Literal["left", "right"] = "left"

    def __call__(self, module):
        return module

@technique("norm", "swoosh")
class SwooshNorm:
    """Normalizes in a swoosh."""

    def __call__(self, module):
        return module

@hookimpl
def cnnbench_register_techniques():
    return [Swoosh, SwooshNorm]
'''


@pytest.fixture
def registry(install_plugin) -> Registry:
    install_plugin("thirdparty", PLUGIN)
    return PluginHost.discover().registry


def test_every_technique_stands_once_under_its_slot_with_its_summary(registry):
    lines = listing(registry).splitlines()
    slot = ""
    seen = set()
    for line in lines[:-1]:
        if line and not line.startswith(" "):
            slot, _, summary = line.partition(": ")
            assert summary == SLOTS[slot].summary
        elif line:
            seen.add((slot, line.split()[0]))
    assert seen == {(entry.card.slot, entry.card.name) for entry in registry}
    assert lines[-1].startswith(f"{len(registry)} techniques")


def test_slots_come_in_the_order_in_which_a_trial_uses_them(registry):
    heads = [line.partition(":")[0] for line in listing(registry).splitlines() if ": " in line and line[0] != " "]
    assert heads == [slot for slot in SLOTS if slot in heads]


def test_a_third_partys_technique_names_its_distribution_and_the_harness_own_do_not(registry):
    lines = listing(registry, "activation").splitlines()
    assert next(line for line in lines if line.startswith("  swoosh")).endswith("[thirdparty]")
    assert "[" not in next(line for line in lines if line.startswith("  relu"))
    assert lines[0].startswith("activation: ")
    assert "norm: " not in listing(registry, "activation")


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_each_technique_keeps_to_one_line_of_the_terminal(registry, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in listing(registry).splitlines():
        if line.startswith("  "):
            assert len(line) <= columns
    long = max(entry.summary for entry in registry)
    assert (long in listing(registry)) or columns < 200


def test_markup_of_docstrings_does_not_reach_the_terminal(registry):
    assert "``" not in listing(registry) + card_text(registry, "swoosh")
    assert "Swooshes x to the left." in listing(registry)


def test_a_slot_without_techniques_says_so(registry):
    assert listing(Registry(), "norm") == "no techniques in slot norm"
    assert "is a plugin installed?" in listing(Registry())


@pytest.mark.parametrize(
    ("slot", "hint"),
    [
        ("nrom", "unknown slot 'nrom': did you mean 'norm'?"),
        ("group", "unknown slot 'group': it is a technique, see cnnbench show group"),
        ("zzz", "unknown slot 'zzz': known are activation, "),
    ],
)
def test_an_unknown_slot_comes_with_what_was_meant(registry, slot, hint):
    with pytest.raises(UsageError) as caught:
        listing(registry, slot)
    assert str(caught.value).startswith(hint)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gruop", "unknown technique 'gruop': did you mean 'group'?"),
        ("norm", "unknown technique 'norm': it is a slot, see cnnbench list norm"),
        ("zzzzzz", "unknown technique 'zzzzzz': cnnbench list has them all"),
        ("shots", "unknown technique 'shots': it is an option of every dataset: dataset = { ..., shots = ... }"),
        (
            "few_shot",
            "unknown technique 'few_shot': did you mean 'shots'? "  # noqa: ISC004 - one message
            "it is an option of every dataset: dataset = { ..., shots = ... }",
        ),
        ("batch_size", "unknown technique 'batch_size': it is a key of the recipe: [recipe] batch_size = ..."),
        ("chain", "unknown technique 'chain': a list is one, first to last: compressor = [..., ...]"),
        ("norm/gruop", "unknown norm 'gruop': did you mean 'group'?"),
        ("nrom/group", "unknown slot 'nrom': did you mean 'norm'?"),
    ],
)
def test_an_unknown_technique_comes_with_what_was_meant(registry, name, hint):
    with pytest.raises(UsageError) as caught:
        card_text(registry, name)
    assert str(caught.value) == hint


def test_every_option_of_datasets_is_explained_unless_a_technique_has_its_name(registry):
    for name in {field.name for field in fields(DataOptions)} - {entry.card.name for entry in registry}:
        with pytest.raises(UsageError, match=f"an option of every dataset: .* {name} = "):
            find(registry, name)


def test_a_name_in_several_slots_shows_all_of_them_and_the_slot_picks_one(registry):
    text = card_text(registry, "swoosh")
    assert "activation swoosh  (thirdparty 1.0, thirdparty)" in text
    assert "norm swoosh  (thirdparty 1.0, thirdparty)" in text
    assert [entry.card.slot for entry in find(registry, "norm/swoosh")] == ["norm"]
    assert "activation swoosh" not in card_text(registry, "norm/swoosh")


def test_a_card_tells_options_their_types_and_defaults_and_the_whole_documentation(registry):
    lines = [" ".join(line.split()) for line in card_text(registry, "activation/swoosh").splitlines()]
    assert "shift a number >= 0; default 1.5" in lines
    assert "side one of 'left', 'right'; default left" in [line.replace('"left"', "left") for line in lines]
    assert "Someone 2024, section 3. y = x - shift." in lines
    assert 'in [baseline] or an arm: activation = "swoosh"' in lines
    assert "no options" in card_text(registry, "norm/swoosh")


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("norm/group", 'in [baseline] or an arm: norm = "group"'),
        ("sgd", 'in [recipe]: optimizer = "sgd"'),
        ("lenet", 'at the top of a suite: model = "lenet"'),
        ("dataset/folder", 'at the top of a suite: dataset = { name = "folder", path = ... }'),
    ],
)
def test_a_card_says_where_a_suite_names_the_technique(registry, name, usage):
    assert usage in card_text(registry, name).splitlines()


def test_a_card_tells_the_optional_package_and_how_to_get_it():
    @technique("compressor", "dear", requires=(Requirement("torchao", "compress"),))
    class Dear:
        """Costs a package."""

    registry = Registry()
    registry.add(Dear, Owner("p", "d", "1"))
    assert "needs torchao: pip install 'cnnbench[compress]'" in card_text(registry, "dear").splitlines()


def test_every_built_in_technique_has_a_card(registry):
    for entry in registry:
        text = card_text(registry, f"{entry.card.slot}/{entry.card.name}")
        assert entry.card.name in text
        assert "another value" not in text, "an option whose type has no words for people"
