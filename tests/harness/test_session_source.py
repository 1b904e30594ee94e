"""The digest of code that no file holds: it follows what a result depends on, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from cnnbench.session_source import session_digest

CODE = """
from cnnbench import technique

SCALE = 2.0
NAMES = {"b", "a", "c"}

def helper(x):
    def inner(y):
        return y * SCALE
    return inner(x)

class Layer:
    def __init__(self, n):
        super().__init__()
        self.n = n

    @staticmethod
    def run(x):
        return helper(x) if x in NAMES else [v for v in (x,)]

class Unused:
    pass

@technique("norm", "mine")
class Mine:
    '''Mine.'''

    eps: float = 1e-5

    def __call__(self, old):
        return Layer(3)
"""


def digest(code: str, name: str = "a_session") -> str:
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(code, "<cell>", "exec", dont_inherit=True), vars(module))
        return session_digest(module.Mine)
    finally:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Layer(3)", "Layer(4)"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ("y * SCALE", "y / SCALE"),
        ("1e-5", "1e-6"),
        ("float =", "int ="),
        ('"c"}', '"d"}'),
        ("self.n = n", "self.m = n"),
        ("(x,)]", "(x, x)]"),
        ("class Layer:", "class Base:\n    a = 1\n\nclass Layer(Base):"),
        ("@staticmethod\n", "@classmethod\n"),
    ],
)
def test_a_change_of_what_is_used_is_seen(old, new):
    assert old in CODE
    assert digest(CODE) != digest(CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 2.0", "# a remark\n\n\nSCALE = 2.0"),
        ("class Unused:\n    pass", "class Unused:\n    other = 1"),
        ("from cnnbench", "import math\nfrom cnnbench"),
    ],
)
def test_a_change_of_anything_else_is_not(old, new):
    assert old in CODE
    assert digest(CODE) == digest(CODE.replace(old, new))


def test_another_process_finds_the_same(tmp_path):
    script = (
        "import sys, types\n"
        "from cnnbench.session_source import session_digest\n"
        "sys.modules['a_session'] = module = types.ModuleType('a_session')\n"
        "exec(compile(open(sys.argv[1]).read(), '<another cell>', 'exec'), vars(module))\n"
        "print(session_digest(module.Mine))\n"
    )
    file = tmp_path / "code.txt"
    file.write_text(CODE)
    found = {digest(CODE)}
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(file)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_a_class_that_a_file_holds_has_the_digest_of_its_files():
    from cnnbench.registry import Entry
    from cnnbench.session import OWNER
    from cnnbench.sources import digest_of_files

    module = types.ModuleType("of_a_file")
    module.__file__ = str(Path(__file__))
    sys.modules["of_a_file"] = module
    try:
        exec(compile(CODE, __file__, "exec", dont_inherit=True), vars(module))
        assert Entry(module.Mine, OWNER).source_digest == digest_of_files([Path(__file__)])
        del module.__file__
        assert Entry(module.Mine, OWNER).source_digest == session_digest(module.Mine)
    finally:
        del sys.modules["of_a_file"]
