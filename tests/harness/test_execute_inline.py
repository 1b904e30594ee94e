"""The inline executor: what one process can survive costs one task; what it can't ends the run in order."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from cnnbench.errors import Diverged, MissingDependency, NoEffect
from cnnbench.execute import inline
from cnnbench.execute.cache import StageCache
from cnnbench.execute.inline import InlineExecutor
from cnnbench.execute.interface import Epoch, Task
from cnnbench.plugins import PluginHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def stubborn(*_: Any) -> None:
    """Sleeps on whatever is raised, like a technique that catches all exceptions."""
    while True:
        with contextlib.suppress(Exception):
            time.sleep(10)


def raiser(error: BaseException) -> Callable[..., Any]:
    def run(*_: Any) -> None:
        raise error

    return run


class FakeBench:
    """A bench whose only work is what a test hands it."""

    work: Callable[..., Any]

    def __init__(self, registry: object) -> None:
        self.closed = False

    def run(self, spec: object, inputs: list[Path], folder: Path, tell: Callable[[Any], None]) -> Any:
        return type(self).work(spec, inputs, folder, tell)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def perform(monkeypatch, tmp_path):
    """``perform(work, limit)`` runs one task inline: its events and the folder of its results."""
    monkeypatch.setattr(inline, "Bench", FakeBench)

    def run(work: Callable[..., Any], limit: float | None = None) -> tuple[list[Any], Path]:
        FakeBench.work = staticmethod(work)
        executor = InlineExecutor(PluginHost())
        folder = tmp_path / "ab" / "ab12"
        executor.submit(Task("ab12", {"kind": "train"}, (), str(folder), limit))
        return list(executor.wait()), folder

    return run


def test_a_result_is_kept_and_epochs_are_told_before_it(perform):
    def work(spec, inputs, folder, tell):
        (folder / "model.pt").write_text("weights")
        tell({"epoch": 0})
        return {"metrics": {"accuracy": 0.5}}

    (epoch, outcome), folder = perform(work)
    assert epoch == Epoch("ab12", {"epoch": 0})
    assert (outcome.status, outcome.result) == ("ok", {"metrics": {"accuracy": 0.5}})
    assert StageCache(folder.parents[1]).result(folder.name) == outcome.result
    assert (folder / "model.pt").read_text() == "weights"


@pytest.mark.parametrize(
    ("work", "status", "reason"),
    [
        (raiser(ZeroDivisionError("by\nzero")), "failed", "ZeroDivisionError: by zero (test_execute_inline.py, line"),
        (raiser(SystemExit(3)), "failed", "SystemExit: 3 (test_execute_inline.py, line"),
        (raiser(TimeoutError("the server is away")), "failed", "TimeoutError: the server is away (test_execute"),
        (raiser(AssertionError()), "failed", "AssertionError (test_execute_inline.py, line"),
        (raiser(MemoryError()), "oom", "out of memory"),
        (raiser(NoEffect("pruned nothing")), "failed", "pruned nothing"),
        (raiser(Diverged("loss is nan")), "diverged", "loss is nan"),
        (raiser(MissingDependency("torchao", "compress")), "skipped", "needs torchao, which is not installed: pip"),
        (lambda *_: {"metrics": {"loss": float("nan")}}, "failed", "ValueError: Out of range float values"),
        (lambda *_: {"metrics": {"loss": object()}}, "failed", "TypeError: Object of type object is not JSON"),
    ],
)
def test_what_is_raised_becomes_a_status_and_leaves_nothing_behind(perform, work, status, reason):
    (outcome,), folder = perform(work)
    assert outcome.status == status
    assert outcome.reason.startswith(reason)
    assert list(folder.parent.iterdir()) == []


def test_the_reason_names_the_line_of_the_technique_not_of_torch(perform):
    def work(*_):
        import torch

        return torch.nn.Conv2d(3, 4, 1)(torch.zeros(1, 5, 8, 8))

    (outcome,), _ = perform(work)
    assert outcome.reason.startswith("RuntimeError: ")
    assert "(test_execute_inline.py, line" in outcome.reason
    assert "conv.py" in outcome.trace


def more_stubborn(*_: Any) -> None:
    """Swallows whatever is raised, once."""
    with contextlib.suppress(BaseException):
        time.sleep(10)
    time.sleep(10)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm on this system")
@pytest.mark.parametrize("work", [lambda *_: time.sleep(10), stubborn, more_stubborn])
def test_the_time_limit_ends_a_task_whatever_it_catches(perform, work):
    (outcome,), folder = perform(work, 0.1)
    assert (outcome.status, outcome.reason) == ("timeout", "ran longer than its time limit of 0.1 s")
    assert list(folder.parent.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm on this system")
@pytest.mark.parametrize("others", [0.0, 50.0])
def test_the_alarm_ends_with_the_task_and_gives_anothers_back(perform, others):
    def handler(*_):
        raise AssertionError("rang")

    handler_before, timer_before = signal.signal(signal.SIGALRM, handler), signal.setitimer(signal.ITIMER_REAL, others)
    try:
        (outcome,), _ = perform(lambda *_: {}, 60)
        assert outcome.status == "ok"
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left <= 50 if others else left == 0
        assert signal.getsignal(signal.SIGALRM) is handler
    finally:  # pytest's own
        signal.signal(signal.SIGALRM, handler_before)
        signal.setitimer(signal.ITIMER_REAL, *timer_before)


@pytest.fixture
def ctrl_c_as_usual():
    """Where the tests run in the background of a shell it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm on this system")
def test_the_alarm_does_not_interrupt_what_is_put_back(perform, monkeypatch):
    ended = []

    def slow(self, found):
        time.sleep(0.3)
        ended.append(True)

    monkeypatch.setattr(inline.Guard, "_clear", slow)
    (outcome,), _ = perform(lambda *_: {}, 0.2)
    assert (outcome.status, ended) == ("ok", [True])


@pytest.mark.usefixtures("ctrl_c_as_usual")
def test_ctrl_c_goes_through(perform):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        perform(lambda *_: signal.raise_signal(signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
@pytest.mark.usefixtures("ctrl_c_as_usual")
def test_a_technique_that_raises_keyboard_interrupt_is_not_taken_for_ctrl_c(perform, handler):
    signal.signal(signal.SIGINT, handler)
    (outcome,), _ = perform(raiser(KeyboardInterrupt()))
    assert (outcome.status, outcome.reason[:17]) == ("failed", "KeyboardInterrupt")


def test_a_run_inline_survives_what_can_be_survived(install_plugin, tiny_suite, tmp_path, capsys, request):
    """With real stages: one arm of each kind, in this very process."""
    from cnnbench.cli import main

    install_plugin("misbehaving", request.path.with_name("misbehaving.py").read_text())
    sys.modules.pop("misbehaving", None)
    bad = '{{ augmentation = {{ name = "bad_step", how = "{}" }} }}'
    kinds = {"raise": "failed", "nan": "diverged", "sys_exit": "failed"}
    arms = {kind: bad.format(kind) for kind in kinds} | {"healthy": '{ augmentation = "hflip" }'}
    suite = tmp_path / "suite.toml"
    suite.write_text(tiny_suite(arms))
    where = ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache")]
    assert main(["run", str(suite), "--executor", "inline", "--quiet", *where]) == 1
    lines = (tmp_path / "results" / "records.jsonl").read_text().splitlines()
    found = {r["arm"]: r["status"] for r in map(json.loads, lines)}
    assert found == {"baseline": "ok", **kinds, "healthy": "ok"}
    assert "0/1" in capsys.readouterr().out
    cache = StageCache(tmp_path / "cache")
    cached = {r["arm"]: cache.result(r["stages"]["train"]) is not None for r in map(json.loads, lines)}
    assert cached == {arm: status == "ok" for arm, status in found.items()}
