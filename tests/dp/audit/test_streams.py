"""Draws of one client: what they must depend on. Machines without a protocol; the real ones are in ``suite``."""

from collections.abc import Callable

import numpy as np
import pytest

from dp.audit import Draw, Noise, Verdict, audit_parts, audit_streams
from secagg.crypto.keys import derive
from secagg.crypto.prg import Prg
from secagg.crypto.sampling.draws import skellam

NOISE = Noise(1000.0, 1e-6, step=1.0)
Seeds = Callable[[Draw], list[bytes]]


def everything(draw: Draw) -> list[bytes]:
    return [draw.secret, bytes([draw.round]), draw.bound]


def verdicts(
    seeds: Seeds, shared: float = 0.0, always: Callable[[Draw], bytes] = lambda draw: b""
) -> dict[str, Verdict]:
    """``shared``: the part of the variance that has a seed of its own, from ``always``."""

    def drawn(draw: Draw, count: int) -> np.ndarray:
        own = skellam_of((1 - shared) * 1e6, count, derive(b"k" * 32, b"own", *seeds(draw)))
        return own + (skellam_of(shared * 1e6, count, derive(b"k" * 32, b"shared", always(draw))) if shared else 0)

    found = audit_streams(drawn, NOISE, range(3), rng=Prg(b"s" * 32))
    return {check.name: check.verdict for check in found}


def skellam_of(variance: float, count: int, seed: bytes) -> np.ndarray:
    from fractions import Fraction

    return skellam(Fraction(variance), count, seed).astype(float)


def failed(found: dict[str, Verdict]) -> list[str]:
    return [name for name, verdict in found.items() if verdict is not Verdict.PASSED]


def test_draws_from_all_that_they_may_depend_on_pass() -> None:
    assert failed(verdicts(everything)) == []
    assert failed(verdicts(everything, 0.3, lambda draw: b"".join(everything(draw)))) == []


@pytest.mark.parametrize("left_out", range(3))
def test_what_draws_do_not_depend_on_is_seen(left_out: int) -> None:
    """The secret, the round, or what the upload is bound to."""
    found = verdicts(lambda draw: [part for i, part in enumerate(everything(draw)) if i != left_out])
    assert "draws that return" in failed(found)


def test_a_fifth_of_the_noise_that_does_not_depend_on_the_secret_is_seen() -> None:
    public = lambda draw: bytes([draw.client, draw.round]) + draw.bound  # noqa: E731
    assert failed(verdicts(everything, 0.2, public)) == ["draws that return"]


def test_draws_that_are_others_each_time_are_seen() -> None:
    """A restarted client would draw anew: its sums could be averaged."""
    rng = np.random.default_rng(1)
    assert failed(verdicts(lambda draw: [rng.bytes(32)])) == ["the same draw again"]


def test_too_little_noise_of_one_client_is_seen() -> None:
    def drawn(draw: Draw, count: int) -> np.ndarray:
        return skellam_of(5e5 if draw.client == 2 else 1e6, count, derive(b"k" * 32, b"", *everything(draw)))

    found = audit_streams(drawn, NOISE, range(3), rng=Prg(b"s" * 32))
    failed = [check.name for check in found if check.verdict is not Verdict.PASSED]
    assert failed == ["each client's noise", "each client's tails"]


@pytest.mark.parametrize(("links", "verdict"), [(3, Verdict.PASSED), (2, Verdict.FAILED), (1, Verdict.FAILED)])
def test_parts_from_one_seed_are_seen(links: int, verdict: Verdict) -> None:
    """A chain that repeats after so many links."""

    def parts(count: int, seed: bytes) -> list[np.ndarray]:
        return [skellam_of(1e4, count, derive(seed, bytes([level % links]))) / 100 for level in range(3)]

    again, tails = audit_parts(parts, Noise(1.0, 1e-4, step=0.01), rng=Prg(b"q" * 32))
    assert again.verdict is verdict
    assert tails.verdict is Verdict.PASSED


def test_noise_that_is_coarse_has_no_check_of_its_tails() -> None:
    def parts(count: int, seed: bytes) -> list[np.ndarray]:
        return [skellam_of(25.0, count, seed) / 5]

    (again,) = audit_parts(parts, Noise(1.0, 0.04, step=0.2), rng=Prg(b"q" * 32))
    assert again.verdict is Verdict.PASSED
