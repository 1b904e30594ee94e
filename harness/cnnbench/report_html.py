"""Pieces of HTML: escaped text, elements, lists. What comes from records passes through ``text`` and nothing else."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own.

    Attributes:
        key: its anchor.
        title: its heading, plain text.
        body: HTML.
        wide: it takes the page's whole width, as tables and figures do; else its heading stands beside it.
    """

    key: str
    title: str
    body: str
    wide: bool = False


def text(value: object) -> str:
    """Any value as one line of safe text."""
    return html.escape(printable(str(value)))


def breakable(value: object) -> str:
    """``text`` that may go on in the next line after what parts a name: ``=``, ``,`` and ``(``."""
    return re.sub(r"([=,(])(?=\S)", r"\1<wbr>", text(value))


def element(tag: str, body: str, **attributes: str) -> str:
    """``<tag ...>body</tag>``; of an attribute's name ``_`` becomes ``-``, and one at its end goes (``class_``)."""
    given = "".join(f' {name.rstrip("_").replace("_", "-")}="{text(value)}"' for name, value in attributes.items())
    return f"<{tag}{given}>{body}</{tag}>"


def paragraphs(items: Iterable[str], **attributes: str) -> str:
    """Plain texts as paragraphs."""
    return "\n".join(element("p", text(item), **attributes) for item in items)


def bullets(items: Iterable[str], **attributes: str) -> str:
    """HTML items as a list; empty for none."""
    inner = "\n".join(element("li", item) for item in items)
    return element("ul", f"\n{inner}\n", **attributes) if inner else ""


def terms(pairs: Iterable[tuple[str, str]], **attributes: str) -> str:
    """Name and HTML value as a list of definitions; empty for none."""
    inner = "\n".join(f"<div>{element('dt', text(name))}{element('dd', value)}</div>" for name, value in pairs)
    return element("dl", f"\n{inner}\n", **attributes) if inner else ""


def code_block(body: str, label: str) -> str:
    """Text with its line breaks, in a region that scrolls by itself where it is too wide."""
    safe = html.escape("".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in body.strip("\n")))
    return element("pre", element("code", safe), tabindex="0", role="region", aria_label=label)


def scroller(body: str, label: str, class_: str = "scroll") -> str:
    """What may be wider than the window: it scrolls there by itself, by keyboard too."""
    return element("div", body, class_=class_, tabindex="0", role="region", aria_label=label)
