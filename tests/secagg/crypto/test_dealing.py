"""Dealing with a proof: against Python integers, that bad points are caught, and that the proof tells nothing."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.crypto import dealing as secret_sharing
from secagg.crypto.dealing import BLINDS, Polynomials, consistent, padded, responses, unpadded, width
from secagg.crypto.field import uniform
from secagg.crypto.prg import Prg
from secagg.crypto.shamir import LIMBS, PRIME
from secagg.errors import DecodeError, UsageError
from tests.reference import dealing, shamir

SECRET, OTHER = bytes(range(32)), bytes(range(32, 64))
RHO = b"rho".ljust(32)
seeds = st.binary(min_size=32, max_size=32)


def drawn(coefficients: list[list[int]]) -> Any:
    """Randomness from which these very coefficients are drawn (the limbs' constant terms are the secret's)."""
    stream = np.array(coefficients, "<u4").tobytes()

    def draw(count: int) -> bytes:
        nonlocal stream
        taken, stream = stream[:count], stream[count:]
        return taken

    return draw


def weights(challenge: bytes, secrets: int) -> list[list[int]]:
    """rho, as the proof's own generator gives it: a row for each limb."""
    return uniform((LIMBS * secrets, BLINDS), Prg(challenge)).tolist()


def random_coefficients(seed: bytes, threshold: int, secrets: list[bytes]) -> list[list[int]]:
    chosen: list[list[int]] = uniform((threshold, width(len(secrets))), Prg(seed)).tolist()
    chosen[0][:-BLINDS] = [limb for secret in secrets for limb in shamir.limbs(secret)]
    return chosen


@given(seed=seeds, threshold=st.integers(1, 5), secrets=st.lists(seeds, min_size=1, max_size=2), challenge=seeds)
@settings(max_examples=25)
def test_against_python_integers(seed: bytes, threshold: int, secrets: list[bytes], challenge: bytes) -> None:
    coefficients = random_coefficients(seed, threshold, secrets)
    dealt, holders = Polynomials(secrets, threshold, drawn(coefficients)), [1, 2, 7, 10**6]
    points = dealt.points(holders)
    assert points.tolist() == [dealing.points(coefficients, holder) for holder in holders]
    rho, proof = weights(challenge, len(secrets)), dealt.proof(challenge)
    expected = [dealing.combined(row, rho) for row in coefficients]
    assert np.frombuffer(proof, "<u4").reshape(-1, BLINDS).tolist() == expected
    shown = responses(proof, threshold, holders)
    assert shown.tolist() == [dealing.points(expected, holder) for holder in holders]
    assert [dealing.combined(row, rho) for row in points.tolist()] == shown.tolist()
    assert consistent(points, [challenge] * len(holders), shown).all()


@given(key=seeds, values=st.lists(st.integers(0, PRIME - 1), min_size=1, max_size=30), shift=st.integers(0, PRIME - 1))
@settings(max_examples=25)
def test_a_pad_is_taken_off_again_and_passes_shifts_on(key: bytes, values: list[int], shift: int) -> None:
    box = padded(np.array([values], np.uint32), [key])
    assert unpadded(box, [key]).tolist() == [values]
    altered = ((box.astype(np.uint64) + np.uint64(shift)) % np.uint64(PRIME)).astype(np.uint32)
    assert unpadded(altered, [key]).tolist() == [[(value + shift) % PRIME for value in values]]


# Soundness.


def scene(seed: int, threshold: int = 3, holders: int = 6) -> tuple[Polynomials, np.ndarray[Any, Any], list[int]]:
    dealt, places = Polynomials([SECRET, OTHER], threshold, Prg(bytes([seed]) * 32)), list(range(1, holders + 1))
    return dealt, dealt.points(places), places


@given(
    seed=st.binary(min_size=32, max_size=32),
    places=st.sets(st.integers(1, 30), min_size=1, max_size=30).map(sorted),
    among=st.integers(30, 40),
)
def test_responses_are_the_same_from_powers_of_all_abscissas(seed: bytes, places: list[int], among: int) -> None:
    proof = Polynomials([SECRET], 3, Prg(seed)).proof(RHO)
    assert (responses(proof, 3, places, among) == responses(proof, 3, places)).all()


@pytest.mark.parametrize("places", [[0, 1], [-1, 1], [1, 31]])
def test_an_abscissa_that_is_not_among_all_is_refused(places: list[int]) -> None:
    with pytest.raises(UsageError, match="zero or too large"):
        responses(Polynomials([SECRET], 3, Prg(bytes(32))).proof(RHO), 3, places, 30)


@pytest.mark.parametrize("column", [0, 8, 9, 17, 18, 21])
def test_one_wrong_value_is_seen_by_its_holder_and_by_no_other(column: int) -> None:
    """A limb of either secret, or a blinding value."""
    dealt, points, places = scene(1)
    points[2, column] = (points[2, column] + 1) % PRIME
    shown = responses(dealt.proof(RHO), 3, places)
    assert consistent(points, [RHO] * 6, shown).tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize("column", [0, 17])
def test_points_of_too_high_a_degree_are_seen_by_all_but_t(column: int) -> None:
    """The best that a dealer can do for its proof is to fit t holders of its choice."""
    threshold = 3
    for seed in range(20):
        coefficients = random_coefficients(bytes([seed]) * 32, threshold + 1, [SECRET, OTHER])
        for power in coefficients[threshold:]:
            power[:] = [0 if i != column else value for i, value in enumerate(power)]
        places, rho = list(range(1, 8)), weights(RHO, 2)
        points = [dealing.points(coefficients, place) for place in places]
        combined = [dealing.combined(row, rho) for row in points]
        friends = {place: combined[place - 1] for place in places[:threshold]}
        shown = [
            [shamir.at({x: values[j] for x, values in friends.items()}, place) for j in range(BLINDS)]
            for place in places
        ]
        agree = consistent(np.array(points, np.uint32), [RHO] * 7, np.array(shown, np.uint32))
        assert agree.tolist() == [True] * threshold + [False] * 4


def test_control_weights_that_are_known_before_the_points() -> None:
    """Then a dealer adds to one holder's limbs what rho does not see, and gives it a share of another polynomial."""
    dealt, points, places = scene(2)
    unseen = kernel(weights(RHO, 2))
    points[0, :-BLINDS] = [(int(value) + more) % PRIME for value, more in zip(points[0], unseen, strict=False)]
    shown = responses(dealt.proof(RHO), 3, places)
    assert consistent(points, [RHO] * 6, shown).all()
    later = b"drawn from a hash of the points".ljust(32)
    assert not consistent(points, [later] * 6, responses(dealt.proof(later), 3, places))[0]


def kernel(rho: list[list[int]]) -> list[int]:
    """Something that is not zero, on the first five limbs, and zero in all four sums: by elimination."""
    rows = [[rho[limb][j] for limb in range(BLINDS + 1)] for j in range(BLINDS)]
    for i in range(BLINDS):
        inverse = pow(rows[i][i], -1, PRIME)
        rows[i] = [value * inverse % PRIME for value in rows[i]]
        for k in range(BLINDS):
            if k != i:
                rows[k] = [(a - rows[k][i] * b) % PRIME for a, b in zip(rows[k], rows[i], strict=True)]
    found = [-rows[i][BLINDS] % PRIME for i in range(BLINDS)] + [1]
    return found + [0] * (len(rho) - len(found))


# What the proof tells.


def skew(words: np.ndarray[Any, Any], bins: int = 16) -> float:
    """Chi-square over so many equal bins."""
    counts = np.bincount((words.astype(np.uint64) * np.uint64(bins) // np.uint64(PRIME)).astype(int), minlength=bins)
    expected = len(words) / bins
    return float(((counts - expected) ** 2 / expected).sum())


def test_what_is_shown_of_fixed_secrets_is_uniform() -> None:
    """15 degrees of freedom: above 80 with probability below 1e-9. All is drawn from fixed seeds.

    Control: without the blinding polynomials it says everything.
    """
    shown = [Polynomials([SECRET], 2, Prg(i.to_bytes(32, "big"))).proof(RHO) for i in range(400)]
    words = np.frombuffer(b"".join(shown), "<u4").reshape(-1, 2, BLINDS)
    for power in range(2):
        for j in range(BLINDS):
            assert skew(words[:, power, j]) < 80

    def bare(i: int) -> bytes:
        coefficients = random_coefficients(i.to_bytes(32, "big"), 2, [SECRET])
        return Polynomials([SECRET], 2, drawn([row[:-BLINDS] + [0] * BLINDS for row in coefficients])).proof(RHO)

    words = np.frombuffer(b"".join(bare(i) for i in range(20)), "<u4").reshape(-1, 2, BLINDS)
    assert (words[:, 0] == words[0, 0]).all()


@given(seed=seeds, challenge=seeds, other=seeds, threshold=st.integers(2, 5))
@settings(max_examples=25)
def test_fewer_than_t_holders_and_the_proof_fit_every_secret(
    seed: bytes, challenge: bytes, other: bytes, threshold: int
) -> None:
    """For any other secret there are polynomials that give the same holders the same values and have the same proof:
    those of the secrets are moved by what is zero at these holders, those that blind them back by what rho makes of it.
    With one holder more there are none."""
    coefficients, corrupt = random_coefficients(seed, threshold, [SECRET]), list(range(1, threshold))
    rho = weights(challenge, 1)
    vanishing = [1]  # the polynomial that is zero at the corrupt, and one at zero; lowest coefficient first
    for place in corrupt:
        scale = pow(-place, -1, PRIME)
        vanishing = [(a * -place + b) * scale % PRIME for a, b in zip([*vanishing, 0], [0, *vanishing], strict=True)]
    moved = [b - a for a, b in zip(shamir.limbs(SECRET), shamir.limbs(other), strict=True)]
    back = [-sum(w[j] * more for w, more in zip(rho, moved, strict=True)) for j in range(BLINDS)]
    story = [
        [(value + g * more) % PRIME for value, more in zip(row, [*moved, *back], strict=True)]
        for row, g in zip(coefficients, vanishing, strict=True)
    ]
    true = Polynomials([SECRET], threshold, drawn(coefficients))
    told = Polynomials([other], threshold, drawn(story))
    assert told.points(corrupt).tolist() == true.points(corrupt).tolist()
    assert told.proof(challenge) == true.proof(challenge)
    assert story[0][:LIMBS] == shamir.limbs(other)
    if other != SECRET:
        assert told.points([threshold]).tolist() != true.points([threshold]).tolist()


# Refusals.


def test_what_is_no_dealing() -> None:
    with pytest.raises(UsageError, match="a threshold is at least 1"):
        Polynomials([SECRET], 0, Prg(bytes(32)))
    dealt = Polynomials([SECRET], 2, Prg(bytes(32)))
    for holder in (0, PRIME):  # at zero is the secret
        with pytest.raises(UsageError, match="a share index is zero or too large"):
            dealt.points([1, holder])
    with pytest.raises(DecodeError, match="a proof of 32 bytes, not of 3 coefficients"):
        responses(dealt.proof(RHO), 3, [1])
    with pytest.raises(DecodeError, match="a proof of 31 bytes, not of 2 coefficients"):
        responses(dealt.proof(RHO)[:-1], 2, [1])
    with pytest.raises(DecodeError, match="not reduced"):
        responses(PRIME.to_bytes(4, "little") * 8, 2, [1])
    assert "redacted" in repr(dealt)


# Size.


def peak_of(holders: int) -> int:
    secret_sharing._table.cache_clear()
    dealt = Polynomials([SECRET], 64, Prg(bytes(32)))
    tracemalloc.start()
    dealt.points(range(1, holders + 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_powers_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values, without a table of as many powers as holders times threshold."""
    whole = Polynomials([SECRET], 64, Prg(bytes(32))).points(range(1, 5001)).tolist()
    table = 5000 * 64 * 8
    assert peak_of(5000) > table
    monkeypatch.setattr(secret_sharing, "_MOST", 64 * 100)
    assert peak_of(5000) < table
    dealt = Polynomials([SECRET], 64, Prg(bytes(32)))
    assert dealt.points(range(1, 5001)).tolist() == whole
    monkeypatch.setattr(secret_sharing, "_MOST", 1)
    assert dealt.points([1, 2, 5000]).tolist() == [whole[0], whole[1], whole[4999]]
