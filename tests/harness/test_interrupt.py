"""Ctrl-C while something runs that must not be interrupted."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

from cnnbench import lazy
from cnnbench.interrupt import held_back

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")


@pytest.fixture(autouse=True)
def handler():
    """Python's own, whatever the tests were started with."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_comes_when_the_block_has_ended():
    done = []

    def work():
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_error_of_the_block_comes_without_it():
    with pytest.raises(ZeroDivisionError), held_back():
        1 / 0  # noqa: B018
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_back():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_have_no_part_in_it():
    worked = []

    def work():
        with held_back():
            worked.append("yes")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert worked == ["yes"]


def test_an_import_of_torch_is_not_torn(tmp_path, monkeypatch):
    """Its compiled parts would end the process."""
    (tmp_path / "torn_by_hand.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\ndone = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = lazy._LazyModule("torn_by_hand")
    with pytest.raises(KeyboardInterrupt):
        module.done  # noqa: B018
    assert module.done == 1
    monkeypatch.delitem(sys.modules, "torn_by_hand")
