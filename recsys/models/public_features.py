"""What a public table says of items, as numbers: features for popularity, and how alike two items are.

    described    a row for each item: 1, a 0/1 for each genre, and bumps over the years, EIGHT years apart
    maps         one sparse matrix for each of four kernels K = M M', with rows of norm 1, or 0 where nothing is said:
                   genres   cosine of the 0/1 rows
                   years    exp(-(difference / 8)^2 / 2), by bumps that are four years apart
                   both     the product of these two
                   words    cosine of the titles' words, the rarer ones weighing more (inverse document frequency);
                            words of one title alone are left out, for they make nothing alike
                 and with an encoder a fifth:
                   texts    cosine of the coordinates of the texts' vectors (``recsys.text.coordinates``)

All of it follows from the table, and from nobody's events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.items import Items
from recsys.text.coordinates import COORDINATES, Coordinates
from recsys.text.vectors import ItemVectors

YEARS = 8.0
_STEP = 4.0
_LEAST = 1e-3  # of a bump: what is further away is nothing


def described(items: Items) -> NDArray[np.float64]:
    """Features of each item.

    >>> described(Items.of(["1", "2"], ["A (1990)", "B"], ["War", "War|Drama"])).round(2)
    array([[1., 0., 1., 1.],
           [1., 1., 1., 0.]])
    """
    years = np.array(items.years, float)
    known = years > 0
    middles = np.arange(years[known].min(), years[known].max() + YEARS, YEARS) if known.any() else np.empty(0)
    bumps = np.exp(-(((years[:, None] - middles) / YEARS) ** 2)) * known[:, None]
    return np.hstack([np.ones((len(items), 1)), _genres(items).toarray(), bumps])


def maps(items: Items, vectors: ItemVectors | None = None) -> list[sparse.csr_array]:
    """The four maps; and one of the vectors of texts, if there are any.

    >>> table = Items.of(["1", "2", "3"], ["Up (1990)", "Up (1998)", "Down"], ["War", "War", "Drama"])
    >>> [(one @ one.T).toarray()[0, 1].round(2).item() for one in maps(table)]
    [1.0, 0.61, 0.61, 1.0]
    """
    genres, years = _unit(_genres(items)), _unit(_bumps(items))
    said = [] if vectors is None else [_unit(sparse.csr_array(Coordinates.of(vectors, COORDINATES).rows))]
    return [genres, years, _products(genres, years), _unit(_words(items)), *said]


def _genres(items: Items) -> sparse.csr_array:
    names = {name: number for number, name in enumerate(sorted({kind for one in items.genres for kind in one}))}
    return _matrix([[names[kind] for kind in one] for one in items.genres], len(names))


def _bumps(items: Items) -> sparse.csr_array:
    years = np.array(items.years, float)
    known = years > 0
    if not known.any():
        return sparse.csr_array((len(items), 1))
    reach = 3 * YEARS
    middles = np.arange(years[known].min() - reach, years[known].max() + reach + _STEP, _STEP)
    bumps = np.exp(-(((years[:, None] - middles) / YEARS) ** 2)) * known[:, None]
    return sparse.csr_array(np.where(bumps > _LEAST, bumps, 0.0))


def _words(items: Items) -> sparse.csr_array:
    words = [items.words(item) for item in range(len(items))]
    titles = Counter(word for one in words for word in one)
    names = {word: number for number, word in enumerate(sorted(word for word in titles if titles[word] > 1))}
    rarity = np.array([log(len(items) / titles[word]) for word in names])
    found = _matrix([[names[word] for word in one if word in names] for one in words], len(names))
    return sparse.csr_array(found @ sparse.diags_array(rarity)) if names else found


def _matrix(columns: Sequence[Sequence[int]], width: int) -> sparse.csr_array:
    """A 1 in the columns of each row."""
    starts = np.concatenate(([0], np.cumsum([len(one) for one in columns])))
    flat = np.array([number for one in columns for number in one], np.int64)
    return sparse.csr_array((np.ones(len(flat)), flat, starts), shape=(len(columns), max(width, 1)))


def _unit(matrix: sparse.csr_array) -> sparse.csr_array:
    """Rows of norm 1, but for those of zeros."""
    norms = np.sqrt((matrix**2).sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(norms > 0, norms, 1.0)) @ matrix)


def _products(one: sparse.csr_array, other: sparse.csr_array) -> sparse.csr_array:
    """Row by row, all products of an entry of one and an entry of the other: the map of the product of two kernels."""
    width = other.shape[1]
    rows, columns, values = list[NDArray[np.int64]](), list[NDArray[np.int64]](), list[NDArray[np.float64]]()
    for row in range(one.shape[0]):
        a, b = slice(*one.indptr[row : row + 2]), slice(*other.indptr[row : row + 2])
        columns.append((one.indices[a, None].astype(np.int64) * width + other.indices[b]).ravel())
        values.append(np.outer(one.data[a], other.data[b]).ravel())
        rows.append(np.full(len(columns[-1]), row))
    parts = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array(parts, shape=(one.shape[0], one.shape[1] * width))
