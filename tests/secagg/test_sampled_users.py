"""A sample of the users inside a silo: whose vectors are in its integers follows from coins alone.

The invariant: each user is in the sum by a coin of its own, with a probability of ``sampled`` or just below; what is
made, encoded and added up beside that is the same work whatever the coins say, and is not in the sum. One user more in
the sum moves it by one contribution, as without sampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg import rounding
from secagg.coins import most_sampled, poisson_sample
from secagg.crypto.prg import Prg
from secagg.encoding import ENCODING, ChosenVectors, Encoding, Rounding
from secagg.errors import DecodeError, UsageError
from tests.controls import switch_off

SEED, RATE, USERS = bytes(32), Fraction(1, 4), 60
WIDE = Encoding(USERS, clip_l2=1.0, bits=20, users=USERS, sampled=RATE, rounding=Rounding.NEAREST)
"""User i has the vector with a 1 at place i and nothing else: its sum says who is in it."""


class Asked:
    """Vectors that are made when they are asked for: of whom they were."""

    def __init__(self, vectors: Any) -> None:
        self.vectors, self.asked = vectors, list[int]()

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Any]:
        return self.of(np.arange(len(self.vectors)))

    def of(self, users: NDArray[np.int64]) -> Iterator[Any]:
        for user in users.tolist():
            self.asked.append(user)
            yield self.vectors[user]


def members(values: NDArray[np.int64], encoding: Encoding = WIDE) -> list[int]:
    found = values / encoding.largest
    assert set(found.tolist()) <= {0.0, 1.0}
    return np.flatnonzero(found).tolist()


def sum_of(vectors: Any, number: int = 0, encoding: Encoding = WIDE) -> NDArray[np.int64]:
    return encoding.encode_users(vectors, seed=SEED, rng=Prg(number.to_bytes(32, "big")))


def test_who_is_in_the_sum_follows_from_the_coins_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the vectors come, and whatever is in them. The coins are those of ``poisson_sample``, of which
    ``test_coins`` shows how they fall. Control: with others it is seen."""
    rows = np.eye(USERS)
    for number in range(6):
        heads = poisson_sample(USERS, RATE, Prg(number.to_bytes(32, "big"))).tolist()
        for given in (rows, list(rows), iter_only(rows), Asked(rows)):
            assert members(sum_of(given, number)) == heads
        spoiled = [row if user % 3 else [math.nan] for user, row in enumerate(rows)]
        for given in (spoiled, Asked(spoiled)):
            assert members(sum_of(given, number)) == [user for user in heads if user % 3]
    rate = "among_others(count, self.sampled, rng)", "among_others(count, 2 * self.sampled, rng)"
    switch_off(monkeypatch, Encoding, "_tossed", *rate)
    assert members(sum_of(Asked(rows))) != poisson_sample(USERS, RATE, Prg(bytes(32))).tolist()


def iter_only(rows: Any) -> Any:
    class Vectors:
        def __len__(self) -> int:
            return len(rows)

        def __iter__(self) -> Iterator[Any]:
            return iter(rows)

    return Vectors()


def test_the_work_does_not_follow_from_the_coins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many vectors are asked for, rounded and added up in each sum. Control: with the sample alone they differ."""

    done = dict[str, int]()

    def work() -> set[tuple[int, int, int]]:
        found = set()
        for number in range(6):
            vectors = Asked(np.eye(USERS))
            done["rounded"] = done["added"] = 0
            with pytest.MonkeyPatch.context() as patch:
                for name, kernel in (("nearest", "rounded"), ("add", "added")):
                    original = getattr(rounding, name)

                    def counting(*given: Any, kernel: str = kernel, original: Any = original) -> Any:
                        done[kernel] += 1
                        return original(*given)

                    patch.setattr(rounding, name, counting)
                sum_of(vectors, number)
            found.add((len(vectors.asked), done["rounded"], done["added"]))
        return found

    most = most_sampled(USERS, RATE)
    assert most < USERS
    assert work() == {(most, most, most)}
    switch_off(monkeypatch, Encoding, "_tossed", "vectors.of(places)", "vectors.of(places[sampled])")
    assert len(work()) > 1


def test_what_does_not_say_how_to_choose_is_made_for_everybody() -> None:
    made = list[int]()

    class Vectors:
        def __len__(self) -> int:
            return 7

        def __iter__(self) -> Iterator[Any]:
            for user in range(7):
                made.append(user)
                yield np.eye(USERS)[user]

    assert not isinstance(Vectors(), ChosenVectors)
    sum_of(Vectors())
    assert made == list(range(7))


def test_everybody_is_in_a_sum_without_sampling_and_no_coin_is_tossed() -> None:
    encoding = Encoding(USERS, clip_l2=1.0, bits=20, users=USERS, rounding=Rounding.NEAREST)

    def no_words(count: int) -> bytes:
        raise AssertionError("a coin")

    vectors = Asked(np.eye(USERS))
    values = encoding.encode_users(vectors, seed=SEED, rng=no_words)
    assert members(values, encoding) == vectors.asked == list(range(USERS))


def test_one_user_moves_a_sum_by_no_more_than_without_sampling() -> None:
    everybody = Encoding(4, clip_l2=1.0, bits=16, users=9)
    sampled = Encoding(4, clip_l2=1.0, bits=16, users=9, sampled=RATE)
    assert sampled.sensitivity() == everybody.sensitivity()
    assert sampled.ring_bits(7) == everybody.ring_bits(7)  # all coins may come up heads


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sampled": Fraction(0), "users": 3}, "above 0 and at most 1"),
        ({"sampled": Fraction(-1, 2), "users": 3}, "above 0 and at most 1"),
        ({"sampled": Fraction(3, 2), "users": 3}, "above 0 and at most 1"),
        ({"sampled": Fraction(1, 1 << 64), "users": 3}, "64-bit"),
        ({"sampled": RATE}, "only users of silos"),
        ({"sampled": RATE, "users": 3, "overlap": 2}, "several coins"),
    ],
)
def test_no_such_encoding(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Encoding(3, clip_l2=1.0, **wrong)


def test_the_rate_is_on_the_wire() -> None:
    data = ENCODING.encode(WIDE)
    assert ENCODING.decode(data) == WIDE
    for numerator, denominator in ((0, 1), (2, 8), (5, 4)):
        with pytest.raises(DecodeError):
            ENCODING.decode(data[:-16] + numerator.to_bytes(8, "big") + denominator.to_bytes(8, "big"))
