"""Agreement, signatures and derivation: both sides agree, labels separate, unusable keys are refused."""

import hashlib
import hmac
from contextvars import ContextVar

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto import curve25519, keys, labels
from secagg.crypto.keys import (
    AgreementKey,
    Known,
    SigningKey,
    check_agreement_key,
    check_on_curve,
    check_signing_key,
    derive,
    digest,
    hkdf,
    transcript,
    verify,
    verifying_once,
)
from secagg.errors import PeerError, UsageError
from tests.controls import switch_off
from tests.reference import ed25519

secrets = st.binary(min_size=32, max_size=32)
parts = st.lists(st.binary(max_size=20), max_size=4)
WEAK = sorted({point + top for point in keys._LOW_ORDER for top in (0, 1 << 255)})


@given(one=secrets, other=secrets)
def test_both_sides_agree(one: bytes, other: bytes) -> None:
    a, b = AgreementKey(one), AgreementKey(other)
    with verifying_once():  # which keeps it from the other context
        agreed = a.agree(b.public)
    with verifying_once():
        assert b.agree(a.public) == agreed
    check_agreement_key(a.public)


@pytest.mark.parametrize("point", WEAK, ids=[f"{point:064x}"[:16] + f"_{i}" for i, point in enumerate(WEAK)])
def test_a_point_of_low_order_is_refused(point: int) -> None:
    """By our list, by our wrapper, and by X25519 itself: so the list holds nothing that would have been usable."""
    public = point.to_bytes(32, "little")
    with pytest.raises(PeerError) as caught:
        check_agreement_key(public, culprit="mallory")
    assert caught.value.culprits == ("mallory",)
    for secret in (bytes(32), b"s" * 32, b"\xff" * 32):
        with pytest.raises(ValueError, match="shared key"):
            X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
        with pytest.raises(PeerError):
            AgreementKey(secret).agree(public, culprit="mallory")


def test_the_list_holds_all_points_of_low_order() -> None:
    """u = 0, 1, -1 and the roots of order 8 (RFC 7748, 6.1), and the two that are written above the prime."""
    p = 2**255 - 19
    canonical = {point % p for point in keys._LOW_ORDER}
    assert len(canonical) == 5
    assert {point + p for point in canonical if point + p < 2**255} <= keys._LOW_ORDER
    for u in canonical - {0, 1, p - 1}:  # doubling one of order 8 gives u = 1 or -1: (u^2-1)^2 = +-4u(u^2+Au+1)
        left, right = pow(u * u - 1, 2, p), 4 * u * (u * u + 486662 * u + 1) % p
        assert left in (right, p - right)


SMALL = sorted(ed25519.encodings(ed25519.small_order()))


def test_there_are_eight_points_of_small_order_and_fourteen_ways_to_write_them() -> None:
    points = ed25519.small_order()
    assert (len(points), len(SMALL)) == (8, 14)
    assert all(ed25519.times(8, point) == ed25519.ZERO for point in points)
    assert {y for _, y in points} == curve25519.SMALL_ORDER


@pytest.mark.parametrize("public", SMALL, ids=[public.hex()[:8] + public.hex()[-2:] for public in SMALL])
def test_under_a_key_of_small_order_nothing_is_signed(public: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can sign under it, with arithmetic only. OpenSSL takes all eight points; so it does when y is
    written above the prime, or a sign is given to x = 0."""
    forged = ed25519.forged(public, transcript(b"label", b"text"))
    for refused in (
        lambda: check_signing_key(public, culprit="mallory"),
        lambda: verify(public, forged, b"label", b"text", culprit="mallory"),
    ):
        with pytest.raises(PeerError, match="unusable Ed25519 public key") as caught:
            refused()
        assert caught.value.culprits == ("mallory",)
    switch_off(monkeypatch, curve25519, "signed", "unusable(public)")
    monkeypatch.setattr(curve25519, "_sodium", lambda: None)
    verify(public, forged, b"label", b"text")
    with pytest.raises(PeerError, match="bad signature"):
        verify(SigningKey(bytes(32)).public, forged, b"label", b"text")


@given(secret=secrets)
def test_every_key_of_ours_is_usable(secret: bytes) -> None:
    check_signing_key(SigningKey(secret).public)
    check_on_curve(SigningKey(secret).public)


@pytest.mark.parametrize("y", range(2, 40))
def test_no_point_of_the_curve(y: int) -> None:
    """As the reference sees it: with neither sign."""
    for public in (y.to_bytes(32, "little"), (y + (1 << 255)).to_bytes(32, "little")):
        if ed25519.with_y(y) is None:
            with pytest.raises(PeerError, match=r"not an Ed25519 public key \[mallory\]"):
                check_on_curve(public, culprit="mallory")
        else:
            check_on_curve(public)


def test_a_second_way_to_write_a_key() -> None:
    """y + p, where that is below 2^255: two names of one point, of any order."""
    for y in range(2, 19):
        if ed25519.with_y(y) is not None:
            check_signing_key(y.to_bytes(32, "little"))
        with pytest.raises(PeerError, match="unusable Ed25519 public key"):
            check_signing_key((y + ed25519.P).to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(UsageError):
        AgreementKey(bytes(size))
    with pytest.raises(UsageError):
        SigningKey(bytes(size))
    with pytest.raises(PeerError):
        AgreementKey(bytes(32)).agree(b"\x09" * size)
    with pytest.raises(PeerError):
        keys.verify_raw(bytes(size), bytes(64), b"")


@given(secret=secrets, signed=parts, other=parts)
def test_a_signature_holds_for_its_parts_only(secret: bytes, signed: list[bytes], other: list[bytes]) -> None:
    key = SigningKey(secret)
    signature = key.sign(b"label", *signed)
    verify(key.public, signature, b"label", *signed)
    for label, claimed in ((b"label", other), (b"other label", signed)):
        if (label, claimed) != (b"label", signed):
            with pytest.raises(PeerError) as caught:
                verify(key.public, signature, label, *claimed, culprit="mallory")
            assert caught.value.culprits == ("mallory",)


def test_any_altered_bit_of_a_signature_is_noticed() -> None:
    key = SigningKey(b"s" * 32)
    signature = int.from_bytes(key.sign(b"label", b"text"), "big")
    for bit in range(512):
        with pytest.raises(PeerError):
            verify(key.public, (signature ^ 1 << bit).to_bytes(64, "big"), b"label", b"text")


@given(one=parts, other=parts)
def test_a_transcript_says_where_its_parts_end(one: list[bytes], other: list[bytes]) -> None:
    assert (transcript(*one, b"") == transcript(*other, b"")) == (one == other)
    assert (digest(b"x", *one) == digest(b"x", *other)) == (one == other)


@given(label=st.binary(max_size=20), context=parts)
def test_digest_hashes_the_transcript(label: bytes, context: list[bytes]) -> None:
    assert digest(label, *context) == hashlib.sha256(transcript(label, *context)).digest()


def reference_hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, section 2, from HMAC."""
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    out, block = b"", b""
    for i in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([i]), "sha256")
        out += block
    return out[:length]


@given(
    secret=st.binary(max_size=40), salt=st.binary(max_size=40), info=st.binary(max_size=40), length=st.integers(1, 99)
)
def test_hkdf_is_rfc_5869(secret: bytes, salt: bytes, info: bytes, length: int) -> None:
    assert hkdf(secret, salt=salt, info=info, length=length) == reference_hkdf(secret, salt, info, length)
    assert derive(secret, b"label", info) == reference_hkdf(secret, b"", transcript(b"label", info), 32)


@pytest.mark.parametrize("length", [-1, 0, 255 * 32 + 1])
def test_hkdf_refuses_what_it_cannot_give(length: int) -> None:
    with pytest.raises(UsageError, match="1 to 8160"):
        hkdf(bytes(32), salt=b"", info=b"", length=length)


def test_labels_are_all_different() -> None:
    values = [value for value in vars(labels).values() if isinstance(value, bytes)]
    assert len(values) == len(set(values)) > 10
    assert all(value.startswith(b"secagg/v1/") for value in values)


def test_repr_shows_no_secret() -> None:
    for key in (AgreementKey(b"secret--" * 4), SigningKey(b"secret--" * 4)):
        assert "secret" not in repr(key)
        assert key.secret.hex() not in repr(key)


def test_of_two_parties_in_one_process_one_computes_what_they_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    computed, agreed = list[bytes](), curve25519.agreed

    def noted(key: X25519PrivateKey, peer: bytes) -> bytes | None:
        computed.append(peer)
        return agreed(key, peer)

    monkeypatch.setattr(curve25519, "agreed", noted)
    alice, bob, carol = (AgreementKey(bytes([i]) * 32) for i in range(3))
    known = Known()
    with verifying_once(known):
        shared = alice.agree(bob.public)
        assert shared.hex() not in repr(known)
        assert len({shared, alice.agree(carol.public), carol.agree(bob.public)}) == 3
        assert bob.agree(alice.public) == shared
        assert computed == [bob.public, carol.public, bob.public]
        assert bob.agree(alice.public) == shared  # both have taken it: it is not kept for a third time
        assert computed.pop() == alice.public
        with pytest.raises(PeerError, match="unusable X25519"):
            alice.agree(bytes(32))
    with verifying_once():
        assert bob.agree(alice.public) == shared
    monkeypatch.setattr(keys, "_known", ContextVar("known", default=None))  # as where no context is
    assert bob.agree(alice.public) == alice.agree(bob.public) == shared
    assert computed[3:] == [bytes(32), alice.public, alice.public, bob.public]
