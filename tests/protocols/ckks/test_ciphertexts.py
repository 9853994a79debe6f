"""The child process: exact sums through it, hostile bytes into it, and what its death costs."""

from __future__ import annotations

import gc
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from protocols.ckks import ciphertexts
from protocols.ckks.ciphertexts import Adder
from protocols.ckks.layout import Layout
from secagg.encoding import Encoding
from secagg.errors import PeerError

ts = pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")

from tests.scenes.ckks_ciphertexts import CHUNKS, LAYOUT, PAIR, values  # noqa: E402

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ciphertexts, "_SCRIPT", Path(__file__).with_name("fragile.py"))
    monkeypatch.setattr(ciphertexts, "_idle", [])
    yield
    ciphertexts._stop_all()


@pytest.mark.parametrize(("ring_bits", "coordinates"), [(26, 1), (26, 2048), (26, 2049), (64, 3000)])
def test_sums_are_exact(ring_bits: int, coordinates: int) -> None:
    layout = Layout.choose(ring_bits, 1000, coordinates)
    rng, largest = np.random.default_rng(2), (1 << (ring_bits - 1)) // 1000
    vectors = [rng.integers(-largest, largest, coordinates, endpoint=True) for _ in range(4)]
    adder = Adder(layout)
    for vector in vectors:
        adder.add(ciphertexts.encrypt(layout, PAIR.public, vector))
    assert ciphertexts.decrypt(layout, PAIR.secret, adder.total()).tolist() == sum(vectors).tolist()


@pytest.mark.parametrize("clients", [100, pytest.param(4096, marks=pytest.mark.long)])
def test_everybody_at_the_extreme_does_not_wrap(clients: int) -> None:
    """Equal in all slots: all of it is in one coefficient."""
    encoding = Encoding.integers(2048, bits=16)
    layout = Layout.choose(encoding.ring_bits(clients), clients, 2048)
    adder, largest = Adder(layout), np.full(2048, -encoding.largest)
    for _ in range(clients):
        adder.add(ciphertexts.encrypt(layout, PAIR.public, largest))
    assert ciphertexts.decrypt(layout, PAIR.secret, adder.total()).tolist() == (clients * largest).tolist()


def test_another_key_gives_no_sum() -> None:
    with pytest.raises(PeerError, match="what was decrypted is"):
        ciphertexts.decrypt(LAYOUT, ciphertexts.make_keys().secret, CHUNKS)


def test_a_public_key_holds_no_secret_and_the_other_way_round() -> None:
    ciphertexts.check_public(PAIR.public)
    for bad in (PAIR.secret, b"", PAIR.public[:100]):
        with pytest.raises(PeerError):
            ciphertexts.check_public(bad)
    with pytest.raises(PeerError):
        ciphertexts.decrypt(LAYOUT, PAIR.public, CHUNKS)


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
    assert ciphertexts.decrypt(LAYOUT, PAIR.secret, adder.total()).tolist() == (2 * values(0)).tolist()


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
    valid = ciphertexts.encrypt(layout, PAIR.public, values(3, layout))
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
        opening = (PAIR.secret, lambda key: ciphertexts.decrypt(layout, key, valid))
        for key, use in ((PAIR.public, ciphertexts.check_public), opening):
            try:
                use(mutations(rng, key))
            except PeerError:
                continue
    adder = Adder(layout)
    adder.add(valid)
    assert ciphertexts.decrypt(layout, PAIR.secret, adder.total()).tolist() == values(3, layout).tolist()


def test_fuzz() -> None:
    fuzz(300, 1)


@pytest.mark.long
def test_fuzz_long() -> None:
    for seed in range(2, 42):
        fuzz(1000, seed)


@pytest.mark.thinned(2)
@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("how", [b"abort", b"hang"])
def test_the_sum_survives_the_death_of_its_process(how: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ciphertexts, "_KEPT_BYTES", 300_000
    )  # so that it has been saved once, and something added since
    adder = Adder(LAYOUT)
    for seed in range(5):
        adder.add(ciphertexts.encrypt(LAYOUT, PAIR.public, values(seed)))
    assert adder._saved
    assert adder._since
    with pytest.raises(PeerError, match="the process that parsed them died"):
        adder.add([how, CHUNKS[1]])
    adder.add(ciphertexts.encrypt(LAYOUT, PAIR.public, values(5)))
    expected = sum(values(seed) for seed in range(6))
    assert ciphertexts.decrypt(LAYOUT, PAIR.secret, adder.total()).tolist() == expected.tolist()


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
    assert ciphertexts._idle[-1] is child
    assert child.call(b"total") == []


def test_an_interrupted_exchange_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    child = ciphertexts._take()
    with monkeypatch.context() as patched:
        patched.setattr(ciphertexts, "_length", lambda pipe: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            child.call(b"clear")
    assert not child.alive
    assert child not in ciphertexts._idle


def test_a_process_that_was_killed_meanwhile_is_nobodys_fault() -> None:
    ciphertexts.check_public(PAIR.public)
    for child in ciphertexts._idle:
        child._process.kill()
        child._process.wait()
    ciphertexts.check_public(PAIR.public)


# What limits of this process leave to it

UNDER_LIMITS = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
try:
    resource.setrlimit(resource.RLIMIT_CPU, (60, 30))
except ValueError as error:
    print(error)  # as the child died of it, and whoever had sent the bytes was blamed
from protocols.ckks import ciphertexts
from protocols.ckks.layout import Layout
from secagg.errors import PeerError, StorageError
layout = Layout.choose(26, 1000, 10)
keys = ciphertexts.make_keys()
chunks = ciphertexts.encrypt(layout, keys.public, ciphertexts.np.arange(10))
print(ciphertexts.decrypt(layout, keys.secret, chunks).tolist())
ciphertexts._stop_all()
ciphertexts._SCRIPT = Path(sys.argv[1])
for what in (b"abort", b"memory"):
    adder = ciphertexts.Adder(layout)
    adder.add(chunks)
    try:
        adder.add([what])
    except (PeerError, StorageError) as error:
        print(type(error).__name__)
    print(ciphertexts.decrypt(layout, keys.secret, adder.total()).tolist())
"""


def under_limits(tmp_path: Path, spare: int) -> list[str]:
    script = tmp_path / "fragile.py"
    text = Path(__file__).with_name("fragile.py").read_text()
    script.write_text(text.replace("Path(__file__).resolve().parents[3]", repr(str(ROOT))).replace("= 2", f"= {spare}"))
    ran = subprocess.run(
        [sys.executable, "-c", UNDER_LIMITS, script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_limits_that_were_inherited_blame_nobody(tmp_path: Path) -> None:
    """They are kept to; and where they leave less than a request may need, its death proves nothing."""
    sums = str(list(range(10)))
    refused, *others = under_limits(tmp_path, 60)
    assert refused == "current limit exceeds maximum limit"
    assert others == [sums, "StorageError", sums, "StorageError", sums]
    assert under_limits(tmp_path, 2)[1:] == [sums, "PeerError", sums, "PeerError", sums], "the control: enough is left"


# What is left of a key


def memory(process: int) -> bytes:
    """All that can be read of a process's memory."""
    found = []
    try:
        with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb", 0) as file:
            for line in maps:
                span, rights = line.split()[:2]
                begin, end = (int(part, 16) for part in span.split("-"))
                if rights.startswith("rw"):
                    with suppress(OSError, ValueError):
                        file.seek(begin)
                        found.append(file.read(end - begin))
    except PermissionError:
        pytest.skip("this machine lets nobody look into another process")
    return b"".join(found)


@pytest.mark.thinned(2)
@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("keeps", [False, True])
def test_a_process_that_had_the_key_has_ended(keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control is one that decrypts by itself: the key lies in its memory still."""
    if keeps:
        monkeypatch.setenv("KEEPS_KEYS", "1")
    pair = ciphertexts.make_keys()
    ciphertexts.decrypt(LAYOUT, pair.secret, ciphertexts.encrypt(LAYOUT, pair.public, values(0)))
    (child,) = ciphertexts._idle
    there = memory(child._process.pid)
    pieces = [pair.secret[at : at + 16] for at in range(1000, len(pair.secret) - 16, len(pair.secret) // 20)]
    assert pair.public[1000:1016] in there
    assert any(piece in there for piece in pieces) == keeps
    assert resource.prlimit(child._process.pid, resource.RLIMIT_CORE) == (0, 0)


@pytest.mark.usefixtures("fragile")
@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: only Linux says so")
def test_no_core_of_it_is_kept_whoever_collects_them() -> None:
    with pytest.raises(PeerError, match="dumpable 0"):
        Adder(LAYOUT).add([b"dumpable", CHUNKS[1]])
