"""Nothing of a run stays in the folder for temporary files, however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cnnbench.execute import temporary

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """
import multiprocessing, os, sys, tempfile
from pathlib import Path
from cnnbench.execute.temporary import kept_together, run_folder

with kept_together():
    from multiprocessing import forkserver, resource_tracker
    forkserver.ensure_running()
    tempfile.mkdtemp(prefix="left-")  # as a library does whose process is killed
print(sorted(path.name.partition("-")[0] for path in run_folder().iterdir()), flush=True)
if sys.argv[1:] == ["hang"]:
    import time
    time.sleep(60)
assert Path(tempfile.mkdtemp(prefix="mine-")).parent == Path(os.environ["TMPDIR"])
os.rmdir(next(Path(os.environ["TMPDIR"]).glob("mine-*")))
sys.exit(*map(int, sys.argv[1:]))
"""


def begun(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="folders can't be held there")
def test_nothing_stays_and_what_a_killed_run_left_goes_with_the_next(short):
    for name in ("cnnbench-run-of-mine", "cnnbench-data"):
        (short / name).mkdir()
    (short / "cnnbench-run-link").symlink_to(short / "cnnbench-data")
    own = sorted(os.listdir(short))  # noqa: PTH208 - names alone
    hanging = begun(short, "hang")
    assert hanging.stdout is not None
    assert "'left', 'pymp'" in hanging.stdout.readline()
    (held,) = set(os.listdir(short)) - set(own)  # noqa: PTH208
    other = begun(short, "1")
    assert other.communicate(timeout=60)[1] == ""
    assert other.returncode == 1
    assert sorted(os.listdir(short)) == sorted([*own, held]), "a run that lives keeps its folder"  # noqa: PTH208
    os.kill(hanging.pid, signal.SIGKILL)
    hanging.communicate(timeout=60)
    assert (short / held).exists()
    assert begun(short).communicate(timeout=60)[1] == ""
    assert sorted(os.listdir(short)) == own  # noqa: PTH208


def test_where_paths_are_too_long_for_sockets_the_folder_is_that_of_all(short, monkeypatch):
    (short / ("x" * 60)).mkdir()
    monkeypatch.setattr(temporary, "run_folder", lambda: short / ("x" * 60))
    before = tempfile.gettempdir()
    with temporary.kept_together():
        assert tempfile.gettempdir() == before
    assert temporary.settings() == {}
