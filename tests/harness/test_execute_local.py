"""Worker processes and techniques that do everything wrong: each fault costs its own arm and nothing else."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cnnbench.execute import local
from cnnbench.execute.cache import Barred, StageCache, clear_scratch, filling, worn_out, write_result
from cnnbench.execute.interface import Outcome, Task
from cnnbench.execute.local import BEGUN, LocalExecutor
from cnnbench.execute.process import Worker

BAD = 'augmentation = {{ name = "bad_step", how = "{}" }}'

FAULTS = {
    "raises": ("raise", "failed", r"train: RuntimeError: boom in the step \(misbehaving.py, line \d+\)"),
    "diverges": ("nan", "diverged", "train: training loss is nan in epoch 1 of 1"),
    "exits": ("exit", "crashed", "rehearse: its worker process ended by itself with exit code 7"),
    "is killed": ("kill", "crashed", r"ended by SIGKILL \(out of memory, or killed by hand\)"),
    "faults": ("segv", "crashed", r"ended by SIGSEGV \(a fault in compiled code\)"),
    "sleeps": ("sleep", "timeout", "rehearse: ran longer than its time limit of 15 s"),
    "calls sys.exit": ("sys_exit", "failed", r"rehearse: SystemExit: 3 \(misbehaving.py, line \d+\)"),
    "interrupts": ("interrupt", "failed", r"rehearse: KeyboardInterrupt \(misbehaving.py, line \d+\)"),
    "returns none": ("returns_none", "failed", "rehearse: augmentation .bad_step. returned NoneType"),
    "has no text": ("unprintable", "failed", r"train: Unprintable \(misbehaving.py, line \d+\)"),
}
OTHERS = {
    "fails to build": ('initializer = "bad_build"', "failed", r"train: ValueError: no such weights \(misbehaving"),
    "changes nothing": ('activation = "changes_nothing"', "failed", "rehearse: .*replaced no module"),
    "no module": ('activation = "no_module"', "failed", "train: .*int"),
}
EXPECTED = {name: rest for name, (_, *rest) in (FAULTS | OTHERS).items()}


class Ran(SimpleNamespace):
    """A finished command and its records by arm, the last of each."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, install_module_plugin, tiny_suite) -> Path:
    install_module_plugin("misbehaving", Path(__file__).with_name("misbehaving.py").read_text())
    folder = tmp_path_factory.mktemp("faults")
    arms = {name: "{ " + BAD.format(how) + " }" for name, (how, *_) in FAULTS.items()}
    arms |= {name: "{ " + change + " }" for name, (change, *_) in OTHERS.items()}
    # Healthy arms before and after: a fault must cost neither those under way nor those to come.
    arms = {"healthy": '{ augmentation = "hflip" }', **arms, "healthy too": '{ activation = "silu" }'}
    (folder / "faults.toml").write_text(tiny_suite(arms, time_limit=15))
    return folder


def run(folder: Path, **environment: str) -> Ran:
    done = subprocess.run(  # noqa: PLW1510 - the exit code is what is tested
        [sys.executable, "-m", "cnnbench", "run", "faults.toml", "--cache", "cache", "--workers", "2"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = (folder / "results" / "faults" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return Ran(done=done, lines=lines, records={r["arm"]: r for r in records})


@pytest.fixture(scope="module")
def first(place) -> Ran:
    return run(place)


@pytest.fixture(scope="module")
def second(place, first) -> Ran:
    """The same run when what was wrong has been mended."""
    return run(place, MISBEHAVING_CURED="1")


@pytest.mark.parametrize("arm", EXPECTED)
def test_each_fault_costs_its_own_arm_with_a_reason_to_act_on(first, arm):
    status, reason = EXPECTED[arm]
    record = first.records[arm]
    assert record["status"] == status
    assert re.search(reason, record["reason"])
    assert "\n" not in record["reason"]
    assert record["metrics"] == {}


def test_a_fault_in_a_technique_keeps_its_traceback_in_the_record(first):
    assert "misbehaving.py" in first.records["raises"]["trace"]
    assert "RuntimeError: boom" in first.records["raises"]["trace"]
    assert first.records["changes nothing"]["trace"] is None  # raised on purpose: the reason says it all


def test_the_healthy_arms_are_measured(first):
    for arm in ("baseline", "healthy", "healthy too"):
        assert first.records[arm]["status"] == "ok"
        assert 0 <= first.records[arm]["metrics"]["accuracy"] <= 1


def test_the_table_still_prints_and_the_exit_code_tells(first):
    assert first.done.returncode == 1
    table = first.done.stdout
    assert table.startswith("faults: Does it work?\n")
    for arm in first.records:
        assert any(line.startswith(arm) and "/1" in line for line in table.splitlines())
    assert "crashed: exits: rehearse: its worker process ended by itself with exit code 7" in table


def test_what_a_technique_prints_stays_out_of_the_table(first):
    assert "A technique speaks." not in first.done.stdout + first.done.stderr
    assert first.records["raises"]["details"]["partial"]["log"] == ["A technique speaks."]


def test_no_traceback_reaches_the_terminal(first):
    assert "Traceback" not in first.done.stderr


def test_a_progress_bar_leaves_nothing_in_the_system(first):
    """tqdm's lock is a semaphore of the system, which Python's resource tracker would tell of at the end."""
    assert "leaked" not in first.done.stderr


def test_failures_are_not_cached_and_leave_nothing_half_done(place, first, second):
    cache = StageCache(place / "cache")
    assert all(cache.result(key) is not None for key in first.records["healthy"]["stages"].values())
    # ``second`` has cured them, so the first run's leftovers are those of processes that are no more.
    assert [path.name for path in (place / "cache").rglob(".*")] == []


def test_the_next_run_runs_what_failed_and_nothing_else(first, second):
    assert second.done.returncode == 0, second.done.stderr
    assert {r["status"] for r in second.records.values()} == {"ok"}
    rerun = [json.loads(line)["arm"] for line in second.lines[len(first.lines) :]]
    assert sorted(rerun) == sorted(EXPECTED)
    assert f"{3 * len(EXPECTED)} stages" in second.done.stderr


class Process:
    """A worker's process that a test moves by hand."""

    pid = None
    exitcode = 0

    def __init__(self, dead: bool = False) -> None:
        self.sentinel, self._end = Pipe()
        self._lock = threading.Lock()
        if dead:
            self.kill()

    def is_alive(self) -> bool:
        with self._lock:
            return not self._end.closed

    def kill(self) -> None:
        with self._lock:  # whoever comes second must not close it again: the number may be another file's by then
            self._end.close()

    def join(self, timeout: float | None = None) -> None:
        pass


def with_worker(monkeypatch, life) -> LocalExecutor:
    """An executor of one place whose worker is a thread that lives ``life(pipe)``."""

    def start(self, place):
        ours, theirs = Pipe()
        threading.Thread(target=life, args=(theirs,), daemon=True).start()
        return Worker(Process(), ours, place)

    monkeypatch.setattr(LocalExecutor, "_start", start)
    return LocalExecutor(1)


def events(executor, count: int) -> list:
    """The next outcomes."""
    found = []
    while len(found) < count:
        found += [event for event in executor.wait() if isinstance(event, Outcome)]
    return found


def test_the_time_limit_counts_from_when_the_worker_takes_the_task_up(monkeypatch, tmp_path):
    def slow_to_start(pipe):
        task = pipe.recv()
        threading.Event().wait(0.5)  # imports, plugins
        pipe.send(BEGUN)
        pipe.send([Outcome(task.key, "ok")])
        threading.Event().wait(5)

    executor = with_worker(monkeypatch, slow_to_start)
    executor.submit(Task("a", {}, (), str(tmp_path / "a"), time_limit=0.25))
    assert [event.status for event in events(executor, 1)] == ["ok"]
    executor.close()


def test_a_task_that_overruns_ends_in_time_and_its_place_is_free_again(monkeypatch, tmp_path):
    lives = iter([False, True])

    def first_hangs(pipe):
        task = pipe.recv()
        pipe.send(BEGUN)
        if next(lives):
            pipe.send([Outcome(task.key, "ok")])
        threading.Event().wait(5)

    executor = with_worker(monkeypatch, first_hangs)
    executor.submit(Task("a", {}, (), str(tmp_path / "a"), time_limit=0.1))
    (late,) = events(executor, 1)
    assert (late.status, late.reason) == ("timeout", "ran longer than its time limit of 0.1 s")
    executor.submit(Task("b", {}, (), str(tmp_path / "b"), time_limit=5))
    assert [event.status for event in events(executor, 1)] == ["ok"]
    executor.close()


def test_a_worker_that_never_comes_up_costs_its_task(monkeypatch, tmp_path):
    executor = with_worker(monkeypatch, lambda pipe: pipe.close())
    executor.submit(Task("a", {}, (), str(tmp_path / "a")))
    (lost,) = events(executor, 1)
    assert lost.status == "crashed"
    assert executor._idle == executor._busy == []


def test_a_worker_that_died_while_idle_costs_nothing(monkeypatch, tmp_path):
    lives = iter([1, 5])

    def life(pipe):
        with suppress(EOFError):
            for _ in range(next(lives)):
                task = pipe.recv()
                pipe.send(BEGUN)
                pipe.send([Outcome(task.key, "ok")])
        pipe.close()

    executor = with_worker(monkeypatch, life)
    for key in ("a", "b"):
        executor.submit(Task(key, {}, (), str(tmp_path / key)))
        assert [(one.key, one.status) for one in events(executor, 1)] == [(key, "ok")]
    assert next(lives, None) is None
    executor.close()


def test_a_dead_worker_is_noticed_while_what_it_forked_holds_its_pipe(monkeypatch, tmp_path):
    """In mid-task, and while idle: then another takes the task."""
    held, lives = [], iter(["dies", "works", "works"])

    def start(self, place):
        ours, theirs = Pipe()
        held.append(theirs)  # as a child would
        process, life = Process(), next(lives)

        def live():
            task = theirs.recv()
            theirs.send(BEGUN)
            if life == "works":
                theirs.send([Outcome(task.key, "ok")])
            process.kill()

        threading.Thread(target=live, daemon=True).start()
        return Worker(process, ours, place)

    monkeypatch.setattr(LocalExecutor, "_start", start)
    executor = LocalExecutor(1)
    for key, status in (("a", "crashed"), ("b", "ok"), ("c", "ok")):
        executor.submit(Task(key, {}, (), str(tmp_path / key)))
        assert [(one.key, one.status) for one in events(executor, 1)] == [(key, status)]
    executor.close()
    assert len(held) == 3


def test_a_worker_whose_fork_server_was_ended_goes_on_with_its_task_and_then_goes(monkeypatch, tmp_path):
    """Python holds it for dead, with an exit code of its own making."""
    lives = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])

    class HeldForDead(Process):
        exitcode = 255

    go_on = threading.Event()

    def start(self, place):
        ours, theirs = Pipe()

        def live():
            task = theirs.recv()
            theirs.send(BEGUN)
            go_on.wait()
            theirs.send([Outcome(task.key, "ok")])

        threading.Thread(target=live, daemon=True).start()
        return Worker(HeldForDead(dead=True), ours, place, _own=psutil.Process(lives.pid))

    monkeypatch.setattr(LocalExecutor, "_start", start)
    executor = LocalExecutor(1)
    executor.submit(Task("a", {}, (), str(tmp_path / "a")))
    threading.Timer(0.5, go_on.set).start()
    assert [(one.key, one.status) for one in events(executor, 1)] == [("a", "ok")]
    assert lives.wait(10) != 0
    assert executor._idle == executor._busy == []


def test_scratch_of_a_dead_worker_goes_and_that_of_others_stays(tmp_path):
    folder = tmp_path / "ab" / "ab12cd34ef"
    with filling(folder) as mine:
        others = folder.parent / f".ab12cd34-{os.getpid()}0-x"
        others.mkdir()
        write_result(mine, {})
        clear_scratch(folder, os.getpid() + 10**7)
    mine = folder.parent / f".ab12cd34-{os.getpid()}-x"
    mine.mkdir()
    clear_scratch(folder, os.getpid())
    assert not mine.exists()
    assert others.exists()
    assert folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
class TestLimitsOfTheProcess:
    """Of a process, not of the disk: they cost the trial, and no run stops for them."""

    @pytest.fixture
    def lowered(self):
        """Runs a block in which no file may grow."""
        import resource

        @contextmanager
        def block():
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        return block

    def test_that_last(self, lowered, tmp_path):
        with lowered(), pytest.raises(Barred, match="File too large; a technique lowered its limits"):  # noqa: SIM117
            with filling(tmp_path / "ab" / "ab12") as scratch:
                write_result(scratch, {})
        assert not list(tmp_path.rglob(".*"))

    def test_that_were_put_back_meanwhile(self, lowered, tmp_path):
        import torch

        from cnnbench.execute.perform import lost

        task = Task("a", {}, (), str(tmp_path / "a"))
        with pytest.raises(RuntimeError) as raised, filling(tmp_path / "ab" / "ab12") as scratch, lowered():
            torch.save({"weights": torch.ones(1000)}, scratch / "model.pt")
        reason = lost(task, raised.value, 0.0).reason
        assert reason.endswith("; a disk was full, or a technique lowered its limits, or left files open")
        reason = lost(task, OSError(errno.EMFILE, "Too many open files"), 0.0).reason
        assert reason == "OSError: [Errno 24] Too many open files; a technique lowered its limits, or left files open"

    def test_a_worker_that_has_reached_them_takes_no_further_task(self, lowered, tmp_path):
        assert not worn_out(tmp_path)
        with lowered():
            assert worn_out(tmp_path)
        few = "import os, pathlib, sys, resource as r; from cnnbench.execute.cache import worn_out\n"
        few += "r.setrlimit(r.RLIMIT_NOFILE, (40, 40)); sys.exit(worn_out(pathlib.Path(sys.argv[1])))"
        assert subprocess.run([sys.executable, "-c", few, str(tmp_path)], check=False).returncode == 1
        assert not worn_out(tmp_path / "none")


def test_workers_are_bound_to_devices_and_the_first_place_is_taken_first(monkeypatch):
    """Three workers on two devices; what they see of the environment comes back as their outcomes' reasons."""
    begun, release = [], threading.Event()

    def live(pipe, binding):
        with suppress(EOFError, OSError), pipe:
            while True:
                task = pipe.recv()
                release.wait()
                pipe.send([Outcome(task.key, "failed", binding.get("CUDA_VISIBLE_DEVICES"))])

    class Started(Process):
        def __init__(self, target, args, daemon):
            super().__init__()
            pipe, begin, _ = args
            begun.append(begin.binding)
            own = Connection(os.dup(pipe.fileno()))  # a process would have its own: the parent closes this one
            self.thread = threading.Thread(target=live, args=(own, begin.binding), daemon=True)

        def start(self):
            self.thread.start()

    executor = LocalExecutor(3, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "GPU-b"}])
    monkeypatch.setattr(executor._context, "Process", Started, raising=False)
    monkeypatch.setattr(local, "start_fork_server", lambda: None)
    for key in "abc":
        executor.submit(Task(key, {}, (), ""))
    assert [one["CUDA_VISIBLE_DEVICES"] for one in begun] == ["0", "GPU-b", "0"]
    release.set()
    assert {one.key: one.reason for one in events(executor, 3)} == {"a": "0", "b": "GPU-b", "c": "0"}
    for key in "de":  # one after the other, alone: both on the first device
        executor.submit(Task(key, {}, (), ""))
        assert [(one.key, one.reason) for one in events(executor, 1)] == [(key, "0")]
    assert len(begun) == 3
    executor.close()


def test_a_binding_reaches_the_worker_before_anything_looks_for_devices():
    code = (
        "import os, sys, types\n"
        "from cnnbench.execute import local\n"
        "from cnnbench.execute.process import Start\n"
        "worker = types.ModuleType('cnnbench.execute.worker')\n"
        "worker.main = lambda *_: print(os.environ['CUDA_VISIBLE_DEVICES'], 'torch' in sys.modules)\n"
        "sys.modules[worker.__name__] = worker\n"
        "local._live(None, Start(binding={'CUDA_VISIBLE_DEVICES': 'GPU-b'}), None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["GPU-b", "False"]
