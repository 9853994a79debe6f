"""What is compared: references of all data in one place, each made from events and the table of items.

The private models beside them are those of ``benchmarks.studies.utility.recipes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.studies.large.genres import GenrePopularity
from recsys.data.items import Items
from recsys.models.ease import Ease
from recsys.models.knn import ItemKnn
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Recommender
from recsys.sentences import EASE, NEAREST, POPULAR

GENRES, OWN_GENRES = "popularity within genre", "popularity within the genres of the history"
BASELINES = (POPULAR, GENRES, OWN_GENRES)
ALIKE, TOWERS, ATTENTION = "cosine of texts", "two-tower over text", "sasrec over text"
WITH_TEXTS = "private-ease with texts"
OVER_TEXT = (ALIKE, TOWERS, ATTENTION, WITH_TEXTS)
"""Those that need an encoder; but for the last, ``benchmarks.studies.large.texts`` makes them."""

MODELS: Mapping[str, Callable[[Items], Recommender]] = {
    POPULAR: lambda items: ItemPop(),
    GENRES: lambda items: GenrePopularity(items, personal=False),
    OWN_GENRES: lambda items: GenrePopularity(items, personal=True),
    NEAREST: lambda items: ItemKnn(),
    EASE: lambda items: Ease(),
}
"""New models by name. The same events make the same model."""
