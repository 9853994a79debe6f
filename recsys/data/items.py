"""What there is to recommend: a public table of items, and what it says of them.

    id       what people and machines call the item
    title    optional; what people call the item. A year in brackets at its end is the item's year: "Alien (1979)"
    genres   optional; kinds of the item, separated by "|"
    year     optional; a whole number, which goes before the one in the title
    text     optional; what else there is to say of the item, in sentences. Only text encoders read it

``recsys.data.tables.items`` reads a table of one's own, ``recsys.data.movielens`` those of MovieLens.

The table is an input that no user's events have touched, so models may use all of it for nothing. It is the only source
of vocabularies: which genres, words and years there are follows from it alone. An event about an item that it lacks is
dropped where the event is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from secagg.errors import UsageError

DESCRIBED = ("title", "genres", "year", "text")
"""The columns that say something of an item, in a table of one's own."""

_YEAR_AT_END = re.compile(r"^(.*?)\s*\((\d{4})(?:\s*[-\N{EN DASH}]\s*(?:\d{4})?)?\)\s*$", re.DOTALL)
_WORD = re.compile(r"\w+")
_NOT_LISTED = "(no genres listed)"
LATEST_YEAR = 9999


@dataclass(frozen=True, slots=True)
class Items:
    """All items, one entry for each in every field; where nothing is said, it is an empty one, or the year 0.

    >>> items = Items.of(["7", "9"], titles=["Alien (1979)", "Big"], genres=["Horror|Sci-Fi", ""])
    >>> items.titles, items.years, items.genres, items.described
    (('Alien', 'Big'), (1979, 0), (('Horror', 'Sci-Fi'), ()), True)
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    years: tuple[int, ...]
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.ids:
            raise UsageError("a table of items lists no items")
        if len(set(self.ids)) < len(self.ids):
            raise UsageError("an item is in the table of items twice")
        if len({len(self.ids), len(self.titles), len(self.genres), len(self.years), len(self.texts)}) > 1:
            raise UsageError("a table of items says the same of each item")
        if not all(0 <= year <= LATEST_YEAR for year in self.years):
            raise UsageError(f"an item's year is from 0 to {LATEST_YEAR}")

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        titles: Sequence[str] = (),
        genres: Sequence[str] = (),
        years: Sequence[int] = (),
        texts: Sequence[str] = (),
    ) -> Items:
        """From columns as a table has them; those that it lacks are left out."""
        named = [_title_and_year(title) for title in titles or [""] * len(ids)]
        said = years or [0] * len(ids)
        if len(said) != len(named):
            raise UsageError("a table of items says the same of each item")
        return cls(
            tuple(ids),
            tuple(title for title, _ in named),
            tuple(map(_kinds, genres or [""] * len(ids))),
            tuple(year or found for year, (_, found) in zip(said, named, strict=True)),
            tuple(text.strip() for text in texts or [""] * len(ids)),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def described(self) -> bool:
        """Whether the table says anything of any item that can be read without an encoder of texts."""
        return any(self.titles) or any(self.genres) or any(self.years)

    def words(self, item: int) -> tuple[str, ...]:
        """The words of the item's title, in small letters and without repetitions, in the order of the alphabet.

        >>> Items.of(["3"], ["Alien vs. Predator: Alien War (2004)"]).words(0)
        ('alien', 'predator', 'vs', 'war')
        """
        return tuple(sorted(set(_WORD.findall(self.titles[item].lower()))))


def _title_and_year(text: str) -> tuple[str, int]:
    found = _YEAR_AT_END.match(text)
    return (found[1].strip(), int(found[2])) if found else (text.strip(), 0)


def _kinds(text: str) -> tuple[str, ...]:
    """Each once, in the order of the alphabet."""
    return tuple(sorted({kind.strip() for kind in text.split("|") if kind.strip() not in ("", _NOT_LISTED)}))
