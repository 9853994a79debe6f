"""One fuzz target for each decoder: whatever the bytes, out comes a value or a declared error, and little memory.

Inputs are random bytes and mutations of valid encodings. What is accepted must encode to the same bytes again, so
nothing has two forms. Brief by default; SECAGG_HYPOTHESIS=long runs many fresh examples.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols import registry
from protocols.client import _RECORD, _Record
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.crypto.shamir import PRIME, SHARE_BYTES, pack_shares, unpack_shares
from secagg.errors import DecodeError, SecAggError
from tests.scenes.mutations import LONG, inputs, peak_of
from tests.vectors import make
from tests.vectors.samples import SAMPLES

pytestmark = pytest.mark.thinned(4)

fuzz = settings(max_examples=5_000 if LONG else 150)

PLAN = make.plan_secagg_plus()
WIRE = registry.find(PLAN.protocol).messages
FRAMES = [WIRE.encode(PLAN, message) for message in SAMPLES["secagg+"]()]
ROSTER, IDENTITIES = make.roster_of(3)


def accepted_or_refused(data: bytes, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> None:
    with suppress(DecodeError):
        value = decode(data)
        assert encode(value) == data


@fuzz
@given(data=inputs(PLAN.encode(), make.plan_secagg().encode()))
def test_plan(data: bytes) -> None:
    accepted_or_refused(data, RoundPlan.decode, RoundPlan.encode)


@pytest.mark.parametrize("frame", FRAMES, ids=[type(message).__name__ for message in SAMPLES["secagg+"]()])
@fuzz
@given(data=st.data())
def test_frame(frame: bytes, data: st.DataObject) -> None:
    accepted_or_refused(
        data.draw(inputs(frame)), lambda frame: WIRE.decode(PLAN, frame), lambda message: WIRE.encode(PLAN, message)
    )


@pytest.mark.parametrize("number", range(1, len(FRAMES) + 1))
@fuzz
@given(body=st.one_of(st.binary(max_size=600), st.binary(max_size=8).map(lambda start: start + bytes(200))))
def test_body(number: int, body: bytes) -> None:
    """Past the header, where random bytes seldom get."""
    frame = FRAMES[0][: make.HEADER_BYTES - 1] + bytes([number]) + body
    accepted_or_refused(frame, lambda frame: WIRE.decode(PLAN, frame), lambda message: WIRE.encode(PLAN, message))


@fuzz
@given(
    data=st.one_of(
        inputs(pack_shares(np.arange(18, dtype=np.uint32).reshape(2, 9)), PRIME.to_bytes(4, "little") * 18),
        st.binary(min_size=2 * SHARE_BYTES, max_size=2 * SHARE_BYTES),
    ),
    secrets=st.integers(0, 3),
)
def test_shares(data: bytes, secrets: int) -> None:
    accepted_or_refused(data, lambda data: unpack_shares(data, secrets), pack_shares)


@fuzz
@given(bits=st.integers(2, 64), length=st.integers(0, 40), data=st.data())
def test_packed_vector(bits: int, length: int, data: st.DataObject) -> None:
    ring = Ring(bits)
    words = np.frombuffer(Prg(bytes(32))(length * ring.dtype.itemsize), ring.dtype)
    exact = st.binary(min_size=ring.packed_size(length), max_size=ring.packed_size(length))
    packed = data.draw(st.one_of(inputs(ring.pack(words)), exact))
    accepted_or_refused(packed, lambda packed: ring.unpack(packed, length), ring.pack)


@fuzz
@given(
    data=inputs(
        _RECORD.encode(_Record(b"request", b"reply", bytes(32))), _RECORD.encode(_Record(b"", b"", b"", bytes(32)))
    )
)
def test_journal_record(data: bytes) -> None:
    accepted_or_refused(data, _RECORD.decode, _RECORD.encode)


def text_of(save: Callable[[Path], None], folder: Path) -> bytes:
    save(folder / "original")
    return (folder / "original").read_bytes()


@pytest.mark.parametrize("party", [ROSTER, IDENTITIES[0]], ids=["Roster", "Identity"])
@settings(fuzz, suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_file(party: Roster | Identity, data: st.DataObject, tmp_path: Path) -> None:
    """TOML has many forms for one table, so what is accepted need not be what is saved, but must mean the same."""
    for file in tmp_path.iterdir():
        file.unlink()
    path, again = tmp_path / "file", tmp_path / "again"
    path.touch(0o600)
    path.write_bytes(data.draw(inputs(text_of(party.save, tmp_path))))
    with suppress(SecAggError):
        loaded = type(party).load(path)
        loaded.save(again)
        assert plain_party(type(party).load(again)) == plain_party(loaded)


def plain_party(party: Roster | Identity) -> tuple[object, object]:
    return (party.names, party.keys) if isinstance(party, Roster) else (party.name, party.key.secret)


ODD_FILES = {
    "empty": b"",
    "not UTF-8": b"\xff",
    "byte order mark": b"\xef\xbb\xbf",
    "zero byte": b"\0",
    "nested too deep": b"x = " + b"[" * 5000,
    "a number too long": b"x = " + b"1" * 5000,
    "a key of many parts": b"a.b." * 2000 + b"a = 1",
    "a number for the table": b"clients = 1",
    "a list for the table": b"clients = []",
    "a list of tables": b"[[clients]]",
    "a number for a key": b"[clients]\nann = 1",
    "nobody": b'[clients]\n"" = "00"',
    "a zero in a name": b'clients."a\\u0000" = "' + b"0" * 64 + b'"',
    "a date for a secret": b'name = "ann"\nsecret = 1979-05-27',
    "numbers for both": b"name = 1\nsecret = nan",
}


@pytest.mark.parametrize("kind", [Roster, Identity])
@pytest.mark.parametrize("content", ODD_FILES.values(), ids=ODD_FILES)
def test_an_odd_file_is_refused(kind: type[Roster] | type[Identity], content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(SecAggError, match=r"^(?!.*others can get at it)") as caught:
        kind.load(tmp_path / "file")
    assert "\n" not in str(caught.value)


ANNOUNCED = [
    b"\xff" * 4,
    b"\x00\x98\x96\x80",
    b"\x7f" + b"\xff" * 3,
    bytes(3) + b"\xff" + b"\xff" * 4,
    bytes(6) + b"\xff\xff",
]


@pytest.mark.parametrize("number", range(1, len(FRAMES) + 1))
def test_an_announced_length_allocates_nothing(number: int) -> None:
    """40-byte bodies announcing up to 2^32 items anywhere: never more than 64 KiB, whatever is made of them."""
    head = FRAMES[0][: make.HEADER_BYTES - 1] + bytes([number])
    for announced in ANNOUNCED:
        for place in range(41):
            body = (bytes(place) + announced + bytes(40))[:90]
            assert peak_of(lambda frame=head + body: WIRE.decode(PLAN, frame)) < 1 << 16


@pytest.mark.parametrize("announced", ANNOUNCED)
def test_an_announced_length_in_plan_or_record_allocates_nothing(announced: bytes) -> None:
    plan, record = PLAN.encode(), _RECORD.encode(_Record(b"request", b"reply", bytes(32)))
    for decode, valid in ((RoundPlan.decode, plan), (_RECORD.decode, record)):
        for place in range(len(valid)):
            data = valid[:place] + announced + valid[place + len(announced) :]
            assert peak_of(lambda data=data, decode=decode: decode(data)) < 1 << 16
