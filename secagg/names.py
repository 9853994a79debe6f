"""Names and titles that people choose: one short line in which everything is seen."""

from __future__ import annotations

from secagg.errors import UsageError
from secagg.printable import printable


def check_name(what: str, text: str, *, most: int = 200) -> str:
    """The same text, if it is a name: not empty, not long, and nothing in it that is not seen.

    >>> check_name("a title", "MovieLens, epsilon 2")
    'MovieLens, epsilon 2'
    """
    if not text or len(text) > most or printable(text) != text:
        shown = printable(text[:most])
        raise UsageError(f"{what} is one line of 1 to {most} printable characters, and not {shown!r}")
    return text
