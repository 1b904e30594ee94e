from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cnnbench.design import KINDS, Kind, cells, count
from cnnbench.errors import SuiteError, UsageError
from cnnbench.matrix import arms, trials
from cnnbench.plain import measure_plain, settings_from_plain, settings_plain
from cnnbench.suite import parse
from cnnbench.types import Measure

if TYPE_CHECKING:
    from cnnbench.registry import Registry
    from cnnbench.suite import Suite
    from cnnbench.types import Settings

HEAD = 'question = "Why?"\ndataset = "digits"\nmodel = "resnet"\n'
SIZES = st.lists(st.integers(2, 4), min_size=1, max_size=5)


def read(text: str, registry: Registry) -> Suite:
    return parse(text.encode(), "s.toml", registry)


def design(kind: str, axes: dict[str, Any], registry: Registry, head: str = HEAD) -> Suite:
    lines = [f"{json.dumps(key)} = {toml(levels)}" for key, levels in axes.items()]
    return read(f'{head}[design]\nkind = "{kind}"\n' + "\n".join(lines), registry)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def names(suite: Suite) -> list[str]:
    return [arm.name for arm in suite.arms]


def mistakes(kind: str, axes: dict[str, Any], registry: Registry, head: str = HEAD) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        design(kind, axes, registry, head)
    return [f"{problem.place}: {problem.message}" for problem in caught.value.problems]


def axes_that_differ(one: tuple[int, ...], two: tuple[int, ...]) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]


# The index arithmetic.


@settings(deadline=None, max_examples=60)
@given(SIZES, st.sampled_from(KINDS))
def test_counts_follow_their_formulas(sizes: list[int], kind: Kind) -> None:
    reference, others = cells(kind, sizes)
    expected = {
        "one-at-a-time": sum(sizes) - len(sizes),
        "cumulative": sum(sizes) - len(sizes),
        "factorial": math.prod(sizes) - 1,
        "leave-one-out": len(sizes),
    }
    assert len(others) == expected[kind] == count(kind, sizes)
    assert len({reference, *others}) == len(others) + 1
    assert all(0 <= level < size for cell in others for level, size in zip(cell, sizes, strict=True))


@settings(deadline=None, max_examples=60)
@given(SIZES)
def test_each_design_moves_as_it_should(sizes: list[int]) -> None:
    first = (0,) * len(sizes)
    last = tuple(size - 1 for size in sizes)

    reference, others = cells("one-at-a-time", sizes)
    assert reference == first
    assert all(len(axes_that_differ(first, cell)) == 1 for cell in others)

    reference, others = cells("cumulative", sizes)
    path = [reference, *others]
    assert (path[0], path[-1]) == (first, last)
    for before, after in itertools.pairwise(path):
        [axis] = axes_that_differ(before, after)
        assert after[axis] == before[axis] + 1

    reference, others = cells("leave-one-out", sizes)
    assert reference == last
    assert [axes_that_differ(last, cell) for cell in others] == [[axis] for axis in range(len(sizes))]
    assert all(cell[axis] == 0 for axis, cell in enumerate(others))

    reference, others = cells("factorial", sizes)
    assert reference == first
    assert sorted(others) == others


# From suites.

AXES: dict[str, list[Any]] = {
    "norm": ["batch", "none", {"name": "group", "groups": 4}],
    "augmentation": [[], "hflip", ["hflip", "mixup"]],
    "activation": ["relu", "leaky_relu"],
    "recipe.batch_size": [64, 16, 4],
    "recipe.optimizer": ["sgd", "adam"],
    "model.width": [16, 32],
    "model.depth": [8, 14, 20],
}


def parts(settings: Settings) -> dict[str, Any]:
    """A plain view of settings in which each axis of ``AXES`` is one entry."""
    plain = settings_plain(settings)
    flat = {f"recipe.{key}": value for key, value in plain["recipe"].items()}
    flat |= {f"model.{key}": value for key, value in plain["model"]["options"].items()}
    return {**flat, **{slot: plain["techniques"].get(slot, []) for slot in ("norm", "augmentation", "activation")}}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=3, unique=True), st.sampled_from(KINDS))
def test_arms_of_any_design(fake_registry: Registry, keys: list[str], kind: Kind) -> None:
    axes = {key: AXES[key] for key in keys}
    suite = design(kind, axes, fake_registry)
    every = arms(suite)
    assert (every[0].name, every[0].role, every[0].changes) == ("baseline", "baseline", "")
    assert len(suite.arms) == count(kind, [len(levels) for levels in axes.values()])
    assert len({json.dumps(settings_plain(arm.settings), sort_keys=True) for arm in every}) == len(every)
    assert len({arm.name for arm in every}) == len(every)
    assert suite.design is not None
    assert [axis.key for axis in suite.design.axes] == keys
    reference = parts(suite.baseline)
    for arm in suite.arms:
        differing = {key for key, value in parts(arm.settings).items() if value != reference[key]}
        assert differing <= set(keys)
        assert arm.changes
        if kind in ("one-at-a-time", "leave-one-out"):
            assert len(differing) == 1


@settings(deadline=None, max_examples=30)
@given(st.permutations(["norm", "recipe.batch_size", "model.depth"]), st.sampled_from(["factorial", "one-at-a-time"]))
def test_the_order_of_axes_does_not_change_which_settings_are_tried(
    fake_registry: Registry, keys: list[str], kind: str
) -> None:
    def tried(order: list[str]) -> set[str]:
        suite = design(kind, {key: AXES[key] for key in order}, fake_registry)
        return {json.dumps(settings_plain(arm.settings), sort_keys=True) for arm in arms(suite)}

    assert tried(keys) == tried(sorted(keys))


def test_names_of_one_at_a_time(fake_registry: Registry) -> None:
    assert names(design("one-at-a-time", AXES, fake_registry)) == [
        *("norm=none", "norm=group(groups=4)"),
        *("augmentation=hflip", "augmentation=hflip + mixup"),
        "activation=leaky_relu",
        *("batch_size=16", "batch_size=4", "optimizer=adam"),
        *("width=32", "depth=14", "depth=20"),
    ]


def test_names_of_a_factorial(fake_registry: Registry) -> None:
    suite = design("factorial", {key: AXES[key][:2] for key in ("norm", "recipe.batch_size")}, fake_registry)
    assert names(suite) == ["batch_size=16", "norm=none", "norm=none, batch_size=16"]
    assert suite.arms[2].changes == "recipe.batch_size=16, norm=none"


def test_a_cumulative_design_adds_step_on_step(fake_registry: Registry) -> None:
    keys = ("augmentation", "norm", "recipe.batch_size", "model.depth")
    suite = design("cumulative", {key: AXES[key] for key in keys}, fake_registry)
    assert names(suite) == [
        *("+ hflip", "+ mixup", "+ none", "+ group(groups=4)"),
        *("+ batch_size=16", "+ batch_size=4", "+ depth=14", "+ depth=20"),
    ]
    last = suite.arms[-1].settings
    assert (last.recipe.batch_size, last.model.options["depth"], last.techniques["norm"][0].name) == (4, 20, "group")
    assert [choice.name for choice in last.techniques["augmentation"]] == ["hflip", "mixup"]


def test_leaving_out_the_baselines_techniques(fake_registry: Registry) -> None:
    head = HEAD + (
        '[baseline]\nnorm = "group"\nregularizer = "dropout"\n'
        'augmentation = ["hflip", { name = "translate", pixels = 1 }, { name = "translate", pixels = 2 }, "mixup"]\n'
    )
    suite = design("leave-one-out", {}, fake_registry, head)
    assert names(suite) == [
        *("without group", "without hflip", "without translate(pixels=1)", "without translate"),
        *("without mixup", "without dropout"),
    ]
    assert len(suite.baseline.techniques["augmentation"]) == 4
    by_name = {arm.name: arm for arm in suite.arms}
    assert "norm" not in by_name["without group"].settings.techniques
    left = by_name["without translate(pixels=1)"].settings.techniques["augmentation"]
    assert [choice.options for choice in left[1:2]] == [{"pixels": 2}]
    assert [choice.name for choice in left] == ["hflip", "translate", "mixup"]


def test_leaving_out_over_axes_starts_from_the_last_levels(fake_registry: Registry) -> None:
    axes = {"norm": ["batch", "group"], "regularizer": ["none", "dropout"], "recipe.batch_size": [64, 4]}
    suite = design("leave-one-out", axes, fake_registry)
    assert names(suite) == ["without group", "without dropout", "without batch_size=4"]
    assert suite.baseline.recipe.batch_size == 4
    assert suite.baseline.techniques["norm"][0].name == "group"
    assert [arm.changes for arm in suite.arms] == ["norm=batch", "regularizer=none", "recipe.batch_size=64"]


def test_axes_of_the_model(fake_registry: Registry) -> None:
    head = HEAD.replace('model = "resnet"\n', "")
    suite = design("factorial", {"model.depth": [8, 14], "model": ["plain", "resnet"]}, fake_registry, head)
    assert suite.baseline.model.options == {"depth": 8}
    assert names(suite) == ["model=resnet", "depth=14", "depth=14, model=resnet"]
    assert suite.arms[2].settings.model.options == {"depth": 14, "width": 16}


def test_axes_may_be_written_without_quotes(fake_registry: Registry) -> None:
    quoted = design("factorial", {"recipe.batch_size": [64, 4], "model.depth": [8, 14]}, fake_registry)
    bare = read(
        HEAD + '[design]\nkind = "factorial"\nrecipe.batch_size = [64, 4]\nmodel.depth = [8, 14]\n', fake_registry
    )
    assert bare.arms == quoted.arms


@pytest.mark.parametrize(
    ("kind", "axes", "expected"),
    [
        (
            "factorail",
            {"norm": ["batch", "group"]},
            ["design.kind: expected the kind of design, got 'factorail': did you mean 'factorial'?"],
        ),
        ("factorial", {}, ['design: expected at least one axis, such as norm = ["batch", "group"]']),
        ("leave-one-out", {}, ["design: leave-one-out without axes leaves out [baseline]'s techniques: it has none"]),
        ("factorial", {"norm": ["batch"]}, ["design.norm: expected a list of at least two levels, got ['batch']"]),
        ("factorial", {"norm": "batch"}, ["design.norm: expected a list of at least two levels, got 'batch'"]),
        ("factorial", {"norm": ["batch", "batch"]}, ["design.norm[1]: the level batch is listed twice"]),
        (
            "factorial",
            {"norm": ["group", {"name": "group", "groups": 8}, "gruop"]},
            [
                "design.norm[1]: the level group is listed twice",
                "design.norm[2]: unknown norm 'gruop': did you mean 'group'?",
            ],
        ),
        ("factorial", {"nrm": ["batch", "group"]}, ["design.nrm: unknown key 'nrm' in a design: did you mean 'norm'?"]),
        ("factorial", {"dataset": ["a", "b"]}, ["design.dataset: 'dataset' belongs at the top of the file"]),
        ("factorial", {"epochs": [1, 2]}, ["design.epochs: 'epochs' is part of the recipe: write \"recipe.epochs\""]),
        ("factorial", {"recipe": [1, 2]}, ['design.recipe: name one value of the recipe, such as "recipe.batch_size"']),
        (
            "factorial",
            {"recipe.epoch": [1, 2]},
            ["design.\"recipe.epoch\": the recipe has no option 'epoch': did you mean 'epochs'?"],
        ),
        (
            "factorial",
            {"recipe.epochs": [1, 0]},
            ['design."recipe.epochs"[1]: expected an integer >= 1, got 0'],
        ),
        (
            "factorial",
            {"recipe.optimizer": ["sgd", {"name": "adam", "rate": 3}]},
            ["design.\"recipe.optimizer\"[1].rate: optimizer 'adam' has no option 'rate': known are betas, lr"],
        ),
        (
            "factorial",
            {"model.depth": [8, "x"]},
            ["design.\"model.depth\"[1]: expected an integer >= 2, got 'x'"],
        ),
        # Each value is fine, and they are not together: told of the combination.
        (
            "factorial",
            {"model.depth": [8, 9]},
            ["design: model {name = 'resnet', depth = 9}: depth must be 6n + 2, got 9"],
        ),
        (
            "one-at-a-time",
            {"model": ["resnet", "plain"], "model.width": [16, 32]},
            ["design: model {name = 'plain', width = 16}: model 'plain' has no option 'width': did you mean 'depth'?"],
        ),
        (
            "one-at-a-time",
            {"model": ["resnet", {"name": "resnet", "depth": 14}], "model.depth": [8, 14]},
            ["design: arm 'model=resnet(depth=14)' comes to the same settings as the baseline"],
        ),
        (
            "factorial",
            {f"recipe.{key}": list(range(1, 40)) for key in ("epochs", "batch_size")}
            | {"regularizer": [{"name": "dropout", "rate": i / 50} for i in range(40)]},
            ["design: comes to 60839 arms; at most 10000 are taken"],
        ),
    ],
)
def test_mistakes_in_designs(fake_registry: Registry, kind: str, axes: dict[str, Any], expected: list[str]) -> None:
    assert mistakes(kind, axes, fake_registry) == expected


def test_a_design_without_its_kind(fake_registry: Registry) -> None:
    with pytest.raises(SuiteError, match="expected the kind of design, which is missing: known are one-at-a-time"):
        read(HEAD + '[design]\nnorm = ["batch", "group"]\n', fake_registry)
    with pytest.raises(SuiteError, match="expected a table with kind and axes, got 3"):
        read(HEAD + "design = 3\n", fake_registry)


def test_the_same_technique_twice_can_not_be_told_apart(fake_registry: Registry) -> None:
    head = HEAD + '[baseline]\naugmentation = ["hflip", "hflip"]\n'
    assert mistakes("leave-one-out", {}, fake_registry, head) == [
        "design: arm 'without hflip (2)' comes to the same settings as arm 'without hflip'"
    ]


def test_the_rest_of_the_suite_may_repeat_an_axis_but_not_contradict_it(fake_registry: Registry) -> None:
    head = HEAD.replace('"resnet"', '{ name = "resnet", depth = 14 }')
    head += '[recipe]\nbatch_size = 8\n[baseline]\nnorm = "batch"\nactivation = "tanh"\n'
    axes = {
        "model.depth": [8, 14],
        "recipe.batch_size": [64, 8],
        "norm": ["batch", "group"],
        "activation": ["relu", "tanh"],
    }
    assert mistakes("factorial", axes, fake_registry, head) == [
        "model.depth: 14 here, but the design's axis 'model.depth' gives the baseline 8: leave it out here",
        "recipe.batch_size: 8 here, but the design's axis 'recipe.batch_size' gives the baseline 64: leave it out here",
        "baseline.activation: tanh here, but the design's axis 'activation' gives the baseline relu: leave it out here",
    ]
    agreeing = {key: levels[::-1] if key != "norm" else levels for key, levels in axes.items()}
    assert len(design("factorial", agreeing, fake_registry, head).arms) == 15


def test_the_baseline_comes_first_and_the_placebo_last(fake_registry: Registry) -> None:
    text = "placebo = true\nseeds = [5, 2]\n" + HEAD + '[arms]\nb = { norm = "group" }\na = { norm = "batch" }\n'
    suite = read(text, fake_registry)
    assert [(arm.name, arm.role) for arm in arms(suite)] == [
        *(("baseline", "baseline"), ("b", "arm"), ("a", "arm"), ("placebo", "placebo")),
    ]
    assert arms(suite)[-1].settings == suite.baseline
    assert [(trial.arm.name, trial.seed) for trial in trials(suite)] == [
        (name, seed) for name in ("baseline", "b", "a", "placebo") for seed in (5, 2)
    ]
    assert [trial.arm.name for trial in trials(suite, ["a"])] == ["baseline", "baseline", "a", "a"]
    with pytest.raises(UsageError, match="suite 's' has no arm 'c': known are a, b, baseline, placebo"):
        arms(suite, ["c"])


def test_settings_and_measures_survive_json(fake_registry: Registry) -> None:
    suite = design("one-at-a-time", AXES, fake_registry)
    for settings_ in [arm.settings for arm in arms(suite)]:
        plain = settings_plain(settings_)
        back = settings_from_plain(json.loads(json.dumps(plain)))
        assert back == settings_
        assert settings_plain(back) == plain
    measure = read(
        HEAD + "[measure]\nlatency = { batch_sizes = [2] }\nmargin = { accuracy = 0.1 }", fake_registry
    ).measure
    assert TypeAdapter(Measure).validate_python(json.loads(json.dumps(measure_plain(measure)))) == measure
