"""What can a server of a pairwise protocol compute? Its whole view as linear equations, solved.

Every upload that the server saw is an equation over Z_{2^m}: the client's input plus or minus some mask streams. The
oracle first finds out which streams the server knows, by doing what the server would do: it takes the pads of corrupt
clients off their boxes, interpolates all shares that it saw, there, in defences and in reveals, and keeps what fits an
advertised key or commitment. Then it eliminates the streams that stay unknown (random and independent to anybody
without their seeds) and looks at what is left. An honest round leaves one combination: the sum over all honest
survivors. Commitments to shares and the z_j of a proof are public and give nothing, as long as fewer than t holders'
blinding values are known.

Nothing is taken on trust. Which streams an upload holds is *measured*, with the secrets of all its clients at hand: a
mask that a client forgot is not in the equation, and two masks from one seed are one unknown. That measurement is never
used to decide what the server knows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from protocols import registry
from protocols.client import Client
from protocols.pairwise.client import advert_leaf
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import (
    MASK_KEY,
    SELF_MASK,
    Advert,
    Introduction,
    Reveal,
    Survivors,
    Upload,
)
from protocols.pairwise.parameters import parameters_of
from protocols.plan import RoundPlan
from protocols.roster import SERVER, Roster
from protocols.rounds.dealing import Dealt, Defence, share_of
from protocols.rounds.sets import from_bitmap
from protocols.simulation.network import Envelope
from secagg.crypto import labels
from secagg.crypto.dealing import unpadded
from secagg.crypto.keys import AgreementKey, digest
from secagg.crypto.masking import add_masks
from secagg.crypto.merkle import MerkleTree
from secagg.crypto.shamir import reconstruct, unpack_shares

# A mask matrix of honest clients has entries 0, 1, -1, at most 50 of them in a row for the cohorts tested here. By
# Hadamard no minor of up to 40 rows reaches 50^20 < 2^113, so this prime divides none: the rank modulo it is the
# rational rank, and a kernel vector modulo it with small entries is one over the integers.
PRIME = (1 << 127) - 1


@dataclass
class View:
    """All frames that the server received or sent in one round. Use it as ``Faults.corrupted``.

    ``hidden`` frames are in the view, but the server pretends that they never came. ``lost`` ones really never come.
    """

    plan: RoundPlan
    roster: Roster
    hidden: Callable[[Envelope], bool] = lambda envelope: False
    lost: Callable[[Envelope], bool] = lambda envelope: False
    frames: list[Envelope] = field(default_factory=list)

    def __call__(self, envelope: Envelope) -> bytes:
        if self.lost(envelope):
            return b""
        self.frames.append(envelope)
        return b"" if self.hidden(envelope) else envelope.frame


@dataclass(frozen=True)
class Round:
    """One round for the oracle: what the server saw, and, for measuring, what the clients put in."""

    view: View
    inputs: Mapping[str, NDArray[np.int64]]
    secrets: Mapping[str, frozenset[bytes]]
    """name -> mask key, sealing key and self-mask seed; those of corrupt clients are known to the server"""


def secrets_of(client: Client) -> frozenset[bytes]:
    """What a client drew in its current round."""
    machine = client._round
    return frozenset({machine._mask_key.secret, machine._seal_key.secret, machine._self_secret})  # type: ignore[union-attr]


Symbol = tuple[int, str]
"""One client's input in one round: (round, name)."""


@dataclass(frozen=True)
class Combination:
    """A linear combination of inputs that the server can compute."""

    coefficients: Mapping[Symbol, int]

    def __str__(self) -> str:
        return " ".join(f"{c:+d}*{name}@{round_}" for (round_, name), c in sorted(self.coefficients.items()))


@dataclass(frozen=True)
class Verdict:
    computable: tuple[Combination, ...]
    """A basis of all combinations of honest inputs that the server can compute; none has a smaller one inside it."""
    leaks: tuple[Combination, ...]
    """Those that are not the sum over all the honest survivors of a round with enough contributors."""
    torsion: int
    """Further combinations that exist only modulo a power of two (they would give away low bits)."""
    known: frozenset[str]
    """The streams that the server can expand."""
    unblinded: frozenset[str]
    """Honest dealers whose blinding values are known at t abscissas: what they have shown of their dealing then says
    something about both secrets."""

    @property
    def safe(self) -> bool:
        return not self.leaks and not self.torsion and not self.unblinded


def judge(rounds: Sequence[Round], corrupt: Iterable[str] = ()) -> Verdict:
    """Everything that the server can compute from the views of some rounds and the secrets of the corrupt clients."""
    insiders = frozenset(corrupt)
    transcripts = [_Transcript(one) for one in rounds]
    known, secrets = _learn(
        transcripts, [one.secrets[name] for one in rounds for name in insiders & one.secrets.keys()]
    )
    everything = {
        seed: label
        for transcript_ in transcripts
        for seed, label in transcript_.streams(frozenset(chain(*transcript_.round.secrets.values()))).items()
    }
    rows = [row for transcript_ in transcripts for row in transcript_.equations(everything)]
    unknown = sorted({seed for _, _, masks in rows for seed in masks} - known)
    symbols = sorted({symbol for symbol, _, _ in rows if symbol[1] not in insiders})
    matrix = [
        [masks.get(seed, 0) for seed in unknown] + [own * (symbol == column) for column in symbols]
        for symbol, own, masks in rows
    ]
    width = len(unknown)
    solved = [row for row in _reduced(matrix, PRIME) if not any(row[:width])]
    computable = tuple(Combination(dict(_signed(symbols, row[width:]))) for row in solved)
    allowed = [transcript_.allowed(insiders) for transcript_ in transcripts]
    # Over Z_{2^m} more combinations cancel than over the rationals exactly if an invariant factor is even, that is, if
    # the rank drops modulo 2. (For one round the columns are those of a directed graph plus unit columns: totally
    # unimodular, every invariant factor is 1. Streams shared between rounds need the check.)
    masks_only = [row[:width] for row in matrix]
    torsion = len(_reduced(masks_only, PRIME)) - len(_reduced(masks_only, 2))
    leaks = tuple(one for one in computable if one.coefficients not in allowed)
    unblinded = frozenset(name for transcript_ in transcripts for name in transcript_.unblinded(secrets)) - insiders
    seen = frozenset(everything[seed] for seed in known & everything.keys())
    return Verdict(computable, leaks, torsion, seen, unblinded)


def _signed(symbols: Sequence[Symbol], row: Sequence[int]) -> Iterable[tuple[Symbol, int]]:
    for symbol, value in zip(symbols, row, strict=True):
        if value:
            yield symbol, value if value <= PRIME // 2 else value - PRIME


def _reduced(matrix: Sequence[Sequence[int]], prime: int) -> list[list[int]]:
    """Reduced row echelon form without its zero rows.

    No vector of the row space has its support strictly inside that of one of these rows: it would vanish in all other
    pivot columns, and so be a multiple of the row. What is reported as a leak therefore cannot be cut further.
    """
    rows = [[value % prime for value in row] for row in matrix]
    done: list[list[int]] = []
    for column in range(len(matrix[0]) if matrix else 0):
        pivot = next((row for row in rows if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        inverse = pow(pivot[column], -1, prime)
        pivot = [value * inverse % prime for value in pivot]
        for other in chain(rows, done):
            if factor := other[column]:
                other[:] = [(a - factor * b) % prime for a, b in zip(other, pivot, strict=True)]
        done.append(pivot)
    return done


# What the server knows.


def _learn(
    transcripts: Sequence[_Transcript], given: Iterable[frozenset[bytes]]
) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Seeds of all streams that the server can expand, and the secrets that give them.

    Shares give secrets, keys open boxes, boxes hold shares ...
    """
    secrets = frozenset(chain.from_iterable(given))
    while True:
        more = secrets.union(*[transcript_.rebuilt(secrets) for transcript_ in transcripts])
        if more == secrets:
            seeds = frozenset(chain.from_iterable(transcript_.streams(secrets) for transcript_ in transcripts))
            return seeds, secrets
        secrets = more


class _Transcript:
    """One round's view, decoded. Clients are positions in the cohort; a secret is 32 bytes, whatever it opens."""

    def __init__(self, one: Round) -> None:
        self.round, self.plan, self.roster = one, one.view.plan, one.view.roster
        messages = registry.find(self.plan.protocol).messages
        decoded = [(e, messages.decode(self.plan, e.frame)) for e in one.view.frames]
        heard = [(self.roster.number(e.sender), m) for e, m in decoded if e.sender != SERVER]
        said = [m for e, m in decoded if e.sender == SERVER]

        adverts = {number: m for number, m in heard if isinstance(m, Advert)}
        self.numbers = sorted(adverts)
        self.adverts = [adverts[number] for number in self.numbers]
        at = {number: position for position, number in enumerate(self.numbers)}
        root = MerkleTree([advert_leaf(advert) for advert in self.adverts]).root
        if {m.root for m in said if isinstance(m, Introduction)} - {root}:
            raise ValueError(
                "the server showed another cohort than the one it had: not a round this oracle understands"
            )
        self.cohort = Cohort(self.plan, root, len(self.adverts))
        self.dealt = [(at[number], m) for number, m in heard if isinstance(m, Dealt)]
        self.defences = [(at[number], m) for number, m in heard if isinstance(m, Defence)]
        self.uploads = [(at[number], m) for number, m in heard if isinstance(m, Upload)]
        self.reveals = [(at[number], m) for number, m in heard if isinstance(m, Reveal)]
        self.announced = {m.survivors for m in said if isinstance(m, Survivors)}
        self._tried: dict[object, bytes | None] = {}

    def name(self, position: int) -> str:
        return self.roster.names[self.numbers[position]]

    def allowed(self, insiders: frozenset[str]) -> Mapping[Symbol, int]:
        """The one combination that the server may compute: the sum over the honest survivors whom it announced."""
        if len(self.announced) != 1:
            return {}
        (bitmap,) = self.announced
        survivors = from_bitmap(bitmap, range(self.cohort.size))
        if len(survivors) < max(self.plan.min_contributors, parameters_of(self.plan).threshold):
            return {}
        return {(self.plan.round, self.name(u)): 1 for u in survivors if self.name(u) not in insiders}

    # Secrets from shares.

    def rebuilt(self, secrets: frozenset[bytes]) -> frozenset[bytes]:
        """The secrets that the shares in the view give, those in boxes included that ``secrets`` can open."""
        found = set()
        for (u, _kind), shares in self._shares(secrets).items():
            key = (u, tuple(sorted(shares.items())))
            if key not in self._tried:
                self._tried[key] = self._interpolated(u, shares)
            found.add(self._tried[key])
        return frozenset(secret for secret in found if secret is not None)

    def _shares(self, secrets: frozenset[bytes]) -> Mapping[tuple[int, str], Mapping[int, bytes]]:
        """(whose secret, which of the two) -> holder -> share."""
        pools: dict[tuple[int, str], dict[int, bytes]] = defaultdict(dict)
        for holder, reveal in self.reveals:
            for kind, revealed in (("self", reveal.self_shares), ("key", reveal.key_shares)):
                for one in revealed:
                    pools[one.peer, kind][holder] = one.share
        for (u, holder), points in self._points(secrets).items():
            pools[u, "key"][holder] = share_of(points, MASK_KEY)
            pools[u, "self"][holder] = share_of(points, SELF_MASK)
        return pools

    def _points(self, secrets: frozenset[bytes]) -> Mapping[tuple[int, int], bytes]:
        """(dealer, holder) -> what it dealt to it, both shares and the blinding values.

        It is in boxes whose pad is known: from a key of the corrupt, or from a defence.
        """
        keys = {key.public: key for key in map(AgreementKey, sorted(secrets))}
        found, shown = {}, {(u, one.peer): one.key for u, defence in self.defences for one in defence.opened}
        for u, dealt in self.dealt:
            others = [v for v in self.cohort.holders(u) if v != u]
            for holder, box in zip(others, dealt.boxes, strict=False):
                if pad := shown.get((u, holder)) or self._pad_key(keys, u, holder):
                    words = np.frombuffer(box.points, "<u4")[None]
                    found[u, holder] = unpadded(words, [pad]).astype("<u4").tobytes()
        return found

    def _pad_key(self, keys: Mapping[bytes, AgreementKey], dealer: int, holder: int) -> bytes:
        mine, theirs = self.adverts[dealer].seal_key, self.adverts[holder].seal_key
        if mine not in keys and theirs not in keys:
            return b""
        agreed = keys[mine].agree(theirs) if mine in keys else keys[theirs].agree(mine)
        return self.cohort.pad_key(agreed, dealer, holder)

    def unblinded(self, secrets: frozenset[bytes]) -> set[str]:
        """Of whom all that a holder was dealt is known at so many places that nothing is blinded any more."""
        places = Counter(u for u, _ in self._points(secrets))
        return {self.name(u) for u, count in places.items() if count >= parameters_of(self.plan).threshold}

    def _interpolated(self, u: int, shares: Mapping[int, bytes]) -> bytes | None:
        """Through all shares, however few: that finds secrets shared with a threshold lower than the plan's, too.

        Where one of many shares is wrong, through all but one.
        """
        holders = sorted(shares)
        choices = [holders]
        if len(holders) > parameters_of(self.plan).threshold:
            choices += [[v for v in holders if v != left_out] for left_out in holders]
        for chosen in choices:
            points = np.array([[v + 1 for v in chosen]])
            values = np.array([[unpack_shares(shares[v], 1)[0] for v in chosen]])
            secret = reconstruct(points, values)[0]
            if secret is not None and self._fits(self.adverts[u], secret):
                return secret
        return None

    def _fits(self, advert: Advert, secret: bytes) -> bool:
        public = AgreementKey(secret).public
        return (
            public in (advert.mask_key, advert.seal_key) or digest(labels.SELF_COMMITMENT, secret) == advert.commitment
        )

    # Streams from secrets.

    def streams(self, secrets: frozenset[bytes]) -> Mapping[bytes, str]:
        """seed -> label of every stream of this round that somebody with these secrets can expand."""
        keys = {key.public: key for key in map(AgreementKey, sorted(secrets))}
        seeds = {digest(labels.SELF_COMMITMENT, secret): secret for secret in secrets}
        found = {}
        for u, advert in enumerate(self.adverts):
            if advert.commitment in seeds:
                found[self.cohort.self_seed(seeds[advert.commitment], u)] = f"self {self.name(u)}"
            if advert.mask_key in keys:
                for v, peer in enumerate(self.adverts):
                    if v != u:
                        seed = self.cohort.pair_seed(keys[advert.mask_key].agree(peer.mask_key), u, v)
                        found[seed] = f"pair {self.name(min(u, v))} {self.name(max(u, v))}"
        return found

    # Equations.

    def equations(self, everything: Mapping[bytes, str]) -> Iterable[tuple[Symbol, int, Mapping[bytes, int]]]:
        """For each upload: whose input, its coefficient, and the streams in it with theirs."""
        for u, upload in self.uploads:
            name = self.name(u)
            candidates = [seed for seed, label in everything.items() if name in label.split()]
            found = self._coefficients(self._noise(u, upload), candidates)
            yield (self.plan.round, name), 1, {seed: c for seed, c in zip(candidates, found, strict=True) if c}

    def _noise(self, u: int, upload: Upload) -> NDArray[np.uint64]:
        """The upload minus the input."""
        values = np.asarray(self.round.inputs[self.name(u)], np.int64)
        words = self.plan.ring.unpack(upload.vector, len(values)) - self.plan.ring.wrap(values)
        return words.astype(np.uint64) & self._mask

    def _coefficients(self, noise: NDArray[np.uint64], candidates: Sequence[bytes]) -> list[int]:
        """The only coefficients in -1, 0, 1, 2 with which the candidate streams add up to ``noise``.

        They are found modulo 4, bit by bit, and then checked in full.
        """
        streams = np.array([self._stream(seed) for seed in candidates])
        first = _solved_mod_2(streams, noise)
        rest = (noise - first @ streams & self._mask) >> np.uint64(1)
        second = _solved_mod_2(streams, rest)
        coefficients = [int(value) - 4 * int(value == 3) for value in first + np.uint64(2) * second]
        total = np.array(coefficients, np.int64).astype(np.uint64) @ streams & self._mask
        if (total != noise).any():
            raise ValueError("an upload holds something that is neither the input nor one of the client's masks")
        return coefficients

    def _stream(self, seed: bytes) -> NDArray[np.uint64]:
        words = self.plan.ring.zeros(self.plan.encoding.coordinates)
        add_masks(words, [seed])
        return words.astype(np.uint64) & self._mask

    @cached_property
    def _mask(self) -> np.uint64:
        return np.uint64((1 << self.plan.ring_bits) - 1)


def _solved_mod_2(streams: NDArray[np.uint64], noise: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The one 0-1 vector c with c @ streams = noise in the lowest bit (all zeros if there is none)."""
    augmented = np.vstack([streams, noise]).T & np.uint64(1)
    rows = [
        int("".join(map(str, row)), 2) for row in np.unique(augmented, axis=0).tolist()
    ]  # bits, first stream on top
    count, basis = len(streams), dict[int, int]()
    for row in rows:
        for top in sorted(basis, reverse=True):
            if row >> top & 1:
                row ^= basis[top]
        if row >> 1:
            top = row.bit_length() - 1
            basis = {other: value ^ row if value >> top & 1 else value for other, value in basis.items()} | {top: row}
    if len(basis) < count:
        raise ValueError(f"vectors too short to tell {count} streams apart: make them longer")
    return np.array([basis[count - i] & 1 for i in range(count)], np.uint64)
