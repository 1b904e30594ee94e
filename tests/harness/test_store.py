from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.errors import StoreError
from cnnbench.migrations import SCHEMA
from cnnbench.record_lines import as_line
from cnnbench.store import DAMAGED, FILE, Store, open_results


def record(key: str = "k0", **more: object) -> dict[str, object]:
    return {"key": key, "arm": "group norm", "role": "arm", "seed": 0, "status": "ok", **more}


def keys(store: Store) -> list[str]:
    return [found["key"] for found in store.read().records]


class TestAppendAndRead:
    def test_round_trip(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "made" / "on demand")
        store.append(record(metrics={"accuracy": 0.5}, reason='a "reason"\nwith lines \u2028', trace=None))
        (found,) = store.read().records
        assert found == {
            "schema": SCHEMA,
            **record(metrics={"accuracy": 0.5}, reason='a "reason"\nwith lines \u2028', trace=None),
        }
        assert store.path.read_bytes().count(b"\n") == 1

    def test_no_file_holds_no_records(self, tmp_path: Path) -> None:
        assert Store(tmp_path).read().records == ()

    def test_last_record_of_a_key_counts(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        for key, status in [("a", "failed"), ("b", "ok"), ("a", "ok")]:
            store.append(record(key, status=status))
        assert [(r["key"], r["status"]) for r in store.read().records] == [("b", "ok"), ("a", "ok")]

    def test_what_is_not_finite_becomes_null(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.append(
            record(metrics={"nll": math.inf, "ece": float("nan")}, details={"own": [np.float32("nan"), np.float64(2)]})
        )
        text = store.path.read_text()
        (found,) = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
        assert found["metrics"] == {"nll": None, "ece": None}
        assert found["details"] == {"own": [None, 2.0]}

    def test_numpy_and_paths_are_plain_on_disk(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.append(record(details={"confusion": np.eye(2, dtype=np.int64), "n": np.int32(3), "file": Path("a/b")}))
        assert store.read().records[0]["details"] == {"confusion": [[1, 0], [0, 1]], "n": 3, "file": str(Path("a/b"))}

    def test_text_without_utf8_form_is_written_all_the_same(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.append(record(reason="no such file: \udcff"))
        assert store.read().records[0]["reason"] == "no such file: ?"

    @pytest.mark.parametrize(
        "broken",
        [
            {"key": None},
            {"arm": 3},
            {"seed": "0"},
            {"seed": True},
            {"schema": 7},
            {"metrics": {"accuracy": "high"}},
            {"metrics": {"accuracy": np.array([0.5, 0.6])}},
            {"details": {"notes": "one text, not a list of them"}},
        ],
    )
    def test_what_could_not_be_read_back_is_not_written(self, tmp_path: Path, broken: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=f"not a record of schema {SCHEMA}"):
            Store(tmp_path).append({**record(), **broken})
        assert not (tmp_path / FILE).exists()

    def test_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        with pytest.raises(StoreError, match=r"can't be written: (File exists|Not a directory)"):
            Store(tmp_path / "taken").append(record())

    def test_a_run_says_what_is_in_the_way_of_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        (tmp_path / "link").symlink_to(tmp_path / "gone")
        for path, what in (
            ("taken", "taken: is a file"),
            ("taken/below/it", "taken/below/it: .*taken is a file"),
            ("link", "link: is a link that leads nowhere"),
        ):
            store = Store(tmp_path / path)
            with pytest.raises(StoreError, match=rf"{what}, expected a folder$"), store.exclusive():
                pass


class TestDamage:
    def test_torn_last_line_is_passed_over_and_repaired_by_the_next_append(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.append(record("a"))
        store.append(record("b"))
        with store.path.open("rb+") as file:
            file.truncate(store.path.stat().st_size - 5)
        found = store.read()
        assert [r["key"] for r in found.records] == ["a"]
        assert [(p.line, "torn" in p.message) for p in found.problems] == [(2, True)]
        store.append(record("c"))
        assert keys(store) == ["a", "c"]
        assert [p.line for p in store.read().problems] == [2]

    def test_only_the_newline_missing_loses_nothing(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.append(record("a"))
        store.path.write_bytes(store.path.read_bytes()[:-1])
        store.append(record("b"))
        assert keys(store) == ["a", "b"]
        assert store.read().problems == ()

    def test_damaged_middle_lines_are_set_aside_with_their_numbers(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.append(record("a"))
        with store.path.open("ab") as file:
            file.write(b'{"schema": 1, "key"\n\n\xff\xfe\n[1]\n{"schema": "x"}\n' + b"[" * 100_000 + b"\n")
        store.append(record("b"))
        found = store.read()
        assert [r["key"] for r in found.records] == ["a", "b"]
        assert [p.line for p in found.problems] == [2, 4, 5, 6, 7]
        assert str(found.problems[2]) == "line 5: not a record: expected a JSON object"

    def test_newer_schema_is_refused_in_one_line(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.append(record("a"))
        with store.path.open("a") as file:
            file.write(json.dumps({"schema": SCHEMA + 1, "renamed": "everything"}) + "\n")
        with pytest.raises(
            StoreError, match=rf"{FILE}:2: record of schema {SCHEMA + 1}, .* reads up to {SCHEMA}"
        ) as caught:
            store.read()
        assert "\n" not in str(caught.value)

    @settings(deadline=None, max_examples=60)
    @given(
        names=st.lists(st.text(max_size=12), min_size=1, max_size=4),
        cut=st.floats(0, 1),
        numbers=st.lists(st.floats(), max_size=3),
    )
    def test_any_truncation_loses_at_most_the_last_record(
        self, names: list[str], cut: float, numbers: list[float]
    ) -> None:
        with TemporaryDirectory() as folder:
            store = Store(Path(folder))
            ends = []
            for i, name in enumerate(names):
                store.append(record(f"k{i}", arm=name, reason=name, details={"numbers": numbers}))
                ends.append(store.path.stat().st_size)
            size = round(cut * ends[-1])
            with store.path.open("rb+") as file:
                file.truncate(size)
            whole = [f"k{i}" for i, end in enumerate(ends) if end - 1 <= size]
            assert keys(store) == whole
            store.append(record("after"))
            assert keys(store) == [*whole, "after"]


WRITER = """
import sys, time
from pathlib import Path
from cnnbench import durable, store
def in_parts(file, data):  # as on a nearly full disk, where the system takes less than it is given
    for part in (data[:1], data[1:40], data[40:]):
        file.write(part)
        time.sleep(0.001)
durable.write_whole = in_parts
folder, name = sys.argv[1:]
for i in range(20):
    store.Store(Path(folder)).append({"key": f"{name}-{i}", "arm": name, "role": "arm", "seed": i, "status": "ok"})
"""


@pytest.mark.parametrize("already", [b"", b'{"torn'])
def test_concurrent_appends_never_interleave(tmp_path: Path, already: bytes) -> None:
    (tmp_path / FILE).write_bytes(already)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = Store(tmp_path).read()
    assert sorted(keys(Store(tmp_path))) == sorted(f"{name}-{i}" for name in "abc" for i in range(20))
    assert [p.line for p in found.problems] == ([1] if already else [])


HOLDER = """
import sys, time
from pathlib import Path
from cnnbench.store import Store
with Store(Path(sys.argv[1])).exclusive():
    print("held", flush=True)
    sys.stdin.read()
"""


class TestExclusive:
    def test_a_line_that_another_process_was_writing_is_whole_when_it_is_looked_at_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        warned: list[str] = []
        store = Store(tmp_path, warned.append)
        with store.exclusive():
            store.append(record("a"))
            whole = store.path.read_bytes() + as_line({"schema": SCHEMA, **record("b")})
            store.path.write_bytes(whole[:-10])
            before = store.path.stat().st_ino
            real = store._opened

            def opened():
                if store.path.read_bytes() != whole:
                    store.path.write_bytes(whole)
                return real()

            monkeypatch.setattr(store, "restore", lambda: None)
            monkeypatch.setattr(store, "_opened", opened)
            assert keys(store) == ["a", "b"]
        assert warned == []
        assert store.path.stat().st_ino == before
        assert not (tmp_path / DAMAGED).exists()

    def hold(self, folder: Path) -> subprocess.Popen[str]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        return holder

    def test_second_run_is_refused_in_one_line_and_may_go_on_afterwards(self, tmp_path: Path) -> None:
        with self.hold(tmp_path) as holder:
            refused = pytest.raises(StoreError, match=f"another run is writing here .process {holder.pid}")
            with refused as caught, Store(tmp_path).exclusive():
                pytest.fail("two runs at once")
            assert "\n" not in str(caught.value)
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait()
        with Store(tmp_path).exclusive():
            Store(tmp_path).append(record())
        assert [entry.name for entry in tmp_path.iterdir()] == [FILE]

    def test_a_killed_run_holds_nothing(self, tmp_path: Path) -> None:
        with self.hold(tmp_path) as holder:
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            with Store(tmp_path).exclusive():
                pass

    def test_not_twice_in_one_run(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        with store.exclusive(), pytest.raises(StoreError, match="already"), store.exclusive():
            pytest.fail("nested")
        with store.exclusive():
            pass

    def test_released_when_the_run_raises(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), Store(tmp_path).exclusive():
            raise KeyError
        self.hold(tmp_path).communicate("")


class TestOpenResults:
    def test_folder_or_file(self, tmp_path: Path) -> None:
        Store(tmp_path).append(record())
        renamed = tmp_path / "published.jsonl"
        renamed.write_bytes((tmp_path / FILE).read_bytes())
        assert open_results(tmp_path).records == open_results(renamed).records != ()
        assert open_results(tmp_path).path == tmp_path / FILE

    def test_missing_names_the_nearest(self, tmp_path: Path) -> None:
        Store(tmp_path / "quickstart").append(record())
        with pytest.raises(StoreError, match="quikstart: no such folder or file: did you mean 'quickstart'"):
            open_results(tmp_path / "quikstart")

    def test_folder_of_results_names_those_inside(self, tmp_path: Path) -> None:
        Store(tmp_path / "quickstart").append(record())
        with pytest.raises(StoreError, match=r"no records.jsonl in this folder: did you mean .*quickstart\?"):
            open_results(tmp_path)

    @pytest.mark.parametrize("where", ["", "nowhere", "nowhere/at/all"])
    def test_nothing_near(self, tmp_path: Path, where: str) -> None:
        with pytest.raises(StoreError) as caught:
            open_results(tmp_path / where)
        assert "\n" not in str(caught.value)

    def test_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text("{")
        with pytest.raises(StoreError, match="holds no complete record; line 1: torn"):
            open_results(tmp_path)


def test_reading_needs_neither_torch_nor_pandas() -> None:
    code = "import sys, cnnbench.store; sys.exit(bool({'torch', 'pandas', 'pydantic'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_is_kept_whole_beside_the_records_and_replaces_an_earlier_one(tmp_path):
    store = Store(tmp_path / "new")
    store.keep("norms.toml", b"one")
    store.keep("norms.toml", b"two")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"norms.toml": b"two"}
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match="taken"):
        Store(tmp_path / "taken").keep("norms.toml", b"one")
