"""Results on their way from a worker to the run: nothing travels that only the worker knows."""

from __future__ import annotations

import json
import pickle
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import pytest

from cnnbench.execute.cache import StageCache
from cnnbench.execute.interface import Outcome, Task
from cnnbench.execute.lastwords import LastWords
from cnnbench.execute.local import LocalExecutor
from cnnbench.execute.perform import perform
from cnnbench.execute.process import Worker


def odd() -> dict[str, Any]:
    """A result that JSON can carry and pickle can't: its types are known in one function alone."""

    class Share(float):
        pass

    class Notes(list):
        pass

    class Words(str):
        __slots__ = ()

    return {"metrics": {"accuracy": Share(0.5)}, "notes": Notes([Words("said")]), "seconds": 1.0}


def test_what_only_the_worker_knows_becomes_plain_data(tmp_path):
    result = odd()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(result)
    bench: Any = SimpleNamespace(run=lambda *_: result)
    folder = tmp_path / "stages" / "ab" / "ab12"
    (outcome,) = perform(Task("ab12", {"kind": "profile"}, (), str(folder)), bench, lambda *_: None)
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert outcome.status == "ok"
    assert outcome.result == json.loads(json.dumps(result)) == StageCache(tmp_path / "stages").result("ab12")


class Unreadable:
    """Its pickle is made in one process and can't be read in any."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


def test_what_can_not_be_read_costs_its_worker_and_not_the_run(tmp_path, monkeypatch):
    ours, theirs = Pipe()
    sentinel, _end = Pipe()
    process: Any = SimpleNamespace(
        pid=None, exitcode=None, sentinel=sentinel, is_alive=lambda: False, join=lambda *_: None
    )
    monkeypatch.setattr(LocalExecutor, "_start", lambda *_: Worker(process, ours, 0, LastWords(None)))
    executor = LocalExecutor(1)
    executor.submit(Task("a", {}, (), str(tmp_path / "a")))
    theirs.send([Outcome("a", "ok", result={"notes": Unreadable()})])
    (outcome,) = executor.wait()
    assert (outcome.key, outcome.status) == ("a", "crashed")
    assert outcome.reason == (
        "what its worker process sent can't be read: ValueError: invalid literal for int() with base 10: 'no number'"
    )
    executor.close()
    theirs.close()
