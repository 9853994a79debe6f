"""Text of strangers on a terminal: what cannot be seen, or paints what is not there, is written out.

A terminal obeys control characters (an ESC sequence repaints lines above), reorders text at Unicode's bidirectional
controls, and shows nothing at all for others, so that two names look the same.
"""

from __future__ import annotations

import re

# Characters that Python takes for printable but that are invisible, or change a neighbour: those of Unicode's
# Default_Ignorable_Code_Point that ``str.isprintable`` lets pass, and the blank pattern of Braille.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str) -> str:
    r"""The text in one line, with ``\u`` and four digits (or ``\U`` and eight) for each invisible character.

    Letters, marks, digits, punctuation, symbols and the space stay, so that a line says what it looks like:

    >>> print(printable("ok\x1b[1A\r\n all \u202efine, café"))
    ok\u001b[1A\u000d\u000a all \u202efine, café
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if _seen(one) else _written(one) for one in text)


def in_bytes(count: float, *, short: bool = False) -> str:
    """A number of bytes for people, with a digit after the point; ``short`` has it only below 10.

    >>> in_bytes(999), in_bytes(1_234_000), in_bytes(999_960), in_bytes(32_500_000, short=True)
    ('999 B', '1.2 MB', '1.0 MB', '32 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.95:
            return f"{count:.{0 if unit == 'B' or (short and count >= 10) else 1}f} {unit}"
        count /= 1000
    return f"{count:,.0f} PB"


def in_seconds(count: float) -> str:
    """A number of seconds for people.

    >>> in_seconds(0.0451), in_seconds(312), in_seconds(90_000)
    ('45 ms', '5.2 min', '25 h')
    """
    if count < 1:
        return f"{1000 * count:.2g} ms" if count < 0.01 else f"{1000 * count:.0f} ms"
    for unit, size in (("s", 100.0), ("min", 6000.0), ("h", 360_000.0)):
        if count < size:
            value = count / {"s": 1, "min": 60, "h": 3600}[unit]
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{count / 86400:,.0f} days"


def _seen(character: str) -> bool:
    return character.isprintable() and not _UNSEEN.match(character)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
