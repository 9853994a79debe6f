"""The key out of approximate decryptions (Li and Micciancio 2021), and that it is not in what this library releases.

A ciphertext (c0, c1) and its decryption before anything is rounded, m' = c0 + c1 s, are a linear equation for the key,
s = (m' - c0) / c1. What hides s in c0 + c1 s = m + E is the error E, and an approximate decryption tells it. Every
attack here runs twice: on what the key or a key share makes of a ciphertext, where it finds the key to the last
coefficient, and that opens another ciphertext; and on what is released, where the same code ends up c1^-1 E beside it:
nothing short, and it opens nothing.

1. ``ckks``, with its own parameters, and keys, ciphertexts and floats from TenSEAL. One vector of complex numbers is
   enough. TenSEAL shows real parts only, half of the equations: there it takes two vectors of 2048 floats under one
   key. What a round releases is rounded to the integers that went in, which are no equations.
2. ``secagg.crypto.lattice``: errors above the values instead of below them make no difference, decoding drops them.
3. ``threshold_ckks``: the server is told partial decryptions c1 s_i + T F_i. Flooding F_i hides s_i, and E.

``oneshot`` has nothing to attack in this way: the server is given the sum of one-time secrets as it is.

SEAL takes its randomness from the operating system, so part 1 is not the same twice. A false alarm has a probability
below 2^-30 in all: six times 2^-40 for ``is_garbage``, 2^-40 for each of some twenty sums (``ckks.layout``), 2^-42 for
each c1 (with a zero among its evaluations nothing is divided by it). In parts 2 and 3 seeds are fixed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from hashlib import sha256
from math import sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols import registry
from protocols.ckks import ciphertexts
from protocols.ckks.layout import DEGREE, MODULI, SLOTS, Layout
from protocols.ckks.server import CkksServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.simulation.network import Envelope, Faults, local_clients, simulate
from protocols.threshold_ckks.messages import Answer, Upload
from protocols.threshold_ckks.scheme import Scheme, _gaussian
from protocols.threshold_ckks.server import ThresholdServer
from protocols.threshold_ckks.sizes import choose_sizes
from secagg.assumptions import Adversary, CostModel
from secagg.crypto import lattice
from secagg.crypto.lattice import VARIANCE, QuotientRing, packing
from secagg.crypto.lattice.polynomials import Coefficients, Evaluations
from secagg.crypto.lattice.sampling import uniform
from secagg.crypto.prg import Prg
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.encoding import Encoding
from secagg.errors import PeerError
from tests.controls import switch_off

ts = pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")
from tenseal import sealapi as seal  # noqa: E402  # TenSEAL's classes do not show coefficients, these do

Numbers = NDArray[Any]
"""Python's integers: SEAL's prime has 54 bits. Evaluations are in SEAL's order."""


# Arithmetic modulo SEAL's prime, in the open.


@cache
def context() -> Any:
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(DEGREE, list(MODULI)))
    return seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)


@cache
def modulus() -> int:
    return int(context().first_context_data().parms().coeff_modulus()[0].value())


@cache
def powers(base: int, count: int) -> Numbers:
    given = [1]
    for _ in range(count - 1):
        given.append(given[-1] * base % modulus())
    return np.array(given, object)


@cache
def psi() -> int:
    """The least primitive 2N-th root of unity, as SEAL has it."""
    q = modulus()
    candidates = (pow(x, (q - 1) // (2 * DEGREE), q) for x in range(2, q))
    root = next(x for x in candidates if pow(x, DEGREE, q) == q - 1)
    return int(min(powers(root, 2 * DEGREE)[1::2]))


def evaluations(coefficients: Numbers) -> Numbers:
    """At psi^(2i + 1), bits of i reversed. So conjugates, f(x) and f(1/x), stand in mirrored places."""
    q, x = modulus(), (coefficients * powers(psi(), DEGREE) % modulus()).reshape(1, -1)
    while half := x.shape[1] // 2:
        left, right = x[:, :half], x[:, half:]
        turned = (left - right) * powers(pow(psi(), DEGREE // half, q), half)
        x = np.stack([left + right, turned], axis=1).reshape(-1, half) % q
    return x.ravel()


def coefficients(values: Numbers) -> Numbers:
    """Back, between -q/2 and q/2."""
    q, back, x = modulus(), pow(psi(), -1, modulus()), values.reshape(-1, 1)
    while (half := x.shape[1]) < DEGREE:
        left, right = x[::2], x[1::2] * powers(pow(back, DEGREE // half, q), half)
        x = np.concatenate([left + right, left - right], axis=1) % q
    scaled: Numbers = x.ravel() * powers(back, DEGREE) * pow(DEGREE, -1, q)
    return (scaled + q // 2) % q - q // 2


def inverses(values: Numbers) -> Numbers:
    return np.array([pow(int(value), -1, modulus()) for value in values], object)


# What is public, and the truth.


def as_seal(tenseal: Any, kind: Any) -> Any:
    """The same object in the other of TenSEAL's two bindings, through a file."""
    made = kind()
    with tempfile.NamedTemporaryFile() as file:
        tenseal.save(file.name)
        made.load(context(), file.name)
    return made


def words(held: Any, start: int) -> Numbers:
    """The array lives as long as what it is in: the bindings do not see to that."""
    array = held.dyn_array()
    return np.array([array.at(i) for i in range(start, start + DEGREE)], object)


def ciphertext_of(chunk: bytes) -> Any:
    bare = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, -1, list(MODULI), n_threads=1)
    (ciphertext,) = ts.ckks_vector_from(bare, bytes(chunk)).ciphertext()
    return as_seal(ciphertext, seal.Ciphertext)


def polynomials(chunk: bytes) -> tuple[Numbers, Numbers]:
    """(c0, c1), evaluated: SEAL keeps them so."""
    ciphertext = ciphertext_of(chunk)
    return words(ciphertext, 0), words(ciphertext, DEGREE)


def key_of(pair: ciphertexts.KeyPair) -> Any:
    return as_seal(ts.context_from(pair.secret, 1).secret_key().data, seal.SecretKey)


def secret_of(pair: ciphertexts.KeyPair) -> Numbers:
    """The coefficients, all of them -1, 0 or 1."""
    key = key_of(pair)
    secret = coefficients(words(key.data(), 0))
    assert set(secret) == {-1, 0, 1}
    return secret


# The attacker's own encoder (twice the largest sum, as the attack needs it, SEAL's refuses): slots at zeta^(3^j).

PLACES = np.array([pow(3, j, 2 * DEGREE) // 2 for j in range(SLOTS)])
TWIST = np.exp(1j * np.pi * np.arange(DEGREE) / DEGREE)


def encoded(slots: NDArray[np.generic], scale: float) -> Numbers:
    spread = np.zeros(DEGREE, complex)
    spread[PLACES], spread[DEGREE - 1 - PLACES] = slots, np.conj(slots)
    real: NDArray[np.float64] = (np.fft.fft(spread) / DEGREE / TWIST).real * scale
    rounded: Numbers = np.rint(real).astype(np.int64).astype(object)
    return rounded


def opened(key: Numbers, layout: Layout, chunks: Sequence[bytes]) -> NDArray[np.int64]:
    """What anybody who thinks that this is the key makes of ciphertexts. ``PeerError`` if that is no integers."""
    slots = []
    for c0, c1 in map(polynomials, chunks):
        message = coefficients(c0 + c1 * evaluations(key)).astype(float)
        slots.append((DEGREE * np.fft.ifft(message * TWIST))[PLACES].real / 2.0**layout.scale_bits)
    return layout.join(np.concatenate(slots))


# The attack.


def key_from_complex(chunk: bytes, slots: NDArray[np.complex128], layout: Layout) -> Numbers:
    c0, c1 = polynomials(chunk)
    message = evaluations(encoded(slots, 2.0**layout.scale_bits))
    return coefficients((message - c0) * inverses(c1))


def key_from_reals(chunks: Sequence[bytes], slots: NDArray[np.generic], layout: Layout) -> Numbers:
    """Real parts are those of m + m(1/X): two unknowns, s and s(1/X), at each place, and two ciphertexts."""
    (c0, c1), (d0, d1) = map(polynomials, chunks)
    first, second = (evaluations(encoded(part, 2.0 ** (layout.scale_bits + 1))) for part in np.split(slots, 2))
    first, second = first - c0 - c0[::-1], second - d0 - d0[::-1]
    determinant = (c1 * d1[::-1] - c1[::-1] * d1) % modulus()
    return coefficients((first * d1[::-1] - second * c1[::-1]) * inverses(determinant))


def is_garbage(key: Numbers) -> bool:
    """No coefficient could be the key's, and some are as large as they can be.

    A key that is off by c1^-1 times an error has uniform coefficients: this is wrongly denied with probability
    3 * 4096 / q < 2^-40.
    """
    return bool(min(abs(key)) > 1 and max(abs(key)) > modulus() // 4)


def approximate(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, pair: ciphertexts.KeyPair, chunks: Sequence[bytes]
) -> NDArray[np.float64]:
    """``ciphertexts.decrypt`` with its last step switched off: the floats of TenSEAL's ``CKKSVector.decrypt``."""
    with monkeypatch.context() as patched:
        switch_off(
            patched, ciphertexts, "decrypt", "layout.join(np.frombuffer(slots, '<f8'))", "np.frombuffer(slots, '<f8')"
        )
        floats: Any = ciphertexts.decrypt(layout, pair.secret, chunks)
    assert floats.dtype == np.float64
    return floats  # type: ignore[no-any-return]


# 1. protocols/ckks


@pytest.mark.parametrize(("bits", "clients"), [(2, 3), (16, 3), (16, 1000), (20, 4096)])
@pytest.mark.thinned(2)
def test_floats_give_the_key_and_integers_do_not(bits: int, clients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At scales of 2^45, 2^35, 2^27 and 2^21, with numbers up to the largest sum of so many clients.

    Doubles are precise enough for all of these: of 650,000 coefficients that the attacker rounded none was 0.16 away
    from an integer (deviation 0.02), and 0.5 would be too much.
    """
    layout = Layout.choose(Encoding.integers(2 * SLOTS, bits=bits).ring_bits(clients), clients, 2 * SLOTS)
    rng, pair = np.random.default_rng(1), ciphertexts.make_keys()
    largest = ((1 << (bits - 1)) - 1) * clients
    total = rng.integers(-largest, largest + 1, 2 * SLOTS)
    assert layout.digits == 1
    chunks, another = (ciphertexts.encrypt(layout, pair.public, vector) for vector in (total, total[::-1]))

    key = key_from_reals(chunks, approximate(monkeypatch, layout, pair, chunks), layout)
    assert key.tolist() == secret_of(pair).tolist()
    assert opened(key, layout, another).tolist() == total[::-1].tolist()

    released = ciphertexts.decrypt(layout, pair.secret, chunks)
    assert released.tolist() == total.tolist()
    key = key_from_reals(chunks, released.astype(float), layout)
    assert is_garbage(key)
    with pytest.raises(PeerError):
        opened(key, layout, another)


def test_one_vector_of_complex_numbers_gives_the_key() -> None:
    """The paper's own attack, on what SEAL's ``decode`` gives. Rounding real and imaginary parts ends it."""
    layout, rng = Layout.choose(26, 1000, SLOTS), np.random.default_rng(1)
    pair, (values, other) = ciphertexts.make_keys(), rng.integers(-(1 << 15), 1 << 15, (2, SLOTS))
    (chunk,), another = (ciphertexts.encrypt(layout, pair.public, vector) for vector in (values, other))
    plaintext = seal.Plaintext()
    seal.Decryptor(context(), key_of(pair)).decrypt(ciphertext_of(chunk), plaintext)
    slots = np.array(seal.CKKSEncoder(context()).decode_complex(plaintext))

    key = key_from_complex(chunk, slots, layout)
    assert key.tolist() == secret_of(pair).tolist()
    assert opened(key, layout, another).tolist() == other.tolist()

    assert np.rint(slots).tolist() == values.tolist()
    key = key_from_complex(chunk, np.rint(slots), layout)
    assert is_garbage(key)
    with pytest.raises(PeerError):
        opened(key, layout, another)


def test_the_sum_of_a_round_gives_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round, and afterwards what the server has of it: uploads, their sum encrypted, their sum in the clear.

    What it lacks is E, of deviation sqrt(n (1 + |s|^2) / 12) in each of 8192 coefficients, some 15 sqrt(n): asserted to
    20%, when 4096 samples show a deviation to within 1.1%.
    """
    pairs, uploads = list[ciphertexts.KeyPair](), list[Sequence[bytes]]()
    make, add = ciphertexts.make_keys, ciphertexts.Adder.add

    def making() -> ciphertexts.KeyPair:
        pairs.append(make())
        return pairs[-1]

    def adding(self: ciphertexts.Adder, chunks: Sequence[bytes]) -> None:
        uploads.append(chunks)
        add(self, chunks)

    monkeypatch.setattr(ciphertexts, "make_keys", making)
    monkeypatch.setattr(ciphertexts.Adder, "add", adding)
    roster, clients = local_clients(
        4, Policy(min_contributors=3, protocols={"ckks"}, adversary=Adversary.CURIOUS, corrupt=0)
    )
    plan = RoundPlan.propose("ckks", roster, Encoding.integers(2 * SLOTS), min_contributors=3, dropout="0.25")
    server, rng = CkksServer(plan, roster, registry.find(plan.protocol).messages), np.random.default_rng(1)
    updates = {name: rng.integers(-99, 100, 2 * SLOTS) for name in clients}
    released = simulate(server, clients, updates.get).outcome.total
    assert released.tolist() == sum(updates.values()).tolist()  # type: ignore[union-attr]
    layout = Layout.choose(plan.ring_bits, 4, 2 * SLOTS)

    key = key_from_reals(server._sum, released.astype(float), layout)
    assert is_garbage(key)
    for upload in uploads:
        with pytest.raises(PeerError):
            opened(key, layout, upload)

    (pair,) = [pair for pair in pairs if pair.public == server._key.public]
    key = key_from_reals(server._sum, approximate(monkeypatch, layout, pair, server._sum), layout)
    assert key.tolist() == secret_of(pair).tolist()
    read = [opened(key, layout, upload).tolist() for upload in uploads]
    assert sorted(read) == sorted(vector.tolist() for vector in updates.values())

    for (c0, c1), part in zip(map(polynomials, server._sum), np.split(released, 2), strict=True):
        error = coefficients(c0 + c1 * evaluations(key)) - encoded(part, 2.0**layout.scale_bits)
        assert error.astype(float).std() == pytest.approx(sqrt(4 * (1 + sum(key * key)) / 12), rel=0.2)


def test_rounding_does_not_stop_a_server_that_alters_the_sum() -> None:
    """While the server only adds, the integers are those of the inputs, whatever E is. One that multiplies the sum by k
    has k E rounded and, where that happens to be close to an integer in EVERY slot, is told rint(k E). With a single
    coordinate and the widest tolerance that takes three attempts (each a round with a key of its own); with 64, never.

    A false alarm: 200 attempts in vain, each with a chance above 1/4, or one at 64 slots that succeeds, below 2^-64.
    """
    factor_bits = 14  # k E has a deviation of about 7

    def told(coordinates: int) -> list[int] | None:
        layout = Layout.choose(32, 4096, coordinates)
        assert layout.scale_bits == 21
        assert 0.15 < layout.error < 0.25
        pair = ciphertexts.make_keys()
        (chunk,) = ciphertexts.encrypt(layout, pair.public, np.arange(coordinates))
        public = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, -1, list(MODULI), n_threads=1)
        vector = ts.ckks_vector_from(public, chunk)
        for _ in range(factor_bits):
            vector.add_(vector.copy())
        try:
            multiplied = ciphertexts.decrypt(layout, pair.secret, [vector.serialize()])
        except PeerError:
            return None
        return (multiplied - (np.arange(coordinates) << factor_bits)).tolist()  # type: ignore[no-any-return]

    assert any(told(1) not in (None, [0]) for _ in range(200))
    assert told(64) is None


# 2. secagg.crypto.lattice


def gaussian(count: int, *label: object) -> NDArray[np.int64]:
    return discrete_gaussian(VARIANCE, count, sha256(repr(label).encode()).digest())


def public(ring: QuotientRing, *label: object) -> Evaluations:
    return uniform(ring, 1, sha256(repr(label).encode()).digest())


def key_from(c0: Coefficients, c1: Evaluations, message: Coefficients) -> Coefficients:
    """(message - c0) / c1. A zero among c1's evaluations would be an error here."""
    inverse = np.empty_like(c1.words)
    for q, values, out in zip(c1.ring.primes, c1.words, inverse, strict=True):
        out[0] = [pow(int(value), -1, q) for value in values[0]]
    return ((message - c0).evaluations() * Evaluations(c1.ring, inverse)).coefficients()


def is_zero(polynomial: Coefficients) -> bool:
    return not polynomial.words.any()


def short(polynomial: Coefficients) -> int:
    """How many coefficients lie between -1000 and 1000, which is 150 deviations of a secret."""
    primes = np.array(polynomial.ring.primes, np.int64)[:, None, None]
    centred = (polynomial.words + primes // 2) % primes - primes // 2
    return int(((centred == centred[0]) & (abs(centred) <= 1000)).all(axis=0).sum())


def test_a_lattice_sum_gives_the_key_only_before_it_is_decoded() -> None:
    """Eight encryptions c0 = -c1 s + x + 2^(vw) e under one key, added: 4096 coefficients modulo 103 bits."""
    length = 16384
    layout = lattice.choose(Encoding.integers(length), 100, cost_model=CostModel.STANDARD).layout
    ring, rng = layout.ring, np.random.default_rng(1)
    secret = Coefficients.lift(ring, [gaussian(ring.degree, "secret")])
    vectors = rng.integers(-(1 << 15) + 1, 1 << 15, (9, length))
    encrypted = []
    for i, vector in enumerate(vectors):
        c1 = public(ring, "c1", i)
        message = packing.encode(layout, vector, gaussian(layout.coefficients(length), "e", i))
        encrypted.append((message - (c1 * secret.evaluations()).coefficients(), c1))
    c0, c1 = encrypted[0]
    for other, mask in encrypted[1:8]:
        c0, c1 = c0 + other, c1 + mask
    raw = c0 + (c1 * secret.evaluations()).coefficients()
    another, mask = encrypted[8]

    key = key_from(c0, c1, raw)
    assert is_zero(key - secret)
    assert (
        packing.decode(layout, another + (mask * key.evaluations()).coefficients(), length).tolist()
        == vectors[8].tolist()
    )

    released = packing.decode(layout, raw, length)
    assert released.tolist() == vectors[:8].sum(axis=0).tolist()
    exact = packing.encode(layout, released, np.zeros(layout.coefficients(length), np.int64))
    key = key_from(c0, c1, exact)
    assert short(key) == 0
    assert short(secret) == ring.degree  # the measure measures
    with pytest.raises(PeerError):
        packing.decode(layout, another + (mask * key.evaluations()).coefficients(), length)


# 3. protocols/threshold_ckks


def unflooded(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Scheme, "partial", "self.bare(c1, [seed]) + flood", "self.bare(c1, [seed])")


def run_threshold() -> tuple[ThresholdServer, list[bytes], list[Answer], list[Upload], list[list[int]]]:
    """A round of 4096 coefficients: the server, the seeds of key shares, what came, and what is in the uploads."""
    policy = Policy(min_contributors=3, protocols={"threshold_ckks"}, adversary=Adversary.CURIOUS, corrupt=0)
    roster, clients = local_clients(3, policy, Prg(bytes(32)))
    encoding, session = Encoding.integers(4096), bytes(16)
    plan = RoundPlan.propose("threshold_ckks", roster, encoding, min_contributors=3, dropout=0, session=session)
    wire, server, rng = (
        registry.find(plan.protocol).messages,
        ThresholdServer(plan, roster, registry.find(plan.protocol).messages),
        np.random.default_rng(1),
    )
    heard: list[Any] = []

    def network(envelope: Envelope) -> bytes:
        heard.append(wire.decode(plan, envelope.frame))
        return envelope.frame

    updates = {name: rng.integers(-99, 100, 4096) for name in clients}
    simulate(server, clients, updates.get, faults=Faults(corrupted=network))
    seeds = [client.current._key_seed for client in clients.values()]  # type: ignore[union-attr]
    answers = [message for message in heard if isinstance(message, Answer)]
    uploads = [message for message in heard if isinstance(message, Upload)]
    return server, seeds, answers, uploads, [vector.tolist() for vector in updates.values()]


@pytest.mark.parametrize("flooded", [True, False])
def test_partial_decryptions_give_key_shares_only_unflooded(flooded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server of a round divides by c1: each partial decryption d = c1 s + T F; c0 + sum d, less c0, as it
    stands before decoding; the decoded sum. Without flooding the first give the shares of the key and the second the
    key, which opens every upload. With flooding no coefficient of them is short, and of the third never is any."""
    if not flooded:
        unflooded(monkeypatch)
    server, seeds, answers, uploads, updates = run_threshold()
    scheme, c0, c1 = server._scheme, server._c0.value(), server._c1.value().evaluations()
    ring, sizes = scheme.ring, scheme.sizes
    assert sizes.count == ring.degree  # all coefficients of d are there
    secrets = [scheme.secret(seed).coefficients() for seed in seeds]
    secret = secrets[0] + secrets[1] + secrets[2]

    def opens(key: Coefficients, upload: Upload) -> list[int]:
        product = scheme.unpack_all(upload.c1).evaluations() * key.evaluations()
        return scheme.decode(scheme.unpack_used(upload.c0) + product.coefficients()).tolist()  # type: ignore[no-any-return]

    shares = [key_from(Coefficients.zeros(ring, 1), c1, scheme.unpack_used(answer.partial)) for answer in answers]
    fused = key_from(c0, c1, c0 + server._partials.value())
    if flooded:
        assert [short(key) for key in (*shares, fused)] == [0] * 4
        with pytest.raises(PeerError):
            opens(fused, uploads[0])
    else:
        assert all(is_zero(share - own) for share, own in zip(shares, secrets, strict=True))
        assert is_zero(fused - secret)
        assert [opens(fused, upload) for upload in uploads] == updates

    assert server.outcome is not None
    assert server.outcome.total.tolist() == np.sum(updates, axis=0).tolist()
    exact = packing.encode(sizes.layout, server.outcome.total, np.zeros(sizes.count, np.int64))
    released = key_from(c0, c1, exact)
    assert short(released) == 0
    assert short(secret) == ring.degree  # the measure measures
    with pytest.raises(PeerError):
        opens(released, uploads[0])


def integers(polynomials: Coefficients) -> NDArray[np.float64]:
    """Coefficients between -q/2 and q/2, block by block."""
    ring = polynomials.ring
    q, total = ring.modulus, np.zeros((polynomials.blocks, ring.degree), object)
    for prime, residues in zip(ring.primes, polynomials.words, strict=True):
        rest = q // prime
        total = total + residues.astype(object) * (rest * pow(rest, -1, prime))
    return ((total + q // 2) % q - q // 2).astype(float)


def values_at_zeta(polynomials: NDArray[Any]) -> NDArray[np.complex128]:
    degree = polynomials.shape[-1]
    twisted: NDArray[np.complex128] = np.exp(1j * np.pi * np.arange(degree) / degree) * polynomials
    values: NDArray[np.complex128] = np.fft.ifft(twisted) * degree
    return values


def least_squares(v: NDArray[Any], e1: NDArray[Any], seen: NDArray[Any]) -> NDArray[np.float64]:
    """e and s with v e + e1 s closest to what is seen: at each root an equation a block, and two unknowns."""
    known = np.stack([values_at_zeta(v), values_at_zeta(e1)]).T
    adjoint = known.conj().transpose(0, 2, 1)
    solved = np.linalg.solve(adjoint @ known, adjoint @ values_at_zeta(seen).T[..., None])[..., 0]
    degree = len(solved)
    back: NDArray[np.complex128] = np.fft.fft(solved.T) / degree * np.exp(-1j * np.pi * np.arange(degree) / degree)
    return back.real


@pytest.mark.parametrize("flooding", ["none", "narrow", "as chosen"])
def test_how_wide_flooding_has_to_be(flooding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Division fails for any F at all: c1 looks uniform, so d is a ring-LWE sample with error F. What F has to drown is
    E = e v + e0 + e1 s in c0 + c1 s + T F = x + T (E + F).

    An attacker who knows x, v, e0, e1 (it has encrypted) and all shares but one has equations for e and s in integers,
    one a block, here four. Flooding of 2^5, five times as wide as errors, is averaged away: least squares come within
    0.2 of each coefficient of the honest share, 0.5 would do. With the flooding that the protocol chooses, 2^64.5, they
    are off by 2^54, where shares have a deviation of 6.4.

    This is more than a round gives away, in which honest clients' ciphertexts add errors that nobody knows.
    """
    if flooding == "none":
        unflooded(monkeypatch)
    sizes = choose_sizes(17, 2, 229376, CostModel.STANDARD)
    if flooding == "narrow":
        sizes = replace(sizes, flooding=Fraction(1 << 10))
    scheme, layout, degree = Scheme.of(sizes, bytes(32)), sizes.layout, sizes.layout.ring.degree
    assert (sizes.blocks, sizes.count) == (4, 4 * degree)
    honest, corrupt, encrypting, flooded_by = (bytes([i]) * 32 for i in range(4))
    x = np.random.default_rng(1).integers(-(1 << 15) + 1, 1 << 15, sizes.length)
    c0, c1 = scheme.encrypt(scheme.public(honest) + scheme.public(corrupt), x, encrypting)
    told = c0 + scheme.partial(c1, honest, flooded_by=flooded_by) + scheme.bare(c1, [corrupt])
    assert scheme.decode(told).tolist() == x.tolist()  # exact, however errors are flooded

    v, e0, e1 = (_gaussian(encrypting, purpose, sizes.count) for purpose in (b"v", b"e0", b"e1"))
    error = (told - packing.encode(layout, x, e0)).scaled(pow(sizes.unit, -1, layout.ring.modulus))
    _, s = least_squares(v.reshape(4, degree), e1.reshape(4, degree), integers(error))
    off = abs(s - _gaussian(corrupt, b"key", degree) - _gaussian(honest, b"key", degree))
    if flooding == "as chosen":
        assert np.median(off) > 2.0**50
    else:
        assert off.max() < 0.2
