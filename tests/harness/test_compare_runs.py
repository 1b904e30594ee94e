"""Real runs compared: an arm whose code became slower is caught, and one whose code only looks different is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cnnbench.cli import main

TECHNIQUE = '''
import time

from cnnbench import hookimpl, technique


@technique("runtime", "{name}")
class Napping:
    """Calls the model in eval mode, after a nap."""

    def __call__(self, model, context):
        def call(images):
            time.sleep({nap})
            return model(images)

        model.eval()
        return call


@hookimpl
def cnnbench_register_techniques():
    return [Napping]
'''


@pytest.mark.slow
def test_an_arm_that_naps_longer_is_caught_and_another_word_in_its_code_is_not(
    tmp_path, monkeypatch, capsys, install_plugin, tiny_suite
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions of a file within a second look the same to it
    install_plugin("steady", TECHNIQUE.format(name="steady", nap=0.02))
    install_plugin("changing", TECHNIQUE.format(name="changing", nap=0.02))
    suite = tiny_suite({"arm": '{ runtime = "changing" }'}, metrics=("accuracy", "params", "latency"), seeds=3)
    how = 'latency = { batch_sizes = [1], max_seconds = 1.5, threads = 1 }\n[baseline]\nruntime = "steady"\n[arms]'
    Path("naps.toml").write_text(suite.replace("[arms]", how))

    def run(name, source):
        (tmp_path / "site-packages" / "changing.py").write_text(source)
        monkeypatch.delitem(sys.modules, "changing", raising=False)
        words = ["run", "naps.toml", "--results", name, "--cache", f"{name}-cache", "--executor", "inline", "--quiet"]
        assert main(words) == 0
        capsys.readouterr()

    same = TECHNIQUE.format(name="changing", nap=0.02)
    run("before", same)
    run("reworded", same + "\n# Sweet dreams.\n")
    run("slower", TECHNIQUE.format(name="changing", nap=0.06))

    def compared(name):
        # Naps differ threefold, and what else the machine does is not to decide this test.
        words = ["compare", "before", name, "--fail-on", "latency:50%,accuracy:0pp,params:0%"]
        codes = {main([*words, "--format", form]) for form in ("terminal", "markdown", "json")}
        data = json.loads(capsys.readouterr().out.partition("\n{\n")[2].join(["{", ""]))
        return codes, {(c["arm"], c["metric"]): c for c in data["comparisons"]}

    codes, found = compared("slower")
    assert codes == {3}
    slower = found["arm", "latency"]
    assert (slower["verdict"], slower["decided_by"]) == ("regressed", ["beside"])
    assert 1.0 < slower["beside"]["mean"] < 3.0
    assert found["baseline", "latency"]["reason"] == "same code"
    assert {c["verdict"] for key, c in found.items() if key != ("arm", "latency")} == {"no change shown"}

    codes, found = compared("reworded")
    assert codes == {0}
    assert found["arm", "latency"]["reason"] is None, "its key did change"
    assert {c["verdict"] for c in found.values()} == {"no change shown"}

    assert main(["history", "before", "reworded", "slower", "--metric", "latency", "--arm", "arm"]) == 0
    assert capsys.readouterr().out.count("(n=3)") == 3
