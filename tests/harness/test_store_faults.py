"""The record file and the cache through kills, damage, writers at once and disks that refuse: what is whole is read."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cnnbench import durable
from cnnbench.errors import StoreError, UsageError
from cnnbench.execute import cache as cache_module
from cnnbench.execute.cache import CacheError, StageCache, filling, write_result
from cnnbench.store import DAMAGED, FILE, Store

KEYS = st.sampled_from("abc")


def record(key: str, reason: str = "") -> dict[str, object]:
    return {"key": key, "arm": "arm", "role": "arm", "seed": 0, "status": "ok", "reason": reason}


class RecordFile(RuleBasedStateMachine):
    """Beside the file, the lines that it should hold: what each says, or None where it is damaged."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(mkdtemp())
        self.store = Store(self.folder)
        self.lines: list[tuple[bytes, tuple[str, str] | None]] = []
        self.aside = b""
        self.number = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def _entered(self, key: str, text: str) -> dict[str, object]:
        self.number += 1
        return record(key, f"{self.number} {text}")

    def _took(self, made: dict[str, object]) -> None:
        (line,) = [line for line in self.data().splitlines() if f'"reason":"{made["reason"]}'.encode() in line][-1:]
        self.lines.append((line, (str(made["key"]), str(made["reason"]))))

    def data(self) -> bytes:
        return self.store.path.read_bytes() if self.store.path.exists() else b""

    def start(self, number: int) -> int:
        """Where a line begins."""
        return sum(len(line) + 1 for line, _ in self.lines[:number])

    @rule(key=KEYS, text=st.text("xyz ", max_size=20))
    def append(self, key: str, text: str) -> None:
        made = self._entered(key, text)
        self.store.append(made)
        self._took(made)

    @rule(key=KEYS)
    def append_side_by_side(self, key: str) -> None:
        made = [self._entered(key, "x" * 5000) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Store(self.folder).append, made))
        order = sorted(made, key=lambda one: self.data().index(f'"reason":"{one["reason"]}'.encode()))
        for one in order:
            self._took(one)

    @rule(share=st.floats(0, 1))
    def kill_the_writer(self, share: float) -> None:
        """The file ends at any byte of its last line."""
        if self.lines:
            line, said = self.lines.pop()
            kept = line[: round(share * len(line))]
            os.truncate(self.store.path, self.start(len(self.lines)) + len(kept))
            if kept:
                self.lines.append((kept, said if kept == line else None))

    @rule(place=st.floats(0, 0.999), byte=st.sampled_from([b"\xff", b"\x00"]))
    def corrupt(self, place: float, byte: bytes) -> None:
        if self.lines:
            number = int(place * len(self.lines))
            line = self.lines[number][0]
            middle, start, data = len(line) // 2, self.start(number), self.data()
            damaged = line[:middle] + byte + line[middle + 1 :]
            self.store.path.write_bytes(data[:start] + damaged + data[start + len(line) :])
            self.lines[number] = (damaged, None)

    @rule(refused=st.integers(0, 60))
    def append_on_a_full_disk(self, refused: int) -> None:
        """Nothing of the record is there, torn or whole."""
        written = durable.write_whole

        def part(file: object, data: bytes) -> None:
            written(file, data[:refused])  # type: ignore[arg-type]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        before = self.data()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(durable, "write_whole", part)
            with pytest.raises(StoreError, match="No space left on device"):
                self.store.append(record("a", "x" * 100))
        assert self.data() == before

    @rule(key=KEYS, remove=st.sampled_from(["nothing", "file", "folder", "content"]))
    def run(self, key: str, remove: str) -> None:
        """A run reads, which sets damage aside, recalls all, enters two records, and loses its folder in between."""
        told: list[str] = []
        store = Store(self.folder, told.append)
        with store.exclusive():
            found = store.read()
            damaged = [line for line, said in self.lines if said is None]
            self.aside += b"".join(line + b"\n" for line in damaged)
            self.lines = [(line, said) for line, said in self.lines if said is not None]
            assert len(told) == bool(damaged) == bool(found.problems)
            for one in found.records:
                store.hold(one)
            first, second = self._entered(key, "one"), self._entered("z", "two")
            store.append(first)
            self._took(first)
            if remove == "folder":
                shutil.rmtree(self.folder)
                self.aside = b""
            elif remove == "file":
                self.store.path.unlink()
            elif remove == "content":
                self.store.path.write_bytes(b"")
            if remove != "nothing":  # of several lines with one key the last is what the run knows
                last = {said[0]: line for line, said in self.lines if said}
                self.lines = [(line, said) for line, said in self.lines if said and last[said[0]] == line]
            store.append(second)
            self._took(second)
            assert any("was removed while" in text for text in told) == (remove != "nothing")
        assert sorted(path.name for path in self.folder.iterdir()) == sorted([FILE] + [DAMAGED] * bool(self.aside))

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def whole_records_are_read(self) -> None:
        expected: dict[str, str] = {}
        for key, reason in (said for _, said in self.lines if said is not None):
            expected.pop(key, None)
            expected[key] = reason
        found = self.store.read()
        assert [(one["key"], one["reason"]) for one in found.records] == list(expected.items())
        assert len(found.problems) == sum(said is None for _, said in self.lines)
        aside = self.folder / DAMAGED
        assert (aside.read_bytes() if aside.exists() else b"") == self.aside


TestRecordFile = RecordFile.TestCase
TestRecordFile.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


def test_what_a_killed_writer_left_half_done_goes_with_the_next_run(tmp_path):
    (tmp_path / f".{FILE}-123.part").write_text("half")
    (tmp_path / ".hidden").write_text("another's")
    with Store(tmp_path).exclusive():
        assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".run.lock"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    durable.write(tmp_path / "new" / "table.md", b"one")

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"table.md: can't be written: No space left on device$"):
        durable.write(tmp_path / "new" / "table.md", b"two")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"table.md": b"one"}


FILLER = """
import sys
from pathlib import Path
from cnnbench.execute.cache import filling
with filling(Path(sys.argv[1])) as scratch:
    (scratch / "model.pt").write_text("half")
    print(scratch, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="folders are held on POSIX alone")
def test_what_a_killed_worker_left_goes_and_what_a_living_one_fills_stays(tmp_path):
    cache = StageCache(tmp_path)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", FILLER, str(cache.folder(key))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for key in ("ab12", "ab34")
    ]
    killed, alive = (Path(worker.stdout.readline().decode().strip()) for worker in workers)
    workers[0].kill()
    workers[0].wait()
    cache.prepare()
    assert not killed.exists()
    assert alive.exists()
    for worker in workers:
        worker.communicate(b"")
    assert cache.folder("ab34").exists()
    assert list(tmp_path.glob("*/.*")) == []


def fill(folder: Path, act: object) -> None:
    with filling(folder) as scratch:
        act(scratch)  # type: ignore[operator]
        write_result(scratch, {})


def test_a_cache_removed_while_a_stage_fills_it_is_told_apart_from_its_failure(tmp_path):
    folder = StageCache(tmp_path / "cache").folder("ab12")

    def again(scratch: Path) -> None:  # as ``save_model`` does, which makes its folder
        shutil.rmtree(tmp_path / "cache")
        scratch.mkdir(parents=True)

    for act in (lambda _: shutil.rmtree(tmp_path / "cache"), again):
        with pytest.raises(CacheError, match="was removed while it was in use") as caught:
            fill(folder, act)
        assert caught.value.removed
        assert not folder.exists()
    fill(folder, lambda _: None)
    assert StageCache(tmp_path / "cache").result("ab12") == {}


@pytest.mark.parametrize(
    ("error", "room", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1 << 20, True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), 1 << 20, True),
        (ValueError("the technique's own"), 1 << 10, True),
        (ValueError("the technique's own"), 1 << 20, False),
        (OSError(errno.ENOSPC, "somewhere else"), 1 << 30, False),
    ],
)
def test_a_full_disk_is_told_apart_from_a_stage_that_fails(tmp_path, monkeypatch, error, room, full):
    def room_for(folder: Path, size: int) -> None:
        if size > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module, "_try", room_for)

    def act(_: Path) -> None:
        raise error

    with pytest.raises(CacheError if full else type(error)) as caught:
        fill(tmp_path / "ab" / "ab12", act)
    if full:
        assert str(caught.value) == f"cache folder {tmp_path} can't be written in: No space left on device"
        assert not caught.value.removed
        assert caught.value.__cause__ is error
    assert list(tmp_path.glob("*/*")) == []


def test_a_cache_that_takes_nothing_is_told_before_anything_runs(tmp_path, monkeypatch):
    def refuse(folder: Path, size: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache_module, "_try", refuse)
    with pytest.raises(UsageError, match="can't be written in: Read-only file system; choose another with --cache"):
        StageCache(tmp_path).prepare()
