"""A freshly started process that reads models: what a worker sees of them, without what this process has imported.

One such process serves a whole session, since importing torch takes seconds. It is told by lines of JSON and answers by
lines of JSON: an empty text, or what went wrong.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import subprocess  # the process is this module's own
import sys
from pathlib import Path
from typing import Any

import torch

from cnnbench.artifact import load_model
from cnnbench.errors import TrialError, words_of

_START = "import sys; sys.path[:] = sys.argv[1:]; from cnnbench.elsewhere import serve; serve()"


def outputs_elsewhere(path: Path, x: torch.Tensor, folder: Path) -> torch.Tensor:
    """What a saved model computes in another process.

    Args:
        path: a file of ``cnnbench.artifact.save_model``.
        x: model inputs [N, C, H, W].
        folder: for files that pass between the processes.

    Raises:
        TrialError: it can't be read or called there; the text says why.
    """
    given, made = folder / "inputs.pt", folder / "outputs.pt"
    torch.save(x, given)
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    task = {"sys_path": sys.path, "model": str(path), "inputs": str(given), "outputs": str(made)}
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except OSError:
        answer = ""
    if not answer:
        _process.cache_clear()
        raise TrialError(f"the process ended (exit code {process.wait()})")
    if text := json.loads(answer):
        raise TrialError(text)
    found: torch.Tensor = torch.load(made, weights_only=True)
    return found


@functools.cache
def _process() -> subprocess.Popen[str]:
    process = subprocess.Popen(  # noqa: S603 - this interpreter, on code of this module
        [sys.executable, "-c", _START, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    """Let it go: it ends when nothing more can come."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()


def _answer(task: dict[str, Any]) -> str:
    sys.path[:] = task["sys_path"]
    try:
        model = load_model(Path(task["model"])).model.eval()
        with torch.no_grad():
            torch.save(model(torch.load(task["inputs"], weights_only=True)), task["outputs"])
    except Exception as error:  # noqa: BLE001 - whatever the model's code raises is the answer
        return words_of(error)
    return ""


def serve() -> None:
    """Answer line by line; what models print is no answer."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)
