"""matplotlib's SVG made fit for pages: themed, accessible, its ids its own, nothing in it from elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from cnnbench.figures.style import COLOURS
from cnnbench.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Noto Sans', 'DejaVu Sans', sans-serif"
_ID = re.compile(r'\bid="([^"]*)"')
_LINK = re.compile(r'(\burl\(#|\bhref="#)')
_STYLE = re.compile(r'(?<= style=")[^"]*(?=")')


def finished(raw: str, key: str, title: str, description: str) -> str:
    """An SVG that stands alone as a file and goes into a page as it is.

    Each colour is a CSS variable, ``--figure-blue`` and the like. A page that sets one decides; otherwise the reader's
    light or dark mode does. A viewer that knows no variables shows the light colours.

    Args:
        raw: what matplotlib wrote.
        key: prefix of every id; unique on a page.
        title: for ``<title>``.
        description: for ``<desc>``, what a screen reader says.
    """
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', raw)
    if found is None:
        raise ValueError("expected an SVG of matplotlib with a viewBox")
    width, height = map(float, found.groups())
    body = raw[raw.index(">", raw.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*(; )?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", body)
    body = _ID.sub(lambda match: f'id="{key}-{match[1]}"', body)
    body = _LINK.sub(lambda match: f"{match[1]}{key}-", body)
    body = _STYLE.sub(lambda match: "; ".join(_declared(match[0])), body)
    body = re.sub(r"\n\s*", "\n", body).strip()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" id="{key}"'
        f' class="cnnbench-figure" role="img" aria-labelledby="{key}-title {key}-desc"'
        f' viewBox="0 0 {width:g} {height:g}" width="{1.5 * width:g}" height="{1.5 * height:g}">\n'
        f'<title id="{key}-title">{_plain(title)}</title>\n<desc id="{key}-desc">{_plain(description)}</desc>\n'
        f"<style>\n{_sheet(key)}\n</style>\n{body}\n"
    )


def _declared(style: str) -> Iterator[str]:
    """A style's declarations, each with a colour twice: plain, then as a variable."""
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        yield declaration
        for colour in COLOURS:
            if colour.light in declaration:
                yield declaration.replace(colour.light, f"var(--own-{colour.name})")


def _sheet(key: str) -> str:
    """Every rule begins with the id: an SVG within a page shares its styles with all of it."""
    own = f"#{key}"
    light = " ".join(f"--own-{c.name}: var(--figure-{c.name}, {c.light});" for c in COLOURS)
    dark = " ".join(f"--own-{c.name}: var(--figure-{c.name}, {c.dark});" for c in COLOURS)
    return "\n".join(
        (
            f"{own} {{ {light} max-width: 100%; height: auto; font-family: {_FONTS}; }}",
            f"{own} * {{ stroke-linejoin: round; stroke-linecap: butt; }}",
            f"@media (prefers-color-scheme: dark) {{ {own} {{ {dark} }} }}",
            f"@media print {{ {own} {{ {light} }} }}",
        )
    )


def _plain(text: str) -> str:
    return escape(printable(text))
