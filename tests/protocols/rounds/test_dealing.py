"""Whether an altered box is complained about follows from what was altered, and from no secret (docs/protocol.md, "Why
complaints give nothing away", 3)."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.rounds import dealing as dealing_module
from protocols.rounds.dealing import Complaints, Dealing, Defence, Delivered, Opened, complaint, opened
from protocols.rounds.exchange import Exchange
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.dealing import BLINDS, width
from secagg.crypto.field import uniform
from secagg.crypto.keys import SigningKey, transcript
from secagg.crypto.prg import Prg
from secagg.crypto.shamir import PRIME

SECRETS, THRESHOLD, DEALER, HOLDER = 2, 3, 0, 2
WIDTH = width(SECRETS)
seeds = st.binary(min_size=32, max_size=32)


class Bound:
    """Stands for a cohort."""

    size = 5

    def bound(self, *positions: int) -> tuple[bytes, ...]:
        return (b"plan", b"root", *map(u32.encode, positions))


def dealt(seed: bytes) -> Delivered:
    """What this holder is given by a dealer whose secrets, polynomials and pads all come from the seed."""
    draw = Prg(seed)
    dealing = Dealing(Bound(), DEALER, range(5), THRESHOLD, [draw(32), draw(32)], draw, lambda _: seed)
    return dealing.delivered(HOLDER)


def accepted(seed: bytes, box: Delivered) -> bool:
    return DEALER in opened(Bound(), HOLDER, [box], SECRETS, lambda _: seed)


def shifted(data: bytes, shifts: dict[int, int]) -> bytes:
    words = np.frombuffer(data, "<u4").astype(np.int64)
    for place, more in shifts.items():
        words[place] = (words[place] + more) % PRIME
    return words.astype("<u4").tobytes()


def flipped(data: bytes, bits: list[int]) -> bytes:
    number = int.from_bytes(data, "little")
    for bit in bits:
        number ^= 1 << bit
    return number.to_bytes(len(data), "little")


shifts = st.integers(1, PRIME - 1)
blinds = st.dictionaries(st.integers(0, BLINDS - 1), shifts, max_size=BLINDS)


@given(seed=seeds, blinded=blinds)
@settings(max_examples=40)
def test_a_blinding_value_and_its_response_shifted_alike_are_accepted(seed: bytes, blinded: dict[int, int]) -> None:
    box = dealt(seed)
    altered = replace(
        box,
        points=shifted(box.points, {WIDTH - BLINDS + j: more for j, more in blinded.items()}),
        response=shifted(box.response, blinded),
    )
    assert accepted(seed, altered)


@given(
    seed=seeds,
    limbs=st.dictionaries(st.integers(0, WIDTH - BLINDS - 1), shifts, max_size=3),
    blinded=blinds,
    shown=blinds,
    commitments=st.lists(st.integers(0, 8 * 32 - 1), max_size=2, unique=True),
    challenge=st.lists(st.integers(0, 8 * 32 - 1), max_size=2, unique=True),
)
@settings(max_examples=150)
def test_any_other_alteration_is_refused_whatever_the_secrets_are(
    seed: bytes,
    limbs: dict[int, int],
    blinded: dict[int, int],
    shown: dict[int, int],
    commitments: list[int],
    challenge: list[int],
) -> None:
    """The right side of the last line knows nothing of the seed. (Altered commitments and weights could fit by chance,
    with probability 2^-124.)"""
    box = dealt(seed)
    altered = Delivered(
        DEALER,
        shifted(box.points, limbs | {WIDTH - BLINDS + j: more for j, more in blinded.items()}),
        flipped(box.commitments, commitments),
        flipped(box.challenge, challenge),
        shifted(box.response, shown),
    )
    assert accepted(seed, altered) == (not limbs and blinded == shown and not commitments and not challenge)


def test_control_with_bits_for_a_pad_complaints_would_tell_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the pad XORed, a flipped bit would shift a blinding value up or down, depending on what it is, and the
    server would see which."""

    def xored(points: np.ndarray[Any, Any], keys: list[bytes]) -> np.ndarray[Any, Any]:
        return points ^ np.stack([uniform((points.shape[1],), Prg(key)).astype(np.uint32) for key in keys])

    def foretold(seed: int) -> bool:
        """Whether the last bit that is on the wire says what becomes of the box without it."""
        box = dealt(key := bytes([seed]) * 32)
        words = np.frombuffer(box.points, "<u4").copy()
        words[-1] ^= 1
        altered = replace(box, points=words.tobytes(), response=shifted(box.response, {BLINDS - 1: 1}))
        return accepted(key, altered) == bool(words[-1] & 1)

    assert {foretold(seed) for seed in range(20)} == {True}
    for name in ("padded", "unpadded"):
        monkeypatch.setattr(dealing_module, name, xored)
    assert accepted(bytes(32), dealt(bytes(32)))
    assert {foretold(seed) for seed in range(20)} == {False, True}


@given(share=seeds, dealer=st.integers(0, 2**32 - 1), holder=st.integers(0, 2**32 - 1), secret=st.integers(0, 1))
@settings(max_examples=20)
def test_a_commitment_is_bound_to_all_it_is_about(share: bytes, dealer: int, holder: int, secret: int) -> None:
    """It is the start of one hash, of which a part is computed once for many."""
    parts = (labels.SHARE_COMMITMENT, *Bound().bound(dealer, holder))
    expected = sha256(transcript(*parts) + bytes([secret]) + share).digest()[: dealing_module.COMMITMENT_BYTES]
    assert dealing_module.commitment(Bound(), dealer, holder, secret, share) == expected


def test_every_part_of_a_box_and_every_name_is_in_its_hash() -> None:
    """What a complaint names is this box, from this dealer to this holder."""
    box = dealt(bytes(32))
    others = [
        replace(box, points=shifted(box.points, {0: 1})),
        replace(box, commitments=flipped(box.commitments, [0])),
        replace(box, challenge=flipped(box.challenge, [0])),
        replace(box, response=shifted(box.response, {0: 1})),
        replace(box, peer=1),
    ]
    hashes = {dealing_module.box_hash(Bound(), HOLDER, one) for one in [box, *others]}
    assert len({*hashes, dealing_module.box_hash(Bound(), HOLDER + 1, box)}) == len(others) + 2


def test_what_is_opened_for_a_holder_is_found_without_looking_through_all_dealers() -> None:
    """Liars can complain about everybody: a search for each holder would take hours among 10^5."""
    exchange = Exchange(Bound(), lambda _: range(5), THRESHOLD, SECRETS)
    dealings = {
        u: Dealing(
            Bound(), u, range(5), THRESHOLD, [bytes(32)] * 2, Prg(bytes([u]) * 32), lambda v, u=u: bytes([u]) * 32
        )
        for u in range(5)
    }
    for u, dealing in dealings.items():
        exchange.take(u, dealing.dealt)
    key = SigningKey(bytes(32))
    for u in (0, 1, 3):
        exchange.complain(HOLDER, key.public, exchange.dealers, said_about(exchange, key, u))
        exchange.defend(u, Defence((Opened(HOLDER, bytes([u]) * 32),)))
    assert exchange.answered == [(0, HOLDER), (1, HOLDER), (3, HOLDER)]

    class Looked(dict[int, Any]):
        def __iter__(self) -> Any:
            raise LookupError

        items = values = keys = __iter__

    exchange._keys = Looked(exchange._keys)
    assert [one.peer for one in exchange.opened_for(HOLDER)] == [0, 1, 3]
    assert exchange.opened_for(4) == ()


def said_about(exchange: Exchange, key: SigningKey, dealer: int) -> Complaints:
    return Complaints((complaint(key, Bound(), HOLDER, exchange.delivered(dealer, HOLDER)),))
