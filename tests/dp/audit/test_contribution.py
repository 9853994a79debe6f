"""The sensitivity probe on the library's own encoding, and on encodings that are wrong."""

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dp.audit import (
    Claim,
    Verdict,
    audit_cap,
    audit_clip,
    audit_contribution,
    gaussian_epsilon,
    inside_silos,
)
from dp.audit.contribution import _halfway
from dp.events import Relation
from secagg.crypto.prg import Prg, Rng, random_words
from secagg.errors import UsageError

LENGTH, SCALE = 256, 40.0
LIMIT = int((SCALE + math.sqrt(LENGTH)) ** 2)


def probe(encode: Callable[[np.ndarray], np.ndarray], bound: int = LIMIT) -> Verdict:
    check = audit_contribution(
        encode, l2_squared=bound, length=LENGTH, clip_l2=1.0, step=1 / SCALE, rng=Prg(b"p" * 32)
    )  # fmt: skip
    assert check.false_alarm == 0
    return check.verdict


def rounded(vector: np.ndarray) -> np.ndarray:
    uniform = random_words(Prg(hashlib.sha256(vector.tobytes()).digest()), LENGTH) / 2.0**64
    return np.floor(SCALE * vector + uniform).astype(np.int64)


def clipped(vector: np.ndarray, clip_l2: float = 1.0) -> np.ndarray:
    return vector / max(1.0, float(np.linalg.norm(vector)) / clip_l2)


def test_a_correct_encoding_passes() -> None:
    assert probe(lambda update: rounded(clipped(update))) is Verdict.PASSED


@pytest.mark.parametrize(
    ("wrong", "bound"),
    [
        (rounded, LIMIT),
        (lambda update: rounded(np.clip(update, -1, 1)), LIMIT),
        (lambda update: rounded(clipped(update, 2.0)), LIMIT),
        (lambda update: rounded(clipped(update)), int(SCALE**2)),
    ],
    ids=["no clip", "clipped by coordinate", "twice the clip", "rounding left out"],
)
def test_a_wrong_one_fails(wrong: Callable[[np.ndarray], np.ndarray], bound: int) -> None:
    assert probe(wrong, bound) is Verdict.FAILED


def test_norms_are_exact_integers() -> None:
    """2^62 + 1 and 2^62 are the same float."""
    values = np.zeros(LENGTH, np.int64)
    values[:2] = 1 << 31, 1
    assert probe(lambda update: values, (1 << 62) + 1) is Verdict.PASSED
    assert probe(lambda update: values, 1 << 62) is Verdict.FAILED


# Users inside silos


def in_turn(users: Any, rng: Rng) -> np.ndarray:
    """Each user's vector clipped and rounded, with random words of its own."""
    total = np.zeros(LENGTH, np.int64)
    for vector in users:
        total += np.floor(SCALE * clipped(vector) + random_words(rng, LENGTH) / 2.0**64).astype(np.int64)
    return total


def together(users: Any, rng: Rng) -> np.ndarray:
    return np.rint(SCALE * clipped(np.sum(list(users), axis=0))).astype(np.int64)


@pytest.mark.parametrize("overlap", [1, 3])
@pytest.mark.parametrize("users", [1, 2, 5])
def test_users_that_are_clipped_one_by_one_pass(users: int, overlap: int) -> None:
    encode = inside_silos(in_turn, users=users, overlap=overlap, rng=Prg(b"s" * 32))
    assert probe(encode, overlap**2 * LIMIT) is Verdict.PASSED


@pytest.mark.parametrize(
    ("wrong", "overlap", "bound"),
    [
        (together, 1, LIMIT),
        (lambda users, rng: in_turn([*users, list(users)[-1]], rng), 1, LIMIT),
        (lambda users, rng: in_turn([next(iter(users)), *users], rng), 1, LIMIT),
        (in_turn, 2, 2 * LIMIT),
    ],
    ids=["the sum is clipped", "the last one twice", "the first one twice", "two silos charged as two sums"],
)
def test_users_that_move_more_than_they_may_fail(wrong: Any, overlap: int, bound: int) -> None:
    assert probe(inside_silos(wrong, users=4, overlap=overlap, rng=Prg(b"s" * 32)), bound) is Verdict.FAILED


def capped(users: Any, rng: Rng) -> np.ndarray:
    if (said := len(users)) > 4:
        raise UsageError("too many")
    return in_turn((vector for _, vector in zip(range(said), users, strict=False)), rng)


def read_first(users: Any, rng: Rng) -> np.ndarray:
    return capped(list(users), rng)


@pytest.mark.parametrize(
    ("encode", "counted"),
    [(capped, 4), (in_turn, 8), (read_first, 8), (lambda users, rng: in_turn(users, rng) // 2 * 2, 8)],
    ids=["capped", "all are added", "all are read, and refused", "by twos"],
)
def test_more_users_than_allowed_are_counted(encode: Any, counted: int) -> None:
    check = audit_cap(encode, users=4, length=LENGTH, height=0.5, rng=Prg(b"s" * 32))
    assert (check.observed, check.high) == (counted, 4)
    assert check.verdict is (Verdict.PASSED if counted == 4 else Verdict.FAILED)


@pytest.mark.parametrize("radius", [0.3, 0.6, 5.0, 16.0, 40.0, 1000.0])
def test_halfway_vectors_are_half_integers_of_almost_that_norm(radius: float) -> None:
    vector = _halfway(np.ones(LENGTH), radius)
    assert {Fraction(value).denominator for value in vector if value} <= {2}
    gap = radius**2 - float(vector @ vector)
    assert 0 <= gap < max(0.25, 2 * float(np.abs(vector).max()) + 1)


@pytest.mark.parametrize(("kept", "verdict"), [(1.0, Verdict.PASSED), (10.0, Verdict.FAILED)])
def test_an_update_beyond_the_clip_stands_out_of_the_noise(kept: float, verdict: Verdict) -> None:
    """With noise as large as the clip, 10 clips lie 2.6 standard deviations beyond the limit. The seed is fixed."""
    rng = np.random.default_rng(1)
    claim = Claim(1.0, 1.0, 1.0, gaussian_epsilon(1.0, 1e-5), 1e-5, Relation.ADD_OR_REMOVE)

    def pipeline(updates: list[np.ndarray]) -> np.ndarray:
        return sum(clipped(update, kept) for update in updates) + rng.normal(size=LENGTH)

    assert audit_clip(pipeline, claim, clients=3, length=LENGTH, rng=Prg(b"q" * 32)).verdict is verdict
