"""The sensitivity probe on the library's own encoding, and on encodings that are wrong."""

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from dp.audit import Claim, Verdict, audit_clip, audit_contribution, gaussian_epsilon
from dp.audit.contribution import _halfway
from dp.events import Relation
from secagg.crypto.prg import Prg, random_words

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
