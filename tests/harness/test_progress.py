from __future__ import annotations

import io
import subprocess
import sys

import pytest

from cnnbench.progress import (
    QUIET_SECONDS,
    BarProgress,
    PlainProgress,
    Progress,
    QuietProgress,
    make_progress,
)
from cnnbench.tally import Running, Tally, TimeLeft, time_left


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestTimeLeft:
    def test_work_is_shared_among_workers(self) -> None:
        assert time_left({"train": [10, 14]}, {"train": 6}, [], 3) == TimeLeft(6 * 12 / 3, True)

    def test_kinds_have_their_own_means(self) -> None:
        seconds = {"train": [10], "evaluate": [1]}
        assert time_left(seconds, {"train": 2, "evaluate": 4}, [], 1) == TimeLeft(24, True)

    def test_running_stages_count_with_what_is_left_of_them(self) -> None:
        left = time_left({"train": [10]}, {"train": 2}, [Running("train", 4), Running("train", 25)], 2)
        assert left == TimeLeft((20 + 6 + 0) / 2, True)

    def test_a_running_stage_is_judged_by_its_own_epochs(self) -> None:
        left = time_left({"train": [10]}, {"train": 1}, [Running("train", 30, 120.0)], 1)
        assert left == TimeLeft(90 + 10, True)

    def test_a_total_is_an_example_until_a_stage_has_finished(self) -> None:
        assert time_left({}, {}, [Running("train", 30, 120.0)], 1) == TimeLeft(90, True)
        running = [Running("train", 30, 120.0), Running("train", 20, 100.0), Running("train", 5)]
        left = time_left({}, {"train": 2, "latency": 1}, running, 1)
        assert left == TimeLeft(90 + 80 + (110 - 5) + 2 * 110, False)

    def test_no_shorter_than_the_longest_stage(self) -> None:
        assert time_left({"train": [10]}, {"train": 1}, [], 8) == TimeLeft(10, True)

    def test_exclusive_stages_come_one_by_one_afterwards(self) -> None:
        seconds = {"train": [8], "latency": [3]}
        left = time_left(seconds, {"train": 2, "latency": 5}, [], 4, exclusive={"latency"})
        assert left == TimeLeft(8 + 15, True)

    def test_a_kind_without_example_makes_it_a_lower_bound(self) -> None:
        left = time_left({"train": [8]}, {"train": 1, "latency": 5}, [], 1)
        assert left == TimeLeft(8, False)
        assert str(left) == "more than 8 s left"
        assert time_left({"train": [8]}, {"train": 1}, [Running("latency", 1)], 1) == TimeLeft(8, False)

    def test_unknown_until_something_has_finished(self) -> None:
        assert time_left({}, {"train": 3}, [], 1) is None
        assert time_left({"evaluate": [1]}, {"train": 3, "evaluate": 0}, [], 1) is None

    def test_nothing_left(self) -> None:
        assert time_left({"train": [8]}, {}, [], 1) == TimeLeft(0, True)

    def test_text(self) -> None:
        assert str(TimeLeft(200, True)) == "about 3 min 20 s left"


class TestTally:
    def test_follows_a_run(self) -> None:
        clock = Clock()
        tally = Tally(clock)
        tally.start({"train": 3, "latency": 1}, workers=2)
        assert (tally.done, tally.total, tally.left()) == (0, 4, None)
        tally.started("a: train", "train")
        tally.started("b: train", "train")
        clock.now += 10
        tally.finished("a: train", "train", 10.0, "ok")
        assert tally.running == ["b: train"]
        assert tally.left() == TimeLeft(10, False)  # one waits, the other should be ending
        tally.finished("b: train", "train", 10.0, "ok")
        tally.finished("c: train", "train", 0.0, "ok")
        assert tally.left() is None
        tally.started("a: latency", "latency")
        assert tally.alone
        tally.finished("a: latency", "latency", 2.0, "ok")
        assert (tally.done, tally.alone, tally.left()) == (4, False, TimeLeft(0, True))

    def test_epochs_tell_of_the_end(self) -> None:
        clock = Clock()
        tally = Tally(clock)
        tally.start({"train": 1}, workers=1)
        tally.started("a: train", "train")
        clock.now += 10
        assert (tally.left(), tally.running) == (None, ["a: train"])
        tally.advanced("a: train", 1, 4)
        assert (tally.left(), tally.running) == (TimeLeft(30, True), ["a: train, epoch 1 of 4"])
        clock.now += 6  # within the second epoch time left shrinks
        assert tally.left() == TimeLeft(24, True)
        clock.now += 2  # which is faster than the first
        tally.advanced("a: train", 2, 4)
        assert tally.left() == TimeLeft(18, True)
        tally.finished("a: train", "train", 36.0, "ok")
        tally.advanced("a: train", 4, 4)  # too late to matter
        assert (tally.left(), tally.running) == (TimeLeft(0, True), [])

    def test_a_stage_that_trains_more_than_once_has_no_known_end(self) -> None:
        clock = Clock()
        tally = Tally(clock)
        tally.start({"compress": 1}, workers=1)
        tally.started("a", "compress")
        for epoch in (1, 2, 1, 2):
            clock.now += 5
            tally.advanced("a", epoch, 2)
        assert (tally.left(), tally.running) == (None, ["a, epoch 2 of 2"])

    @pytest.mark.parametrize(("seconds", "status", "began"), [(1.0, "failed", True), (0.0, "ok", False)])
    def test_failures_and_results_on_disk_teach_nothing(self, seconds: float, status: str, began: bool) -> None:
        tally = Tally(Clock())
        tally.start({"train": 3}, 1)
        if began:
            tally.started("a", "train")
        tally.finished("a", "train", seconds, status)
        assert tally.done == 1
        assert tally.left() is None


class TestPlain:
    def run(self, viewer: Progress, clock: Clock | None = None) -> None:
        viewer.start({"train": 2}, 2)
        for seed in range(2):
            viewer.stage_started(f"a, seed {seed}: train", "train")
            viewer.stage_advanced(f"a, seed {seed}: train", 1, 2)
            if clock:
                clock.now += 5
            viewer.stage_finished(f"a, seed {seed}: train", "train", 5.0, "ok")
            viewer.trial_finished(
                "a", seed, "ok" if seed else "failed", None if seed else "no\nluck\x1b[2J", seed + 1, 2
            )
        viewer.message("note\x07")
        viewer.finish("done")
        viewer.finish()

    def test_one_line_a_trial(self) -> None:
        out, clock = io.StringIO(), Clock()
        self.run(PlainProgress(out, clock), clock)
        assert out.getvalue().splitlines() == [
            "2 stages, 2 at once",
            "[1/2] a, seed 0: failed (no luck\ufffd[2J), about 5 s left",
            "[2/2] a, seed 1: ok",
            "note\ufffd",
            "done",
        ]

    def test_speaks_now_and_then_while_no_trial_ends(self) -> None:
        out, clock = io.StringIO(), Clock()
        viewer = PlainProgress(out, clock)
        viewer.start({"train": 1000}, 1)
        for i in range(100):
            viewer.stage_started(str(i), "train")
            clock.now += 1
            viewer.stage_finished(str(i), "train", 1.0, "ok")
        lines = out.getvalue().splitlines()
        assert len(lines) == 1 + int(100 // QUIET_SECONDS)
        assert lines[1] == "10/1000 stages, about 16 min 30 s left"

    def test_a_long_training_is_not_silent(self) -> None:
        out, clock = io.StringIO(), Clock()
        viewer = PlainProgress(out, clock)
        viewer.start({"train": 1}, 1)
        viewer.stage_started("a\x1b, seed 0: train", "train")
        for epoch in range(1, 13):
            clock.now += 4
            viewer.stage_advanced("a\x1b, seed 0: train", epoch, 12)
        assert out.getvalue().splitlines()[1:] == [
            f"a\ufffd, seed 0: train, epoch {epoch} of 12, about {left} s left"
            for epoch, left in ((3, 36), (6, 24), (9, 12), (12, 0))
        ]

    def test_nothing_to_run_is_nothing_to_say(self) -> None:
        out = io.StringIO()
        viewer = PlainProgress(out)
        viewer.start({}, 2)
        viewer.finish()
        assert out.getvalue() == ""

    def test_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.run(make_progress(quiet=True))
        assert capsys.readouterr() == ("", "")

    def test_bar_ends_without_a_trace_and_keeps_what_went_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        out = Terminal()
        self.run(make_progress(stream=out))
        text = out.getvalue()
        assert "1/2 stages" in text.replace("\x1b[32m", "").replace("\x1b[0m", "")
        assert "[1/2] a, seed 0: failed (no luck\ufffd[2J)\n" in text
        assert "seed 1: ok" not in text
        assert text.endswith("done\n")
        assert text.rindex("\x1b[2K") > text.rindex("2/2")  # the bar is wiped at the end
        assert "\x1b[?25h" in text  # and the cursor is back

    def test_bar_shows_epochs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "140")
        out = Terminal()
        viewer = BarProgress(out)
        viewer.start({"train": 2}, 2)
        viewer.stage_started("a: train", "train")
        viewer.stage_advanced("a: train", 3, 12)
        viewer.stage_started("b: train", "train")
        viewer.finish()
        assert "a: train, epoch 3 of 12, b: train" in out.getvalue()

    def test_bar_with_nothing_to_run(self) -> None:
        out = Terminal()
        viewer = BarProgress(out)
        viewer.start({}, 2)
        viewer.message("note [b]")
        viewer.finish()
        assert out.getvalue() == "note [b]\n"


def test_the_viewer_suits_the_stream() -> None:
    assert isinstance(make_progress(stream=Terminal()), BarProgress)
    assert isinstance(make_progress(stream=io.StringIO()), PlainProgress)
    assert isinstance(make_progress(quiet=True, stream=Terminal()), QuietProgress)


def test_stderr_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    make_progress().message("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_imports_neither_torch_nor_pandas() -> None:
    code = "import sys, cnnbench.progress; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
