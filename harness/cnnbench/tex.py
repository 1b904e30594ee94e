"""Any text as LaTeX that compiles: ASCII alone, no package needed, and about how wide it comes out.

Plain ASCII goes through pdfLaTeX, XeLaTeX and LuaLaTeX alike, whatever the encoding and the fonts of a paper.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from cnnbench.text import printable

_SPECIAL: Final = {
    "\\": (r"\textbackslash{}", 0.5),
    "{": (r"\{", 0.5),
    "}": (r"\}", 0.5),
    "$": (r"\$", 0.5),
    "&": (r"\&", 0.78),
    "%": (r"\%", 0.84),
    "#": (r"\#", 0.84),
    "_": (r"\_", 0.4),
    "^": (r"\^{}", 0.5),
    "~": (r"\~{}", 0.5),
    "`": (r"\`{}", 0.5),
    '"': (r"\texttt{\char34}", 0.53),
    "<": (r"$<$", 0.78),
    ">": (r"$>$", 0.78),
    "|": (r"$|$", 0.28),
    # After the end of a table's row they would be read as its options.
    "[": (r"{[}", 0.28),
    "]": (r"{]}", 0.28),
    "*": (r"{*}", 0.5),
}
"""What LaTeX reads otherwise, or its oldest font encoding shows otherwise; with widths in em of Computer Modern."""

_SIGNS: Final = {
    "±": (r"$\pm$", 0.78),
    "×": (r"$\times$", 0.78),
    "÷": (r"$\div$", 0.78),
    "−": (r"$-$", 0.78),
    "–": (r"\textendash{}", 0.5),
    "—": (r"\textemdash{}", 1.0),
    "⁄": ("/", 0.5),
    "≈": (r"$\approx$", 0.78),
    "≤": (r"$\leq$", 0.78),
    "≥": (r"$\geq$", 0.78),
    "≠": (r"$\neq$", 0.78),
    "·": (r"$\cdot$", 0.28),
    "•": (r"$\bullet$", 0.5),
    "∞": (r"$\infty$", 1.0),
    "√": (r"$\surd$", 0.84),
    "→": (r"$\rightarrow$", 1.0),
    "←": (r"$\leftarrow$", 1.0),
    "↑": (r"$\uparrow$", 0.5),
    "↓": (r"$\downarrow$", 0.5),
    "▲": (r"$\scriptstyle\bigtriangleup$", 0.7),
    "▼": (r"$\scriptstyle\bigtriangledown$", 0.7),
    "†": (r"\dag{}", 0.5),
    "‡": (r"\ddag{}", 0.5),
    "§": (r"\S{}", 0.5),
    "°": (r"$^{\circ}$", 0.45),
    "µ": (r"$\mu$", 0.61),
    "²": (r"$^{2}$", 0.45),
    "³": (r"$^{3}$", 0.45),
    "¹": (r"$^{1}$", 0.45),
    "…": (r"\ldots{}", 1.3),
    "‘": (r"\textquoteleft{}", 0.28),
    "’": (r"\textquoteright{}", 0.28),
    "“": (r"\textquotedblleft{}", 0.5),
    "”": (r"\textquotedblright{}", 0.5),
    "¿": (r"\textquestiondown{}", 0.5),
    "¡": (r"\textexclamdown{}", 0.31),
    "£": (r"\pounds{}", 0.78),
    "ß": (r"\ss{}", 0.5),
    "æ": (r"\ae{}", 0.73),
    "Æ": (r"\AE{}", 0.91),
    "œ": (r"\oe{}", 0.78),
    "Œ": (r"\OE{}", 1.02),
    "ø": (r"\o{}", 0.5),
    "Ø": (r"\O{}", 0.78),
    "ł": (r"\l{}", 0.28),
    "Ł": (r"\L{}", 0.63),
    "ı": (r"\i{}", 0.28),
}

_LETTERS: Final = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
_GREEK: Final = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", _LETTERS.split(), strict=True))
_ACCENTS: Final = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
"""Combining marks that every font encoding can set."""

_WIDE: Final = {
    **dict.fromkeys("ijlf.,:;'!", 0.31),
    **dict.fromkeys("trs()-", 0.4),
    " ": 0.34,
    **dict.fromkeys("0123456789/?", 0.5),
    **dict.fromkeys("mw+=@", 0.84),
    **dict.fromkeys("MW", 1.03),
}
"""Widths in em of Computer Modern, a class at its widest."""


def tex(text: str) -> str:
    """Text as LaTeX source: ASCII, in one line, without any command's meaning left in it.

    Letters with accents, Greek, and the signs of the tables are set as such. What plain LaTeX has no glyph for is
    replaced by its compatible form (``ﬁ`` by ``fi``) or, failing that, by its code point (``U+4E2D``).
    """
    source = "".join(source for source, _ in _glyphs(text))
    for pair in ("--", "''", ",,"):  # would join into another sign
        source = source.replace(pair, "{}".join(pair)).replace(pair, "{}".join(pair))
    return source


def em(text: str) -> float:
    """About how wide the text is when set, in em; rather too much than too little."""
    return sum(width for _, width in _glyphs(text))


def breakable(text: str, most: float = 12) -> str:
    """``tex`` with places to break a line in words that are wider than ``most`` em, such as paths and digests."""
    return " ".join(_parted(word) if em(word) > most else tex(word) for word in printable(text).split(" "))


def _parted(word: str) -> str:
    pieces = [""]
    for character in unicodedata.normalize("NFC", word):
        if em(pieces[-1]) >= _PIECE or pieces[-1].endswith(("/", "_", ".", ":", "=", "-")):
            pieces.append("")
        pieces[-1] += character
    return r"\allowbreak{}".join(map(tex, pieces))


_PIECE = 3.0
"""Width in em after which a long word may go on in the next line."""


def _glyphs(text: str) -> list[tuple[str, float]]:
    """Source and width of each character, of one with its accents as a whole."""
    found: list[tuple[str, float]] = []
    for character in unicodedata.normalize("NFC", printable(text)):
        found += _glyph(character)
    return found


def _glyph(character: str) -> list[tuple[str, float]]:
    if plain := _plain(character):
        return [plain]
    apart = unicodedata.normalize("NFKD", character)
    base, marks = apart[0], apart[1:]
    if base.isascii() and base.isalpha() and marks in _ACCENTS:
        below = marks in "\u0323\u0327\u0331"
        letter = rf"\{base}" if base in "ij" and not below else base
        return [(rf"\{_ACCENTS[marks]}{{{letter}}}", em(base))]
    parts = [_plain(one) for one in apart if not unicodedata.combining(one)]
    known = [one for one in parts if one is not None]
    if len(known) == len(parts) and "".join(source for source, _ in known).strip():
        return known
    code = f"U+{ord(character):04X}"
    return [(rf"\texttt{{{code}}}", 0.53 * len(code))]


def _plain(character: str) -> tuple[str, float] | None:
    """Source and width of what needs no taking apart."""
    if character in _GREEK:
        return rf"$\{_GREEK[character]}$", 0.84
    if character.isascii() and character not in _SPECIAL:
        return character, _WIDE.get(character, 0.79 if character.isupper() else 0.56)
    return _SPECIAL.get(character) or _SIGNS.get(character)
