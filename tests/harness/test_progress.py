"""What a run shows: time left, what runs where, and how it looks on a terminal and in a log."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from cnnbench import progress_bar
from cnnbench.costs import Costs, Work
from cnnbench.progress import Progress, QuietProgress, make_progress
from cnnbench.progress_bar import BarProgress, screen
from cnnbench.progress_lines import LEAST_SILENCE, MEASURING_SILENCE, PlainProgress
from cnnbench.tally import Ahead, Line, Tally, TimeLeft, time_left

if TYPE_CHECKING:
    import pytest


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(label: str, kind: str = "train", arm: str = "a", session: str = "") -> Work:
    return Work(label, kind, label, ("", arm), session, exclusive=kind in {"latency", "energy"})


def tally_of(clock: Clock, stages: list[Work], workers: int = 1, costs: Costs | None = None) -> Tally:
    tally = Tally(clock)
    tally.start(stages, workers, costs or Costs(), 0, len(stages))
    return tally


seconds = st.floats(0, 1e5)
stages_ahead = st.lists(st.builds(Ahead, seconds, st.booleans(), st.integers(0, 50)), max_size=30)


class TestTimeLeft:
    def test_work_is_shared_among_workers(self) -> None:
        assert time_left([Ahead(12, False, 6)], 3) == TimeLeft(6 * 12 / 3, True)

    def test_no_shorter_than_the_longest_stage(self) -> None:
        assert time_left([Ahead(10), Ahead(1)], 8) == TimeLeft(10, True)

    def test_exclusive_stages_come_one_by_one_afterwards(self) -> None:
        assert time_left([Ahead(8, False, 2), Ahead(3, True, 5)], 4) == TimeLeft(8 + 15, True)

    def test_what_is_not_known_makes_it_a_lower_bound(self) -> None:
        left = time_left([Ahead(8), Ahead(None, True, 5)], 1)
        assert left == TimeLeft(8, False)
        assert str(left) == "more than 8 s left"

    def test_unknown_where_nothing_tells(self) -> None:
        assert time_left([Ahead(None, False, 3)], 1) is None
        assert time_left([], 1) == TimeLeft(0, True)
        assert time_left([Ahead(None, False, 0)], 1) == TimeLeft(0, True)

    def test_text(self) -> None:
        assert str(TimeLeft(200, True)) == "about 3 min 20 s left"

    @given(stages_ahead, st.integers(1, 64))
    def test_lies_between_perfect_sharing_and_one_by_one(self, ahead: list[Ahead], workers: int) -> None:
        left = time_left(ahead, workers)
        every = [stage.seconds or 0.0 for stage in ahead for _ in range(stage.stages)]
        assert left is not None
        assert left.complete
        assert left.seconds <= sum(every) * (1 + 1e-9)
        assert left.seconds >= sum(every) / workers * (1 - 1e-9)
        assert left.seconds >= max(every, default=0)

    @given(stages_ahead, st.builds(Ahead, seconds, st.booleans(), st.integers(0, 50)), st.integers(1, 64))
    def test_more_to_do_is_never_faster_and_more_workers_never_slower(
        self, ahead: list[Ahead], one: Ahead, workers: int
    ) -> None:
        def of(stages: list[Ahead], places: int) -> float:
            left = time_left(stages, places)
            assert left is not None
            return left.seconds

        assert of([*ahead, one], workers) >= of(ahead, workers) * (1 - 1e-9)
        assert of(ahead, workers + 1) <= of(ahead, workers) * (1 + 1e-9)


class TestTally:
    def test_arms_are_learned_apart(self) -> None:
        costs = Costs()
        every = [work(f"{arm}{seed}", arm=arm) for arm in "ab" for seed in range(3)]
        tally = tally_of(Clock(), every, costs=costs)
        for one, took in ((every[0], 10.0), (every[3], 100.0)):
            tally.started(one)
            costs.learn(one.kind, one.arm, took)
            tally.finished(one)
        assert (tally.done, tally.left()) == (2, TimeLeft(2 * 10 + 2 * 100, True))

    def test_epochs_tell_of_the_end(self) -> None:
        clock, stage = Clock(), work("a: train")
        tally = tally_of(clock, [stage])
        tally.started(stage)
        clock.now += 10
        assert tally.left() is None
        assert tally.lines == [Line("", "a: train", 10)]
        tally.advanced(stage, 1, 4)
        assert tally.left() == TimeLeft(30, True)
        assert tally.lines == [Line("", "a: train, epoch 1 of 4", 10)]
        clock.now += 6  # within the second epoch time left shrinks
        assert tally.left() == TimeLeft(24, True)
        clock.now += 2  # which is faster than the first
        tally.advanced(stage, 2, 4)
        assert tally.left() == TimeLeft(18, True)
        tally.finished(stage)
        tally.advanced(stage, 4, 4)  # too late to matter
        assert (tally.left(), tally.lines) == (TimeLeft(0, True), [])

    def test_a_running_total_stands_in_for_what_has_not_finished(self) -> None:
        clock, every = Clock(), [work(str(seed)) for seed in range(3)]
        tally = tally_of(clock, every)
        tally.started(every[0])
        clock.now += 10
        tally.advanced(every[0], 1, 10)
        assert tally.left() == TimeLeft(90 + 2 * 100, True)

    def test_time_counts_from_where_a_stage_was_taken_up(self) -> None:
        clock, stage = Clock(), work("a")
        tally = tally_of(clock, [stage])
        tally.started(stage)
        clock.now += 20  # a worker starts
        tally.placed(stage, "worker 1")
        clock.now += 10
        tally.advanced(stage, 1, 2)
        assert tally.left() == TimeLeft(10, True)
        assert tally.lines == [Line("worker 1", "a, epoch 1 of 2", 10)]

    def test_a_stage_that_trains_more_than_once_has_no_known_end(self) -> None:
        clock, stage = Clock(), work("a", "compress")
        tally = tally_of(clock, [stage])
        tally.started(stage)
        for epoch in (1, 2, 1, 2):
            clock.now += 5
            tally.advanced(stage, epoch, 2)
        assert tally.left() is None

    def test_a_session_is_one_line_and_each_of_its_stages_has_its_share_of_the_time(self) -> None:
        clock = Clock()
        costs = Costs({("latency", ("", arm)): [6.0] for arm in "abc"})
        every = [work(arm, "latency", arm, "latency, seed 0") for arm in "abc"]
        tally = tally_of(clock, every, 4, costs)
        for stage in every:
            tally.started(stage)
            tally.placed(stage, "worker 1")
        clock.now += 9
        assert tally.lines == [Line("worker 1", "latency, seed 0: 3 together", 9)]
        assert tally.left() == TimeLeft(3 * 6 - 9, True)
        assert tally.alone

    def test_stages_of_one_session_at_several_places_are_not_together(self) -> None:
        clock, every = Clock(), [work(str(seed), session="train, a") for seed in range(2)]
        tally = tally_of(clock, every, 2)
        for number, stage in enumerate(every):
            tally.started(stage)
            tally.placed(stage, f"worker {number}")
        assert [line.text for line in tally.lines] == ["0", "1"]

    def test_a_stage_that_starts_again_is_still_one(self) -> None:
        costs = Costs({("train", ("", "a")): [10.0]})
        clock, every = Clock(), [work("0"), work("1")]
        tally = tally_of(clock, every, costs=costs)
        tally.started(every[0])
        clock.now += 5
        tally.started(every[0])
        assert tally.left() == TimeLeft(20, True)

    def test_results_on_disk_need_not_run(self) -> None:
        costs = Costs({("train", ("", "a")): [10.0]})
        every = [work("0"), work("1")]
        tally = tally_of(Clock(), every, costs=costs)
        tally.finished(every[0])
        assert (tally.done, tally.left()) == (1, TimeLeft(10, True))

    def test_counts_trials_and_failures_over_several_looks(self) -> None:
        tally = tally_of(Clock(), [])
        tally.trial("ok", 1, 4)
        tally.trial("diverged", 2, 4)
        tally.trial("skipped", 3, 4)
        assert tally.counts == "3/4 trials, 1 failed"
        tally.start([], 1, Costs(), 4, 6)
        assert tally.counts == "4/6 trials, 1 failed"


class TestPlain:
    def run(self, viewer: Progress, clock: Clock | None = None) -> None:
        every = [work(f"a, seed {seed}: train") for seed in range(2)]
        costs = Costs()
        viewer.start(every, 2, costs, 0, 2)
        for seed, stage in enumerate(every):
            viewer.stage_started(stage)
            viewer.stage_placed(stage, "worker 1")
            viewer.stage_advanced(stage, 1, 2)
            if clock:
                clock.now += 5
            costs.learn("train", ("", "a"), 5.0)
            viewer.stage_finished(stage)
            viewer.trial_finished(
                "a", seed, "ok" if seed else "failed", None if seed else "no\nluck\x1b[2J", seed + 1, 2
            )
        viewer.message("note\x07")
        viewer.finish()
        viewer.finish()

    def test_one_line_a_trial(self) -> None:
        out, clock = io.StringIO(), Clock()
        self.run(PlainProgress(out, clock), clock)
        assert out.getvalue().splitlines() == [
            "2 stages, 2 at once",
            "[1/2] a, seed 0: failed (no luck\ufffd[2J), about 5 s left",
            "[2/2] a, seed 1: ok",
            "note\ufffd",
        ]

    def test_says_what_runs_where_while_nothing_happens(self) -> None:
        out, clock = io.StringIO(), Clock()
        viewer = PlainProgress(out, clock)
        stage = work("a\x1b, seed 0: train")
        viewer.start([stage, work("b")], 1, Costs(), 3, 5)
        viewer.stage_started(stage)
        viewer.stage_placed(stage, "worker 1")
        viewer.remind()
        clock.now += LEAST_SILENCE
        viewer.stage_advanced(stage, 1, 4)
        viewer.remind()
        viewer.remind()
        viewer.finish()
        assert out.getvalue().splitlines()[1:] == [
            "0/2 stages, 3/5 trials, about 1 min 10 s left: worker 1: a\ufffd, seed 0: train, epoch 1 of 4 (10 s)"
        ]

    def test_a_log_of_days_does_not_drown(self) -> None:
        out, clock = io.StringIO(), Clock()
        viewer = PlainProgress(out, clock)
        viewer.start([work("a")], 1, Costs(), 0, 1)
        viewer.stage_started(work("a"))
        for _ in range(3 * 24 * 3600 // 10):
            clock.now += 10
            viewer.remind()
        viewer.finish()
        assert 500 < len(out.getvalue().splitlines()) < 1200

    def test_is_more_quiet_while_an_exclusive_stage_is_measured(self) -> None:
        out, clock = io.StringIO(), Clock()
        viewer = PlainProgress(out, clock)
        stage = work("a", "latency")
        viewer.start([stage], 1, Costs(), 0, 1)
        viewer.stage_started(stage)
        for _ in range(int(MEASURING_SILENCE)):
            viewer.remind()
            clock.now += 1
        viewer.remind()
        viewer.finish()
        assert out.getvalue().splitlines()[1:] == ["0/1 stages, 0/1 trial: a (1 min)"]

    def test_a_thread_reminds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cnnbench.progress_lines.TICK_SECONDS", 0.001)
        monkeypatch.setattr("cnnbench.progress_lines.LEAST_SILENCE", 0.0)
        out = io.StringIO()
        viewer = PlainProgress(out)
        viewer.start([work("a")], 1, Costs(), 0, 1)
        waited_until = time.monotonic() + 20
        while out.getvalue().count("\n") < 2 and time.monotonic() < waited_until:
            time.sleep(0.001)
        viewer.finish()
        assert out.getvalue().splitlines()[1] == "0/1 stages, 0/1 trial"

    def test_nothing_to_run_is_nothing_to_say(self) -> None:
        out = io.StringIO()
        viewer = PlainProgress(out)
        viewer.start([], 2, Costs(), 0, 0)
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
        assert "0/2 stages" in text
        assert "[1/2] a, seed 0: failed (no luck\ufffd[2J)\n" in text
        assert "seed 1: ok" not in text
        assert text.rindex("\x1b[2K") > text.rindex("stages")  # the bar is wiped at the end
        assert "\x1b[?25h" in text  # and the cursor is back

    def test_bar_with_nothing_to_run(self) -> None:
        out = Terminal()
        viewer = BarProgress(out)
        viewer.start([], 2, Costs(), 0, 0)
        viewer.message("note [b]")
        viewer.finish()
        assert out.getvalue() == "note [b]\n"

    def test_the_bar_moves_while_nothing_is_measured_and_rests_while_something_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress_bar, "REFRESH_SECONDS", 0.001)
        drawn: list[int] = []
        monkeypatch.setattr(BarProgress, "_draw", lambda _: drawn.append(1))
        viewer = BarProgress(Terminal())
        stage, alone = work("a"), work("b", "latency")
        viewer.start([stage, alone], 1, Costs(), 0, 1)
        waited_until = time.monotonic() + 20
        while len(drawn) < 5 and time.monotonic() < waited_until:
            time.sleep(0.001)
        assert len(drawn) >= 5
        monkeypatch.setattr(viewer, "_drawn", time.monotonic())
        viewer.stage_started(alone)
        before = len(drawn)
        time.sleep(0.05)
        assert len(drawn) == before
        viewer.finish()


class TestScreen:
    def tally(self, names: list[str], clock: Clock | None = None) -> Tally:
        clock = clock or Clock()
        tally = tally_of(clock, [work(name) for name in names])
        for number, name in enumerate(names):
            tally.started(work(name))
            tally.placed(work(name), f"worker {number + 1}, GPU {number}")
            tally.advanced(work(name), 3, 12)
        return tally

    def test_a_line_for_each_place(self) -> None:
        clock = Clock()
        tally = self.tally(["x: train", "y: train"], clock)
        clock.now += 61
        assert screen(tally, 80, 24)[1:] == [
            "  worker 1, GPU 0: x: train, epoch 3 of 12 (1 min 1 s)",
            "  worker 2, GPU 1: y: train, epoch 3 of 12 (1 min 1 s)",
        ]

    @given(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90), max_size=40, unique=True),
        st.integers(10, 200),
        st.integers(3, 60),
        st.booleans(),
    )
    def test_never_wraps_nor_scrolls(self, names: list[str], width: int, height: int, plain: bool) -> None:
        lines = screen(self.tally(names), width, height, plain=plain)
        assert all(cell_len(line) <= max(width - 3, 1) for line in lines), "a terminal's own ^C would wrap"
        assert all(cell_len(line) < width for line in lines)
        assert len(lines) < max(height, 4)
        assert not any("\n" in line or "\x1b" in line for line in lines)

    def test_a_long_name_gives_way_and_the_epoch_stays(self) -> None:
        line = screen(self.tally(["group norm " * 20]), 60, 24)[1]
        assert line.startswith("  worker 1, GPU 0: group")
        assert line.endswith("epoch 3 of 12 (0 s)")
        assert "…" in line

    def test_plain_terminals_get_ascii(self) -> None:
        lines = screen(self.tally(["group norm " * 20] * 1), 60, 24, plain=True)
        assert all(line.isascii() for line in lines)

    def test_what_is_too_much_is_counted(self) -> None:
        lines = screen(self.tally([str(i) for i in range(20)]), 80, 24)
        assert lines[-1] == "  and 13 more"
        assert len(lines) == 9


def test_the_viewer_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_progress(stream=Terminal()), BarProgress)
    assert isinstance(make_progress(stream=io.StringIO()), PlainProgress)
    assert isinstance(make_progress(quiet=True, stream=Terminal()), QuietProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(stream=Terminal()), PlainProgress)


def test_stderr_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    make_progress().message("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_imports_neither_torch_nor_pandas() -> None:
    code = "import sys, cnnbench.progress; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
