"""The child process: exact sums through it, hostile bytes into it, and what its death costs."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from protocols.ckks import engine
from protocols.ckks.engine import Adder
from protocols.ckks.layout import Layout
from secagg.encoding import Encoding
from secagg.errors import PeerError

ts = pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")

LAYOUT = Layout.choose(26, 1000, 3000)
PAIR = engine.make_keys()


def values(seed: int, layout: Layout = LAYOUT) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32767, 32768, layout.coordinates)


CHUNKS = engine.encrypt(LAYOUT, PAIR.public, values(0))


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(engine, "_SCRIPT", Path(__file__).with_name("fragile.py"))
    monkeypatch.setattr(engine, "_idle", [])
    yield
    engine._stop_all()


@pytest.mark.parametrize(("ring_bits", "coordinates"), [(26, 1), (26, 2048), (26, 2049), (64, 3000)])
def test_sums_are_exact(ring_bits: int, coordinates: int) -> None:
    layout = Layout.choose(ring_bits, 1000, coordinates)
    rng, largest = np.random.default_rng(2), (1 << (ring_bits - 1)) // 1000
    vectors = [rng.integers(-largest, largest, coordinates, endpoint=True) for _ in range(4)]
    adder = Adder(layout)
    for vector in vectors:
        adder.add(engine.encrypt(layout, PAIR.public, vector))
    assert engine.decrypt(layout, PAIR.secret, adder.total()).tolist() == sum(vectors).tolist()


@pytest.mark.parametrize("clients", [100, pytest.param(4096, marks=pytest.mark.long)])
def test_everybody_at_the_extreme_does_not_wrap(clients: int) -> None:
    """Equal in all slots: all of it is in one coefficient."""
    encoding = Encoding.integers(2048, bits=16)
    layout = Layout.choose(encoding.ring_bits(clients), clients, 2048)
    adder, largest = Adder(layout), np.full(2048, -encoding.largest)
    for _ in range(clients):
        adder.add(engine.encrypt(layout, PAIR.public, largest))
    assert engine.decrypt(layout, PAIR.secret, adder.total()).tolist() == (clients * largest).tolist()


def test_another_key_gives_no_sum() -> None:
    with pytest.raises(PeerError, match="what was decrypted is"):
        engine.decrypt(LAYOUT, engine.make_keys().secret, CHUNKS)


def test_a_public_key_holds_no_secret_and_the_other_way_round() -> None:
    engine.check_public(PAIR.public)
    for bad in (PAIR.secret, b"", PAIR.public[:100]):
        with pytest.raises(PeerError):
            engine.check_public(bad)
    with pytest.raises(PeerError):
        engine.decrypt(LAYOUT, PAIR.public, CHUNKS)


def other_chunks(degree: int, moduli: list[int], scale: float, sizes: list[int]) -> tuple[bytes, ...]:
    context = ts.context(ts.SCHEME_TYPE.CKKS, degree, -1, moduli)
    return tuple(ts.ckks_vector(context, [1.0] * size, scale).serialize() for size in sizes)


SCALE = 2.0**LAYOUT.scale_bits
MISFITS = {
    "degree": lambda: other_chunks(8192, [54, 55], SCALE, [2048, 952]),
    "moduli": lambda: other_chunks(4096, [53, 55], SCALE, [2048, 952]),
    "scale": lambda: other_chunks(4096, [54, 55], SCALE * 2, [2048, 952]),
    "slots": lambda: other_chunks(4096, [54, 55], SCALE, [2048, 951]),
    "too few": lambda: CHUNKS[:1],
    "too many": lambda: (*CHUNKS, CHUNKS[1]),
    "swapped": lambda: CHUNKS[::-1],
    "several in one": lambda: other_chunks(4096, [54, 55], SCALE, [3000, 952]),
    "none": lambda: (),
}


@pytest.mark.parametrize("what", MISFITS)
def test_ciphertexts_that_do_not_fit_are_refused_and_the_sum_stays(what: str) -> None:
    adder, bad = Adder(LAYOUT), MISFITS[what]()
    for _ in range(2):
        adder.add(CHUNKS)
        with pytest.raises(PeerError, match="ciphertext"):
            adder.add(bad)
    assert engine.decrypt(LAYOUT, PAIR.secret, adder.total()).tolist() == (2 * values(0)).tolist()


def mutations(rng: random.Random, valid: bytes) -> bytes:
    """Flipped bits (often in the headers), cuts, bytes of somewhere else, noise."""
    data = bytearray(valid)
    for _ in range(rng.choice([1, 1, 3, 20])):
        if len(data) < 8:
            break
        match rng.randrange(6):
            case 0:
                data[rng.randrange(min(len(data), 150))] = rng.randrange(256)
            case 1:
                data[-rng.randrange(1, min(len(data), 60))] = rng.randrange(256)
            case 2:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 3:
                del data[rng.randrange(len(data)) :]
            case 4:
                at = rng.randrange(len(data))
                data = data[:at] + data[at // 2 :]
            case _:
                data = bytearray(rng.randbytes(rng.randrange(300)))
    return bytes(data)


def fuzz(cases: int, seed: int) -> None:
    """Refused or taken, never another error; and no refusal changes the sum."""
    rng, layout, taken = random.Random(seed), Layout.choose(26, 1000, 2048), 0
    valid = engine.encrypt(layout, PAIR.public, values(3, layout))
    adder = Adder(layout)
    adder.add(valid)
    for _ in range(cases):
        before = adder.total()
        try:
            adder.add([mutations(rng, valid[0])])
        except PeerError:
            assert adder.total() == before
        else:
            taken += 1
    assert taken < cases
    for _ in range(cases // 4):
        opening = (PAIR.secret, lambda key: engine.decrypt(layout, key, valid))
        for key, use in ((PAIR.public, engine.check_public), opening):
            try:
                use(mutations(rng, key))
            except PeerError:
                continue
    adder = Adder(layout)
    adder.add(valid)
    assert engine.decrypt(layout, PAIR.secret, adder.total()).tolist() == values(3, layout).tolist()


def test_fuzz() -> None:
    fuzz(300, 1)


@pytest.mark.long
def test_fuzz_long() -> None:
    for seed in range(2, 42):
        fuzz(1000, seed)


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("how", [b"abort", b"hang"])
def test_the_sum_survives_the_death_of_its_process(how: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_KEPT_BYTES", 300_000)  # so that it has been saved once, and something added since
    adder = Adder(LAYOUT)
    for seed in range(5):
        adder.add(engine.encrypt(LAYOUT, PAIR.public, values(seed)))
    assert adder._saved
    assert adder._since
    with pytest.raises(PeerError, match="the process that parsed them died"):
        adder.add([how, CHUNKS[1]])
    adder.add(engine.encrypt(LAYOUT, PAIR.public, values(5)))
    expected = sum(values(seed) for seed in range(6))
    assert engine.decrypt(LAYOUT, PAIR.secret, adder.total()).tolist() == expected.tolist()


@pytest.mark.usefixtures("fragile")
def test_memory_is_limited() -> None:
    """A terabyte is not given: an error there, or the end of that process, and one party's blame here."""
    with pytest.raises(PeerError):
        Adder(LAYOUT).add([b"memory", CHUNKS[1]])


def test_processes_are_used_again_and_hold_no_sum_meanwhile() -> None:
    adder = Adder(LAYOUT)
    adder.add(CHUNKS)
    (child,) = adder._held
    del adder
    gc.collect()
    assert engine._idle[-1] is child
    assert child.call(b"total") == []


def test_an_interrupted_exchange_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    child = engine._take()
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_length", lambda pipe: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            child.call(b"clear")
    assert not child.alive
    assert child not in engine._idle


def test_a_process_that_was_killed_meanwhile_is_nobodys_fault() -> None:
    engine.check_public(PAIR.public)
    for child in engine._idle:
        child._process.kill()
        child._process.wait()
    engine.check_public(PAIR.public)
