"""Bytes that are worth more work or memory than they are long: to the CKKS child, and as frames of large rounds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from hashlib import sha256
from time import process_time

import pytest

from protocols import registry
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from protocols.server import serve
from secagg.encoding import Encoding
from secagg.errors import PeerError, SecAggError
from tests.scenes.mutations import peak_of
from tests.vectors.make import HEADER_BYTES
from tests.vectors.samples import SAMPLES

MEGABYTE = 1 << 20

# The CKKS child


def deflated(megabytes: int) -> bytes:
    """So many zeros, in a thousandth of their length."""
    packer = zlib.compressobj(9)
    first, again = (packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * (megabytes - 1) + b"\x03\x00"


def varint(number: int) -> bytes:
    """As protocol buffers write it."""
    last = bytes([number & 127 | (128 if number > 127 else 0)])
    return last + varint(number >> 7) if number > 127 else last


def bomb(ciphertext: bytes, megabytes: int) -> bytes:
    """TenSEAL's ciphertext whose contents, which SEAL may have compressed by zlib (1), are as many zeros."""
    start = ciphertext.index(b"\x5e\xa1\x10")  # SEAL's header: magic, its size, version, compression, length
    (length,) = struct.unpack_from("<Q", ciphertext, start + 8)
    before, after = ciphertext[:start], ciphertext[start + length :]
    assert before.endswith(varint(length))
    payload = deflated(megabytes)
    seal = ciphertext[start : start + 5] + b"\x01" + bytes(2) + struct.pack("<Q", 16 + len(payload)) + payload
    return before.removesuffix(varint(length)) + varint(len(seal)) + seal + after


def test_a_bomb_in_a_ciphertext_costs_one_upload() -> None:
    """Four gigabytes in four megabytes, and what is before and after it is added up."""
    pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")
    from protocols.ckks import ciphertexts
    from tests.scenes.ckks_ciphertexts import CHUNKS, LAYOUT, PAIR, values

    adder = ciphertexts.Adder(LAYOUT)
    adder.add(CHUNKS)
    large = bomb(CHUNKS[0], 4096)
    assert len(large) < 5 * MEGABYTE
    with pytest.raises(PeerError):
        adder.add([large, CHUNKS[1]])
    adder.add(CHUNKS)
    assert ciphertexts.decrypt(LAYOUT, PAIR.secret, adder.total()).tolist() == (2 * values(0)).tolist()


# Frames


@pytest.fixture(scope="module")
def plan() -> tuple[RoundPlan, Roster]:
    """A thousand clients, whose keys nobody has."""
    roster = Roster.of([Identity.generate(f"client-{i:04}") for i in range(1000)])
    encoding = Encoding.integers(1000)
    return RoundPlan.propose("secagg+", roster, encoding, min_contributors=500, adversary="curious"), roster


def fastest(work: Callable[[], object], times: int = 5) -> float:
    """Seconds of this process, of the best of some tries: what else the machine does only adds to it."""
    found = []
    for _ in range(times):
        began = process_time()
        work()
        found.append(process_time() - began)
    return min(found)


def refused(work: Callable[[], object]) -> None:
    with pytest.raises(SecAggError):
        work()


FILLED = {"zeros": b"\0", "ones": b"\xff", "ten million announced": b"\x00\x98\x96\x80"}


@pytest.mark.parametrize("filled", FILLED)
def test_frames_of_ten_megabytes_are_refused_at_once(plan: tuple[RoundPlan, Roster], filled: str) -> None:
    """For less than it costs to copy them, and in next to no memory, whatever their type."""
    (planned, roster), protocol = plan, registry.find("secagg+")
    piece, server = FILLED[filled], serve(planned, roster)
    body = piece * (10_000_000 // len(piece))
    copied = fastest(lambda: bytes(bytearray(body)))
    head = protocol.messages.encode(planned, SAMPLES["secagg+"]()[0])[: HEADER_BYTES - 1]
    for number in range(1, 1 + len(protocol.messages.types)):
        frame = head + bytes([number]) + body
        assert fastest(lambda frame=frame: refused(lambda: server.receive("client-0000", frame))) < copied
        assert peak_of(lambda frame=frame: server.receive("client-0000", frame)) < 12_000_000


def test_control_a_frame_of_ten_megabytes_that_is_looked_at_costs_more() -> None:
    body = bytes(10_000_000)
    copied = fastest(lambda: bytes(bytearray(body)))
    assert fastest(lambda: sha256(sha256(body).digest() + body + body + body), 2) > copied
