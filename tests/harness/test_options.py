from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.errors import PluginError, UsageError
from cnnbench.options import complete, label, make, options_of
from cnnbench.plugins import PluginHost
from cnnbench.reader import Reader
from cnnbench.technique import technique
from cnnbench.types import Choice

if TYPE_CHECKING:
    from types import ModuleType

    from cnnbench.registry import Registry

FOLDER = Path("/suites")


def read(registry: Registry, slot: str, value: Any) -> Choice:
    reader = Reader(registry, FOLDER)
    choice = reader.choice(slot, value, ("here",))
    assert reader.problems == []
    assert choice is not None
    return choice


def mistakes(registry: Registry, slot: str, value: Any) -> list[tuple[Any, str]]:
    reader = Reader(registry, FOLDER)
    assert reader.choice(slot, value, ("here",)) is None
    assert reader.problems
    return reader.problems


def test_name_alone_gets_every_default(fake_registry: Registry) -> None:
    assert read(fake_registry, "norm", "group") == Choice("norm", "group", {"groups": 8, "affine": True})
    assert read(fake_registry, "norm", {"name": "group"}) == read(fake_registry, "norm", "group")


def test_given_options_replace_defaults_and_keep_the_fields_order(fake_registry: Registry) -> None:
    choice = read(fake_registry, "norm", {"name": "group", "affine": False, "groups": 2})
    assert list(choice.options.items()) == [("groups", 2), ("affine", False)]


def test_an_integer_serves_as_a_float_and_becomes_one(fake_registry: Registry) -> None:
    choice = read(fake_registry, "optimizer", {"name": "adam", "lr": 1, "betas": [0, 0.5]})
    assert choice.options == {"lr": 1.0, "betas": [0.0, 0.5]}
    assert isinstance(choice.options["lr"], float)
    assert choice == read(fake_registry, "optimizer", {"name": "adam", "lr": 1.0, "betas": [0.0, 0.5]})


@pytest.mark.parametrize(
    ("slot", "value", "place", "message"),
    [
        ("norm", "gruop", (), "unknown norm 'gruop': did you mean 'group'?"),
        ("norm", "relu", (), "unknown norm 'relu': 'relu' belongs to slot 'activation'"),
        ("norm", {"name": "gruop"}, ("name",), "unknown norm 'gruop': did you mean 'group'?"),
        (
            "norm",
            {"name": "group", "group": 4},
            ("group",),
            "norm 'group' has no option 'group': did you mean 'groups'?",
        ),
        ("norm", {"name": "none", "x": 4}, ("x",), "norm 'none' has no option 'x': it has none"),
        ("norm", {"name": "group", "groups": "x"}, ("groups",), "expected an integer >= 1, got 'x'"),
        ("norm", {"name": "group", "groups": 0}, ("groups",), "expected an integer >= 1, got 0"),
        ("norm", {"name": "group", "groups": True}, ("groups",), "expected an integer >= 1, got true"),
        ("norm", {"name": "group", "groups": 2.0}, ("groups",), "expected an integer >= 1, got 2.0"),
        ("norm", {"name": "group", "affine": 1}, ("affine",), "expected true or false, got 1"),
        ("norm", {"name": "batch", "momentum": "0.1"}, ("momentum",), "expected a number > 0 and < 1, got '0.1'"),
        ("norm", {"name": "batch", "momentum": True}, ("momentum",), "expected a number > 0 and < 1, got true"),
        ("activation", {"name": "leaky_relu", "slope": float("nan")}, ("slope",), "expected a number, got nan"),
        ("activation", {"name": "leaky_relu", "slope": float("inf")}, ("slope",), "expected a number, got inf"),
        ("activation", {"name": "leaky_relu", "slope": 10**400}, ("slope",), "expected a number, got 1000"),
        (
            "compressor",
            {"name": "prune", "scope": "globl"},
            ("scope",),
            "expected one of 'global', 'layer', got 'globl': did you mean 'global'?",
        ),
        (
            "compressor",
            {"name": "distill", "temperatures": []},
            ("temperatures",),
            "expected a list of one or more numbers > 0, got []",
        ),
        (
            "optimizer",
            {"name": "adam", "betas": [0.9]},
            ("betas",),
            "expected a list of 2: a number, a number, got [0.9]",
        ),
        (
            "compressor",
            "chain",
            (),
            "compressor 'chain' needs 'steps': expected a list of techniques of slot compressor",
        ),
        ("dataset", "folder", (), "dataset 'folder' needs 'path': expected a path"),
        ("model", {"name": "resnet", "depth": 9}, (), "depth must be 6n + 2, got 9"),
    ],
)
def test_mistakes_say_place_expectation_and_nearest(
    fake_registry: Registry, slot: str, value: Any, place: tuple[str, ...], message: str
) -> None:
    [(at, text)] = mistakes(fake_registry, slot, value)
    assert at == ("here", *place)
    assert text.startswith(message)
    assert "\n" not in text
    assert len(text) < 200


@pytest.mark.parametrize("value", [3, True, ["group"], {"groups": 4}, {"name": 3}, {}, None])
def test_what_names_no_technique_is_told_what_would(fake_registry: Registry, value: Any) -> None:
    [(_, text)] = mistakes(fake_registry, "norm", value)
    assert text.startswith("expected a name in slot norm")
    assert "known are batch, group, none" in text


def test_every_mistake_of_one_technique_is_told(fake_registry: Registry) -> None:
    found = mistakes(fake_registry, "norm", {"name": "group", "groups": 0, "affine": 3, "grups": 1})
    assert [at[1] for at, _ in found] == ["groups", "affine", "grups"]


def test_nested_choices_are_completed_and_made(fake_registry: Registry, fakes: ModuleType) -> None:
    value = {"name": "chain", "steps": ["prune", {"name": "distill", "student": "plain"}]}
    choice = read(fake_registry, "compressor", value)
    prune, distill = choice.options["steps"]
    assert prune == {"slot": "compressor", "name": "prune", "options": {"sparsity": 0.5, "scope": "global"}}
    assert distill["options"]["student"] == {"slot": "model", "name": "plain", "options": {"depth": 4}}
    # The author's own default named only one option.
    assert distill["options"]["teacher"]["options"] == {"depth": 14, "width": 16}
    made = make(choice, fake_registry)
    assert made.steps[1].options["student"]["name"] == "plain"
    inner = make(made.steps[1], fake_registry)
    assert inner == fakes.Distill(
        student=Choice("model", "plain", {"depth": 4}),
        teacher=Choice("model", "resnet", {"depth": 14, "width": 16}),
        temperatures=(4.0,),
    )


def test_mistakes_in_nested_choices_have_their_own_place(fake_registry: Registry) -> None:
    value = {"name": "chain", "steps": ["prun", {"name": "distill", "student": {"name": "plain", "depht": 3}}]}
    found = mistakes(fake_registry, "compressor", value)
    assert [at for at, _ in found] == [("here", "steps", 0), ("here", "steps", 1, "student", "depht")]


def test_paths_start_from_the_suites_folder_and_come_back_as_paths(fake_registry: Registry) -> None:
    choice = read(fake_registry, "dataset", {"name": "folder", "path": "../data/cats"})
    assert choice.options["path"] == "/data/cats"
    assert make(choice, fake_registry).path == Path("/data/cats")
    absolute = read(fake_registry, "dataset", {"name": "folder", "path": "/x/y"})
    assert absolute.options["path"] == "/x/y"
    home = read(fake_registry, "dataset", {"name": "folder", "path": "~/cats"})
    assert home.options["path"] == str(Path("~/cats").expanduser())


def test_making_from_a_json_round_trip_equals_making_directly(fake_registry: Registry, fakes: ModuleType) -> None:
    choice = read(fake_registry, "optimizer", {"name": "adam", "betas": [0.8, 0.9]})
    back = Choice.from_plain(json.loads(json.dumps(choice.plain())))
    assert back == choice
    assert make(back, fake_registry) == fakes.Adam(lr=0.001, betas=(0.8, 0.9))


@settings(deadline=None, max_examples=100)
@given(
    groups=st.integers(min_value=1),
    momentum=st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True),
    betas=st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1)),
    path=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
)
def test_any_valid_value_survives_the_way_to_a_worker(
    fake_registry: Registry, groups: int, momentum: float, betas: tuple[float, float], path: str
) -> None:
    for slot, value in (
        ("norm", {"name": "group", "groups": groups}),
        ("norm", {"name": "batch", "momentum": momentum}),
        ("optimizer", {"name": "adam", "betas": list(betas)}),
        ("dataset", {"name": "folder", "path": "/" + path}),
    ):
        choice = read(fake_registry, slot, value)
        made = make(Choice.from_plain(json.loads(json.dumps(choice.plain()))), fake_registry)
        option = next(key for key in value if key != "name")
        expected = choice.options[option]
        found = getattr(made, option)
        assert (
            list(found) if isinstance(found, tuple) else str(found) if isinstance(found, Path) else found
        ) == expected


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (Choice("norm", "group"), "group"),
        (Choice("norm", "group", {"groups": 4}), "group(groups=4)"),
        (Choice("norm", "group", {"affine": False, "groups": 4}), "group(groups=4, affine=false)"),
        (Choice("compressor", "prune", {"scope": "layer"}), "prune(scope=layer)"),
        (Choice("optimizer", "adam", {"betas": (0.8, 0.9)}), "adam(betas=[0.8, 0.9])"),
        (Choice("dataset", "folder", {"path": "/data/cats"}), "folder(path=cats)"),
        (Choice("compressor", "distill"), "distill"),
    ],
)
def test_labels_show_what_differs_from_the_defaults(fake_registry: Registry, choice: Choice, text: str) -> None:
    assert label(complete(choice, fake_registry), fake_registry) == text


def test_labels_of_nested_choices(fake_registry: Registry) -> None:
    value = {"name": "chain", "steps": [{"name": "prune", "sparsity": 0.9}, {"name": "distill", "student": "plain"}]}
    choice = read(fake_registry, "compressor", value)
    assert label(choice, fake_registry) == "chain(steps=prune(sparsity=0.9) + distill(student=plain))"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice("norm", "gruop"), "did you mean 'group'"),
        (Choice("norm", "group", {"grups": 1}), "has no option 'grups': did you mean 'groups'"),
        (Choice("norm", "group", {"groups": 0}), "expected an integer >= 1, got 0"),
        (Choice("dataset", "folder"), "needs 'path'"),
        (Choice("model", "resnet", {"depth": 9}), "6n"),
    ],
)
def test_make_refuses_what_a_stale_record_may_hold(fake_registry: Registry, choice: Choice, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(choice, fake_registry)


def test_options_in_words(fake_registry: Registry, fakes: ModuleType) -> None:
    assert {name: option.expects for name, option in options_of(fakes.Distill).items()} == {
        "student": "a technique of slot model",
        "teacher": "a technique of slot model",
        "temperatures": "a list of one or more numbers > 0",
    }
    assert label(complete(Choice("compressor", "distill"), fake_registry), fake_registry) == "distill"


@technique("norm", "unreadable")
class Unreadable:
    """Its annotation names what is not there at run time."""

    groups: Nowhere = 8  # type: ignore[name-defined]  # noqa: F821


@technique("norm", "named")
class Named:
    """An option called name."""

    name: str = "x"


@pytest.mark.parametrize(("cls", "message"), [(Unreadable, "Nowhere"), (Named, "can't be called 'name'")])
def test_faulty_plugins_are_named(cls: type[Any], message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        options_of(cls)
    assert cls.__qualname__ in str(caught.value)


def test_every_installed_technique_is_made_from_its_own_defaults() -> None:
    host = PluginHost.discover()
    assert host.problems == []
    tried = 0
    for entry in host.registry:
        if any(option.required for option in options_of(entry.cls).values()):
            continue
        # Asks for one of two options, neither of which has a default that would suit.
        given = {"source": Choice("dataset", "shapes")} if entry.card.name == "transfer" else {}
        choice = complete(Choice(entry.card.slot, entry.card.name, given), host.registry)
        assert set(choice.options) == {field.name for field in fields(entry.cls) if field.init}
        made = make(Choice.from_plain(json.loads(json.dumps(choice.plain()))), host.registry)
        assert type(made) is entry.cls
        assert label(choice, host.registry) == entry.card.name + ("(source=shapes)" if given else "")
        tried += 1
    assert tried > 20
