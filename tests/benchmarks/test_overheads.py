"""What the harness itself costs beside the work: planning, scheduling, recording, reporting, starting.

Each figure is printed beside its target; none is asserted, since other work on the machine takes its part. Times are of
the processor (user and system), which other work disturbs less than it does the clock.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cnnbench import store
from cnnbench.execute.interface import Outcome, Task
from cnnbench.execute.local import LocalExecutor
from cnnbench.execute.scheduler import Scheduler
from cnnbench.matrix import Arm, Trial
from cnnbench.plan import Plan, PlannedTrial, Stage
from cnnbench.record_lines import as_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RECORDS = int(os.environ.get("CNNBENCH_BENCHMARK_RECORDS", "100000"))
"""To report on; the file takes some 10 KB for each."""
TEMPLATE = Path(__file__).parents[2] / "results" / "quickstart"
MIB = 1024 * (1 if sys.platform == "linux" else 1024)


@dataclass(frozen=True)
class Spent:
    """What a process took: seconds of the processor, MiB at most, and its output."""

    seconds: float
    mib: float
    output: str


def spent(*command: str, folder: Path, code: int = 0) -> Spent:
    """Run a process of its own, without torch's and OpenMP's threads."""
    with (folder / "output").open("w+b") as output:
        child = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode()
    assert child.returncode == code, text
    return Spent(used.ru_utime + used.ru_stime, used.ru_maxrss / MIB, text)


def cnnbench(*arguments: str, folder: Path, code: int = 0) -> Spent:
    return spent(sys.executable, "-m", "cnnbench", *arguments, folder=folder, code=code)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="")

    return say


HEAD = """
question = "?"
dataset = "digits"
model = { name = "resnet", depth = 8, width = 8 }
seeds = 10
device = "cpu"
measure.metrics = ["accuracy", "f1_macro", "params", "flops", "size", "memory", "memory_train", "latency", "energy"]
"""
CHANGES = (
    "compressor = {{ name = 'prune_magnitude', sparsity = {x} }}",
    "compressor = {{ name = 'prune_filters', ratio = {x} }}",
    "activation = 'silu', recipe = {{ optimizer = {{ name = 'sgd', lr = {x} }} }}",
    "norm = {{ name = 'group', groups = 4 }}, regularizer = {{ name = 'label_smoothing', epsilon = {x} }}",
)
ARMS = (
    HEAD
    + "[arms]\n"
    + "\n".join(
        f"'arm {place}' = {{ {CHANGES[place % 4].format(x=round(0.05 + 0.0009 * place, 4))} }}" for place in range(999)
    )
)
DESIGN = (
    HEAD
    + """
[design]
kind = "factorial"
norm = ["batch", { name = "group", groups = 4 }, "none", "layer", "instance"]
activation = ["relu", "silu", "gelu", "elu", "tanh"]
"recipe.batch_size" = [8, 16, 32, 64, 128]
"recipe.epochs" = [5, 10]
augmentation = ["mixup", { name = "translate", pixels = 1 }]
compressor = [{ name = "prune_magnitude", sparsity = 0.8 }, { name = "prune_magnitude", sparsity = 0.5 }]
"""
)
MAKE_PLAN = """
import sys, time
from cnnbench.keys import Place
from cnnbench.plan import make_plan
from cnnbench.plugins import PluginHost
from cnnbench.suite import load

host = PluginHost.discover()
suite = load(sys.argv[1], host.registry)
began = time.process_time()
plan = make_plan(suite, host, Place("cpu", "cpu", "this machine"))
print(len(plan.trials), len(plan.stages), time.process_time() - began)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), [("arms", ARMS), ("factorial design", DESIGN)])
def test_planning_10_000_trials(name, text, tmp_path, tell):
    (tmp_path / "suite.toml").write_text(text)
    alone = spent(sys.executable, "-c", MAKE_PLAN, "suite.toml", folder=tmp_path)
    trials, stages, seconds = alone.output.split()
    command = cnnbench("plan", "suite.toml", "--cache", str(tmp_path / "cache"), folder=tmp_path)
    assert f"= {trials} trials on cpu" in command.output
    tell(
        f"planning {trials} trials ({name}), {stages} stages: make_plan {float(seconds):.2f} s; the whole command "
        f"{command.seconds:.2f} s, {command.mib:.0f} MiB (targets 2 s, 500 MB)"
    )


def record_file(path: Path, arms: int, seeds: int, *, samples: bool) -> None:
    """Records of a run that never ran: those of a real one, with other names, seeds and figures."""
    real = next(r for r in store.open_results(TEMPLATE).records if r["arm"] == "group norm")
    details = dict(real["details"])
    measure = dict(real["measure"])
    if not samples:  # a run that asks for quality alone
        for name in ("latency", "noise", "energy", "noise_energy"):
            details.pop(name, None)
        measure["metrics"] = ["accuracy", "f1_macro", "params", "size"]
    names = ["baseline", *(f"arm {place}" for place in range(arms - 2)), "placebo"]
    fixed = {**real, "planned": {"arms": names, "seeds": list(range(seeds))}, "details": details, "measure": measure}
    draw = random.Random(0)
    effects = [draw.gauss(0, 0.01) for _ in names]
    with path.open("wb") as file:
        for seed in range(seeds):
            luck = draw.gauss(0, 0.005)
            for place, name in enumerate(names):
                figures = {
                    key: value * draw.gauss(1, 0.01) if isinstance(value, float) else value
                    for key, value in real["metrics"].items()
                    if samples or not key.startswith(("latency", "throughput", "energy_i", "co2"))
                }
                figures["accuracy"] = min(1.0, round((0.95 + effects[place] + luck + draw.gauss(0, 0.003)) * 360) / 360)
                own = {
                    "key": f"{place:016x}{seed:016x}",
                    "arm": name,
                    "role": name if name in ("baseline", "placebo") else "arm",
                    "reference": "baseline" if place else None,
                    "seed": seed,
                    "metrics": figures,
                }
                file.write(json.dumps({**fixed, **own}, separators=(",", ":")).encode() + b"\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("arms", "samples"), [(100, False), (1000, False), (100, True)], ids=["100-arms", "1000-arms", "raw-samples"]
)
def test_reporting_100_000_records(arms, samples, tmp_path, tell):
    path = tmp_path / "records.jsonl"
    record_file(path, arms, RECORDS // arms, samples=samples)
    size = path.stat().st_size
    for form in ("terminal", "markdown"):
        found = cnnbench("report", str(path), "--format", form, folder=tmp_path)
        assert "baseline" in found.output
        tell(
            f"reporting {RECORDS} records of {arms} arms as {form}: {found.seconds:.2f} s, {found.mib:.0f} MiB "
            f"(target 5 s); the file has {size / 1e6:.0f} MB, {size / RECORDS / 1e3:.1f} KB a record"
        )


class Memory:
    """A cache of stages that keeps nothing but the keys."""

    def __init__(self) -> None:
        self.there: set[str] = set()

    def result(self, key: str) -> dict[str, Any] | None:
        return {} if key in self.there else None

    def folder(self, key: str) -> Path:
        return Path(key)

    def forget(self, key: str) -> None:
        self.there.discard(key)


class AtOnce:
    """An executor whose tasks take no time."""

    places = 2

    def __init__(self, cache: Memory) -> None:
        self._cache = cache
        self._tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def wait(self) -> Sequence[Outcome]:
        members = [one for task in self._tasks for one in task.members if one.folder]
        self._tasks.clear()
        self._cache.there.update(one.key for one in members)
        return [Outcome(one.key, "ok", seconds=0.1) for one in members]

    def close(self) -> None:
        pass


def plan_of(arms: int, seeds: int) -> Plan:
    """Trials with every kind of stage, sessions of all arms of a seed included."""
    stages: dict[str, Stage] = {}
    trials = []
    for place in range(arms):
        arm: Any = Arm(f"arm {place}", "arm" if place else "baseline", None, "", "arm 0" if place else "")  # type: ignore[arg-type]
        for seed in range(seeds):
            train = f"train {place} {seed}"
            own = {"rehearse": f"rehearse {place}", "train": train}
            own |= {kind: f"{kind} {place} {seed}" for kind in ("evaluate", "profile", "latency", "energy")}
            for kind, key in own.items():
                inputs = () if kind in {"rehearse", "train"} else (train,)
                session = f"{kind}, seed {seed}" if kind in {"latency", "energy"} else ""
                reference = f"latency 0 {seed}" if kind == "latency" and place else None
                stages.setdefault(key, Stage(key, kind, {"seed": seed}, inputs, key, session, reference))
            trials.append(PlannedTrial(Trial(arm, seed, "digits"), f"trial {place} {seed}", own))
    return Plan(tuple(trials), stages)


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "seeds"), [(1000, 10), (100, 100), (10, 1000)])
@pytest.mark.parametrize("cached", [False, True], ids=["to-run", "cached"])
def test_scheduling_10_000_trials(benchmark, arms, seeds, cached, tell):
    plan = plan_of(arms, seeds)

    def run() -> int:
        cache = Memory()
        if cached:
            cache.there.update(plan.stages)
        scheduler = Scheduler(plan, frozenset(), cache, AtOnce(cache))  # type: ignore[arg-type]
        for _ in scheduler.run():
            pass
        return len(scheduler.outcomes)

    began = time.process_time()
    done = benchmark.pedantic(run, rounds=1)
    milliseconds = 1e3 * (time.process_time() - began) / len(plan.stages)
    assert done == len(plan.stages)
    tell(f"scheduling {done} stages of {arms} arms x {seeds} seeds: {milliseconds:.3f} ms a stage (target 5 ms)")


@pytest.mark.slow
def test_the_round_trip_of_a_task_without_work(benchmark, tmp_path, tell):
    """A task that a worker refuses at once: all that remains is its way there and back."""
    executor = LocalExecutor(1)

    def there_and_back() -> None:
        executor.submit(Task("key", {"kind": "no such kind"}, (), str(tmp_path / "key")))
        while not any(isinstance(event, Outcome) for event in executor.wait()):
            pass

    try:
        there_and_back()  # starts the worker
        benchmark.pedantic(there_and_back, rounds=200)
    finally:
        executor.close()
    if benchmark.stats:
        median = 1e3 * benchmark.stats.stats.median
        tell(f"a task's way to a worker and back: {median:.2f} ms, by the clock (target of scheduling: 5 ms)")


@pytest.mark.slow
def test_recording_a_trial(benchmark, tmp_path, tell):
    record = next(r for r in store.open_results(TEMPLATE).records if r["arm"] == "group norm")
    line = as_line(record)
    own = store.Store(tmp_path)
    benchmark.pedantic(own.append, args=(record,), rounds=100)
    began = time.process_time()
    for _ in range(100):
        as_line(record)
    written = 1e3 * (time.process_time() - began) / 100
    if benchmark.stats:
        median = 1e3 * benchmark.stats.stats.median
        tell(
            f"recording a trial of {len(line) / 1e3:.0f} KB, on disk: {median:.2f} ms by the clock, JSON {written:.2f}"
        )


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "target"), [(["--help"], 0.3), (["list"], 2.0)], ids=["help", "list"])
def test_starting(arguments, target, tmp_path, tell):
    least = min(cnnbench(*arguments, folder=tmp_path).seconds for _ in range(5))
    tell(f"cnnbench {arguments[0]}: {least:.2f} s (target {target} s)")


TINY = """
question = "?"
dataset = "digits"
model = { name = "resnet", depth = 8, width = 2 }
device = "cpu"
recipe.epochs = 1
arms."group norm" = { norm = { name = "group", groups = 2 } }
arms."prune" = { compressor = { name = "prune_magnitude", sparsity = 0.8 } }
measure.metrics = ["accuracy", "params", "latency", "energy"]
measure.latency = { batch_sizes = [1], max_seconds = 0.05 }
"""
WITHOUT_TORCH = """
import sys
from cnnbench.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


@pytest.mark.slow
def test_a_run_of_which_everything_is_there(tmp_path, tell):
    (tmp_path / "tiny.toml").write_text(TINY)
    where = ["run", "tiny.toml", "--results", "results", "--cache", "cache"]
    cnnbench(*where, folder=tmp_path)
    on_record = spent(sys.executable, "-c", WITHOUT_TORCH, *where, folder=tmp_path)
    (tmp_path / "results" / "records.jsonl").unlink()
    cached = spent(sys.executable, "-c", WITHOUT_TORCH, *where, "--workers", "1", folder=tmp_path)
    tell(
        f"a run whose trials are all on record: {on_record.seconds:.2f} s; stages cached: {cached.seconds:.2f} s (2 s)"
    )
