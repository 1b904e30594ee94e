"""One direction: suite -> matrix -> plan -> execute -> store -> frame -> stats -> tables; nobody imports upwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cnnbench
from cnnbench.store import Store

ROOT = Path(cnnbench.__file__).parent

# The lowest first. A module imports from its own row and from those above it, in functions and for types alike.
# What passes between scheduler and executors is part of the contract with plugins, hence so low.
LAYERS = """
bulk
contract_version errors hookspecs host_memory interrupt key_text lazy locks quiet text xla
durable
types execute.interface paths
design locate plain quantities seeds stats.multiplicity stats.signflip stats.student
stats.ahead stats.intervals stats.looks stats.paired stats.rounds
stats.aggregate stats.designs stats.effects stats.equivalence stats.power stats.resampling
session_source slots
technique
importing sources
registry
expect local_plugins toml toml_text devices environment meters.base meters.counters meters.rapl
options hook_answers plugins carbon inference sheets
stats.verdicts
stats.sequential
reader session
references datasets
draft measuring
axes changes
suite needs
opening
matrix schema
pickled
gpus nvml
artifact convert data parcel meters.codecarbon meters.constant meters.counting meters.choose meters.survey tracing
elsewhere surgery
keys
plan
stages.kept stages.threads stages.subject stages.pinning stages.unchanged
stages.turns stages.timings
stages.compiled
stages.train stages.remarks
stages.contract
stages.stacking
stages.stacked
stages.serve
stages.build stages.evaluate stages.latency stages.memory stages.noise stages.profile
stages.compress stages.energy
stages.together stages.rehearse stages.session
stages.bench compat
compat_page
execute.firstuse
execute.cache execute.children execute.lastwords execute.oom execute.patches execute.room execute.state \
execute.temporary execute.threads
here
execute.admission execute.guard execute.heap execute.order execute.process
execute.scheduler
execute.inline execute.local execute.perform execute.worker
execute.ray_needs
execute.ray_node
execute.ray_cluster
execute.ray_places
execute.ray_executor
json_checks record_fields migrations
lean_common recorded
lean
record_lines
store
frame
series numerals ratios own_intervals verdicts judged contrasts effects aggregate columns notices conditions \
verdict_notes footnotes table_data table_formats tex table_latex table_parquet tables samples
figures.labels figures.limits figures.style
figures.canvas figures.svg
figures.figure figures.subject
figures.confusion figures.curves figures.forest figures.interactions figures.pareto figures.seeds figures.steps
figures.confusion_plot figures.curves_plot figures.pareto_plot
figures.make
claims quality
machines
answer report_html table_html
answers
report_conditions report_findings
report_page notebook
anonymous again
publication
publish
published_index verify
tolerances
pairs shifts
merge
joint
evidence
compare history
compare_text history_plot
compare_notes
compare_formats
failures
costs
tally
progress_lines
progress_bar
progress
ledger adaptive
drive
time_budget superseded
calls run_page seed_arithmetic runner tracking outlook cards catalogue doctor model_card
scaffold.imports scaffold.names scaffold.sentences
scaffold.write
export rerun api_plan api_results api_source
targets module_diff step_cost try_suite
try_fit
try_report
try_cost try_operate
trying
api_suite
api
commands.common
commands.run commands.run_end commands.plan commands.techniques commands.compat commands.report commands.doctor
commands.compare commands.history commands.export
commands.publish commands.verify commands.merge commands.new commands.try_
testing.compare testing.networks testing.place testing.records testing.use
testing.modules testing.rule testing.state testing.subject
testing.finding testing.reference
testing.uses.augmentation testing.uses.compressor testing.uses.dataset testing.uses.executor \
testing.uses.initializer testing.uses.input testing.uses.loss \
testing.uses.metric testing.uses.model testing.uses.optimizer testing.uses.regularizer \
testing.uses.reporter testing.uses.schedule testing.uses.strategy testing.uses.surgery testing.uses.tracker
testing.uses.architecture testing.uses.runtime
testing.rules.accounting testing.rules.data testing.rules.docstring testing.rules.modes testing.rules.numbers \
testing.rules.options testing.rules.shapes testing.rules.situations \
testing.rules.state testing.rules.surgery testing.rules.trained \
testing.rules.training testing.rules.values
testing.kit
testing.check
testing.case check_process check_report
commands.check
cli pytest_plugin pytest_fixtures
__main__
"""
LAYER = {module: number for number, row in enumerate(LAYERS.strip().splitlines()) for module in row.split()}
# Of packages their __init__.py alone.
PACKAGES = {
    *("", "commands", "execute", "figures", "meters", "scaffold", "stages"),
    *("stats", "testing", "testing.rules", "testing.uses"),
}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.name != "__init__.py" and path.parents[1].name != "templates" and path.parent.name != "templates"
}  # what "cnnbench new" writes from is an author's code, which may import whatever is meant for authors: test_new.py


def imported(path: Path) -> dict[str, int]:
    """Every name that a file imports from anywhere, with its line; ``from a import b`` counts as ``a`` and ``a.b``."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the direction"
            found |= dict.fromkeys([node.module or "", *(f"{node.module}.{a.name}" for a in node.names)], node.lineno)
    return found


def upwards(module: str, names: dict[str, int]) -> list[str]:
    """Which of the imported names belong to a later row than the module."""
    wrong = []
    for name, line in names.items():
        target = name.removeprefix("cnnbench").removeprefix(".")
        if name.split(".")[0] != "cnnbench" or target in PACKAGES:
            continue
        if target in LAYER and LAYER[target] > LAYER[module]:
            wrong.append(f"{module}:{line} imports {target}")
    return wrong


def test_every_module_has_its_row():
    assert set(MODULES) == set(LAYER), "a new module has to find its place in LAYERS"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_later_one(module):
    assert upwards(module, imported(MODULES[module])) == []


def test_importing_the_package_brings_in_the_contract_alone():
    names = {name for name in imported(ROOT / "__init__.py") if name in {f"cnnbench.{module}" for module in LAYER}}
    assert names - {"cnnbench.api"} == {"cnnbench.hookspecs", "cnnbench.technique"}  # the api waits until asked for


def test_an_upward_import_is_found_wherever_it_hides(tmp_path):
    file = tmp_path / "store.py"
    file.write_text(
        "def f():\n    from cnnbench import tables\n    import cnnbench.cli\n    from cnnbench.errors import X\n"
    )
    assert upwards("store", imported(file)) == ["store:2 imports tables", "store:3 imports cli"]


def test_the_host_imports_no_plugin_by_name():
    for path in ROOT.rglob("*.py"):
        assert not [name for name in imported(path) if name.split(".")[0] == "cnnbench_plugins"], path


RENDER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "cnnbench_plugins", "sklearn", "codecarbon"):
            raise ImportError("reporting must not need " + name)

sys.meta_path.insert(0, Blocker())
from cnnbench.cli import main
for name in ("terminal", "markdown", "latex", "html", "csv", "json"):
    assert main(["report", sys.argv[1], "--format", name]) == 0, name
"""


def test_tables_render_where_neither_torch_nor_the_plugins_are(tmp_path):
    store = Store(tmp_path)
    for arm, role in (("baseline", "baseline"), ("group norm", "arm")):
        for seed in (0, 1, 2):
            store.append(
                {
                    "key": f"{arm}{seed}",
                    "suite": {"name": "norms", "question": "Which?", "sha256": "0" * 64, "file": "norms.toml"},
                    "arm": arm,
                    "role": role,
                    "changes": "",
                    "seed": seed,
                    "status": "ok",
                    "planned": {"arms": ["baseline", "group norm"], "seeds": [0, 1, 2]},
                    "measure": {"primary": "accuracy", "metrics": ["accuracy", "params"]},
                    "device": "cpu",
                    "metrics": {"accuracy": 0.9 + seed / 100, "params": 1000.0},
                }
            )
    done = subprocess.run(
        [sys.executable, "-c", RENDER, str(tmp_path)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("group norm") >= 4
