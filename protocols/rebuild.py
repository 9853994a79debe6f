"""Rebuilding a secret from Shamir shares when some of their holders lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.shamir import reconstruct, wrong_shares


def rebuilt_despite_liars(
    holders: Sequence[int], shares: NDArray[np.uint32], threshold: int, is_secret: Callable[[bytes], bool]
) -> tuple[bytes, list[int]] | None:
    """The secret that ``is_secret`` knows, and the holders whose shares were done without; None if it cannot be had.

    Holder v has the share at abscissa v + 1. Shares beyond the threshold show which of them do not fit. Their holders
    lied, or the dealer did; or other holders, who know what to say so that an honest one's share does not fit.

    >>> from secagg.shamir import split
    >>> shares = split([b"k" * 32], 2, [1, 2, 3, 4], os.urandom)[:, 0]
    >>> shares[1, 0] ^= 1
    >>> rebuilt_despite_liars([0, 1, 2, 3], shares, 2, lambda secret: secret == b"k" * 32)
    (b'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk', [1])
    """
    places = np.array(holders) + 1
    for wrong in _suspicions(places, shares, threshold):
        good = np.delete(np.arange(len(places)), wrong)[:threshold]
        if len(good) == threshold:
            secret = reconstruct(places[None, good], shares[None, good])[0]
            if secret is not None and is_secret(secret):
                return secret, [holders[i] for i in wrong]
    return None


def _suspicions(places: NDArray[np.int64], shares: NDArray[np.uint32], threshold: int) -> Iterator[list[int]]:
    """Which shares to do without: none, those off the polynomial, and (for a surplus of one) each alone."""
    yield []
    yield wrong_shares(places, shares, threshold, os.urandom)
    for i in range(len(places)):
        yield [i]
