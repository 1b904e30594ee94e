from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench import environment
from cnnbench.devices import Device
from cnnbench.environment import (
    cpu_model,
    energy_source,
    git_revision,
    machine_identity,
    manifest,
    usable_cores,
    versions,
)
from cnnbench.errors import UsageError

CPU = Device("cpu")


def test_the_manifest_is_plain_text_that_json_keeps() -> None:
    facts = manifest("cpu")
    assert json.loads(json.dumps(facts)) == facts
    assert all(isinstance(value, str) and value for value in facts.values())
    assert facts["torch"] == importlib.metadata.version("torch")
    assert facts["device"] == facts["cpu"] == cpu_model()
    assert {"cnnbench", "torchvision", "numpy", "python", "platform", "cores", "ram", "energy"} <= set(facts)
    with pytest.raises(UsageError):
        manifest("abacus")


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; from cnnbench.environment import *; from cnnbench.devices import Device; "
        "versions(); manifest('cpu'); machine_identity(Device('cpu')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_package_that_is_not_installed_is_left_out(monkeypatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-distribution"))
    assert versions() == {"numpy": importlib.metadata.version("numpy")}


def test_the_identity_is_the_same_every_time_and_differs_by_processor(monkeypatch) -> None:
    mine = machine_identity(CPU)
    assert machine_identity(CPU) == mine == f"{cpu_model()}, {usable_cores()} cores"
    monkeypatch.setattr(environment, "cpu_model", lambda: "Another 9000")
    assert machine_identity(CPU) == f"Another 9000, {usable_cores()} cores"
    monkeypatch.setattr(Device, "describe", lambda _self: "GPU X")
    assert machine_identity(Device("cuda", 0)) == f"GPU X, Another 9000, {usable_cores()} cores"
    assert machine_identity(Device("cuda", 1)) == machine_identity(Device("cuda", 0))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_bound_to_one_core_uses_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from cnnbench.environment import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "a.toml").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path


def test_the_revision_and_whether_files_differ_from_it(repository: Path) -> None:
    head = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    folder = repository / "suites"
    assert git_revision(folder) == head[:12]
    assert manifest("cpu", folder)["revision"] == head[:12]
    (folder / "new.toml").write_text("")  # results and notes beside the suite do not make it another
    assert git_revision(folder) == head[:12]
    (folder / "a.toml").write_text("x = 2\n")
    assert git_revision(folder) == f"{head[:12]} with uncommitted changes"


def test_outside_a_repository_or_without_git_there_is_no_revision(tmp_path, repository, monkeypatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    assert git_revision(outside) == ""
    assert "revision" not in manifest("cpu", outside)
    monkeypatch.setenv("PATH", str(outside))
    assert git_revision(repository) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Some  CPU @ 2.0GHz\nflags: a\n", "Some CPU @ 2.0GHz"),
        ("processor\t: 0\nFeatures: fp\n", "x86 thing"),
    ],
)
def test_the_processors_model(monkeypatch, text, expected) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_more: text)
    monkeypatch.setattr(environment.platform, "processor", lambda: "x86 thing")
    monkeypatch.setattr(environment.platform, "system", lambda: "Linux")
    cpu_model.cache_clear()
    try:
        assert cpu_model() == expected
    finally:
        cpu_model.cache_clear()


def test_energy_source(tmp_path) -> None:
    def zone(folder: str, name: str) -> None:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(name)
        (tmp_path / folder / "energy_uj").write_text("1")

    assert energy_source(CPU, tmp_path) == "CPU estimated, power x time"
    zone("intel-rapl:0", "package-0")
    assert energy_source(CPU, tmp_path) == "CPU measured by RAPL"
    zone("intel-rapl:0:0", "dram")
    assert energy_source(CPU, tmp_path) == "CPU and RAM measured by RAPL"
    assert "NVML" in energy_source(Device("cuda", 0), tmp_path)
