"""One rule for signatures, whichever library decides: they are compared with each other and with the rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from secagg.crypto import curve25519
from secagg.crypto.curve25519 import agreed, signed
from secagg.crypto.keys import SigningKey, transcript
from secagg.extras import installed
from tests.controls import switch_off
from tests.reference import ed25519
from tests.reference.ed25519 import L, P, Point, encoded
from tests.vectors import verify

Signature = tuple[bytes, bytes, bytes]
"""A key, a signature, a message."""

LIBRARIES = ["openssl", pytest.param("sodium", marks=pytest.mark.skipif(not installed("nacl"), reason="no PyNaCl"))]
WYCHEPROOF = Path(__file__).parents[2] / "vectors" / "wycheproof-ed25519.json"
A, R = int.from_bytes(b"a" * 31, "little"), int.from_bytes(b"r" * 31, "little")
SMALL = sorted(ed25519.small_order())
bytes32 = st.binary(min_size=32, max_size=32)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whichever it is, it is the one that decides."""
    if request.param == "openssl":
        monkeypatch.setattr(curve25519, "_sodium", lambda: None)
    assert (curve25519._sodium() is None) == (request.param == "openssl")
    return str(request.param)


@cache
def torsions() -> list[tuple[Signature, bool]]:
    """Keys a B + T, points r B + U with r zero or not, and k of every kind: what is good follows from T, U and k."""
    a_b, r_b = ed25519.times(A, ed25519.base()), ed25519.times(R, ed25519.base())
    found = []
    for t in SMALL:
        public = encoded(ed25519.add(a_b, t))
        for r, multiple in ((R, r_b), (0, ed25519.ZERO)):
            for u in SMALL:
                point = encoded(ed25519.add(multiple, u))
                for message in (b"0", b"1", b"2", b"3"):
                    k = ed25519.challenge(point, public, message) % L
                    fits = ed25519.add(ed25519.times(k % 8, t), u) == ed25519.ZERO
                    signature = ed25519.signed_by(A, public, r, point, message)
                    found.append(((public, signature, message), fits and r != 0))
    return found


def test_points_with_a_part_of_small_order(library: str) -> None:
    """What splits verifiers: with the cofactor all of these would be good, and with small orders some more."""
    assert [signed(*one) for one, _ in torsions()] == [good for _, good in torsions()]
    plain = encoded(ed25519.times(A, ed25519.base()))
    assert {good for one, good in torsions() if one[0] != plain} == {True, False}


def test_the_reference_says_the_same() -> None:
    for one, good in torsions()[::73]:
        assert ed25519.is_good(*one) == good


def test_the_library_below_takes_small_orders_for_r(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: OpenSSL would, libsodium would not, so parties with different libraries would not agree."""
    monkeypatch.setattr(curve25519, "_sodium", lambda: None)
    switch_off(monkeypatch, curve25519, "signed", "unusable(signature[:32])")
    taken = [one for one, good in torsions() if curve25519.signed(*one) != good]
    assert len(taken) > 8
    if installed("nacl"):
        from nacl import bindings

        assert not any(curve25519._signed_by_sodium(bindings, *one) for one in taken)


def test_small_orders_in_every_way_to_write_them(library: str) -> None:
    """As R and as key, with S = 0, and with S made for a key of ours."""
    plain = encoded(ed25519.times(A, ed25519.base()))
    for point in sorted(ed25519.encodings(ed25519.small_order())):
        assert not signed(plain, ed25519.signed_by(A, plain, 0, point, b"text"), b"text")
        assert not signed(point, ed25519.forged(point, b"text"), b"text")
        assert not any(signed(point, other + bytes(32), b"text") for other in map(encoded, SMALL))


def test_s_is_below_the_order(library: str) -> None:
    key = SigningKey(bytes(32))
    signature = key.sign(b"label")
    message, s = transcript(b"label"), int.from_bytes(signature[32:], "little")
    assert signed(key.public, signature, message)
    for lap in range(1, (2**256 - s) // L + 1):
        assert not signed(key.public, signature[:32] + (s + lap * L).to_bytes(32, "little"), message)


@cache
def wycheproof() -> list[tuple[Signature, bool]]:
    """``acceptable`` is what has mixed orders or a key of small order: there the reference decides."""
    found = []
    for public, rows in json.loads(WYCHEPROOF.read_text())["keys"].items():
        for _, message, signature, result in rows:
            one = bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message)
            found.append((one, ed25519.is_good(*one) if result == "acceptable" else result == "valid"))
    return found


def test_wycheproof(library: str) -> None:
    assert len(wycheproof()) == 210
    assert [signed(*one) for one, _ in wycheproof()] == [good for _, good in wycheproof()]


def test_the_verifier_of_the_vectors_obeys_the_same_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [(point, ed25519.forged(point, b"text"), b"text") for point in map(encoded, SMALL)]
    assert not any(verify.good(*one) for one in keys)
    all_of_them = [*torsions(), *wycheproof()]
    assert [verify.good(*one) for one, _ in all_of_them] == [good for _, good in all_of_them]
    with monkeypatch.context() as control:
        switch_off(control, verify, "good", "not usable(public)")
        assert any(verify.good(*one) for one in keys)
    switch_off(monkeypatch, verify, "good", "not usable(signature[:32])")
    assert [verify.good(*one) for one, _ in all_of_them] != [good for _, good in all_of_them]


@given(secret=bytes32, message=st.binary(max_size=80), flipped=st.integers(0, 8 * 96))
def test_both_libraries_say_the_same(secret: bytes, message: bytes, flipped: int) -> None:
    """Of a good signature, and of one with a bit of key or signature flipped."""
    key = SigningKey(secret)
    good = key.public + key.sign(message)
    text = transcript(message)
    for data in (good, (int.from_bytes(good, "big") ^ (1 << flipped) % (1 << 8 * 96)).to_bytes(96, "big")):
        one = data[:32], data[32:], text
        assert signed(*one) == curve25519._signed_by_openssl(*one) == (data == good)


def test_what_is_cut_is_cut_where_it_was_made(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsodium is handed signature and message in one piece: the boundary must not move."""
    key, message = SigningKey(bytes(32)), transcript(b"label")
    signature = key.sign(b"label")
    moved = [
        (key.public, signature[:-1], signature[-1:] + message),
        (key.public, signature + message[:1], message[1:]),
    ]
    longer = key.public + b"x", signature, message
    assert not any(signed(*one) for one in [*moved, longer])
    assert not any(signed(public, signature, message) for public in (b"", key.public[:-1]))
    assert not signed(key.public, b"", signature + message)
    if library == "sodium":
        switch_off(monkeypatch, curve25519, "signed", "len(signature) != 64")
        assert all(curve25519.signed(*one) for one in moved)
        switch_off(monkeypatch, curve25519, "signed", "len(public) != 32")
        monkeypatch.setattr(curve25519, "unusable", lambda point: False)
        assert curve25519.signed(*longer)


# Which libsodium is used.


def longer(rule: Callable[[bytes, bytes, bytes], bool]) -> Any:
    return pytest.param(rule, marks=pytest.mark.long)


def deciding(rule: Callable[[bytes, bytes, bytes], bool]) -> Any:
    """Bindings of a libsodium with another rule."""
    from nacl.bindings import crypto_scalarmult
    from nacl.exceptions import BadSignatureError

    def crypto_sign_open(data: bytes, public: bytes) -> bytes:
        if not rule(public, data[:64], data[64:]):
            raise BadSignatureError
        return data[64:]

    return SimpleNamespace(crypto_sign_open=crypto_sign_open, crypto_scalarmult=crypto_scalarmult)


def with_the_cofactor(*one: bytes) -> bool:
    return _below(one[1]) and ed25519.remainder(*one) in ed25519.small_order()


def of_large_order_only(*one: bytes) -> bool:
    return _below(one[1]) and _exact(*one) and all(_large(part) for part in (one[0], one[1][:32]))


def with_k_as_it_is(*one: bytes) -> bool:
    return _below(one[1]) and ed25519.remainder(*one, reduced=False) == ed25519.ZERO


def _exact(*one: bytes) -> bool:
    return ed25519.remainder(*one) == ed25519.ZERO


def _below(signature: bytes) -> bool:
    return int.from_bytes(signature[32:], "little") < L


def _large(data: bytes) -> bool:
    point: Point | None = ed25519.decoded(data)
    return point is not None and ed25519.times(L, point) == ed25519.ZERO


@pytest.mark.skipif(not installed("nacl"), reason="no PyNaCl")
@pytest.mark.parametrize("rule", [with_the_cofactor, _exact, longer(of_large_order_only), longer(with_k_as_it_is)])
def test_a_libsodium_with_another_rule_is_not_used(
    rule: Callable[[bytes, bytes, bytes], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer ones than that of PyNaCl 1.6 take the cofactor: a signature could be good for some of a round only."""
    import nacl.bindings

    monkeypatch.setattr(nacl, "bindings", deciding(rule))
    monkeypatch.setattr(curve25519, "_sodium", curve25519._sodium.__wrapped__)
    assert curve25519._sodium() is None
    asked = "sodium, bytes.fromhex(public), bytes.fromhex(signature), message"
    switch_off(monkeypatch, curve25519, "_obeys", f"_signed_by_sodium({asked}) != verdict")
    assert curve25519._sodium() is not None


def zeros_for_low_order(secret: bytes, peer: bytes) -> bytes:
    return curve25519._agreed_by_openssl(X25519PrivateKey.from_private_bytes(secret), peer) or bytes(32)


def reduced_points_only(secret: bytes, peer: bytes) -> bytes:
    return zeros_for_low_order(secret, peer if int.from_bytes(peer, "little") % 2**255 < P else bytes(32))


def another_point_for_the_highest_bit(secret: bytes, peer: bytes) -> bytes:
    return zeros_for_low_order(secret, (int.from_bytes(peer, "little") % P).to_bytes(32, "little"))


def points_of_the_curve_only(secret: bytes, peer: bytes) -> bytes:
    u = int.from_bytes(peer, "little") % 2**255
    on_curve = pow(u**3 + 486662 * u**2 + u, (P - 1) // 2, P) == 1
    return zeros_for_low_order(secret, peer if on_curve else bytes(32))


@pytest.mark.skipif(not installed("nacl"), reason="no PyNaCl")
@pytest.mark.parametrize(
    "agrees",
    [zeros_for_low_order, reduced_points_only, another_point_for_the_highest_bit, points_of_the_curve_only],
)
def test_a_libsodium_that_agrees_on_something_else_is_not_used(
    agrees: Callable[[bytes, bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two neighbours with different libraries one would mask with what the other does not know."""
    import nacl.bindings
    from nacl.exceptions import CryptoError

    def crypto_scalarmult(secret: bytes, peer: bytes) -> bytes:
        shared = agrees(secret, peer)
        if agrees is not zeros_for_low_order and not any(shared):
            raise CryptoError
        return shared

    other = SimpleNamespace(crypto_sign_open=nacl.bindings.crypto_sign_open, crypto_scalarmult=crypto_scalarmult)
    monkeypatch.setattr(nacl, "bindings", other)
    monkeypatch.setattr(curve25519, "_sodium", curve25519._sodium.__wrapped__)
    assert curve25519._sodium() is None
    monkeypatch.setattr(curve25519, "_PEERS", (bytes([9]) + bytes(31),))
    assert curve25519._sodium() is not None


def test_without_pynacl_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve25519, "installed", lambda module: False)
    assert curve25519._sodium.__wrapped__() is None


@pytest.mark.skipif(not installed("nacl"), reason="no PyNaCl")
def test_the_verdicts_are_those_of_the_rule() -> None:
    assert curve25519._obeys(deciding(ed25519.is_good))


# Agreement.


@pytest.mark.skipif(not installed("nacl"), reason="no PyNaCl")
@given(secret=bytes32, peer=bytes32 | st.integers(-20, 20).map(lambda u: (u % 2**256).to_bytes(32, "little")))
@example(bytes(32), (2**255 - 19).to_bytes(32, "little"))
@example(b"\xff" * 32, b"\xff" * 32)
def test_both_libraries_agree_on_the_same_secret(secret: bytes, peer: bytes) -> None:
    """For any 32 bytes: points of the curve or of its twist, reduced or not, of low order or not."""
    from nacl import bindings

    key = X25519PrivateKey.from_private_bytes(secret)
    assert curve25519._agreed_by_sodium(bindings, key, peer) == curve25519._agreed_by_openssl(key, peer)


def test_a_public_key_has_32_bytes(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = X25519PrivateKey.from_private_bytes(bytes(32))
    assert agreed(key, b"\x09" * 32) is not None
    assert not any(agreed(key, b"\x09" * size) for size in (0, 31, 33, 64))
    if library == "sodium":  # it looks at the first 32
        switch_off(monkeypatch, curve25519, "agreed", "len(peer) != 32")
        assert curve25519.agreed(key, b"\x09" * 33) is not None
