"""What guards a process and its parent, part by part: state, output, memory, a worker that does not come up."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cnnbench.errors import TrialError
from cnnbench.execute import guard as guard_module
from cnnbench.execute import local, state
from cnnbench.execute.guard import Guard
from cnnbench.execute.interface import Outcome, Task
from cnnbench.execute.lastwords import KEPT_BYTES, MOST_LINES, LastWords
from cnnbench.execute.local import LocalExecutor
from cnnbench.execute.oom import margin_mib
from cnnbench.execute.perform import perform
from cnnbench.execute.process import BEGUN, Loading, Worker
from cnnbench.stages import evaluate
from cnnbench.stages.unchanged import Unchanged

SPEC = {"seed": 3, "family": ""}


def drawn() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_what_changes_nothing_is_not_told_of_and_global_generators_go_on_as_before(tmp_path):
    guard, found = Guard(tmp_path), []
    states = random.getstate(), torch.random.get_rng_state()
    for _ in range(2):
        with guard.around(SPEC) as left:
            found.append(drawn())
        assert (left.notes, left.spoiled) == ([], None)
    assert found[0] == found[1]
    with guard.around({**SPEC, "seed": 4}):
        assert drawn() != found[0]
    assert random.getstate() == states[0]
    assert torch.equal(torch.random.get_rng_state(), states[1])


def test_what_was_changed_is_put_back_and_noted_when_the_task_raises_too(tmp_path):
    before = torch.get_default_dtype(), dict(os.environ), Path.cwd()

    def liberties() -> None:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        os.environ["A_NEW_ONE"] = "1"
        os.chdir("/")
        (tmp_path / "file").write_text("mine")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Guard(tmp_path).around(SPEC) as left:
        liberties()
    assert (torch.get_default_dtype(), dict(os.environ), Path.cwd()) == before
    assert torch.is_grad_enabled()
    assert torch.zeros(1).device.type == "cpu"
    assert list(tmp_path.iterdir()) == []
    assert len(left.notes) == 6
    assert left.spoiled is None


@pytest.mark.parametrize(
    ("home", "name"),
    [
        (torch, "relu"),
        (nn.functional, "conv2d"),
        (nn.Conv2d, "forward"),
        (json, "dumps"),
        (json.JSONEncoder, "encode"),
        (os, "replace"),
        (os, "getpid"),
        (os.path, "join"),
        (Path, "write_text"),
        (sys, "exit"),
        (np, "mean"),
        (np.random, "default_rng"),
        (evaluate, "evaluate"),
        (LocalExecutor, "submit"),
    ],
)
def test_what_stands_in_the_place_of_torch_s_own_fails_the_task_and_goes(tmp_path, home, name):
    guard, own = Guard(tmp_path), getattr(home, name)
    with guard.around(SPEC) as left:
        setattr(home, name, lambda *_: None)
    assert getattr(home, name) is own
    assert guard.spoiled
    with pytest.raises(TrialError, match=f"replaced .*{name}, which all trials of a worker process share"):
        left.noted({})


def test_hooks_of_sys_are_there_to_be_set(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "displayhook", sys.displayhook)
    with Guard(tmp_path).around(SPEC) as left:
        sys.displayhook = print
    assert (left.notes, left.spoiled) == ([], None)


class Raising:
    """A bench whose stage replaces a function and raises."""

    def __init__(self, text: str, home: object = None) -> None:
        self.text, self.home = text, home

    def run(self, *_):
        if self.home is not None:
            self.home.open = None
        raise RuntimeError(self.text)


def test_the_reason_tells_what_was_replaced_too(tmp_path):
    task = Task("a", {**SPEC, "kind": "train"}, (), str(tmp_path / "a"))
    (found,) = perform(task, Raising("boom", os), lambda *_: None)
    assert found.status == "failed"
    assert found.reason.startswith("RuntimeError: boom (test_guard.py, line ")
    assert "); a technique replaced os.open, which all trials" in found.reason


def test_of_a_long_traceback_both_ends_are_kept(tmp_path):
    task = Task("a", {**SPEC, "kind": "train"}, (), str(tmp_path / "a"))
    (found,) = perform(task, Raising("x" * 10**6 + "end"), lambda *_: None)
    assert len(found.trace) < 40_000
    assert found.trace.startswith("Traceback")
    assert found.trace.endswith("xend\n")
    assert "characters were left out]\n" in found.trace
    assert len(found.reason) < 500
    (short,) = perform(task, Raising("boom"), lambda *_: None)
    assert "left out" not in short.trace


@pytest.fixture
def told():
    """Fault handling as a worker has it, and after the test as before."""
    before = faulthandler.is_enabled()
    faulthandler.enable(file=2)
    yield
    faulthandler.disable()
    if before:
        faulthandler.enable(file=2)


def test_no_dump_comes_in_the_next_task_and_crashes_are_told_of_as_before(tmp_path, told):
    with Guard(tmp_path).around(SPEC) as left:
        faulthandler.dump_traceback_later(0.2, exit=True)
        faulthandler.disable()
    threading.Event().wait(0.4)
    assert faulthandler.is_enabled()
    assert left.notes == ["a technique changed faulthandler (True to False); it was put back"]


def test_threads_that_go_on_cost_the_process_alone(tmp_path):
    guard, end = Guard(tmp_path), threading.Event()
    before = threading.Thread(target=partial(end.wait, 10), name="before")
    before.start()
    with guard.around(SPEC) as left, ThreadPoolExecutor(1) as pool:
        pool.submit(int)
        threading.Thread(target=lambda: None).start()
    assert (left.notes, guard.spoiled) == ([], False)

    class Mine(threading.Thread):
        def run(self):
            end.wait(10)

    def waits(seconds):
        end.wait(seconds)

    library = threading.Thread(target=end.wait, args=(10,), name="library")  # Python's own code is what it runs
    mine = [
        threading.Thread(target=partial(waits, 10), name="function"),
        Mine(name="class"),
        threading.Timer(10, lambda: None),
    ]
    mine[2].name = "timer"
    with guard.around(SPEC) as left:
        library.start()
        for one in mine:
            one.start()
    end.set()
    mine[2].cancel()
    for one in (before, library, *mine):
        one.join()
    assert left.spoiled is None
    assert guard.spoiled
    (note,) = left.notes
    names = note.removeprefix("a technique left threads running (").partition("); its process took no further task")[0]
    assert set(names.replace(" and ", ", ").split(", ")) == {"function", "class", "timer"}


def test_thresholds_of_garbage_collection_are_put_back(tmp_path):
    before = gc.get_threshold()
    with Guard(tmp_path).around(SPEC) as left:
        gc.set_threshold(1, 1, 1)
    assert gc.get_threshold() == before
    assert left.notes == ["a technique changed garbage collection's thresholds; it was put back"]


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="there is no niceness")
@pytest.mark.parametrize("allowed", [True, False])
def test_niceness_that_cant_be_put_back_costs_the_process_alone(tmp_path, monkeypatch, allowed):
    nice = [0]

    def write(_kind, _process, value):
        if not allowed:
            raise PermissionError
        nice[0] = value

    monkeypatch.setattr(os, "getpriority", lambda *_: nice[0])
    monkeypatch.setattr(os, "setpriority", write)
    guard = Guard(tmp_path)
    with guard.around(SPEC) as left:
        nice[0] = 19
    assert left.spoiled is None
    assert guard.spoiled is not allowed
    after = " (0 to 19); it was put back" if allowed else " of the process, which can't be put back"
    assert left.notes == [f"a technique changed the niceness{after}"]


def test_writing_past_torch_is_seen_as_well():
    images = torch.zeros(50, 1, 8, 8, dtype=torch.uint8)
    known = Unchanged([images])
    images[3:5].clone().add_(1)
    assert known.still()
    images.numpy()[:] = 1
    assert not known.still()
    known = Unchanged([images], sampled=False)
    images[3:5].add_(1)
    assert not known.still()


def words(text: bytes) -> LastWords:
    ours, theirs = Pipe(duplex=False)
    found = LastWords(ours)

    def write():
        os.write(theirs.fileno(), text)
        theirs.close()

    threading.Thread(target=write).start()
    while found.pipe is not None:
        found.drain(1)
    return found


def test_of_what_is_printed_the_end_is_kept():
    found = words(b"".join(b"line %d\n" % n for n in range(100_000)) + b"\rhalf\rbar: 7/7\n" + b"x" * 1000)
    assert len(found._kept) == KEPT_BYTES
    assert len(found.lines) == MOST_LINES
    assert found.lines[-3:-1] == ["line 99999", "bar: 7/7"]
    assert found.lines[-1] == "x" * 300


DUMP = f"""spoken
Fatal Python error: Segmentation fault

Thread 0x00007f01 (most recent call first):
  File "/lib/other.py", line 1 in listen

Current thread 0x00007f02 (most recent call first):
  File "{os.path.dirname(os.__file__)}/site-packages/torch/nn/functional.py", line 9 in relu
  File "{os.__file__}", line 5 in getcwd
  File "/somewhere/plugin.py", line 41 in act
  File "/x/cnnbench/{os.path.join("execute", "worker.py")}", line 77 in main

Extension modules: numpy (total: 1)
"""  # noqa: PTH120, PTH118


def test_the_place_is_the_innermost_line_that_is_neither_torch_s_nor_python_s():
    found = words(DUMP.encode())
    assert found.place == "plugin.py, line 41"
    assert found.lines == ["spoken"]
    assert found.stack.endswith("line 77 in main")
    assert words(b"nothing of the kind").place is None


class Process:
    """A worker's process that a test moves by hand."""

    pid = None
    exitcode = 0

    def __init__(self, dead: bool = False) -> None:
        self.sentinel, self._end = Pipe()
        if dead:
            self._end.close()

    def is_alive(self) -> bool:
        return not self._end.closed

    def kill(self) -> None:
        self._end.close()

    def join(self, timeout: float | None = None) -> None:
        pass


def with_lives(monkeypatch, *lives, free=lambda: 10_000.0) -> LocalExecutor:
    """An executor of one place whose workers are threads that live these lives, one after the other."""
    left = iter(lives)
    monkeypatch.setattr(local, "LOOK_SECONDS", 0.02)

    def start(self, place):
        ours, theirs = Pipe()
        threading.Thread(target=next(left), args=(theirs,), daemon=True).start()
        return Worker(Process(), ours, place)

    monkeypatch.setattr(LocalExecutor, "_start", start)
    return LocalExecutor(1, free=free)


def outcome(executor: LocalExecutor, folder: Path) -> Outcome:
    executor.submit(Task("a", {}, (), str(folder / "a")))
    while True:
        for event in executor.wait():
            if isinstance(event, Outcome):
                executor.close()
                return event


def hangs(pipe) -> None:
    pipe.recv()
    pipe.send(BEGUN)
    threading.Event().wait(5)


def test_the_largest_worker_is_ended_before_the_system_runs_out_of_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(Worker, "held_mib", 4321.0)
    free = iter([10_000.0, 9_000.0, 300.0])
    found = outcome(with_lives(monkeypatch, hangs, free=lambda: next(free)), tmp_path)
    assert found.status == "oom"
    assert found.reason.startswith("out of memory: its worker process held 4,321 MiB when the machine had 300 MiB left")
    assert found.result["details"]["peak_mib"] == 4321.0


def test_a_worker_that_holds_little_is_not_ended_for_what_others_take(monkeypatch, tmp_path):
    monkeypatch.setattr(Worker, "held_mib", 100.0)

    def works(pipe):
        task = pipe.recv()
        pipe.send(BEGUN)
        threading.Event().wait(0.2)
        pipe.send([Outcome(task.key, "ok")])

    free = iter([10_000.0])
    assert outcome(with_lives(monkeypatch, works, free=lambda: next(free, 10.0)), tmp_path).status == "ok"


@pytest.mark.parametrize(("free", "margin"), [(1000, 128), (10_000, 500), (1_000_000, 2048)])
def test_too_little_is_a_share_within_bounds(free, margin):
    assert margin_mib(free) == margin


def test_a_task_that_uses_no_cpu_time_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(Worker, "look", lambda self: setattr(self, "idle_seconds", 601.0))
    found = outcome(with_lives(monkeypatch, hangs), tmp_path)
    assert (found.status, found.reason) == (
        "timeout",
        "used no CPU time for 10 min: it waits for what does not come",
    )


@pytest.mark.parametrize("dies", [True, False])
def test_a_plugin_that_a_worker_can_t_import_is_left_out_of_the_next(monkeypatch, tmp_path, dies):
    monkeypatch.setattr(local, "START_SECONDS", 60.0 if dies else 0.1)

    def stuck(pipe):
        pipe.send(Loading("heavy"))
        if dies:
            pipe.close()
        else:
            threading.Event().wait(5)

    def works(pipe):
        task = pipe.recv()
        pipe.send(BEGUN)
        pipe.send([Outcome(task.key, "ok")])
        threading.Event().wait(5)

    executor = with_lives(monkeypatch, stuck, works)
    assert outcome(executor, tmp_path).status == "ok"
    assert list(executor._without) == ["heavy"]
    assert "plugin 'heavy' is left out" in executor._without["heavy"]


def test_a_folder_that_a_technique_removed_is_there_again(tmp_path):
    folder, before = tmp_path / "own", Path.cwd()
    guard = Guard(folder)
    for _ in range(2):
        with guard.around(SPEC) as left:
            assert Path.cwd() == folder
            folder.rmdir()
            torch.set_default_dtype(torch.float64)
        assert (left.spoiled, guard.spoiled, len(left.notes)) == (None, False, 2)
    assert Path.cwd() == before
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.skipif(os.name != "posix", reason="alarms and limits are POSIX's")
def test_no_alarm_rings_in_the_next_task_and_limits_are_as_before(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with Guard(tmp_path).around(SPEC) as left:
        signal.setitimer(signal.ITIMER_VIRTUAL, 1000)
        resource.setrlimit(resource.RLIMIT_CORE, (0 if soft else min(1, hard), hard))
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0
    assert resource.getrlimit(resource.RLIMIT_CORE) == (soft, hard)
    assert [note.split(" ")[3] for note in left.notes] == ["alarms", "limits"], left.notes
    assert left.spoiled is None


def test_what_cant_be_put_back_costs_the_process_and_not_the_rest(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no")

    broken = state.Part("a broken one", lambda: len(os.environ.get("A_NEW_ONE", "")), refuse)
    monkeypatch.setattr(guard_module, "PARTS", (broken, *state.PARTS))
    guard = Guard(tmp_path)
    with guard.around(SPEC) as left:
        os.environ["A_NEW_ONE"] = "1"
    assert "A_NEW_ONE" not in os.environ
    assert guard.spoiled
    assert left.spoiled == "a technique changed a broken one for the whole process, which can't be put back"
    guard = Guard(tmp_path)
    monkeypatch.setattr(guard_module, "set_generators", refuse)
    with pytest.raises(OSError, match="no"), guard.around(SPEC):
        pass
    assert guard.spoiled


SETTINGS = {
    "flushing of denormal numbers": (lambda: torch.set_flush_denormal(True), lambda: 2.0**-1023 / random.choice([2.0])),
    "mkldnn.enabled": (
        lambda: setattr(torch.backends.mkldnn, "enabled", False),
        lambda: torch.backends.mkldnn.enabled,
    ),
    "quantized.engine": (
        lambda: setattr(torch.backends.quantized, "engine", "onednn"),
        lambda: torch.backends.quantized.engine,
    ),
    "precision of float32": (
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        lambda: torch.backends.cudnn.allow_tf32,
    ),
    "precision": (lambda: torch.set_float32_matmul_precision("high"), torch.get_float32_matmul_precision),
    "float32": (
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        torch.get_float32_matmul_precision,
    ),
    "choice of attention": (
        lambda: torch.backends.cuda.enable_flash_sdp(False),
        torch.backends.cuda.flash_sdp_enabled,
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_torch_s_libraries_are_put_back(tmp_path, name):
    change, read = SETTINGS[name]
    before, guard = read(), Guard(tmp_path)
    with guard.around(SPEC) as left:
        change()
    assert read() == before
    assert [name in note for note in left.notes] == [True]
    assert not guard.spoiled


def test_what_libraries_do_at_first_use_stays_and_is_no_technique_s(tmp_path, monkeypatch):
    def handler(*_):
        pass

    handler.__module__ = "torch.utils.data._utils.signal_handling"
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("_TORCHINDUCTOR_A", raising=False)
    limit = sys.getrecursionlimit()
    try:
        with Guard(tmp_path).around(SPEC) as left:
            signal.signal(signal.SIGTERM, handler)
            os.environ["_TORCHINDUCTOR_A"] = "1"
            sys.path.append(str(Path(torch.__file__).with_name("_inductor")))
            sys.setrecursionlimit(max(limit, 2000))
        assert (left.notes, left.spoiled) == ([], None)
        assert signal.getsignal(signal.SIGTERM) is handler
        with Guard(tmp_path).around(SPEC) as left:
            signal.signal(signal.SIGTERM, lambda *_: None)
            sys.path.append(str(tmp_path))
            sys.setrecursionlimit(5000)
        assert len(left.notes) == 3
    finally:
        signal.signal(signal.SIGTERM, before)
        os.environ.pop("_TORCHINDUCTOR_A", None)
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(100, 1, 7, 7, dtype=torch.uint8)[81:],
        torch.zeros(9, dtype=torch.bool)[1:],
        torch.zeros(6, 4).T[1:],
        torch.zeros(4, dtype=torch.complex64).conj(),
        torch.zeros(()),
        torch.zeros(0, 3),
    ],
)
def test_tensors_of_any_layout_are_watched(tensor):
    known = Unchanged([tensor])
    assert known.still()
    tensor.data.fill_(1)
    assert known.still() == (tensor.numel() == 0)


def test_tensors_of_inference_mode_are_watched():
    with torch.inference_mode():
        images = torch.zeros(5, 3)
    known = Unchanged([images], sampled=False)
    assert known.still()
    with torch.inference_mode():
        images[4, 2] = 1
    assert not known.still()
