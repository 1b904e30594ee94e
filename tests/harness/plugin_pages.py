"""The examples of the plugin author's pages, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "plugins.md").read_text("utf-8")
SLOT_PAGE = (DOCS / "plugin_slots.md").read_text("utf-8")
HOOK_PAGE = (DOCS / "plugin_hooks.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _sections():
    found = re.split(r"^## (\w+)\n", SLOT_PAGE, flags=re.MULTILINE)[1:]
    for slot, text in zip(found[::2], found[1::2], strict=True):
        (_, code), (language, use) = BLOCK.findall(text)
        yield slot, (code, language, use.strip())


SECTIONS = dict(_sections())
"""By slot: the code of a plugin, and in which language (toml or sh) how it is used."""
