"""What can a server compute from all that it saw in a round, and from the secrets of the corrupt clients?

Pairwise rounds. Each upload is an input plus or minus streams. Which ones is *measured*: input (noise included) and the
streams that its header lists must give the very words of the upload, or the round fails here. A stream is known if its
seed follows from secrets that the server can rebuild: shares are opened, interpolated and compared, as a server would:
those in boxes of corrupt holders, in defences and in reveals. Commitments and the z_j are public and give nothing, as
long as fewer than t holders' blinding values are known, which is asked for.
What is left is a graph: each unknown pair stream stands in at most two uploads, with opposite signs, so a linear
combination without unknown streams is one with equal coefficients on whole connected components, and none on those in
which a self-mask or a one-sided pair mask is unknown. The matrix is that of a directed graph: totally unimodular, hence
nothing more comes out modulo 2^m. ``tests/oracle/leak_oracle.py`` finds the same by elimination, slower and with
longer vectors; ``test_simulator.py`` compares the two.

One-shot rounds. Shares are linear in the clients' secrets. The oracle asks for which combinations of clients the server
has the whole secret, by elimination over the field of the shares. Secrets are short, so that less may be enough, is
not its subject.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.oneshot.messages import Answer
from protocols.oneshot.parameters import least_contributors
from protocols.pairwise.messages import MASK_KEY, SELF_MASK, Reveal, Upload
from protocols.pairwise.parameters import parameters_of
from protocols.rounds.dealing import Dealt, Defence, share_of
from protocols.rounds.sets import from_bitmap
from secagg.crypto.dealing import unpadded
from secagg.crypto.field import PRIME
from secagg.crypto.keys import AgreementKey
from secagg.crypto.masking import add_masks
from secagg.crypto.packed import _lagrange
from secagg.crypto.shamir import reconstruct, unpack_shares
from tests.simulator.parties import Record, insist

Pool = tuple[bytes, int, str]
"""(root, position, which secret): whose shares these are."""


class Memory:
    """What the oracle remembers of a session: seeds, which must never come again, and keys that the server knows."""

    def __init__(self) -> None:
        self.seeds: set[bytes] = set()
        self.keys: set[bytes] = set()
        self.agreed: dict[frozenset[bytes], bytes] = {}
        """What pairs of public keys agree on: kept, since computing it takes most of the time."""


def pairwise_sums(record: Record, corrupt: Iterable[Any], memory: Memory) -> list[frozenset[str]]:
    """The sets of honest clients whose sums the server can compute; none has a smaller one inside it.

    ``corrupt`` are machines whose secrets the server has.
    """
    view = _PairwiseView(record, list(corrupt), memory)
    memory.keys |= view.known_keys
    uploads = [(name, upload) for name, upload in record.from_clients(Upload) if record.honest(name)]
    streams = [view.streams(name, upload) for name, upload in uploads]
    where: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    parent = list(range(len(uploads)))

    def root_of(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    blocked = set[int]()
    for i, found in enumerate(streams):
        for seed, (sign, known) in found.items():
            if not known:
                where[seed].append((i, sign))
    for seed, places in where.items():
        insist(seed not in memory.seeds, "a mask of an earlier round is used again")
        if len(places) == 1:
            blocked.add(places[0][0])
        else:
            (i, plus), (j, minus) = places
            insist(plus == -minus and i != j, "a mask that does not cancel in a sum")
            parent[root_of(i)] = root_of(j)
    memory.seeds.update(where)
    parts: dict[int, set[str]] = defaultdict(set)
    for i, (name, _) in enumerate(uploads):
        parts[root_of(i)].add(name)
    bare = parts.keys() - {root_of(i) for i in blocked}
    return [frozenset(parts[root]) for root in bare]


def check_pairwise(record: Record, corrupt: Iterable[Any], memory: Memory) -> bool:
    """Only the sum over the honest survivors of the one set that was signed. Whether that sum is there."""
    corrupt = list(corrupt)
    honest = {name: machine for name, machine in record.machines.items() if record.honest(name)}
    revealed = {name for name, _ in record.from_clients(Reveal)} & honest.keys()
    sets = {(m._cohort.root, m._agreed.bitmap): m for name, m in honest.items() if name in revealed}
    insist(len(sets) <= 1, "honest clients have revealed for one set of survivors, not for", len(sets))
    allowed: frozenset[str] | None = None
    for (root, bitmap), machine in sets.items():
        survivors = from_bitmap(bitmap, range(machine._cohort.size))
        least = max(record.plan.min_contributors, parameters_of(record.plan).threshold)
        insist(len(survivors) >= least, "a set of survivors is large enough:", len(survivors), "of", least)
        said = {name for name, kind in record.answers if kind in ("ConsistencySignature", "Vote")}
        signed = {
            name for name in said if (m := record.machines[name])._cohort.root == root and m._agreed.bitmap == bitmap
        }
        # The server signs for the corrupt clients, also for one whose machine has never been told its place.
        signed |= {m.identity.name for m in corrupt if getattr(m, "_u", min(survivors)) in survivors}
        needed = max(least, parameters_of(record.plan).quorum)
        insist(len(signed) >= needed, "enough have signed a set that is revealed for:", len(signed), "of", needed)
        inside = {name for name, m in honest.items() if hasattr(m, "_cohort") and m._cohort.root == root}
        allowed = frozenset(name for name in inside if honest[name]._u in survivors)
    check_opened(record, corrupt)
    sums = pairwise_sums(record, corrupt, memory)
    for one in sums:
        insist(one == allowed, "the server can compute a sum over", sorted(one), "not over", sorted(allowed or ()))
    return bool(sums)


def check_opened(record: Record, corrupt: Iterable[Any]) -> None:
    """What an honest dealer opens, it dealt to somebody corrupt."""
    open_already = {m.identity.name for m in corrupt}
    for name, defence in record.from_clients(Defence):
        if record.honest(name):
            m = record.machines[name]
            holders = {m.roster.names[m._peers[one.peer].client] for one in defence.opened}
            insist(
                holders <= open_already, "an honest dealer opens only boxes of corrupt holders:", name, sorted(holders)
            )


def _without_pad(box: bytes, key: bytes) -> bytes:
    return unpadded(np.frombuffer(box, "<u4")[None], [key]).astype("<u4").tobytes()


class _PairwiseView:
    def __init__(self, record: Record, corrupt: list[Any], memory: Memory) -> None:
        self.record, self.t = record, parameters_of(record.plan).threshold
        self._corrupt = corrupt
        self._agreed = memory.agreed
        self.machines = {name: m for name, m in record.machines.items() if hasattr(m, "_cohort")}
        self.at = {(m._cohort.root, m._u): m for name, m in self.machines.items() if record.honest(name)}
        self.known_keys = memory.keys | {m._mask_key.public for m in corrupt}
        self.known_selves: set[tuple[bytes, int]] = set()
        self._rebuild()

    def agreed(self, key: AgreementKey, other: bytes) -> bytes:
        pair = frozenset([key.public, other])
        if pair not in self._agreed:
            self._agreed[pair] = key.agree(other)
        return self._agreed[pair]

    def _pools(self) -> Mapping[Pool, Mapping[int, bytes]]:
        pools: dict[Pool, dict[int, bytes]] = defaultdict(dict)
        for (root, u, holder), points in self._points().items():
            pools[root, u, "key"][holder] = share_of(points, MASK_KEY)
            pools[root, u, "self"][holder] = share_of(points, SELF_MASK)
        for name, reveal in self.record.from_clients(Reveal):
            if (m := self.machines.get(name)) is None:
                continue
            for kind, revealed in (("self", reveal.self_shares), ("key", reveal.key_shares)):
                for one in revealed:
                    pools[m._cohort.root, one.peer, kind][m._u] = one.share
        return pools

    def _points(self) -> Mapping[tuple[bytes, int, int], bytes]:
        """(root, dealer, holder) -> all that it dealt to it, where known: both shares and the blinding values."""
        seals = {m._seal_key.public: m._seal_key for m in self._corrupt}
        found = dict[tuple[bytes, int, int], bytes]()
        boxes = dict[tuple[str, int], bytes]()
        for name, dealt in self.record.from_clients(Dealt):
            if (m := self.machines.get(name)) is None:
                continue
            others = [v for v in m._cohort.holders(m._u) if v != m._u]
            for holder, box in zip(others, dealt.boxes, strict=False):
                boxes[name, holder] = box.points
                advert = m._peers.get(holder)
                if advert is None or advert.seal_key not in seals:
                    continue
                key = m._cohort.pad_key(self.agreed(seals[advert.seal_key], m._seal_key.public), m._u, holder)
                found[m._cohort.root, m._u, holder] = _without_pad(box.points, key)
        for name, defence in self.record.from_clients(Defence):
            if (m := self.machines.get(name)) is not None:
                shown = {one.peer: _without_pad(boxes[name, one.peer], one.key) for one in defence.opened}
                found |= {(m._cohort.root, m._u, holder): points for holder, points in shown.items()}
        return found

    def _rebuild(self) -> None:
        """All secrets that the shares give, with however few: one that was shared with a lower threshold counts."""
        shown = Counter((root, u) for root, u, _ in self._points() if (root, u) in self.at)
        for dealer, count in shown.items():
            name = self.at[dealer].identity.name
            insist(count < self.t, "blinding values of an honest dealer are known at", count, "places:", name)
        by_count: dict[int, list[tuple[Pool, Mapping[int, bytes]]]] = defaultdict(list)
        for pool, shares in self._pools().items():
            if pool[:2] in self.at:
                by_count[min(len(shares), self.t)].append((pool, shares))
        for count, some in by_count.items():
            chosen = [sorted(shares)[:count] for _, shares in some]
            values = np.stack(
                [[unpack_shares(shares[v], 1)[0] for v in c] for c, (_, shares) in zip(chosen, some, strict=True)]
            )
            for ((root, u, kind), shares), secret in zip(some, reconstruct(np.array(chosen) + 1, values), strict=True):
                machine = self.at[root, u]
                wanted = machine._mask_key.secret if kind == "key" else machine._self_secret
                if secret != wanted and count == self.t:  # some are made up, by whoever is not honest
                    secret = self._from_true_shares(machine, kind, shares)
                if secret != wanted:
                    continue
                if kind == "key":
                    self.known_keys.add(machine._mask_key.public)
                else:
                    self.known_selves.add((root, u))

    def _from_true_shares(self, machine: Any, kind: str, shares: Mapping[int, bytes]) -> bytes | None:
        """The secret from t of those shares that are as they were dealt, if so many are known."""
        which, dealt = MASK_KEY if kind == "key" else SELF_MASK, machine._dealing().points
        true = [v for v, share in sorted(shares.items()) if v in dealt and share == share_of(dealt[v], which)][: self.t]
        if len(true) < self.t:
            return None
        values = np.stack([unpack_shares(shares[v], 1)[0] for v in true])
        secret: bytes | None = reconstruct(np.array([true]) + 1, values[None])[0]
        insist(secret is not None, "t shares that were dealt give a secret:", machine.identity.name)
        return secret

    def streams(self, name: str, upload: Upload) -> Mapping[bytes, tuple[int, bool]]:
        """seed -> (sign, whether the server knows it) of each stream in an honest client's upload."""
        machine, plan = self.machines[name], self.record.plan
        cohort, u = machine._cohort, machine._u
        listed = from_bitmap(upload.header.holders, cohort.holders(u))
        found = {cohort.self_seed(machine._self_secret, u): (1, (cohort.root, u) in self.known_selves)}
        for v in listed - {u}:
            other = machine._peers[v].mask_key
            seed = cohort.pair_seed(self.agreed(machine._mask_key, other), u, v)
            known = other in self.known_keys or machine._mask_key.public in self.known_keys
            insist(seed not in found, "two masks from one seed:", name)
            found[seed] = (1 if u < v else -1, known)
        words = plan.ring.lift(self.record.noised[name])
        plus, minus = ([seed for seed, (sign, _) in found.items() if sign == s] for s in (1, -1))
        add_masks(words, plus, minus)
        insist(plan.ring.pack(words) == upload.vector, "an upload is its input and the masks that it lists:", name)
        return found


# One-shot


def check_oneshot(record: Record, corrupt: Iterable[Any]) -> bool:
    """Honest members have answered for one set, and the server has the secret of no other combination."""
    answered = {name for name, answer in record.from_clients(Answer) if answer.share}
    members = {name: m for name, m in record.machines.items() if name in answered and record.honest(name)}
    sets = {name: record.opened[name] for name in members if name in record.opened}
    if not sets:
        return False
    distinct = set(sets.values())
    insist(len(distinct) <= 1, "honest members have answered for one set of uploads, not for", len(distinct))
    (signed,) = distinct
    insist(len(set(signed)) == len(signed), "nobody's upload is counted twice")
    least = least_contributors(record.plan)
    insist(len(signed) >= least, "a set of contributors is large enough:", len(signed), "of", least)
    combinations = oneshot_combinations(record, sets, list(corrupt))
    if combinations is None:
        return False
    symbols, kernel = combinations
    allowed = np.array([symbol in signed for symbol in symbols], np.int64)
    for row in kernel:
        scaled = row * pow(int(row[np.flatnonzero(row)[0]]), -1, PRIME) % PRIME
        insist(bool((scaled == allowed).all()), "the server can open a combination of uploads that nobody signed")
    return len(kernel) > 0


def oneshot_combinations(
    record: Record, sets: Mapping[str, tuple[tuple[str, bytes], ...]], corrupt: list[Any]
) -> tuple[list[tuple[str, bytes]], NDArray[np.int64]] | None:
    """(uploads of honest clients, a basis of the combinations of them whose secret the server has)."""
    machine = record.machines[next(iter(sets))]
    sharing, seats = machine._sharing, machine._committee
    order = {member: holder for holder, member in enumerate(seats.members, 1)}
    known = [order[m._u] for m in corrupt if m._u in order][: sharing.private]
    honest = [(order[record.machines[name]._u], uploads) for name, uploads in sorted(sets.items())]
    symbols = sorted(one for one in set().union(*sets.values()) if record.honest(one[0]))
    if not symbols:
        return None
    unseen = [(1 << 20) + i for i in range(sharing.private - len(known))]
    points = (*sharing._secret_points(), *known, *unseen)
    weights = np.asarray(_lagrange(points, tuple(holder for holder, _ in honest)), np.int64)
    free = [*range(sharing.packing), *range(sharing.packing + len(known), len(points))]
    rows = np.stack(
        [
            np.outer([symbol in uploads for symbol in symbols], weights[i, free]).reshape(-1)
            for i, (_, uploads) in enumerate(honest)
        ]
    )
    annihilator = kernel_of(rows)
    secret = annihilator.reshape(len(annihilator), len(symbols), len(free))[:, :, : sharing.packing]
    conditions = secret.transpose(0, 2, 1).reshape(-1, len(symbols))
    return symbols, kernel_of(conditions)


def kernel_of(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """A basis of the x with matrix x = 0, modulo the prime of the shares."""
    rows, width = matrix.astype(np.int64) % PRIME, matrix.shape[1]
    pivots = list[int]()
    for column in range(width):
        at = len(pivots)
        if at == len(rows):
            break
        candidates = np.flatnonzero(rows[at:, column])
        if not candidates.size:
            continue
        rows[[at, at + candidates[0]]] = rows[[at + candidates[0], at]]
        rows[at] = rows[at] * pow(int(rows[at, column]), -1, PRIME) % PRIME
        factors = rows[:, column].copy()
        factors[at] = 0
        touched = np.flatnonzero(factors)
        rows[touched] = (rows[touched] - factors[touched, None] * rows[at] % PRIME) % PRIME
        pivots.append(column)
    free = [column for column in range(width) if column not in set(pivots)]
    basis = np.zeros((len(free), width), np.int64)
    for i, column in enumerate(free):
        basis[i, column] = 1
        basis[i, pivots] = -rows[: len(pivots), column] % PRIME
    return basis
