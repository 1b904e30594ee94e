"""Keys: what shares a stage, what makes another, and what a plan holds. No technique runs here."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnbench.keys
import cnnbench.plan
from cnnbench.errors import DataError, UsageError
from cnnbench.key_text import digest, digest_of, joined, written, written_list, written_table
from cnnbench.keys import Place, code_digest, measuring_digest
from cnnbench.plan import Plan, make_plan
from cnnbench.plugins import PluginHost
from cnnbench.suite import Suite, parse
from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.registry import Registry

CPU = Place("cpu", "cpu", "a CPU, 2 threads")
SOURCE = Path(cnnbench.__file__).parent
MEASURES = {
    *("energy", "latency", "memory", "noise", "pinning", "serve", "session", "subject", "timings", "turns"),
}
"""Stage modules that only measure: a change of these trains nothing anew."""
TRAIN_LIKE = ("rehearse", "train", "compress", "evaluate", "profile", "latency", "energy")

TEXT = """
question = "?"
dataset = { name = "digits", validation = 0.2 }
model = { name = "resnet", depth = 8, width = 4 }
seeds = 2
[recipe]
epochs = 3
batch_size = 32
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9 }
schedule = "cosine"
loss = "cross_entropy"
precision = "fp32"
[baseline]
norm = { name = "group", groups = 2 }
augmentation = ["hflip", { name = "translate", pixels = 2 }]
strategy = "early_stopping"
compressor = { name = "prune", sparsity = 0.5 }
[measure]
metrics = ["accuracy", "params", "latency", "energy"]
"""


class Host:
    """A plugin host without plugins."""

    def __init__(self, registry: Registry, reason: str | None = None) -> None:
        self.registry = registry
        self.reason = reason
        self.asked: list[dict[str, Any]] = []

    def check_trial(self, trial: Callable[[], dict[str, Any]]) -> str | None:
        self.asked.append(trial())
        return self.reason if self.asked[-1]["arm"] != "baseline" else None

    def advise_arm(self, settings: dict[str, Any]) -> tuple[str, ...]:
        return ()


def plan_of(text: str, registry: Registry, place: Place = CPU, **changes: Any) -> Plan:
    suite = parse(text.encode(), "suite.toml", registry)
    return make_plan(dataclasses.replace(suite, **changes), Host(registry), place)


def keys_of(plan: Plan, arm: str = "baseline", seed: int = 0) -> dict[str, str]:
    (found,) = (t for t in plan.trials if t.trial.arm.name == arm and t.trial.seed == seed)
    return dict(found.stages)


def changed(old: dict[str, str], new: dict[str, str]) -> set[str]:
    assert old.keys() == new.keys()
    return {kind for kind in old if old[kind] != new[kind]}


# What does not matter.


ARMS = {
    "group": 'norm = { name = "group", groups = 4 }',
    "tanh": 'activation = "tanh"',
    "mixup": 'augmentation = "mixup"',
    "long": "recipe = { epochs = 9 }",
    "prune": 'compressor = { name = "prune", sparsity = 0.9 }',
    "both": 'activation = "tanh"\ncompressor = { name = "prune", sparsity = 0.9 }',
}


def with_arms(names: list[str]) -> str:
    return TEXT + "".join(f'[arms."{name}"]\n{ARMS[name]}\n' for name in names)


@settings(deadline=None, max_examples=30)
@given(
    st.permutations(sorted(ARMS)),
    st.integers(1, len(ARMS)),
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    st.booleans(),
)
def test_keys_do_not_depend_on_the_other_arms_and_seeds_or_their_order(fake_registry, order, count, seeds, placebo):
    whole = {
        (t.trial.arm.name, t.trial.seed): (t.key, dict(t.stages))
        for t in plan_of(with_arms(sorted(ARMS)), fake_registry, seeds=tuple(range(10)), placebo=True).trials
    }
    part = plan_of(with_arms(order[:count]), fake_registry, seeds=tuple(seeds), placebo=placebo)
    assert len(part.trials) == (1 + count + placebo) * len(seeds)
    for trial in part.trials:
        assert (trial.key, dict(trial.stages)) == whole[trial.trial.arm.name, trial.trial.seed]


def test_arm_names_the_question_and_display_settings_do_not_enter_keys(fake_registry):
    base = plan_of(with_arms(["tanh"]), fake_registry)
    text = with_arms(["tanh"]).replace('"tanh"]', '"another name"]').replace('question = "?"', 'question = "why?"')
    other = plan_of(text, fake_registry, time_limit=5.0)
    assert keys_of(base, "tanh") == keys_of(other, "another name")


def test_writing_out_a_default_changes_no_key(fake_registry):
    spelled_out = TEXT.replace('loss = "cross_entropy"\nprecision = "fp32"\n', "").replace(
        '"hflip"', '{ name = "hflip", p = 0.5 }'
    )
    assert spelled_out != TEXT
    assert keys_of(plan_of(spelled_out, fake_registry)) == keys_of(plan_of(TEXT, fake_registry))


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(DATA, st.randoms(use_true_random=False))
def test_digest_ignores_the_order_of_mappings_and_survives_json(data, random):
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(inner)) for key, inner in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(inner) for inner in value] if isinstance(value, list) else value

    assert digest(shuffled(data)) == digest(data) == digest(json.loads(json.dumps(data)))
    assert digest([data]) != digest(data)
    assert len(digest(data)) == 32


@settings(deadline=None, max_examples=100)
@given(st.lists(DATA, min_size=1, max_size=4), st.dictionaries(st.text(max_size=3), DATA, max_size=4))
def test_parts_that_are_written_before_stand_for_what_they_were_written_from(parts, table):
    text = json.dumps([*parts, parts, table], sort_keys=True, separators=(",", ":"))
    expected = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    early = {name: written(value) for name, value in table.items()}
    assert digest_of(*parts, parts, table) == digest([*parts, parts, table]) == expected
    assert digest_of(*map(written, parts), written_list(*parts), written_table(table)) == expected
    assert digest_of(joined(*parts), written_list(joined(*parts)), written_table(early)) == expected


def test_digest_refuses_what_has_no_plain_form():
    with pytest.raises(TypeError, match="part of a key"):
        digest({"a": object()})


# What matters, and to which stages.


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("validation = 0.2", "validation = 0.1"),
        ("validation = 0.2", "validation = 0.2, train_size = 100"),
        ("validation = 0.2", "validation = 0.2, test_size = 100"),
        ("depth = 8", "depth = 14"),
        ("width = 4", "width = 5"),
        ('{ name = "resnet", depth = 8, width = 4 }', '"plain"'),
        ("epochs = 3", "epochs = 4"),
        ("batch_size = 32", "batch_size = 33"),
        ("lr = 0.1", "lr = 0.1000001"),
        ("momentum = 0.9", "momentum = 0.8"),
        ('{ name = "sgd", lr = 0.1, momentum = 0.9 }', '"adam"'),
        ('"cosine"', '"constant"'),
        ('precision = "fp32"', 'precision = "bf16"'),
        ('precision = "fp32"', "channels_last = true"),
        ('precision = "fp32"', "channels_last = false"),
        ("groups = 2", "groups = 4"),
        ("groups = 2", "affine = false, groups = 2"),
        ('norm = { name = "group", groups = 2 }', 'norm = "batch"'),
        ('norm = { name = "group", groups = 2 }', ""),
        ("pixels = 2", "pixels = 1"),
        ('["hflip", { name = "translate", pixels = 2 }]', '[{ name = "translate", pixels = 2 }, "hflip"]'),
        ('["hflip", ', '["hflip", "hflip", '),
        ("[baseline]", '[baseline]\nactivation = "tanh"'),
        ("[baseline]", '[baseline]\nregularizer = "dropout"'),
        ('"early_stopping"', '{ name = "early_stopping", patience = 9 }'),
    ],
)
def test_each_setting_of_training_changes_every_stage(fake_registry, old, new):
    assert old in TEXT
    base, other = plan_of(TEXT, fake_registry), plan_of(TEXT.replace(old, new), fake_registry)
    assert changed(keys_of(base), keys_of(other)) == set(TRAIN_LIKE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sparsity = 0.5", "sparsity = 0.6"),
        ("sparsity = 0.5", 'sparsity = 0.5, scope = "layer"'),
        ('{ name = "prune", sparsity = 0.5 }', '["prune", "prune"]'),
        ('{ name = "prune", sparsity = 0.5 }', '"distill"'),
    ],
)
def test_a_compressor_s_options_leave_training_shared(fake_registry, old, new):
    assert old in TEXT
    base, other = plan_of(TEXT, fake_registry), plan_of(TEXT.replace(old, new), fake_registry)
    assert changed(keys_of(base), keys_of(other)) == set(TRAIN_LIKE) - {"train"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("temperatures = [4.0]", "temperatures = [4.0, 2.0]"),
        ("depth = 14", "depth = 20"),
        ("student = { name = 'plain', depth = 3 }", "student = { name = 'plain', depth = 4 }"),
    ],
)
def test_options_of_techniques_within_options_count(fake_registry, old, new):
    text = TEXT.replace(
        '{ name = "prune", sparsity = 0.5 }',
        "{ name = 'distill', temperatures = [4.0], teacher = { name = 'resnet', depth = 14 }, "
        "student = { name = 'plain', depth = 3 } }",
    )
    assert old in text
    base, other = plan_of(text, fake_registry), plan_of(text.replace(old, new), fake_registry)
    assert changed(keys_of(base), keys_of(other)) == set(TRAIN_LIKE) - {"train"}


@pytest.mark.parametrize(
    ("place", "stages"),
    [
        (dataclasses.replace(CPU, kind="cuda", device="cuda:0"), set(TRAIN_LIKE)),
        (dataclasses.replace(CPU, threads=2), set(TRAIN_LIKE)),
        (dataclasses.replace(CPU, machine="another CPU"), {"latency", "energy"}),
        (dataclasses.replace(CPU, energy="measured by RAPL"), {"energy"}),
        (dataclasses.replace(CPU, device="cpu:1"), set()),  # which of several alike is no matter
    ],
)
def test_what_a_place_changes(fake_registry, place, stages):
    base, other = plan_of(TEXT, fake_registry), plan_of(TEXT, fake_registry, place)
    assert changed(keys_of(base), keys_of(other)) == stages


@pytest.mark.parametrize(
    ("line", "stages"),
    [
        ("latency = { batch_sizes = [1, 8] }", {"latency"}),
        ("latency = { precision = 0.1 }", {"latency"}),
        ("latency = { max_seconds = 1.0 }", {"latency"}),
        ("latency = { threads = 2 }", {"latency", "energy"}),
        ("energy = { windows = 4 }", {"energy"}),
        ("energy = { batch_size = 4 }", {"energy"}),
        ("margin = { accuracy = 0.1 }", set()),
        ('primary = "params"', set()),
    ],
)
def test_how_things_are_measured_changes_that_measure_alone(fake_registry, line, stages):
    base, other = plan_of(TEXT, fake_registry), plan_of(TEXT + line, fake_registry)
    assert changed(keys_of(base), keys_of(other)) == stages


def test_seed_and_family_change_every_stage(fake_registry):
    plan = plan_of(TEXT, fake_registry, placebo=True)
    baseline = keys_of(plan)
    assert changed(baseline, keys_of(plan, seed=1)) == set(TRAIN_LIKE) - {"rehearse"}
    assert changed(baseline, keys_of(plan, "placebo")) == set(TRAIN_LIKE) - {"rehearse"}
    tasks = {t.trial.arm.name: plan.stages[t.stages["train"]].task for t in plan.trials}
    assert (tasks["baseline"]["family"], tasks["placebo"]["family"]) == ("", "placebo")


def test_what_an_arm_is_compared_with_belongs_to_its_latency_alone(fake_registry):
    text = with_arms(["tanh", "mixup"])
    base = plan_of(text, fake_registry)
    other_baseline = plan_of(text.replace("groups = 2", "groups = 4"), fake_registry)
    own_norm = text.replace('[arms."tanh"]', '[arms."tanh"]\nnorm = { name = "group", groups = 2 }')
    same_model = plan_of(own_norm.replace("groups = 2 }\naug", "groups = 4 }\naug"), fake_registry)
    assert changed(keys_of(base, "tanh"), keys_of(same_model, "tanh")) == {"latency"}
    assert changed(keys_of(base, "tanh"), keys_of(other_baseline, "tanh")) == set(TRAIN_LIKE)
    against = plan_of(text.replace('[arms."tanh"]', '[arms."tanh"]\nagainst = "mixup"'), fake_registry)
    assert changed(keys_of(base, "tanh"), keys_of(against, "tanh")) == {"latency"}
    assert keys_of(base, "mixup") == keys_of(against, "mixup")
    stage = against.stages[keys_of(against, "tanh")["latency"]]
    assert stage.reference == stage.task["reference"] == keys_of(against, "mixup")["latency"]
    assert base.stages[keys_of(base)["latency"]].reference is None


def test_the_arms_of_a_seed_share_a_session_and_seeds_do_not(fake_registry):
    plan = plan_of(with_arms(["tanh", "mixup"]), fake_registry)
    sessions: dict[str, set[int]] = {}
    for trial in plan.trials:
        for kind in ("latency", "energy"):
            sessions.setdefault(plan.stages[trial.stages[kind]].session, set()).add(trial.trial.seed)
    assert sorted(map(sorted, sessions.values())) == [[0], [0], [1], [1]]


def test_memory_of_training_is_taken_in_a_process_of_its_own_and_only_then(fake_registry):
    asked = TEXT.replace('"params", ', '"params", "memory_train", ')
    base, with_memory = plan_of(TEXT, fake_registry), plan_of(asked, fake_registry)
    assert changed(keys_of(base), keys_of(with_memory)) == set(TRAIN_LIKE) - {"rehearse"}
    assert with_memory.stages[keys_of(with_memory)["train"]].own_process
    assert not base.stages[keys_of(base)["train"]].own_process
    gpu = plan_of(asked, fake_registry, Place("cuda:0", "cuda", "a GPU"))
    assert not gpu.stages[keys_of(gpu)["train"]].own_process


def test_another_source_of_energy_trains_anew_only_where_training_s_energy_is_asked_for(fake_registry):
    source = 'energy = { source = "constant", watts = 15 }'
    train = TEXT.replace('"params", ', '"params", "energy_train", ')
    for text, stages in ((TEXT, {"energy"}), (train, set(TRAIN_LIKE) - {"rehearse"})):
        base = plan_of(text, fake_registry)
        assert changed(keys_of(base), keys_of(plan_of(f"{text}{source}\n", fake_registry))) == stages
        grid = plan_of(f'{text}energy = {{ country = "FRA" }}\n', fake_registry)
        assert changed(keys_of(base), keys_of(grid)) == set()  # it only scales


def test_the_torch_version_and_the_harness_s_code_change_every_stage(fake_registry, monkeypatch):
    base = keys_of(plan_of(TEXT, fake_registry))
    with monkeypatch.context() as patch:
        patch.setattr(cnnbench.keys, "version", lambda name: "0.0")
        assert changed(base, keys_of(plan_of(TEXT, fake_registry))) == set(TRAIN_LIKE)
    with monkeypatch.context() as patch:
        patch.setattr(cnnbench.keys, "code_digest", lambda: "other")
        assert changed(base, keys_of(plan_of(TEXT, fake_registry))) == set(TRAIN_LIKE)
    with monkeypatch.context() as patch:
        patch.setattr(cnnbench.keys, "measuring_digest", lambda: "other")
        assert changed(base, keys_of(plan_of(TEXT, fake_registry))) == {"latency", "energy"}


@pytest.mark.parametrize(
    ("file", "of"),
    [
        ("seeds.py", code_digest),
        ("data.py", code_digest),
        ("slots.py", code_digest),
        ("convert.py", measuring_digest),
        ("stats/rounds.py", measuring_digest),
        ("stats/student.py", measuring_digest),
        *((f"meters/{path.name}", measuring_digest) for path in sorted((SOURCE / "meters").glob("*.py"))),
        *(
            (f"stages/{path.name}", measuring_digest if path.stem in MEASURES else code_digest)
            for path in sorted((SOURCE / "stages").glob("*.py"))
            if path.stem != "__init__"
        ),
    ],
)
def test_the_digests_cover_what_computes_results(tmp_path, monkeypatch, file, of):
    root = tmp_path / "cnnbench"
    for path in [
        *SOURCE.glob("*.py"),
        *SOURCE.glob("stages/*.py"),
        *SOURCE.glob("meters/*.py"),
        *SOURCE.glob("stats/*.py"),
    ]:
        (root / path.relative_to(SOURCE)).parent.mkdir(parents=True, exist_ok=True)
        (root / path.relative_to(SOURCE)).write_bytes(path.read_bytes())
    monkeypatch.setattr(cnnbench, "__file__", str(root / "__init__.py"))
    before = {digest: digest.__wrapped__() for digest in (code_digest, measuring_digest)}
    assert of.__wrapped__() == before[of]
    with (root / file).open("a") as stream:
        stream.write("\n# changed\n")
    assert {digest: digest.__wrapped__() != before[digest] for digest in before} == {
        code_digest: of is code_digest,
        measuring_digest: of is measuring_digest,
    }


@pytest.mark.parametrize(
    ("slot", "name", "stages"),
    [
        ("norm", "group", set(TRAIN_LIKE)),
        ("model", "resnet", set(TRAIN_LIKE)),
        ("optimizer", "sgd", set(TRAIN_LIKE)),
        ("schedule", "cosine", set(TRAIN_LIKE)),
        ("loss", "cross_entropy", set(TRAIN_LIKE)),
        ("augmentation", "translate", set(TRAIN_LIKE)),
        ("strategy", "early_stopping", set(TRAIN_LIKE)),
        ("compressor", "prune", set(TRAIN_LIKE) - {"train"}),
        ("norm", "batch", set()),
        ("activation", "tanh", set()),
    ],
)
@pytest.mark.parametrize("what", ["source", "version", "distribution"])
def test_the_code_behind_a_technique_enters_keys_where_it_is_used(fakes, slot, name, stages, what):
    base = keys_of(plan_of(TEXT, fakes.make_registry()))
    registry = fakes.make_registry()
    entry = registry.get(slot, name)
    if what == "source":
        entry.__dict__["source_digest"] = "changed"
    else:
        owner = dataclasses.replace(entry.owner, **{what: "changed"})
        registry._entries[slot, name] = dataclasses.replace(entry, owner=owner)
        registry.get(slot, name).__dict__["source_digest"] = entry.source_digest
    assert changed(base, keys_of(plan_of(TEXT, registry))) == stages


def test_the_code_of_a_student_enters_the_keys_of_distillation(fakes):
    text = TEXT.replace('{ name = "prune", sparsity = 0.5 }', "{ name = 'distill', student = 'plain' }")
    base = keys_of(plan_of(text, fakes.make_registry()))
    registry = fakes.make_registry()
    registry.get("model", "plain").__dict__["source_digest"] = "changed"
    assert changed(base, keys_of(plan_of(text, registry))) == set(TRAIN_LIKE) - {"train"}


@pytest.mark.parametrize(
    ("slot", "name", "stages"),
    [
        ("model", "resnet", set(TRAIN_LIKE)),
        ("norm", "group", set(TRAIN_LIKE)),
        ("compressor", "prune", set(TRAIN_LIKE) - {"train"}),
        ("model", "plain", set()),
    ],
)
def test_what_a_technique_says_of_the_user_s_own_files_enters_keys(fakes, monkeypatch, slot, name, stages):
    registry = fakes.make_registry()
    keys = []
    for content in ("before", "after"):
        cls = registry.get(slot, name).cls
        monkeypatch.setattr(cls, "fingerprint", lambda self, content=content: content, raising=False)
        keys.append(keys_of(plan_of(TEXT, registry)))
    assert changed(*keys) == stages


def folder_plan(registry: Registry, folder: Any) -> Plan:
    return plan_of(TEXT.replace('name = "digits"', f'name = "folder", path = "{folder}"'), registry)


def test_data_counts_by_content_and_not_by_place(fakes, tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    registry = fakes.make_registry()
    base = keys_of(folder_plan(registry, tmp_path / "here"))
    assert keys_of(folder_plan(registry, tmp_path / "there")) == base
    monkeypatch.setattr(fakes.Folder, "fingerprint", lambda self: "other content")
    assert changed(base, keys_of(folder_plan(registry, tmp_path / "here"))) == set(TRAIN_LIKE)


def test_missing_data_says_so_before_anything_runs(fakes, tmp_path):
    with pytest.raises(DataError, match="no folder"):
        folder_plan(fakes.make_registry(), tmp_path / "nowhere")


def test_data_is_fingerprinted_once(fakes, monkeypatch):
    calls = []
    monkeypatch.setattr(fakes.Digits, "fingerprint", lambda self: calls.append(1) or "x")
    plan_of(with_arms(sorted(ARMS)), fakes.make_registry(), seeds=tuple(range(5)))
    assert len(calls) == 1


# Sharing and shape.


def test_six_compressors_and_three_seeds_train_three_times(fake_registry):
    arms = "".join(f'[arms."p{i}"]\ncompressor = {{ name = "prune", sparsity = 0.{i} }}\n' for i in (1, 2, 3, 4, 6, 7))
    text = TEXT.replace('compressor = { name = "prune", sparsity = 0.5 }\n', "") + arms
    plan = plan_of(text, fake_registry, seeds=(0, 1, 2))
    kinds = [stage.kind for stage in plan.stages.values()]
    count = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    trials, compressed = 7 * 3, 6 * 3
    per_trial = {"evaluate": trials, "profile": trials, "latency": trials, "energy": trials}
    assert count == {"rehearse": 7, "train": 3, "compress": compressed, **per_trial}
    assert plan.unshared == sum(per_trial.values()) + 2 * trials + compressed
    assert len(plan.trials) == trials


def test_stages_stand_after_their_inputs_and_start_from_the_last_model(fake_registry):
    plan = plan_of(with_arms(sorted(ARMS)), fake_registry)
    known: set[str] = set()
    for key, stage in plan.stages.items():
        assert key == stage.key
        assert set(stage.inputs) <= known
        known.add(key)
        assert json.dumps(stage.task, allow_nan=False)
        assert stage.exclusive == (stage.kind in {"latency", "energy"})
    for trial in plan.trials:
        assert tuple(trial.stages) == TRAIN_LIKE
        for kind in ("evaluate", "profile", "latency", "energy"):
            assert plan.stages[trial.stages[kind]].inputs == (trial.stages["train"], trial.stages["compress"])


def test_no_stage_that_no_metric_asks_for(fake_registry):
    text = TEXT.replace('"params", "latency", "energy"]', '"f1_macro"]')
    assert tuple(keys_of(plan_of(text, fake_registry))) == ("rehearse", "train", "compress", "evaluate")
    text = TEXT.replace('compressor = { name = "prune", sparsity = 0.5 }\n', "").replace('"params", "latency", ', "")
    plan = plan_of(text, fake_registry)
    assert tuple(keys_of(plan)) == ("rehearse", "train", "evaluate", "energy")
    assert plan.stages[keys_of(plan)["evaluate"]].inputs == (keys_of(plan)["train"],)


def runtime_registry(fakes: Any) -> Registry:
    registry = fakes.make_registry()
    for name in ("eager", "compiled"):
        registry.add(technique("runtime", name)(type(name.title(), (), {"__doc__": "Serves."})), fakes.OWNER)
    return registry


def test_a_runtime_changes_serving_alone(fakes):
    registry = runtime_registry(fakes)
    plan = plan_of(TEXT + '[arms."e"]\nruntime = "eager"\n[arms."c"]\nruntime = "compiled"\n', registry)
    for one, other in (("baseline", "e"), ("e", "c")):
        assert changed(keys_of(plan, one), keys_of(plan, other)) == {"latency", "energy"}


def test_every_trial_has_a_key_of_its_own(fakes):
    """Also two arms that differ in what no metric of the suite looks at: each has its own record."""
    registry = runtime_registry(fakes)
    text = TEXT.replace('"params", "latency", "energy"]', '"f1_macro"]')
    plan = plan_of(text + '[arms."e"]\nruntime = "eager"\n[arms."c"]\nruntime = "compiled"\n', registry, placebo=True)
    assert len({trial.key for trial in plan.trials}) == len(plan.trials) == 8
    assert sum(stage.kind == "train" for stage in plan.stages.values()) == 4


def test_only_keeps_the_baseline_and_what_is_named(fake_registry):
    suite: Suite = parse(with_arms(sorted(ARMS)).encode(), "s.toml", fake_registry)
    plan = make_plan(suite, Host(fake_registry), CPU, ["tanh"])
    assert [t.trial.arm.name for t in plan.trials] == ["baseline", "baseline", "tanh", "tanh"]
    with pytest.raises(UsageError, match="did you mean 'tanh'"):
        make_plan(suite, Host(fake_registry), CPU, ["tahn"])


# Skips.


def test_a_plugin_s_reason_skips_the_trial_and_its_stages(fake_registry):
    suite = parse(with_arms(["tanh"]).encode(), "s.toml", fake_registry)
    host = Host(fake_registry, "not on Sundays")
    plan = make_plan(suite, host, CPU)
    assert [t.skip for t in plan.trials] == [None, None, "not on Sundays", "not on Sundays"]
    skipped = {key for t in plan.trials if t.skip for key in t.stages.values()}
    assert not skipped & plan.stages.keys()
    assert len(host.asked) == 4
    assert host.asked[2]["arm"] == "tanh"
    assert host.asked[2]["settings"]["techniques"]["activation"][0]["name"] == "tanh"


def test_an_installed_plugin_may_skip_trials(install_plugin, fake_registry):
    install_plugin(
        "picky",
        "import cnnbench\n"
        "@cnnbench.hookimpl\n"
        "def cnnbench_check_trial(trial):\n"
        "    return 'odd seeds bring bad luck' if trial['seed'] % 2 else None\n",
    )
    host = PluginHost.discover()
    suite = parse(
        b'question = "?"\ndataset = "digits"\nmodel = "lenet"\nseeds = 2\n[recipe]\nepochs = 1', "s.toml", host.registry
    )
    plan = make_plan(suite, host, CPU)
    assert [t.skip for t in plan.trials] == [None, "odd seeds bring bad luck (picky)"]


@technique("compressor", "needy", requires=(Requirement("no_such_package", "compress"),))
class Needy:
    """Needs a package."""


@technique("model", "needy", requires=(Requirement("no_such_package", "models"),))
class NeedyModel:
    """Needs a package."""


@technique("schedule", "needy", requires=(Requirement("no_such_package.inner", "more"),))
class NeedySchedule:
    """Needs a part of a package."""


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        (
            'compressor = "needy"',
            "needy needs no_such_package, which is not installed: pip install 'cnnbench[compress]'",
        ),
        ('model = "needy"', "needy needs no_such_package, which is not installed: pip install 'cnnbench[models]'"),
        (
            'recipe = { schedule = "needy" }',
            "needy needs no_such_package.inner, which is not installed: pip install 'cnnbench[more]'",
        ),
        (
            'compressor = { name = "chain", steps = ["prune", "needy"] }',
            "needy needs no_such_package, which is not installed: pip install 'cnnbench[compress]'",
        ),
        (
            'compressor = { name = "distill", student = "needy" }',
            "needy needs no_such_package, which is not installed: pip install 'cnnbench[models]'",
        ),
    ],
)
def test_a_missing_package_skips_with_its_install_line(fakes, monkeypatch, arm, reason):
    registry = fakes.make_registry()
    for cls in (Needy, NeedyModel, NeedySchedule):
        registry.add(cls, fakes.OWNER)
    plan = plan_of(TEXT + f'[arms."x"]\n{arm}\n', registry)
    assert [t.skip for t in plan.trials] == [None, None, reason, reason]
    found = importlib.util.find_spec("json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    assert [t.skip for t in plan_of(TEXT + f'[arms."x"]\n{arm}\n', registry).trials] == [None] * 4


def test_a_package_that_is_absent_skips_a_built_in_technique(monkeypatch):
    host = PluginHost.discover()
    text = (
        'question = "?"\ndataset = "digits"\nmodel = "lenet"\nseeds = 1\n[recipe]\nepochs = 1\n'
        '[arms]\n"int8" = { compressor = "quantize_ptq" }\n'
    )
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torchao" else real(name, *a))
    plan = make_plan(parse(text.encode(), "s.toml", host.registry), host, CPU)
    reason = "quantize_ptq needs torchao, which is not installed: pip install 'cnnbench[compress]'"
    assert [t.skip for t in plan.trials] == [None, reason]


def test_planning_imports_no_torch(tmp_path):
    """The plan of a suite shows at once."""
    (tmp_path / "s.toml").write_text(
        'question = "?"\ndataset = "digits"\nmodel = "resnet"\nseeds = 2\n[recipe]\nepochs = 1\n'
        '[arms]\n"gn" = { norm = { name = "group", groups = 4 } }\n'
        '"prune" = { compressor = "prune_magnitude" }\n"int8" = { compressor = "quantize_ptq" }\n'
    )
    code = (
        "import sys\n"
        "from cnnbench.keys import Place\n"
        "from cnnbench.plan import make_plan\n"
        "from cnnbench.plugins import PluginHost\n"
        "from cnnbench.suite import load\n"
        "host = PluginHost.discover()\n"
        f"plan = make_plan(load({str(tmp_path / 's.toml')!r}, host.registry), host, Place('cpu', 'cpu', 'm'))\n"
        "assert len(plan.trials) == 8\n"
        "print(sorted({'torch', 'torchvision', 'torchao', 'codecarbon', 'sklearn'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_keys_are_the_same_in_another_process(tmp_path):
    """Hash seeds, import order and the like leave no trace."""
    text = 'question = "?"\ndataset = "digits"\nmodel = "resnet"\nseeds = 1\n[recipe]\nepochs = 1\n'
    host = PluginHost.discover()
    own = make_plan(parse(text.encode(), "s.toml", host.registry), host, CPU).trials[0]
    code = (
        "import cnnbench.stages.bench, json\n"
        "from cnnbench.keys import Place\n"
        "from cnnbench.plan import make_plan\n"
        "from cnnbench.plugins import PluginHost\n"
        "from cnnbench.suite import parse\n"
        "host = PluginHost.discover()\n"
        f"plan = make_plan(parse({text.encode()!r}, 's.toml', host.registry), host, {CPU!r})\n"
        "print(json.dumps([plan.trials[0].key, dict(plan.trials[0].stages)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [own.key, dict(own.stages)]
