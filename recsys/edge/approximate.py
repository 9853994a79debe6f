"""Approximate search: the items whose vectors have about the largest products with a user's, without all products.

The index is a graph of neighbours (Malkov and Yashunin 2016, "Hierarchical navigable small world graphs", by usearch)
over numbers of 16 bits. For catalogues of a million items; of ten thousand all scores are as fast, and exact.

usearch believes what an index says of itself: one with a wrong neighbour in it reads memory that is not its own. So
nothing is read from an index but what is known to be as it was written (``recsys.edge.folder.load_index``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from recsys.edge.on_device import OnDevice
from recsys.serving import Recommended, ServedModel
from secagg.errors import DecodeError, UsageError
from secagg.extras import needing

with needing("edge", "approximate search"):  # after onnxruntime 1.32, which crashes if usearch 2.26 is there first
    from usearch.index import Index, MetricKind, ScalarKind

_DEEPER = 384
"""How many candidates a search looks at, if it does not have to find more."""


def built(vectors: NDArray[np.float32]) -> bytes:
    """The index of these vectors, as a file.

    >>> index = opened(built(np.float32([[1, 0], [0, 1], [3, 3]])), items=3)
    >>> nearest(index, np.float32([1, 0]), 2)[0].tolist()
    [2, 0]
    """
    index = Index(ndim=vectors.shape[1], metric=MetricKind.IP, dtype=ScalarKind.F16)
    index.add(np.arange(len(vectors)), vectors)
    return bytes(index.save())


def opened(data: bytes, items: int) -> Index:
    """The index in a file, which is what ``built`` wrote; ``DecodeError`` if it is one of something else."""
    try:
        index = Index.restore(data)
    except (RuntimeError, ValueError):
        raise DecodeError("this is no index of usearch") from None
    if index is None or (len(index), index.metric_kind, index.dtype) != (items, MetricKind.IP, ScalarKind.F16):
        raise DecodeError(f"this is no index of {items} items")
    index.expansion_search = _DEEPER
    return index


def nearest(index: Index, user: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """About the ``k`` items with the largest products, the largest first, and these products, which are rounded."""
    if user.shape != (index.ndim,):
        raise DecodeError("the index is of vectors of another length than the model's")
    found = index.search(user, min(k, len(index)))
    return found.keys.astype(np.int64), (1 - found.distances).astype(np.float32)


def recommend(served: ServedModel, index: Index, history: Sequence[str], k: int = 10) -> Recommended:
    """As ``ServedModel.recommend``: about the best items, with scores that are rounded."""
    if k < 1:
        raise UsageError(f"recommend at least 1 item, not {k}")
    seen, unknown = served.numbered(history)
    items, scores = nearest(index, cast(OnDevice, served.model).user(seen), k + len(np.unique(seen)))
    new = ~np.isin(items, seen)
    found = zip(items[new][:k], scores[new][:k], strict=True)
    return Recommended(tuple((served.item_ids[item], float(score)) for item, score in found), unknown)
