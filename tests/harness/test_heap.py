"""Memory that a worker keeps: pages are found once, and given back on request."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cnnbench.execute import heap

PROBE = """
import ctypes, json, resource, sys
from cnnbench.execute.heap import keep_freed_memory
took = keep_freed_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def use():
    blocks = [libc.malloc(40 << 20) for _ in range(2)]
    for block in blocks:
        ctypes.memset(block, 1, 40 << 20)
    for block in blocks:
        libc.free(block)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident():
    return int(open("/proc/self/statm").read().split()[1])
use()
before = faults()
for _ in range(5):
    use()
again, held = faults() - before, resident()
libc.malloc_trim(0)
print(json.dumps({"took": took, "faults": again, "held": held, "trimmed": resident()}))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_and_can_be_given_back():
    def probe(how: str) -> dict[str, int]:
        made = subprocess.run([sys.executable, "-c", PROBE, how], capture_output=True, text=True, check=True)
        return json.loads(made.stdout)

    kept, usual = probe("keep"), probe("usual")
    assert kept["took"] is True
    assert kept["faults"] < usual["faults"] / 10
    pages = 2 * (40 << 20) // 4096
    assert kept["held"] - kept["trimmed"] > pages / 2


def test_an_older_c_library_keeps_as_much_as_it_can(monkeypatch):
    took = {}

    def mallopt(what, size):
        if what == -3 and size > 32 << 20:
            return 0
        took[what] = size
        return 1

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert heap.keep_freed_memory()
    assert took == {-1: heap.KEPT_BYTES, -3: 32 << 20}
