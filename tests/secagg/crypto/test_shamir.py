"""Shamir sharing: any t of n give the secret, t - 1 say nothing, and the vectorised code is the textbook's."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from secagg.crypto.prg import Prg
from secagg.crypto.shamir import (
    LIMBS,
    PRIME,
    SHARE_BYTES,
    pack_shares,
    reconstruct,
    split,
    unpack_shares,
    wrong_shares,
)
from secagg.errors import DecodeError, UsageError
from tests.reference import shamir as reference

a_secret = st.binary(min_size=32, max_size=32)
seeds = st.binary(min_size=32, max_size=32)


@st.composite
def dealings(draw: st.DrawFn) -> tuple[list[bytes], int, list[int], np.ndarray]:
    """Secrets, threshold, holders and the shares dealt to them."""
    secrets = draw(st.lists(a_secret, min_size=1, max_size=3))
    holders = draw(st.lists(st.integers(1, PRIME - 1), min_size=1, max_size=9, unique=True))
    threshold = draw(st.integers(1, len(holders)))
    return secrets, threshold, holders, split(secrets, threshold, holders, Prg(draw(seeds)))


@given(dealt=dealings(), data=st.data())
def test_any_t_of_n_reconstruct(dealt: tuple[list[bytes], int, list[int], np.ndarray], data: st.DataObject) -> None:
    secrets, threshold, holders, shares = dealt
    assert shares.shape == (len(holders), len(secrets), LIMBS)
    chosen = data.draw(st.permutations(range(len(holders))))[: data.draw(st.integers(threshold, len(holders)))]
    for i, secret in enumerate(secrets):
        assert reconstruct(np.array([[holders[j] for j in chosen]]), shares[chosen, i][None]) == [secret]


@given(dealt=dealings())
def test_shares_are_the_reference_polynomial(dealt: tuple[list[bytes], int, list[int], np.ndarray]) -> None:
    """t points fix the polynomial: it passes through the limb at zero and through every other holder's share."""
    secrets, threshold, holders, shares = dealt
    for i, secret in enumerate(secrets):
        for limb, expected in enumerate(reference.limbs(secret)):
            points = {x: int(shares[j, i, limb]) for j, x in enumerate(holders)}
            basis = dict(list(points.items())[:threshold])
            assert reference.at_zero(basis) == expected
            assert all(reference.at(basis, x) == y for x, y in points.items() if x not in basis)


def test_the_polynomial_has_degree_t_minus_1_and_takes_its_coefficients_from_the_rng() -> None:
    """With 31-bit little-endian words from the rng as coefficients, evaluation is the reference's."""
    secret, holders, raw = b"\xa5" * 32, [1, 2, 77, PRIME - 1], Prg(b"c" * 32)(2 * LIMBS * 4)
    words = (np.frombuffer(raw, "<u4") & PRIME).reshape(2, LIMBS).tolist()
    assert all(word != PRIME for row in words for word in row)
    shares = split([secret], 3, holders, lambda count: raw[:count])
    for limb, constant in enumerate(reference.limbs(secret)):
        coefficients = [constant, words[0][limb], words[1][limb]]
        assert shares[:, 0, limb].tolist() == [reference.evaluate(coefficients, x) for x in holders]


def test_a_word_equal_to_the_prime_is_drawn_again() -> None:
    """Otherwise zero would be twice as likely as any other coefficient."""
    draws = iter([b"\xff" * (4 * LIMBS), b"\xff\xff\xff\x7f" * LIMBS, (5).to_bytes(4, "little") * LIMBS])
    shares = split([bytes(32)], 2, [1, 2], lambda count: next(draws))
    assert shares[:, 0].tolist() == [[5] * LIMBS, [10] * LIMBS]
    assert next(draws, None) is None


@given(secret=a_secret, other=a_secret, threshold=st.integers(2, 6), seed=seeds)
def test_fewer_than_t_shares_fit_any_secret(secret: bytes, other: bytes, threshold: int, seed: bytes) -> None:
    """For t - 1 shares and any other secret there is exactly one polynomial, and each coefficient is uniform."""
    holders = list(range(1, threshold + 1))
    shares = split([secret], threshold, holders, Prg(seed))
    for limb, wished in enumerate(reference.limbs(other)):
        known = {x: int(shares[x - 1, 0, limb]) for x in holders[:-1]}
        last = reference.at(known | {0: wished}, holders[-1])
        assert reference.at_zero(known | {holders[-1]: last}) == wished
    forged = np.array([[reference.at({x: int(shares[x - 1, 0, limb]) for x in holders[:-1]} | {0: wished}, holders[-1])
                        for limb, wished in enumerate(reference.limbs(other))]], np.uint32)  # fmt: skip
    together = np.concatenate([shares[:-1, 0], forged])[None]
    assert reconstruct(np.array([holders]), together) == [other]


def test_one_share_is_uniform_whatever_the_secret() -> None:
    """Top bits of 9 * 2000 shares at threshold 2: chi-square with 15 degrees above 66 has probability 2.3e-8."""
    for secret in (bytes(32), b"\xff" * 32):
        dealt = split([secret] * 2000, 2, [3, 4], Prg(b"u" * 32))
        counts = np.bincount(dealt[0].reshape(-1) >> 27, minlength=16)
        expected = dealt[0].size / 16
        assert len(counts) == 16
        assert float(((counts - expected) ** 2 / expected).sum()) < 66


@given(dealt=st.lists(dealings(), min_size=2, max_size=4))
def test_a_batch_is_what_one_by_one_gives(dealt: list[tuple[list[bytes], int, list[int], np.ndarray]]) -> None:
    threshold = min(len(holders) for _, _, holders, _ in dealt)
    x = np.array([holders[:threshold] for _, _, holders, _ in dealt])
    y = np.stack([shares[:threshold, 0] for *_, shares in dealt])
    assert reconstruct(x, y) == [reconstruct(x[i : i + 1], y[i : i + 1])[0] for i in range(len(dealt))]


@given(y=st.lists(st.lists(st.integers(0, PRIME - 1), min_size=LIMBS, max_size=LIMBS), min_size=1, max_size=5))
def test_whatever_the_shares_the_reference_says_the_same(y: list[list[int]]) -> None:
    """None exactly where the interpolated limbs are not those of 32 bytes."""
    x = [7 * i + 1 for i in range(len(y))]
    limbs = [reference.at_zero({x[i]: y[i][limb] for i in range(len(y))}) for limb in range(LIMBS)]
    assert reconstruct(np.array([x]), np.array([y], np.uint32)) == [reference.joined(limbs)]


@pytest.mark.parametrize(("limb", "value", "secret"), [
    (0, 2**29 - 1, (2**29 - 1).to_bytes(32, "little")), (0, 2**29, None), (3, PRIME - 1, None),
    (8, 2**24 - 1, ((2**24 - 1) << 232).to_bytes(32, "little")), (8, 2**24, None),
])  # fmt: skip
def test_limbs_beyond_32_bytes_are_nobodys_secret(limb: int, value: int, secret: bytes | None) -> None:
    share = np.zeros((1, 1, LIMBS), np.uint32)
    share[0, 0, limb] = value
    assert reconstruct(np.array([[1]]), share) == [secret]


@pytest.mark.parametrize("holders", [[0, 1], [1, 1], [1, 2, 1], [-1, 2], [1, PRIME], [1, PRIME + 1]])
def test_zero_repeated_and_too_large_abscissas_are_refused(holders: list[int]) -> None:
    with pytest.raises(UsageError, match="share index"):
        split([bytes(32)], 2, holders, Prg(bytes(32)))
    with pytest.raises(UsageError, match="share index"):
        reconstruct(np.array([holders]), np.zeros((1, len(holders), LIMBS), np.uint32))


@pytest.mark.parametrize("value", [PRIME, PRIME + 1, 2**32 - 1])
def test_a_share_that_is_not_reduced_is_refused(value: int) -> None:
    shares = np.zeros((1, 2, LIMBS), np.uint32)
    shares[0, 1, 4] = value
    with pytest.raises(DecodeError, match="not reduced"):
        reconstruct(np.array([[1, 2]]), shares)
    with pytest.raises(DecodeError, match="not reduced"):
        unpack_shares(pack_shares(shares[0]), 2)


@pytest.mark.parametrize("limb", range(LIMBS))
@pytest.mark.parametrize("value", [PRIME - 1, PRIME, 2**32 - 1])
def test_every_limb_of_every_share_is_reduced(limb: int, value: int) -> None:
    shares = np.zeros((3, LIMBS), np.uint32)
    shares[1, limb] = value
    if value < PRIME:
        assert (unpack_shares(pack_shares(shares), 3) == shares).all()
        return
    with pytest.raises(DecodeError, match="not reduced"):
        unpack_shares(pack_shares(shares), 3)


@pytest.mark.parametrize("size", [0, SHARE_BYTES - 1, SHARE_BYTES + 1, 2 * SHARE_BYTES])
def test_a_share_has_one_size(size: int) -> None:
    with pytest.raises(DecodeError, match="not 1 shares"):
        unpack_shares(bytes(size), 1)


@pytest.mark.parametrize("threshold", [-1, 0, 4])
def test_a_threshold_nobody_can_meet_is_refused(threshold: int) -> None:
    with pytest.raises(UsageError, match="threshold"):
        split([bytes(32)], threshold, [1, 2, 3], Prg(bytes(32)))


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_secret_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        split([bytes(32), bytes(size)], 1, [1], Prg(bytes(32)))


@given(dealt=dealings(), cut=st.integers(1, SHARE_BYTES))
def test_packing_shares(dealt: tuple[list[bytes], int, list[int], np.ndarray], cut: int) -> None:
    secrets, _, _, shares = dealt
    data = pack_shares(shares[0])
    assert len(data) == len(secrets) * SHARE_BYTES
    assert (unpack_shares(data, len(secrets)) == shares[0]).all()
    for wrong in (data[:-cut], data + bytes(cut)):
        with pytest.raises(DecodeError, match="are not"):
            unpack_shares(wrong, len(secrets))


@given(dealt=dealings(), data=st.data())
def test_one_wrong_share_never_gives_the_secret(
    dealt: tuple[list[bytes], int, list[int], np.ndarray], data: st.DataObject
) -> None:
    secrets, threshold, holders, shares = dealt
    who, limb = data.draw(st.integers(0, threshold - 1)), data.draw(st.integers(0, LIMBS - 1))
    wrong = shares[:threshold, :1].transpose(1, 0, 2).copy()
    other = data.draw(st.integers(0, PRIME - 1))
    assume(other != int(wrong[0, who, limb]))
    wrong[0, who, limb] = other
    assert reconstruct(np.array([holders[:threshold]]), wrong) != secrets[:1]


@st.composite
def tampered(draw: st.DrawFn) -> tuple[bytes, int, list[int], np.ndarray, list[int]]:
    """A secret, threshold, holders and shares, of which as many are wrong as can be found, or fewer."""
    secret, threshold = draw(a_secret), draw(st.integers(1, 6))
    holders = draw(st.lists(st.integers(1, PRIME - 1), min_size=threshold, max_size=threshold + 7, unique=True))
    shares = split([secret], threshold, holders, Prg(draw(seeds)))[:, 0].copy()
    most = (len(holders) - threshold) // 2
    wrong = sorted(draw(st.sets(st.integers(0, len(holders) - 1), max_size=most)))
    for i in wrong:
        limb, shift = draw(st.integers(0, LIMBS - 1)), draw(st.integers(1, PRIME - 1))
        shares[i, limb] = (int(shares[i, limb]) + shift) % PRIME
    return secret, threshold, holders, shares, wrong


@given(dealt=tampered(), seed=seeds)
def test_up_to_half_the_spare_shares_may_be_wrong_and_are_found(
    dealt: tuple[bytes, int, list[int], np.ndarray, list[int]], seed: bytes
) -> None:
    """A wrong share escapes the random combination of limbs with probability 2^-31; the seeds are fixed."""
    _, threshold, holders, shares, wrong = dealt
    assert wrong_shares(np.array(holders), shares, threshold, Prg(seed)) == wrong


@given(dealt=tampered(), data=st.data())
def test_without_the_wrong_shares_the_secret_comes_back(
    dealt: tuple[bytes, int, list[int], np.ndarray, list[int]], data: st.DataObject
) -> None:
    secret, threshold, holders, shares, _ = dealt
    found = wrong_shares(np.array(holders), shares, threshold, Prg(b"w" * 32))
    good = [i for i in range(len(holders)) if i not in found]
    some = data.draw(st.permutations(good))[:threshold]
    assert reconstruct(np.array([[holders[i] for i in some]]), shares[some][None]) == [secret]


@given(
    rows=st.lists(st.lists(st.integers(0, PRIME - 1), min_size=LIMBS, max_size=LIMBS), min_size=2, max_size=9),
    threshold=st.integers(1, 9),
)
def test_more_wrong_shares_than_can_be_found_do_no_harm(rows: list[list[int]], threshold: int) -> None:
    """Random points lie on no polynomial: some list of places comes back, and that is all."""
    holders = np.arange(1, len(rows) + 1)
    found = wrong_shares(holders, np.array(rows, np.uint32), min(threshold, len(rows)), Prg(bytes(32)))
    assert found == sorted(set(found) & set(range(len(rows))))
