"""Every hook is documented with its exact arguments, and the page's examples do in a run what the page says."""

from __future__ import annotations

import inspect
import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from cnnbench import hookspecs
from cnnbench.cli import main
from cnnbench.store import open_results
from cnnbench.types import Progress

_pages = runpy.run_path(str(Path(__file__).with_name("plugin_pages.py")))
HOOK_PAGE, SECTIONS = _pages["HOOK_PAGE"], _pages["SECTIONS"]
HOOKS = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("cnnbench_")}
REGISTRATION = [name for name in HOOKS if name.startswith("cnnbench_register_")]
OTHERS = [name for name in HOOKS if name not in REGISTRATION]
_ENTRY = re.compile(r"^### (cnnbench_\w+)\n\n`(\w+)\(([^)]*)\)`(.*?)^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENTRIES = {found[1]: found for found in _ENTRY.finditer(HOOK_PAGE)}
ROWS = dict(
    re.findall(
        r"^\| `(cnnbench_register_\w+)\(\)` \| .* \| \[(\w+)\]\(plugin_slots\.md#\2\) \|$", HOOK_PAGE, re.MULTILINE
    )
)

SUITE = """
question = "Are the hooks called?"
dataset = { name = "digits", train_size = 60, test_size = 40 }
model = { name = "resnet", depth = 8, width = 2 }
seeds = 2
device = "cpu"
[recipe]
epochs = 2
batch_size = 30
[arms]
"two images" = { recipe = { batch_size = 2, epochs = 1 } }
"too long" = { recipe = { epochs = 200 } }
[measure]
metrics = ["accuracy"]
"""


def test_the_page_lists_every_hook_once():
    assert list(ROWS) == REGISTRATION
    assert list(ENTRIES) == OTHERS
    assert sorted(re.findall(r"^#+ (cnnbench_\w+)$", HOOK_PAGE, re.MULTILINE)) == sorted(OTHERS)


@pytest.mark.parametrize("name", REGISTRATION)
def test_a_hook_that_registers_takes_nothing_and_its_example_shows_it(name):
    assert not inspect.signature(HOOKS[name]).parameters
    assert f"@hookimpl\ndef {name}():" in SECTIONS[ROWS[name]][0]


@pytest.mark.parametrize("name", OTHERS)
def test_a_hook_is_documented_with_its_exact_arguments(name):
    entry = ENTRIES[name]
    arguments = ", ".join(inspect.signature(HOOKS[name]).parameters)
    assert (entry[2], entry[3]) == (name, arguments)
    assert f"@hookimpl\ndef {name}({arguments}):" in entry[5]
    # What the arguments hold: the keys that the specification names.
    for mapping in re.findall(r"``\{(.*?)\}``", inspect.getdoc(HOOKS[name]), re.DOTALL):
        for key in re.findall(r'"(\w+)":', mapping):
            assert f'"{key}"' in entry[4], key


@pytest.mark.parametrize("name", REGISTRATION)
def test_a_hook_that_registers_offers_its_technique(name, install_plugin, capsys):
    slot = ROWS[name]
    code = SECTIONS[slot][0]
    install_plugin("documented", code)
    assert main(["list", slot]) == 0
    technique = re.search(rf'@technique\("{slot}", "(\w+)"', code)[1]
    assert re.search(rf"^  {technique} .*\[documented\]", capsys.readouterr().out, re.MULTILINE)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, install_module_plugin):
    """A run of a suite with all examples as one plugin: its folder, and its records by arm and seed."""
    folder = tmp_path_factory.mktemp("hooks")
    install_module_plugin("my_hooks", "\n\n".join(entry[5] for entry in ENTRIES.values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CNNBENCH_CACHE", str(folder / "cache"))
        patch.setenv("CONTAINER_IMAGE", "lab:7")
        Path("hooked.toml").write_text(SUITE, "utf-8")
        code = main(["run", "hooked.toml", "--results", "results", "--quiet", "--executor", "inline"])
    records = {(record["arm"], record["seed"]): record for record in open_results(folder / "results").records}
    assert code == 0
    assert len(records) == 6
    return folder, records


def _lines(folder, name):
    return (folder / name).read_text("utf-8").splitlines()


def test_check_trial_skips_with_its_reason(ran):
    _, records = ran
    for (arm, _), record in records.items():
        if arm == "too long":
            assert (record["status"], record["reason"]) == ("skipped", "200 epochs are too many for a CPU (my_hooks)")
        else:
            assert (record["status"], record["reason"]) == ("ok", None)


def test_advise_arm_is_told_under_the_table(ran, capsys):
    folder, _ = ran
    assert main(["report", str(folder / "results")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "batches of less than four images: batch norm, if the model has it, sees hardly any variance" in told


def test_describe_environment_is_on_every_record(ran):
    _, records = ran
    assert {record["environment"]["container"] for record in records.values()} == {"lab:7"}


def test_plan_ready_knows_what_is_to_do(ran):
    folder, records = ran
    (line,) = _lines(folder, "plan.log")
    stages = {key for record in records.values() if record["status"] == "ok" for key in record["stages"].values()}
    assert line == f"hooked: 6 trials, {len(stages)} stages to run"


def test_trial_started_is_told_of_what_runs(ran):
    folder, _ = ran
    assert sorted(_lines(folder, "started.log")) == sorted(
        f"digits {arm} {seed}" for arm in ("baseline", "two images") for seed in (0, 1)
    )


def test_epoch_finished_is_told_of_each_epoch(ran):
    folder, records = ran
    told = [line.split(",") for line in _lines(folder, "epochs.csv")]
    assert sorted((arm, int(seed), int(epoch), float(loss)) for arm, seed, epoch, loss in told) == sorted(
        (arm, seed, one["epoch"], one["train_loss"])
        for (arm, seed), record in records.items()
        if record["status"] == "ok"
        for one in record["details"]["history"]
    )


def test_trial_finished_is_told_of_every_trial_that_started(ran):
    folder, records = ran
    assert sorted(_lines(folder, "trials.log")) == sorted(
        f"{arm} {seed} ok " for (arm, seed), record in records.items() if record["status"] == "ok"
    )


def test_run_finished_counts(ran):
    folder, _ = ran
    assert _lines(folder, "runs.log") == ["hooked: 4 of 6 trials are ok"]


def test_progress_has_the_fields_of_the_type(install_plugin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "cache"))
    install_plugin(
        "keeper",
        "from cnnbench import hookimpl\nkept = []\n"
        "@hookimpl\ndef cnnbench_epoch_finished(trial, progress):\n    kept.append((set(trial), set(progress)))\n",
    )
    Path("s.toml").write_text(SUITE.replace("seeds = 2", "seeds = 1"), "utf-8")
    words = ["run", "s.toml", "--only", "baseline", "--quiet", "--executor", "inline"]
    assert main(words) == 0
    import keeper

    assert keeper.kept == [({"key", "dataset", "arm", "seed", "stage"}, {field.name for field in fields(Progress)})] * 2
