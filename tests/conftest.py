"""Fixtures that several test modules share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs a third-party plugin for one test: a module with an entry point in group ``cnnbench``, as pip leaves it.

    Workers get the parent's ``sys.path``, so they find it as well.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, source: str) -> None:
        (site / f"{name}.py").write_text(source, encoding="utf-8")
        meta = site / f"{name}-1.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (meta / "entry_points.txt").write_text(f"[cnnbench]\n{name} = {name}\n", encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)

    return install
