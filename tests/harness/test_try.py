"""``cnnbench try``: what it says of techniques of every slot, and what it leaves to go on from."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnbench import trying
from cnnbench.cli import main
from cnnbench.errors import UsageError
from cnnbench.module_diff import Change, compare_models
from cnnbench.plugins import PluginHost
from cnnbench.progress import QuietProgress
from cnnbench.slots import SLOTS
from cnnbench.step_cost import FEWEST_ROUNDS, step_costs
from cnnbench.suite import parse
from cnnbench.targets import Target, find
from cnnbench.try_fit import STREAMS, Asked, Fitter, example_of, named, part_of, unusable
from cnnbench.try_suite import arms_of, suite_of

DIGITS = '{ name = "digits", train_size = 200, test_size = 60 }'
SMALL = '{ name = "resnet", depth = 8, width = 4 }'

HALVED = '''
from torch import nn

from cnnbench import hookimpl, technique


class Halved(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x):
        return 0.5 * self.norm(x)


@technique("norm", "halved", example={"groups": 2})
class HalvedNorm:
    """Half of what group norm gives."""

    groups: int

    def __call__(self, module):
        return Halved(module.num_features, self.groups)


@hookimpl
def cnnbench_register_techniques():
    return [HalvedNorm]
'''


@pytest.fixture(scope="module")
def host():
    return PluginHost.discover()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def attempt(folder, monkeypatch):
    """``attempt(target)``: whether all went well, what was said, and the suite; on few images, in this process."""
    monkeypatch.setattr(trying, "COST_SECONDS", 0.0)

    def run(target, model=SMALL, dataset=DIGITS, seeds=1):
        target = target if isinstance(target, Target) else find(target, folder)
        said = []
        outcome = trying.Attempt(
            target,
            Asked(model, dataset, seeds, "cpu"),
            file=folder / "try.toml",
            cache=folder / "cache",
            executor="inline",
            say=said.append,
            progress=QuietProgress,
        ).run()
        text = "\n\n".join(said)
        assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("    ")), text
        return outcome.fine, text, outcome.suite

    return run


def test_a_file_against_its_baseline(attempt, folder):
    (folder / "halved.py").write_text(HALVED, "utf-8")
    fine, said, suite = attempt("halved.py")
    assert fine
    assert "norm halved: Half of what group norm gives." in said
    assert "halved: the model's modules\n  9 replaced (norm, stage1.*.norm1, " in said
    assert "  + Halved(GroupNorm(2, 4, eps=1e-05, affine=True, bias=True))" in said
    assert re.search(r"parameters: ([\d,]+), as before", said)
    assert re.search(r"baseline +1/1 .*\nhalved +1/1 ", said)
    assert re.search(
        rf"time of a training step, 1 thread of the CPU, {FEWEST_ROUNDS} rounds in turns\n  halved: ", said
    )
    assert "1 seed on a small task: whether it works shows, whether it helps does not" in said
    read = tomllib.loads(suite)
    assert read["measure"]["metrics"] == ["accuracy", "params", "flops"]
    assert read["plugins"] == ["halved.py"]
    assert read["arms"] == {"halved": {"norm": {"name": "halved", "groups": 2}}}
    assert parse(suite.encode(), "try.toml", find("halved.py", folder).host.registry).arms[0].name == "halved"


SHRINKING = '''
from cnnbench import hookimpl, technique


@technique("regularizer", "shrinking")
class Shrinking:
    """Adds a share of the squared logits to the loss."""

    def penalty(self, model, logits):
        return 0.01 * logits.square().mean()


@hookimpl
def cnnbench_register_techniques():
    return [Shrinking]
'''


@pytest.mark.slow
def test_a_second_try_after_an_edit_trains_what_changed_alone(attempt, folder):
    def stages():
        return sum(1 for _ in (folder / "cache").rglob("result.json"))

    (folder / "shrinking.py").write_text(SHRINKING, "utf-8")
    fine, said, _ = attempt("shrinking.py")
    first = stages()
    assert fine
    assert "shrinking: the model's modules\n  none is replaced, put in or taken out\n  parameters: " in said
    attempt("shrinking.py")
    assert stages() == first
    (folder / "shrinking.py").write_text(SHRINKING.replace("0.01", "0.02"), "utf-8")
    attempt("shrinking.py")
    assert first < stages() < 2 * first


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            'raise ValueError("no luck")',
            "halved can't be tried: ValueError: no luck\n  Traceback (most recent call last):",
        ),
        (
            'from cnnbench.errors import Unsupported; raise Unsupported("on Tuesdays")',
            "halved can't be tried: Unsupported: norm: on Tuesdays",
        ),
        ("return module", "halved can't be tried: NoEffect: norm 'halved' replaced no module"),
    ],
)
def test_what_can_not_be_tried_says_why_at_once(attempt, folder, broken, told):
    (folder / "halved.py").write_text(
        HALVED.replace("return Halved(module.num_features, self.groups)", broken), "utf-8"
    )
    fine, said, suite = attempt("halved.py")
    assert (fine, suite) == (False, None)
    assert told in said
    assert "Traceback" in said or broken != 'raise ValueError("no luck")'
    assert "accuracy" not in said


def test_required_options_without_an_example_are_asked_for(attempt, folder):
    (folder / "halved.py").write_text(HALVED.replace(', example={"groups": 2}', ""), "utf-8")
    fine, said, suite = attempt("halved.py")
    assert (fine, suite) == (False, None)
    line = said.replace("\n  ", " ")
    assert line.startswith("halved can't be tried: norm 'halved' needs 'groups': expected an integer")
    assert "give what to try it with in its decorator" in line


def test_an_example_may_hold_another_technique(host):
    """As a suite may: its options are completed too."""
    transfer = host.registry.get("strategy", "transfer")
    source = example_of(transfer, host.registry).options["source"]
    assert (source["slot"], source["name"], source["options"]["train_images"]) == ("dataset", "shapes", 40)
    assert source["options"]["classes"] == 10
    assert unusable(transfer, host.registry) is None


def test_several_techniques_are_an_arm_each(host, tmp_path):
    entries = [host.registry.get(*one) for one in (("norm", "none"), ("input", "none"), ("loss", "cross_entropy"))]
    fitter = Fitter(Asked(SMALL, DIGITS, 1, "cpu"), tmp_path / "try.toml", (), host.registry)
    trial = fitter.fit(entries)
    assert list(trial.arms) == ["norm none", "input none"]
    assert [(fault.name, fault.trace) for fault in trial.faults] == [("cross_entropy", "")]
    assert "comes to the same settings as the baseline" in trial.faults[0].text
    read = tomllib.loads(fitter.text(trial.entries, trial.base))
    assert read["arms"] == {"norm none": {"norm": "none"}, "input none": {"input": "none"}}


def test_of_many_techniques_the_first_are_tried(attempt, host, monkeypatch):
    monkeypatch.setattr(trying, "MOST", 1)
    entries = (host.registry.get("loss", "cross_entropy"), host.registry.get("norm", "group"))
    fine, said, suite = attempt(Target("several", host, entries))
    assert (fine, suite) == (False, None)
    assert said.startswith("several has 2 techniques; these are the first 1: name others one by one\n\nloss cross_ent")


def test_a_base_on_which_the_technique_can_act_is_found(host, tmp_path):
    found = {}
    for slot, name in (
        ("norm", "group"),
        ("pooling", "avg"),
        ("augmentation", "hue"),
        ("regularizer", "alpha_dropout"),
    ):
        fitter = Fitter(Asked(device="cpu"), tmp_path / "try.toml", (), host.registry)
        trial = fitter.fit([host.registry.get(slot, name)])
        assert trial.faults == ()
        found[name] = (trial.base.datasets[0]["name"], trial.base.model["name"], trial.base.baseline.get("activation"))
    assert found == {
        "group": ("digits", "resnet", None),
        "avg": ("digits", "plain", None),
        "hue": ("shapes", "resnet", None),
        "alpha_dropout": ("digits", "resnet", {"name": "selu"}),
    }


def test_the_baseline_has_not_what_is_tried(host):
    from cnnbench.try_suite import BASES

    def suite(slot, name):
        entries = [host.registry.get(slot, name)]
        text = suite_of(entries, BASES[0].suited(entries), plugins=(), seeds=1, device="cpu")
        return tomllib.loads(text)

    assert suite("norm", "group")["baseline"] == {"input": "z_score"}
    assert "baseline" not in suite("input", "z_score")
    assert suite("schedule", "cosine")["recipe"]["schedule"] == "constant"
    assert suite("optimizer", "sgd")["recipe"]["optimizer"]["name"] == "adam"


def test_what_a_model_and_a_dataset_may_be_asked_as():
    assert named("--model", "resnet") == {"name": "resnet"}
    assert named("--model", '{ name = "resnet", depth = 14 }') == {"name": "resnet", "depth": 14}
    with pytest.raises(UsageError, match=r"^--model: expected a name or an inline table of TOML, got '\{ name'"):
        named("--model", "{ name")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"model": "resnte"}, "--model: unknown model 'resnte': did you mean 'resnet'?"),
        ({"dataset": "digist"}, "--dataset: unknown dataset 'digist': did you mean 'digits'?"),
        ({"device": "gpu"}, "--device: "),
    ],
)
def test_a_mistake_in_what_is_asked_names_the_option(host, tmp_path, asked, told):
    fitter = Fitter(Asked(**{"device": "cpu", **asked}), tmp_path / "try.toml", (), host.registry)
    with pytest.raises(UsageError) as caught:
        fitter.fit([host.registry.get("norm", "group")])
    assert str(caught.value).startswith(told)


def test_of_much_data_a_part_is_used(host):
    from cnnbench.types import ImageData

    def data(count, size):
        images = torch.zeros(count, 1, size, size, dtype=torch.uint8)
        return ImageData(images, torch.arange(count) % 2, images, torch.arange(count) % 2, ("a", "b"))

    assert part_of(data(900, 8), {"name": "x"}) == {}
    assert part_of(data(1_500, 28), {"name": "x"}) == {"train_size": 783, "test_size": 1_000}
    assert part_of(data(1_500, 28), {"name": "x", "train_size": 1_200}) == {}


def test_every_slot_has_its_place_in_a_try(host):
    made = {entry.card.slot: entry for entry in host.registry}
    compared = set(SLOTS) - set(trying.OPERATING) - {"dataset", "metric"}
    assert {slot for slot in made if arms_of([made[slot]])} == compared & made.keys()


OPERATING = '''
from cnnbench import hookimpl, technique

SEEN = []


@technique("metric", "hits")
class Hits:
    """How many images are right."""

    def __call__(self, probabilities, labels):
        return float((probabilities.argmax(1) == labels).sum())


@technique("reporter", "counting")
class Counting:
    """How many records there are."""

    def __call__(self, records):
        return f"{len(records)} record of {records[0]['arm']}"


class Watch:
    @hookimpl
    def cnnbench_trial_finished(self, record):
        raise RuntimeError("looked away")


@technique("tracker", "looking_away")
class LookingAway:
    """Watches nothing."""

    def __call__(self, run):
        return Watch()


@technique("executor", "here")
class Here:
    """Runs nothing: it is not one."""

    def __call__(self, workers, host):
        raise RuntimeError("nowhere")


@hookimpl
def cnnbench_register_techniques():
    return [LookingAway]


@hookimpl
def cnnbench_register_metrics():
    return [Hits]


@hookimpl
def cnnbench_register_reporters():
    return [Counting]


@hookimpl
def cnnbench_register_executors():
    return [Here]
'''


def test_what_changes_no_network_is_used_once(attempt, folder):
    (folder / "operating.py").write_text(OPERATING, "utf-8")
    fine, said, suite = attempt("operating.py")
    assert not fine
    assert re.search(r"arm +ok +accuracy +hits\n", said)  # no differences: the baseline stands alone
    assert "Δ" not in said
    assert tomllib.loads(suite)["measure"]["metrics"] == ["accuracy", "hits"]
    assert "reporter counting on a run of one training\n  1 record of baseline" in said
    assert "looked away" in said
    assert "here can't be tried: RuntimeError: nowhere\n  Traceback" in said


def test_modules_are_compared_by_their_place():
    def net(*middle):
        return nn.Sequential(nn.Conv2d(1, 4, 3), *middle, nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))

    torch.manual_seed(0)
    before = net(nn.BatchNorm2d(4), nn.ReLU())
    torch.manual_seed(0)
    same = net(nn.BatchNorm2d(4), nn.ReLU())
    assert compare_models(before, same).changes == ()
    assert (compare_models(before, same).refilled, compare_models(before, same).filled) == (0, 6)

    put_in = compare_models(before, net(nn.BatchNorm2d(4), nn.Dropout(0.2), nn.ReLU()))
    assert put_in.changes == (Change("put in", "", "Dropout(p=0.2, inplace=False)", ("2",), 1),)
    taken = compare_models(before, net(nn.ReLU()))
    assert [(change.kind, change.paths) for change in taken.changes] == [("taken out", ("1",))]
    assert taken.params == (40 + 8 + 10, 40 + 10)

    hooked = net(nn.BatchNorm2d(4), nn.ReLU())
    hooked[1].register_forward_hook(lambda *_: None)
    assert [(change.kind, change.paths) for change in compare_models(before, hooked).changes] == [("hooked", ("1",))]

    other = compare_models(before, nn.Linear(3, 2))
    assert [(change.kind, change.paths) for change in other.changes] == [("replaced", ("",))]
    assert other.leaves == {"Linear": 1}


def test_alike_changes_are_told_once_with_their_number():
    before = nn.ModuleDict({"a": nn.Sequential(nn.ReLU(), nn.ReLU()), "b": nn.ReLU()})
    after = nn.ModuleDict({"a": nn.Sequential(nn.SiLU(), nn.SiLU()), "b": nn.SiLU()})
    assert compare_models(before, after).changes == (Change("replaced", "ReLU()", "SiLU()", ("a.*", "b"), 3),)


def test_weights_that_were_zeroed_and_filled_are_counted():
    torch.manual_seed(0)
    before = nn.Linear(3, 2)
    after = nn.Linear(3, 2)
    with torch.no_grad():
        after.weight.zero_()
        after.bias.copy_(before.bias)
    diff = compare_models(before, after)
    assert (diff.filled, diff.refilled, diff.zeros) == (2, 1, (0, 6))


def test_steps_are_paired_by_round(host, tmp_path):
    fitter = Fitter(Asked(SMALL, DIGITS, 1, "cpu"), tmp_path / "try.toml", (), host.registry)
    trial = fitter.fit([host.registry.get("regularizer", "sam"), host.registry.get("activation", "silu")])
    costs = step_costs(trial.baseline, {name: arm.builder for name, arm in trial.arms.items()}, STREAMS, 0.0, 1)
    assert list(costs) == ["sam", "silu"]
    for cost in costs.values():
        assert cost.ratio.n == FEWEST_ROUNDS
        assert cost.ratio.interval is not None
        assert not cost.whole
    assert costs["sam"].reference_ms == costs["silu"].reference_ms


@pytest.mark.slow
def test_a_latency_that_the_machine_can_not_measure_is_not_shown(attempt, host, monkeypatch):
    def run_suite(*given):
        summary = trying_run(*given)
        for record in summary.records:
            own = (1.0, 5.0, 9.0)[record["seed"]]
            record["metrics"] |= {key: own for key in record["metrics"] if key.startswith("latency_b32_ms")}
        return summary

    trying_run = trying.run_suite
    monkeypatch.setattr(trying, "run_suite", run_suite)
    target = Target("half", host, (host.registry.get("compressor", "half"),))
    _, said, suite = attempt(target, seeds=3)
    assert "latency" in tomllib.loads(suite)["measure"]["metrics"]
    assert "ratio b32" not in said
    assert re.search(r"accuracy .* params .*size", said)
    mean, half = 5.0, 4.303 * 4.0 / 3**0.5  # of 1, 5 and 9, by the t quantile for three values
    assert f"latency b32 could not be measured here: {mean:.1f} ± {half:.1f} ms" in said


def test_a_mistake_in_what_is_asked_comes_before_anything_is_said(folder, capsys):
    assert main(["try", "group", "--model", "resnte"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "cnnbench: --model: unknown model 'resnte': did you mean 'resnet'?\n"


def test_the_command_refuses_what_it_can_not_do(folder, capsys):
    (folder / "there.toml").write_text("", "utf-8")
    for words, told in (
        (["gruop"], "did you mean 'group'?"),
        (["group", "--seeds", "0"], "--seeds: expected at least 1, got 0"),
        (["group", "--suite", "x.txt"], "--suite: expected a file that ends with .toml"),
        (["group", "--suite", "there.toml"], "--suite: there.toml is there already"),
    ):
        assert main(["try", *words]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_leaves_a_suite_that_runs(folder, capsys):
    (folder / "halved.py").write_text(HALVED, "utf-8")
    (folder / "suites").mkdir()
    asked = ["--model", SMALL, "--dataset", DIGITS, "--seeds", "1", "--device", "cpu"]
    assert main(["try", "halved.py", *asked, "--suite", "suites/halved.toml"]) == 0
    said = capsys.readouterr()
    assert "halved: the model's modules" in said.out
    assert "cnnbench run suites/halved.toml" in said.err
    assert main(["run", "suites/halved.toml", "--executor", "inline", "--quiet"]) == 0
    assert "halved" in capsys.readouterr().out


SECTIONS = runpy.run_path(str(Path(__file__).with_name("plugin_pages.py")))["SECTIONS"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("slot", SECTIONS)
def test_the_documented_example_of_each_slot_can_be_tried(attempt, folder, slot):
    (folder / f"slot_{slot}.py").write_text(SECTIONS[slot][0], "utf-8")
    fine, said, _ = attempt(f"slot_{slot}.py", model=None, dataset=None)
    assert fine, said
    assert said.startswith(f"{slot} ")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_technique_of_our_own_finds_a_base(host, tmp_path):
    """But for those that the bases have already, and those that need what only a user has."""
    faults = {}
    for entry in host.registry:
        if entry.card.slot not in trying.OPERATING and unusable(entry, host.registry) is None:
            trial = Fitter(Asked(device="cpu"), tmp_path / "try.toml", (), host.registry).fit([entry])
            faults |= {fault.name: fault.text for fault in trial.faults}
    assert set(faults) <= {"max", "global_avg", "cross_entropy"}, faults
