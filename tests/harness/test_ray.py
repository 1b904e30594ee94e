"""Suites on a Ray cluster of several nodes, all on this machine: the records of a local run, whatever happens to nodes.

The commands run in processes of their own, as a user's do. Nodes share no folder with them: each has its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="pip install 'cnnbench[ray]'")

from ray.cluster_utils import Cluster

from cnnbench.cli import main

STORE = 80 * 2**20
LEARNED = ("accuracy", "params")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a CPU each; the first is the head."""
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, connect=False, head_node_args=head)
    made.add_node(num_cpus=1, object_store_memory=STORE)
    yield made
    made.shutdown()


@pytest.fixture
def extra_node(cluster):
    """Adds nodes to the cluster, for one test."""
    added = []

    def add(**options):
        added.append(cluster.add_node(object_store_memory=STORE, **options))
        return added[-1]

    yield add
    for node in added:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node, allow_graceful=False)


def command(folder: Path, *options: object) -> list[str]:
    return [sys.executable, "-m", "cnnbench", "run", str(folder / "s.toml"), *map(str, options)]


def run(folder: Path, name: str, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the suite in a folder, with results and cache of that name."""
    where = ("--results", folder / name, "--cache", folder / f"{name}-cache")
    return subprocess.run(
        command(folder, *where, *options), capture_output=True, text=True, check=False, timeout=280, cwd=folder
    )


def records(folder: Path, name: str) -> dict[tuple[str, int], dict]:
    """The last record of each arm and seed."""
    lines = (folder / name / "records.jsonl").read_text().splitlines()
    return {(r["arm"], r["seed"]): r for r in map(json.loads, lines) if "arm" in r}


def assert_same(folder: Path, one: str, other: str) -> None:
    """Equal keys, statuses, reasons and all that does not hang on the clock."""
    found, expected = records(folder, one), records(folder, other)
    assert found.keys() == expected.keys()
    for name, record in expected.items():
        for field in ("key", "status", "reason", "planned", "settings"):
            assert found[name].get(field) == record.get(field), (name, field)
        learned = {metric: record["metrics"][metric] for metric in LEARNED if metric in record["metrics"]}
        assert {metric: found[name]["metrics"].get(metric) for metric in learned} == learned, name


def left_behind() -> list[str]:
    """Command lines of places and workers of a run that has ended."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "ray::PlaceActor" in line:
            found.append(line)
    return found


def test_a_cluster_of_this_machine_alone_starts_with_the_run(tmp_path, tiny_suite):
    (tmp_path / "s.toml").write_text(tiny_suite({}, metrics=("accuracy",), seeds=1))
    done = run(tmp_path, "there", "--executor", "ray", "--address", "local", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "raylet" not in done.stdout + done.stderr
    here = ["run", str(tmp_path / "s.toml"), "--executor", "inline", "--quiet"]
    assert main([*here, "--results", str(tmp_path / "here"), "--cache", str(tmp_path / "here-cache")]) == 0
    assert_same(tmp_path, "there", "here")


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True], ids=["each alone", "seeds together"])
def test_records_are_those_of_a_local_run(cluster, tmp_path, tiny_suite, stacked):
    text = tiny_suite({"silu": '{ activation = "silu" }'}, metrics=LEARNED, seeds=1 + stacked)
    (tmp_path / "s.toml").write_text(text.replace("[recipe]", "[recipe]\nstacked = true") if stacked else text)
    done = run(tmp_path, "there", "--executor", "ray", "--address", cluster.address)
    assert done.returncode == 0, done.stderr
    assert "silu" in done.stdout
    assert "raylet" not in done.stdout + done.stderr
    assert left_behind() == []
    here = ["run", str(tmp_path / "s.toml"), "--executor", "inline", "--quiet"]
    assert main([*here, "--results", str(tmp_path / "here"), "--cache", str(tmp_path / "here-cache")]) == 0
    assert_same(tmp_path, "there", "here")
    # What the nodes made is in the driver's cache: the same suite now runs nothing, here.
    assert main([*here, "--results", str(tmp_path / "again"), "--cache", str(tmp_path / "there-cache")]) == 0
    again, there = records(tmp_path, "again"), records(tmp_path, "there")
    assert {name: record["details"] for name, record in again.items()} == {
        name: record["details"] for name, record in there.items()
    }


@pytest.mark.slow  # its fast sibling is in test_ray_needs.py
def test_a_gpu_that_no_node_has_is_refused_at_once(cluster, tmp_path, tiny_suite):
    (tmp_path / "s.toml").write_text(tiny_suite())
    done = run(tmp_path, "there", "--executor", "ray", "--address", cluster.address, "--device", "cuda")
    assert done.returncode == 2
    assert (
        "device 'cuda': each stage asks for a node with 1 CPU and 1 GPU, and the cluster has none: 2 nodes"
        in done.stderr
    )
    assert not (tmp_path / "there").exists()


@pytest.mark.slow
def test_a_node_is_killed_in_mid_run(cluster, extra_node, tmp_path, tiny_suite):
    doomed = extra_node(num_cpus=1)
    arms = {name: f'{{ activation = "{name}" }}' for name in ("silu", "gelu", "mish", "elu")}
    text = tiny_suite(arms, metrics=LEARNED, seeds=2).replace("epochs = 1", "epochs = 12")
    (tmp_path / "s.toml").write_text(text)
    assert run(tmp_path, "here").returncode == 0
    where = ("--results", tmp_path / "there", "--cache", tmp_path / "cache", "--executor", "ray")
    process = subprocess.Popen(
        command(tmp_path, *where, "--address", cluster.address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    file = tmp_path / "there/records.jsonl"
    while process.poll() is None and not (file.exists() and file.stat().st_size > 0):
        time.sleep(0.05)
    cluster.remove_node(doomed, allow_graceful=False)
    assert process.poll() is None, "the run was over before the node was killed"
    out, err = process.communicate(timeout=250)
    print(out, err)
    assert process.returncode == 0, err
    assert "it runs again, elsewhere" in err
    assert len(records(tmp_path, "there")) == 10
    assert {record["status"] for record in records(tmp_path, "there").values()} == {"ok"}
    assert_same(tmp_path, "there", "here")
    assert table(tmp_path / "there") == table(tmp_path / "here")
    assert left_behind() == []


def table(results: Path) -> list[str]:
    """The table as CSV, without what hangs on the clock."""
    done = subprocess.run(
        [sys.executable, "-m", "cnnbench", "report", str(results), "--format", "csv"],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    return done.stdout.splitlines()


FAULTS = {
    "segfault": '{ augmentation = { name = "bad_step", how = "segv" } }',
    "exit": '{ augmentation = { name = "bad_step", how = "exit" } }',
    "raise": '{ augmentation = { name = "bad_step", how = "raise" } }',
    "sleep": '{ augmentation = { name = "bad_step", how = "sleep" } }',
    "silu": '{ activation = "silu" }',
}


@pytest.mark.slow
def test_faults_of_a_plugin_that_is_sent_along_cost_their_own_arms(
    cluster, tmp_path, tiny_suite, install_plugin, monkeypatch
):
    install_plugin("misbehaving", Path(__file__).with_name("misbehaving.py").read_text())
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "site-packages"), os.environ.get("PYTHONPATH", "")])
    )
    # memory_train has every training run in a process of its own
    text = tiny_suite(FAULTS, metrics=(*LEARNED, "memory_train", "latency"), time_limit=20)
    (tmp_path / "s.toml").write_text(text)
    assert run(tmp_path, "here").returncode == 1
    done = run(tmp_path, "there", "--executor", "ray", "--address", cluster.address)
    assert done.returncode == 1, done.stderr
    assert_same(tmp_path, "there", "here")
    found = {arm: record["status"] for (arm, _), record in records(tmp_path, "there").items()}
    assert found == {
        "baseline": "ok",
        "segfault": "crashed",
        "exit": "crashed",
        "raise": "failed",
        "sleep": "timeout",
        "silu": "ok",
    }
    silu = records(tmp_path, "there")["silu", 0]
    assert silu["metrics"]["latency_b1_ms"] > 0
    assert silu["metrics"]["memory_train_mib"] > 0
    assert left_behind() == []


@pytest.mark.slow
def test_another_version_on_a_node_is_refused_before_anything_runs(cluster, extra_node, tmp_path, tiny_suite):
    meta = tmp_path / "other/numpy-0.1.dist-info"
    meta.mkdir(parents=True)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    path = os.pathsep.join([str(tmp_path / "other"), os.environ.get("PYTHONPATH", "")])
    extra_node(num_cpus=1, env_vars={"PYTHONPATH": path})
    (tmp_path / "s.toml").write_text(tiny_suite())
    done = run(tmp_path, "there", "--executor", "ray", "--address", cluster.address)
    assert done.returncode == 2
    assert "numpy 0.1, here " in done.stderr
    assert "node " in done.stderr
    assert not (tmp_path / "there").exists()


@pytest.mark.slow
def test_a_gpu_that_ray_counts_and_torch_does_not_find_is_told(cluster, extra_node, tmp_path, tiny_suite):
    extra_node(num_cpus=1, num_gpus=1)
    (tmp_path / "s.toml").write_text(tiny_suite())
    done = run(tmp_path, "there", "--executor", "ray", "--address", cluster.address, "--device", "cuda")
    assert done.returncode == 2
    assert "device 'cuda': not on this machine" in done.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind_and_the_rest_runs_later(cluster, tmp_path, tiny_suite):
    text = tiny_suite({"silu": '{ activation = "silu" }'}, metrics=LEARNED, seeds=3)
    (tmp_path / "s.toml").write_text(text.replace("epochs = 1", "epochs = 12"))
    there = ("--executor", "ray", "--address", cluster.address)
    where = ("--results", tmp_path / "there", "--cache", tmp_path / "there-cache")
    process = subprocess.Popen(command(tmp_path, *where, *there), stderr=subprocess.PIPE, text=True)
    file = tmp_path / "there/records.jsonl"
    while process.poll() is None and not (file.exists() and file.stat().st_size > 0):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in err
    before = file.read_text().splitlines()
    assert 0 < len(before) < 6
    assert left_behind() == []
    assert run(tmp_path, "there", *there).returncode == 0
    assert file.read_text().splitlines()[: len(before)] == before
    assert len(records(tmp_path, "there")) == 6


def test_no_cluster_at_an_address_is_told(tmp_path, tiny_suite, capsys):
    (tmp_path / "s.toml").write_text(tiny_suite())
    there = ["run", str(tmp_path / "s.toml"), "--results", str(tmp_path / "there"), "--executor", "ray"]
    for address, told in {
        "127.0.0.1:1": "--address 127.0.0.1:1: no Ray cluster there (",
        "ray://127.0.0.1:1": "Ray's client can't be used: run on a node of the cluster, with --address auto",
    }.items():
        assert main([*there, "--address", address]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "there").exists()
