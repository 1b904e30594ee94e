"""What is sent to the nodes of a cluster, what must be there already, and what tells two nodes apart. Needs no Ray."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from cnnbench.cli import main
from cnnbench.errors import UsageError
from cnnbench.execute import ray_needs
from cnnbench.execute.ray_cluster import _device, _first
from cnnbench.execute.ray_needs import differences, needs_of, packages_here
from cnnbench.execute.ray_places import Share, count_on, share_of, spread
from cnnbench.parcel import unpack
from cnnbench.plugins import PluginHost
from cnnbench.suite import load

PLUGIN = """
from cnnbench import hookimpl, technique
import shy_helper

@technique("activation", "shy")
class Shy:
    '''Does little.'''
    def __call__(self, module):
        return shy_helper.make()

@hookimpl
def cnnbench_register_techniques():
    return [Shy]
"""
HELPER = "import json\ndef make():\n    from torch import nn\n    return nn.SiLU()\n"
NETS = {
    "__init__.py": "",
    "cnn.py": "from nets import parts\ndef make(image_shape, num_classes): ...\n",
    "parts.py": "",
}


@pytest.fixture
def place(tmp_path, install_plugin, tiny_suite):
    """A suite with a plugin and a network that are not installed where packages are."""
    install_plugin("shy", PLUGIN)
    site = tmp_path / "site-packages"
    (site / "shy_helper.py").write_text(HELPER)
    (site / "nets").mkdir()
    for name, text in NETS.items():
        (site / "nets" / name).write_text(text)
    (site / "unused.py").write_text("")
    text = tiny_suite(
        {"shy": '{ activation = "shy" }', "own": '{ model = { name = "import", target = "nets.cnn:make" } }'}
    )
    (tmp_path / "s.toml").write_text(text)
    yield tmp_path
    for name in ("shy", "shy_helper", "nets"):
        sys.modules.pop(name, None)


def needs(place):
    host = PluginHost.discover()
    assert host.problems == []
    return needs_of(load(place / "s.toml", host.registry), host.registry), host


def test_the_users_own_code_is_sent_with_what_it_imports(place):
    found, _ = needs(place)
    assert sorted(found.code) == [
        *("nets/__init__.py", "nets/cnn.py", "nets/parts.py", "shy-1.0.dist-info/METADATA"),
        *("shy-1.0.dist-info/entry_points.txt", "shy.py", "shy_helper.py"),
    ]
    assert {("activation", "shy"), ("dataset", "digits"), ("model", "resnet")} <= {*found.techniques}


LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
from cnnbench.plugins import PluginHost
host = PluginHost.discover()
print(host.problems, host.registry.get("activation", "shy").owner, host.registry.get("activation", "shy").source_digest)
"""


def test_what_is_sent_is_a_plugin_where_it_arrives(place, tmp_path):
    found, host = needs(place)
    unpack(found.code, tmp_path / "node")
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path / "node")], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == f"[] shy 1.0 {host.registry.get('activation', 'shy').source_digest}"


def test_code_that_is_too_large_to_send_is_refused(place, monkeypatch):
    monkeypatch.setattr(ray_needs, "_MOST_MIB", 1e-5)
    with pytest.raises(UsageError, match="would have to be sent to every node, expected at most"):
        needs(place)


def test_differences_name_package_and_both_versions(place):
    found, host = needs(place)
    here = packages_here(found, host.registry)
    assert {"python", "torch", "cnnbench", "activation 'shy'", "plugins of shy"} <= {*here}
    assert differences(here, dict(here)) == []
    there = {**here, "torch": "2.0.0", "unasked": "1"}
    del there["activation 'shy'"]
    assert differences(here, there) == [
        f"torch 2.0.0, here {here['torch']}",
        "activation 'shy' absent, here of shy 1.0",
    ]


def test_changed_sources_are_a_difference_where_versions_are_not(place, tmp_path):
    found, host = needs(place)
    here = packages_here(found, host.registry)
    (tmp_path / "site-packages/shy.py").write_text(PLUGIN + "\n# mended\n")
    sys.modules.pop("shy")
    (told,) = differences(here, packages_here(found, PluginHost.discover().registry))
    assert told.startswith("plugins of shy 1.0 (sources ")


def node(name="a", cpus=4.0, gpus=0.0):
    return SimpleNamespace(name=name, cpus=cpus, gpus=gpus)


def test_places_are_spread_over_nodes_as_they_have_room():
    nodes = [node("a", 3), node("b", 1), node("c", 2.5)]
    share = share_of(nodes, 1, "cpu", None)
    assert [n.name for n in spread(nodes, share, None)] == ["a", "b", "c", "a", "c", "a"]
    assert [n.name for n in spread(nodes, share, 4)] == ["a", "b", "c", "a"]
    assert spread([], share, None) == []


def test_more_workers_than_gpus_share_them():
    nodes = [node("a", 8, 2), node("b", 1, 1)]
    assert share_of(nodes, 1, "cuda", None) == Share(1, 1)
    assert share_of(nodes, 1, "cuda", 5) == Share(1, 0.5)
    assert [count_on(n, Share(1, 0.5)) for n in nodes] == [4, 1]
    third = share_of([node("a", 8, 1)], 1, "cuda", 3)
    assert 3 * third.gpus <= 1
    assert count_on(node("a", 8, 1), third) == 3


def test_more_workers_than_there_is_room_for_are_refused():
    with pytest.raises(UsageError, match="--workers 9: expected at most 4: the cluster has CPUs for no more"):
        share_of([node()], 1, "cpu", 9)
    with pytest.raises(UsageError, match=r"--workers 9: expected at most 4: the cluster has CPUs, and 1 GPUs, for"):
        share_of([node(gpus=1.0)], 1, "cuda", 9)


def alive(**resources):
    return {"Resources": resources}


@pytest.mark.parametrize(
    ("device", "nodes", "expected"),
    [
        ("auto", [alive(CPU=2)], "cpu"),
        ("auto", [alive(CPU=2), alive(CPU=1, GPU=1)], "cuda"),
        ("auto", [alive(CPU=2), alive(GPU=1)], "cpu"),
        ("cuda", [alive(CPU=1, GPU=1)], "cuda"),
        ("CPU", [alive(CPU=1, GPU=1)], "cpu"),
    ],
)
def test_the_device_is_one_that_the_cluster_has(device, nodes, expected):
    assert _device(device, nodes) == expected


@pytest.mark.parametrize(
    ("device", "told"),
    [
        (
            "cuda",
            "device 'cuda': each stage asks for a node with 1 CPU and 1 GPU, and the cluster has none: 2 nodes with 5",
        ),
        ("cuda:1", "device 'cuda:1': expected cpu, cuda or auto on a cluster"),
        ("mps", "expected cpu, cuda or auto on a cluster"),
    ],
)
def test_what_the_cluster_has_not_is_refused(device, told):
    with pytest.raises(UsageError) as caught:
        _device(device, [alive(CPU=4), alive(CPU=1)])
    assert told in str(caught.value)


def test_the_drivers_own_kind_counts_then_the_most_frequent():
    nodes = [SimpleNamespace(name=name, kind=kind) for name, kind in (("1", "b"), ("2", "a"), ("3", "b"), ("4", "c"))]
    assert _first(nodes, "4", lambda n: n.kind) == "c"
    assert _first(nodes, "elsewhere", lambda n: n.kind) == "b"
    assert _first(nodes[:2], "elsewhere", lambda n: n.kind) == "a"


def test_an_address_needs_the_executor(place, capsys):
    assert main(["run", str(place / "s.toml"), "--address", "auto"]) == 2
    assert "--address names a Ray cluster: expected --executor ray beside it" in capsys.readouterr().err


def test_without_ray_its_install_line_is_told(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["run", str(place / "s.toml"), "--executor", "ray", "--results", str(place / "r")]) == 2
    assert "--executor ray needs ray, which is not installed: pip install 'cnnbench[ray]'" in capsys.readouterr().err
    assert not (place / "r").exists()
