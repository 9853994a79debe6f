"""Text of strangers made safe for terminals and names: invisible and control characters are written out.

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


def check_printable(what: str, text: str, *, most: int = 200) -> str:
    """The text, if it can be a name: not empty, not too long, and without invisible characters."""
    from secagg.errors import UsageError  # which shows errors through this module

    if not text or len(text) > most or printable(text) != text:
        shown = printable(text[:most])
        raise UsageError(f"{what} is one line of 1 to {most} printable characters, and not {shown!r}")
    return text


def _seen(character: str) -> bool:
    return character.isprintable() and not _UNSEEN.match(character)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
