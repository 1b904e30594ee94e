"""Runs whose folders are removed, filled up, locked or damaged under their hands, and those whose clock goes back.

After each the records of all trials are there and the table is that of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cnnbench.cli import main
from cnnbench.quality import quality
from cnnbench.store import DAMAGED, FILE, SCHEMA, open_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEEDS = 3
TRIALS = 2 * SEEDS
REMEDY = "finished work is kept, the same command goes on from here"
RUN = ["run", "suite.toml", "--executor", "inline", "--results", "results", "--cache", "cache"]

# Calls back after each trial, when its record is written.
CALLS_BACK = """
from cnnbench import hookimpl

after_trial = []

@hookimpl
def cnnbench_trial_finished(record):
    for act in after_trial:
        act(record)
"""


class Place:
    """One folder and the runs in it, in this process."""

    def __init__(self, folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.cache = folder / "cache"
        self.capsys = capsys
        folder.mkdir(exist_ok=True)
        (folder / "suite.toml").write_text(text)

    def run(self) -> tuple[int, str, str]:
        """Exit code, table and messages."""
        self.capsys.readouterr()
        with contextlib.chdir(self.folder):
            code = main(RUN)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def found(self) -> dict[tuple[str, int], dict[str, Any]]:
        """What counts of each trial's last record."""
        records = open_results(self.results).records
        return {(r["arm"], r["seed"]): {"status": r["status"], "key": r["key"], **quality(r)} for r in records}


@pytest.fixture(scope="module")
def calls_back(install_module_plugin) -> list[Callable[[dict[str, Any]], None]]:
    install_module_plugin("calls_back", CALLS_BACK)
    import calls_back

    return calls_back.after_trial


@pytest.fixture(scope="module")
def text(tiny_suite) -> str:
    pruned = {"pruned": '{ compressor = { name = "prune_magnitude", sparsity = 0.9 } }'}
    return tiny_suite(pruned, metrics=("accuracy", "nll"), seeds=SEEDS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, text, calls_back) -> tuple[Path, str]:
    """The folder of a run that nothing befell, and its table."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "suite.toml").write_text(text)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as table:
        assert main(RUN) == 0
    assert calls_back == []
    return folder, table.getvalue()


@pytest.fixture
def place(tmp_path, text, capsys, calls_back) -> Iterator[Place]:
    """A folder where nothing has run yet."""
    yield Place(tmp_path / "place", text, capsys)
    calls_back.clear()


@pytest.fixture
def trained(place, undisturbed) -> Place:
    """A folder whose cache has every stage, and that has no records."""
    shutil.copytree(undisturbed[0] / "cache", place.cache)
    return place


@pytest.fixture
def ended(trained, undisturbed) -> Place:
    """A folder where the run has ended."""
    shutil.copytree(undisturbed[0] / "results", trained.results)
    return trained


@pytest.fixture
def as_undisturbed(undisturbed, capsys) -> Callable[[Place, str], None]:
    """Holds a place and the table of its last run to the undisturbed ones."""

    def check(place: Place, table: str) -> None:
        alone = Place(undisturbed[0], (undisturbed[0] / "suite.toml").read_text(), capsys)
        assert place.found() == alone.found()
        assert len(place.found()) == TRIALS
        assert table == undisturbed[1]
        assert [path.name for path in place.results.iterdir() if path.name.startswith(".")] == []
        assert [path for path in place.cache.glob("*/.*") if path.is_dir()] == []

    return check


def once_after(number: int, act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """What is done once, after so many trials."""
    seen: list[str] = []

    def after(record: dict[str, Any]) -> None:
        seen.append(record["key"])
        if len(seen) == number:
            act()

    return after


@pytest.mark.parametrize("after", [1, 3, TRIALS])
def test_a_results_folder_that_is_removed_is_written_again(trained, calls_back, as_undisturbed, after):
    calls_back.append(once_after(after, lambda: shutil.rmtree(trained.results)))
    code, table, said = trained.run()
    assert code == 0
    assert f"{FILE} was removed while this run was writing: what the run knows was written again, " in said
    assert (trained.results / "suite.toml").read_text() == (trained.folder / "suite.toml").read_text()
    as_undisturbed(trained, table)


def test_a_record_file_that_is_emptied_is_written_again(ended, calls_back, as_undisturbed):
    # Half of the trials are recalled, half are entered: both are what the run answers for.
    lines = (ended.results / FILE).read_bytes().splitlines(keepends=True)
    (ended.results / FILE).write_bytes(b"".join(lines[:3]))
    calls_back.append(once_after(2, lambda: (ended.results / FILE).write_bytes(b"")))
    code, table, _ = ended.run()
    assert code == 0
    as_undisturbed(ended, table)


def test_another_run_that_took_the_folder_meanwhile_keeps_it(trained, calls_back):
    holder = (
        "import sys\nfrom pathlib import Path\nfrom cnnbench.store import Store\n"
        "with Store(Path('results')).exclusive():\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    others = []

    def take() -> None:
        shutil.rmtree(trained.results)
        other = subprocess.Popen(
            [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=trained.folder
        )
        assert other.stdout is not None
        other.stdout.readline()
        others.append(other)

    calls_back.append(once_after(2, take))
    code, _, said = trained.run()
    others[0].communicate(b"")
    assert code == 2
    assert said.splitlines()[-1].startswith("cnnbench: results: another run is writing here (process ")


def test_a_cache_that_is_removed_costs_no_trial(place, calls_back, as_undisturbed):
    calls_back.append(once_after(2, lambda: shutil.rmtree(place.cache)))
    code, table, _ = place.run()
    assert code == 0
    as_undisturbed(place, table)


def test_damaged_lines_are_told_set_aside_and_their_trials_taken_from_the_cache(ended, as_undisturbed):
    file = ended.results / FILE
    lines = file.read_bytes().splitlines(keepends=True)
    flipped = lines[2].replace(b'"status":"ok"', b'"status":"o\xff"')
    torn = lines[5][:100]
    file.write_bytes(b"".join([lines[0], lines[1], flipped, lines[3], lines[4], torn]))
    code, table, said = ended.run()
    assert code == 0
    assert f"warning: {Path('results') / FILE}: line 3: not JSON, line 6: torn: " in said
    assert f"kept in {DAMAGED}" in said
    assert (ended.results / DAMAGED).read_bytes() == flipped + torn + b"\n"
    as_undisturbed(ended, table)
    assert open_results(ended.results).problems == ()
    _, _, said = ended.run()
    assert "line" not in said


def test_records_of_the_first_schema_count_and_nothing_runs_again(ended, calls_back, as_undisturbed):
    file = ended.results / FILE
    records = [json.loads(line) for line in file.read_bytes().splitlines()]
    gone = ("dataset", "statistics", "design", "reference", "data", "workers")
    old = [{name: value for name, value in {**r, "schema": 1}.items() if name not in gone} for r in records]
    file.write_text("".join(json.dumps(record) + "\n" for record in old))
    ran: list[Any] = []
    calls_back.append(ran.append)
    code, table, _ = ended.run()
    assert (code, ran) == (0, [])
    as_undisturbed(ended, table)
    assert {record["schema"] for record in open_results(ended.results).records} == {SCHEMA}


def test_a_clock_that_goes_back_changes_no_table(ended, as_undisturbed, monkeypatch):
    import cnnbench.ledger

    now = [datetime(2001, 5, 1, tzinfo=UTC)]

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            now[0] -= timedelta(hours=7)
            return now[0]

    monkeypatch.setattr(cnnbench.ledger, "datetime", Backwards)
    monkeypatch.setattr("time.time", lambda: datetime.timestamp(now[0]))
    lines = (ended.results / FILE).read_bytes().splitlines(keepends=True)
    (ended.results / FILE).write_bytes(b"".join(lines[:3]))
    code, table, _ = ended.run()
    assert code == 0
    as_undisturbed(ended, table)
    finished = [record["finished"] for record in open_results(ended.results).records]
    assert finished[3:] == sorted(finished[3:], reverse=True), "the clock did go back"
    assert max(finished[3:]) < min(finished[:3])


def refusing(what: int) -> Callable[..., None]:
    def refuse(*_: Any) -> None:
        raise OSError(what, os.strerror(what))

    return refuse


@pytest.mark.parametrize("what", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_records_that_can_not_be_written_stop_the_run_in_one_line(
    trained, calls_back, as_undisturbed, monkeypatch, what
):
    """The same without root: the file system's answers alone."""
    with monkeypatch.context() as patch:
        calls_back.append(once_after(3, lambda: patch.setattr("cnnbench.durable.write_whole", refusing(what))))
        code, table, said = trained.run()
    assert (code, table) == (2, "")
    assert said.splitlines()[-1] == (
        f"cnnbench: {Path('results') / FILE}: can't be written: {os.strerror(what)}; finished work is kept, the same "
        "command goes on from here"
    )
    assert len(trained.found()) == 3
    calls_back.clear()
    code, table, _ = trained.run()
    assert code == 0
    as_undisturbed(trained, table)


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: float) -> Iterator[None]:
    """A file system of its own at a folder."""
    folder.mkdir(parents=True)
    size = f"size={int(mebibytes * 1024)}k"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system can't be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all the room that a disk has."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


mounts = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounting a small disk takes root on Linux"
)


@mounts
class TestSmallDisk:
    def test_results_on_a_disk_that_fills_up(self, trained, calls_back, as_undisturbed):
        with small_disk(trained.results, 1):
            calls_back.append(once_after(3, lambda: fill(trained.results)))
            code, table, said = trained.run()
            assert (code, table) == (2, "")
            assert said.splitlines()[-1].startswith(
                f"cnnbench: {Path('results') / FILE}: can't be written: No space left on device; finished work is kept"
            )
            assert (trained.results / FILE).read_bytes().endswith(b"}\n"), "no torn line"
            assert len(trained.found()) >= 3
            before = trained.found().items()
            (trained.results / "filler").unlink()
            calls_back.clear()
            code, table, _ = trained.run()
            assert code == 0
            assert before <= trained.found().items()
            as_undisturbed(trained, table)

    def test_results_on_a_disk_that_is_full_from_the_start(self, trained):
        with small_disk(trained.results, 0.01):
            fill(trained.results)
            code, _, said = trained.run()
        assert code == 2
        assert said.splitlines()[-1].startswith("cnnbench: results")
        assert "No space left on device" in said.splitlines()[-1]

    @pytest.mark.slow
    def test_cache_on_a_disk_that_fills_up(self, place, calls_back, as_undisturbed):
        with small_disk(place.cache, 2):
            calls_back.append(once_after(2, lambda: fill(place.cache)))
            code, table, said = place.run()
            assert (code, table) == (2, "")
            assert said.splitlines()[-1].startswith("cnnbench: cache folder ")
            assert said.splitlines()[-1].endswith(f"cache can't be written in: No space left on device; {REMEDY}")
            assert len(place.found()) == 2
            assert {found["status"] for found in place.found().values()} == {"ok"}, "a full disk is no trial's fault"
            assert [path for path in place.cache.glob("*/.*") if path.is_dir()] == []
            calls_back.clear()
            assert place.run()[2].splitlines()[-1].startswith("cnnbench: cache folder ")
            (place.cache / "filler").unlink()
            code, table, _ = place.run()
            assert code == 0
            as_undisturbed(place, table)

    @pytest.mark.slow
    def test_temporary_files_on_a_full_disk(self, place, as_undisturbed, tmp_path, monkeypatch):
        with small_disk(tmp_path / "tmp", 0.1):
            fill(tmp_path / "tmp")
            monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
            monkeypatch.setattr("tempfile.tempdir", None)
            code, table, _ = place.run()
        monkeypatch.setattr("tempfile.tempdir", None)
        assert code == 0
        as_undisturbed(place, table)

    @pytest.mark.parametrize("what", ["results", "cache"])
    def test_a_folder_that_is_read_only_from_the_start_is_told_before_anything_runs(self, place, calls_back, what):
        ran: list[Any] = []
        calls_back.append(ran.append)
        with small_disk(place.folder / what, 1):
            subprocess.run(["mount", "-o", "remount,ro", str(place.folder / what)], check=True)
            code, table, said = place.run()
        assert (code, table, ran) == (2, "", [])
        assert said.splitlines()[-1].startswith("cnnbench: ")
        assert "can't be written in: Read-only file system" in said.splitlines()[-1]

    @pytest.mark.slow
    def test_a_cache_that_becomes_read_only(self, place, calls_back, as_undisturbed):
        with small_disk(place.cache, 2):
            remount = ["mount", "-o", "remount,ro", str(place.cache)]
            calls_back.append(once_after(2, lambda: subprocess.run(remount, check=True)))
            code, table, said = place.run()
            assert (code, table) == (2, "")
            assert said.splitlines()[-1].startswith("cnnbench: cache folder ")
            assert said.splitlines()[-1].endswith(f"cache can't be written in: Read-only file system; {REMEDY}")
            assert len(place.found()) == 2
            subprocess.run(["mount", "-o", "remount,rw", str(place.cache)], check=True)
            calls_back.clear()
            code, table, _ = place.run()
            assert code == 0
            as_undisturbed(place, table)


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["cache", "both"])
def test_two_runs_at_once(tmp_path, text, undisturbed, as_undisturbed, capsys, shared):
    """With one results folder the second is refused; with one cache folder neither disturbs the other."""
    place = Place(tmp_path / "place", text, capsys)

    def start(results: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cnnbench", *(results if word == "results" else word for word in RUN), "--quiet"],
            cwd=place.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    both = [start("results"), start("results" if shared == "both" else "other")]
    said = [one.communicate(timeout=300) for one in both]
    codes = [one.returncode for one in both]
    assert codes == [0, 0] if shared == "cache" else sorted(codes) == [0, 2], said
    for code, (table, errors) in zip(codes, said, strict=True):
        if code == 2:
            assert "another run is writing here (process " in errors.splitlines()[-1]
        else:
            assert table.replace("records in other", "records in results") == undisturbed[1]
    as_undisturbed(place, undisturbed[1])
    if shared == "cache":
        place.results = place.folder / "other"
        as_undisturbed(place, undisturbed[1])
