"""What a one-shot round costs: a client beside a client of pairwise masking, a server with and without dropouts.

*client*  the vector's steps alone, beside masks of k neighbours and oneself; then real clients of both protocols, from
          the plan to the upload (keys, shares, boxes, hashes, signatures, journal): in turns. The committee is made for
          ``corrupt`` and ``dropout``, as about k neighbours of pairwise masking are.
*server*  the real server through whole rounds of n clients, of which a fraction ``drop`` never uploads, or is gone
          after its upload (members of the committee, which is made for that, too), or nobody: in turns. It verifies,
          adds, forwards and opens real frames, but no n clients compute them: a few vectors and their secrets are
          signed for everybody, half of them negated, so that sums of secrets and errors are small, as they would be.
          Its time is all that it does, making frames included.
*real*    the same three with n real clients, of shorter vectors.

Frames go straight from one to the other, so nobody waits for a network.
"""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import pairwise_masking
from benchmarks.case import Measured, Say, timed
from benchmarks.memory import peak, start_peak
from benchmarks.rounds import LENIENT, people, update_of
from protocols import registry
from protocols.client import Client
from protocols.journal import ForgetfulJournal
from protocols.oneshot.committee import Seats, public_of, seated
from protocols.oneshot.messages import Answer, Committee, Contribution, Delivery, Header, Join, Seat, Upload, Vote
from protocols.oneshot.parameters import EVERYBODY, lattice_of, parameters_of, sharing_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Number, Roster
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.rounds.sets import to_bitmap
from protocols.server import serve
from secagg.codec import u32
from secagg.compiled import require
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, digest, transcript
from secagg.crypto.lattice import VARIANCE, RunningSum
from secagg.crypto.sampling import discrete_gaussian
from secagg.crypto.seal import OVERHEAD_BYTES, seal
from secagg.encoding import Encoding
from secagg.errors import UsageError

SCENES = ("none", "before", "after")
"""When clients fall silent: never, before their upload, after it."""


@dataclass(frozen=True, slots=True)
class Config:
    n: int = 1000
    d: int = 1_000_000
    bits: int = 16
    k: int = 96
    drop: float = 0.3
    dropout: float = 0.1
    corrupt: float = 0.05
    repeats: int = 9
    rounds: int = 3
    real_n: int = 100
    real_d: int = 20_000

    def __post_init__(self) -> None:
        if self.n <= EVERYBODY:
            raise UsageError(f"with n up to {EVERYBODY} everybody has a seat: nobody only contributes")
        if min(self.real_n, self.k) < 8 or min(self.d, self.real_d, self.repeats, self.rounds) < 1:
            raise UsageError("real_n and k are at least 8, all others at least 1")
        if self.repeats > self.k:
            raise UsageError("at most k repeats: each takes another neighbour")
        if not 0 < self.drop < 1 or not 0 <= self.dropout < 1 or not 0 <= self.corrupt < 1:
            raise UsageError("drop, dropout and corrupt are fractions of the clients, and somebody drops out")


DEFAULTS = Config()
Seconds: TypeAlias = dict[str, float]
"""What was done -> for how long"""

_BEACON = b"benchmark lots, not secret"
_POLICY = Policy(min_contributors=2, protocols={"oneshot"}, corrupt=0, dropout=0, beacon=_BEACON)


def run(config: Config, say: Say) -> Measured:
    require()
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    cast = Cast(config, config.dropout)
    _vector(config, cast, figures, ratios, say)
    _clients(config, cast, figures, ratios, say)
    _server(config, Cast(config, config.drop), figures, ratios, say)
    _real(config, figures, ratios, say)
    return Measured(figures, ratios)


def _plan(n: int, d: int, dropout: float, config: Config) -> tuple[RoundPlan, Roster]:
    _, roster = people(n)
    plan = RoundPlan.propose(
        "oneshot",
        roster,
        Encoding.integers(d, config.bits),
        min_contributors=max(2, n // 2),
        corrupt=config.corrupt,
        dropout=dropout,
        beacon=_BEACON,
    )
    return plan, roster


# The vector alone.


def _vector(config: Config, cast: Cast, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """All that a vector costs a client, and what taking it in costs a server beside decoding and adding it."""
    say(f"a vector: d = {config.d}, beside {config.k + 1} masks of {cast.plan.ring.dtype.itemsize}-byte words")
    plan, values = cast.plan, update_of(0, cast.plan)
    took: dict[str, list[float]] = defaultdict(list)
    encrypted(plan, values)  # once to have all tables made
    for _ in range(config.repeats):
        timed(took, "ours", lambda: encrypted(plan, values, steps=took))
        timed(took, "masks", lambda: pairwise_masking(values, plan.ring_bits, config.k))
    figures["vector_s"], figures["pairwise_vector_s"] = median(took["ours"]), median(took["masks"])
    for step in STEPS:
        figures[f"vector_{step}_s"] = median(took[step])
    ratios["client_vs_pairwise"] = _ratio(took, "ours", "masks")


STEPS = ("public", "secret", "errors", "product", "encode", "pack")


def encrypted(plan: RoundPlan, values: NDArray[np.int64], steps: dict[str, list[float]] | None = None) -> bytes:
    """As ``OneshotClient`` does it, step by step, with a fresh secret."""
    steps, layout = {} if steps is None else steps, lattice_of(plan).layout
    public = timed(steps, "public", lambda: public_of(plan))
    secret = timed(steps, "secret", lambda: discrete_gaussian(VARIANCE, layout.ring.degree, os.urandom(32)))
    count = layout.coefficients(len(values))
    errors = timed(steps, "errors", lambda: discrete_gaussian(VARIANCE, count, os.urandom(32)))
    mask = timed(steps, "product", lambda: public.product(layout.ring.lift([secret]).evaluations()))
    total = timed(steps, "encode", lambda: layout.encode(values, errors, onto=mask))
    packed: bytes = timed(steps, "pack", lambda: total.pack(count))
    return packed


# Clients.


def _clients(config: Config, cast: Cast, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """From the plan to the upload, what each says on the way included."""
    committee = parameters_of(cast.plan)
    say(f"clients: {committee.seats} seats, and {config.k} neighbours")
    took: dict[str, list[float]] = defaultdict(list)
    pairwise = _Pairwise(config)
    who = [Number(i) for i in range(config.n) if i not in cast.seats]
    frame, frames = cast.encode(Committee(tuple(cast.seats.values()))), list[bytes]()
    for i in range(config.repeats):
        upload = timed(took, "ours", lambda i=i: cast.upload_of_a_client(who[i % len(who)], frame))
        frames.append(upload)
        pairwise.upload(i, took)
    both = zip(took["share"], took["upload"], strict=True)
    took["pairwise"] = [share + upload for share, upload in both]
    figures["client_s"], figures["pairwise_client_s"] = median(took["ours"]), median(took["pairwise"])
    figures["pairwise_client_shares_s"] = median(took["share"])
    ratios["client_total_vs_pairwise"] = _ratio(took, "ours", "pairwise")

    upload = cast.decode_upload(frames[0])
    width = cast.plan.ring.packed_size(cast.plan.encoding.coordinates)
    figures["upload_bytes"], figures["shares_bytes"] = len(upload.vector), len(upload.boxes)
    figures["seats"], figures["quorum"] = committee.seats, committee.quorum
    layout = lattice_of(cast.plan).layout
    figures["degree"], figures["primes"] = layout.ring.degree, len(layout.ring.primes)
    ratios["upload_expansion"] = len(upload.vector) / width
    ratios["upload_expansion_with_shares"] = len(frames[0]) / width
    figures["client_extra_mib"] = _extra_bytes(lambda: cast.upload_of_a_client(who[0], frame)) / 2**20
    figures["member_consent_s"] = median(cast.consent_seconds() for _ in range(min(3, config.repeats)))


class _Pairwise:
    """k + 1 clients of pairwise masking, of whom one at a time goes on to its upload."""

    def __init__(self, config: Config) -> None:
        identities, roster = people(config.k + 1)
        encoding = Encoding.integers(config.d, config.bits)
        plan = RoundPlan.propose("secagg", roster, encoding, min_contributors=2, corrupt="0.01", dropout="0.01")
        self._clients = {i.name: Client(i, roster, policy=LENIENT, journal=ForgetfulJournal()) for i in identities}
        self._values = update_of(0, plan)
        server = serve(plan, roster)
        for name, client in self._clients.items():
            server.receive(name, client.start(plan, self._values))
        server.close("advertise")
        self._share_s = dict[str, float]()
        for name, frame in server.outbox():
            started = perf_counter()
            answer = self._clients[name].receive(frame)
            self._share_s[name] = perf_counter() - started
            server.receive(name, answer)
        server.close("share")
        self._deliveries = list(server.outbox())

    def upload(self, i: int, took: dict[str, list[float]]) -> None:
        name, frame = self._deliveries[i]
        took["share"].append(self._share_s[name])
        timed(took, "upload", lambda: self._clients[name].receive(frame))


# The server.


def _server(config: Config, cast: Cast, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    figures["server_seats"] = parameters_of(cast.plan).seats
    took: dict[str, list[float]] = defaultdict(list)
    phases: dict[str, list[Seconds]] = defaultdict(list)
    for i in range(config.rounds):
        for scene in SCENES:
            say(f"a server's round {i + 1}: n = {config.n}, d = {config.d}, dropouts: {scene}")
            seconds, extra = cast.round(scene)
            took[scene].append(sum(seconds.values()))
            phases[scene].append(seconds)
            figures["server_extra_mib"] = max(figures.get("server_extra_mib", 0.0), extra / 2**20)
    for scene in SCENES:
        figures[f"server_{scene}_s"] = median(took[scene])
        for step in phases[scene][0]:
            figures[f"server_{scene}_{step}_s"] = median(seconds[step] for seconds in phases[scene])
    ratios["server_30pct_vs_none"] = _ratio(took, "after", "none")
    ratios["server_30pct_before_upload_vs_none"] = _ratio(took, "before", "none")
    _take_in(config, cast, figures, ratios, say)


def _take_in(config: Config, cast: Cast, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """One upload: decoded, verified, hashed and added, beside the same numbers in a plain ring, and in the lattice."""
    say("taking in one upload, beside unpacking and adding alone")
    layout, length, took = (
        lattice_of(cast.plan).layout,
        cast.plan.encoding.coordinates,
        defaultdict[str, list[float]](list),
    )
    count, ring = layout.coefficients(length), cast.plan.ring
    plain, total = ring.pack(ring.lift(update_of(0, cast.plan))), ring.zeros(length)
    running, vector = RunningSum(layout.ring, layout.blocks(length)), cast.vectors[0]
    server, frames = cast.joined()

    def add() -> None:
        np.add(total, ring.unpack(plain, length), out=total)

    for name, frame in frames:
        timed(took, "upload", lambda name=name, frame=frame: server.receive(name, frame))
        timed(took, "plain", add)
        timed(took, "lattice", lambda: running.add(layout.ring.unpack(vector, count)))
        if len(took["upload"]) == config.repeats:
            break
    figures["take_in_s"] = median(took["upload"])
    figures["plain_add_s"], figures["lattice_add_s"] = median(took["plain"]), median(took["lattice"])
    ratios["server_vs_add"] = _ratio(took, "upload", "plain")
    ratios["server_vs_lattice_add"] = _ratio(took, "upload", "lattice")


class Cast:
    """Everybody but the server: few vectors under few secrets, signed for all of n clients."""

    VARIANTS = 4

    def __init__(self, config: Config, dropout: float) -> None:
        self.config = config
        self.plan, self.roster = _plan(config.n, config.d, dropout, config)
        self._identities, _ = people(config.n)
        self._messages = registry.find("oneshot").messages
        lots = sorted(seated(self.plan, self.roster))[: self.plan.clients]
        self._keys = {number: AgreementKey(os.urandom(32)) for number in lots}
        self.seats = {number: self._seat(self.plan, number, key) for number, key in self._keys.items()}
        self._bound = Seats(self.plan, tuple(self.seats.values()))
        self._make_vectors()

    def _seat(self, plan: RoundPlan, number: Number, key: AgreementKey) -> Seat:
        signed = (plan.digest(), u32.encode(number), key.public)
        return Seat(number, key.public, self._identities[number].key.sign(labels.ONESHOT_SEAT, *signed))

    def _make_vectors(self) -> None:
        """Secrets and errors of every other one are those of the one before, negated."""
        layout, plan = lattice_of(self.plan).layout, self.plan
        count, public = layout.coefficients(plan.encoding.coordinates), public_of(plan)
        self.values, self.secrets, self.vectors = list[NDArray[np.int64]](), list[NDArray[np.int64]](), list[bytes]()
        for variant in range(self.VARIANTS):
            if variant % 2 == 0:
                secret = discrete_gaussian(VARIANCE, layout.ring.degree, os.urandom(32))
                errors = discrete_gaussian(VARIANCE, count, os.urandom(32))
            else:
                secret, errors = -secret, -errors
            mask = public.product(layout.ring.lift([secret]).evaluations())
            self.values.append(update_of(variant, plan))
            self.secrets.append(secret)
            self.vectors.append(layout.encode(self.values[-1], errors, onto=mask).pack(count))
        self._hashes = [digest(labels.ONESHOT_VECTOR, vector) for vector in self.vectors]
        self._boxes = os.urandom(len(self.seats) * (sharing_of(plan).share_bytes + OVERHEAD_BYTES))
        self._boxes_hash, self._key = digest(labels.ONESHOT_BOX, self._boxes), AgreementKey(os.urandom(32)).public

    def encode(self, message: object) -> bytes:
        return self._messages.encode(self.plan, message)

    def decode_upload(self, frame: bytes) -> Upload:
        message = self._messages.decode(self.plan, frame)
        if not isinstance(message, Upload):
            raise RuntimeError("not an upload")
        return message

    # What each says.

    def _upload(self, number: Number) -> Upload:
        variant = number % self.VARIANTS
        header = self._header(number, self._key, self._hashes[variant], self._boxes_hash)
        return Upload(header, self.vectors[variant], self._boxes)

    def _header(self, number: Number, key: bytes, vector_hash: bytes, boxes_hash: bytes) -> Header:
        signed = (*self._bound.bound(number), key, vector_hash, boxes_hash)
        signature = self._identities[number].key.sign(labels.ONESHOT_UPLOAD, *signed)
        return Header(number, key, vector_hash, boxes_hash, signature)

    def _agreed(self, survivors: list[Number]) -> bytes:
        """What members sign."""
        headers = [self._upload(number).header for number in survivors]
        bitmap = to_bitmap(set(survivors), range(len(self.roster)))
        return self._bound.agreed(self._bound.contributed(headers), len(self.roster), bitmap).digest

    def _consent(self, number: Number, agreed: bytes) -> bytes:
        return self.encode(Vote(self._identities[number].key.sign(labels.SURVIVORS, agreed), ()))

    def _answers(self, survivors: list[Number]) -> dict[int, bytes]:
        """Shares of the sum of the survivors' secrets, as the members would have added them."""
        counts = np.bincount([number % self.VARIANTS for number in survivors], minlength=self.VARIANTS)
        total = np.sum([count * secret for count, secret in zip(counts, self.secrets, strict=True)], axis=0)
        shares = sharing_of(self.plan).split(total, len(self.seats), os.urandom)
        return {n: self.encode(Answer(share.tobytes(), b"")) for n, share in zip(self.seats, shares, strict=True)}

    # A round.

    def round(self, scene: str) -> tuple[Seconds, int]:
        """The server's seconds, by what it did, and its memory beyond what was there before."""
        n, gone = self.config.n, frozenset(range(round(self.config.drop * self.config.n)))
        survivors = [Number(i) for i in range(n) if not (scene == "before" and i in gone)]
        if len(self.seats.keys() - (gone if scene != "none" else set())) < parameters_of(self.plan).quorum:
            raise UsageError("the lot left too few members: more clients, or fewer dropouts")
        answers, agreed = self._answers(survivors), self._agreed(survivors)
        server = serve(self.plan, self.roster)

        def say(phase: str, number: Number) -> bytes | None:
            late = phase != Phase.JOIN if scene == "before" else phase not in (Phase.JOIN, Phase.UPLOAD)
            if scene != "none" and late and number in gone:
                return None
            match phase:
                case Phase.JOIN:
                    return self.encode(Join(self.seats.get(number)))
                case Phase.UPLOAD:
                    return self.encode(self._upload(number))
                case Phase.CONSENT:
                    return self._consent(number, agreed)
                case _:
                    return answers.get(number) or self.encode(Answer(b"", b""))

        seconds: Seconds = {}
        at = {name: self.roster.number(name) for name in self.roster.names}
        extra = _extra_bytes(lambda: seconds.update(_drive(server, lambda phase, name, _: say(phase, at[name]))))
        expected = np.zeros(self.config.d, np.int64)
        for number in survivors:
            expected += self.values[number % self.VARIANTS]
        _check(server, expected)
        return seconds, extra

    def joined(self) -> tuple[ServerRound, Iterator[tuple[str, bytes]]]:
        """A server in UPLOAD, and uploads for it."""
        server = serve(self.plan, self.roster)
        for name in self.roster.names:
            server.receive(name, self.encode(Join(self.seats.get(self.roster.number(name)))))
        server.close(Phase.JOIN)
        return server, ((name, self.encode(self._upload(self.roster.number(name)))) for name in self.roster.names)

    # One real client.

    def upload_of_a_client(self, number: Number, committee: bytes) -> bytes:
        """A client from the plan to its upload; if it has a seat, with the key that the committee knows."""
        client = Client(self._identities[number], self.roster, policy=_POLICY, journal=ForgetfulJournal())
        client.start(self.plan, update_of(number, self.plan))
        return client.receive(committee)

    def consent_seconds(self) -> float:
        """A member that opens the boxes of n clients; its own vector is short here, which changes nothing."""
        number = next(iter(self.seats))
        client = Client(self._identities[number], self.roster, policy=_POLICY, journal=ForgetfulJournal())
        plan, messages = replace(self.plan, encoding=Encoding.integers(8, self.config.bits)), self._messages
        join = messages.decode(plan, client.start(plan, np.zeros(8)))
        if not isinstance(join, Join) or join.seat is None:
            raise RuntimeError("the lot fell on somebody else")
        others = {other: self._seat(plan, other, key) for other, key in self._keys.items() if other != number}
        members = tuple(seat for _, seat in sorted((others | {number: join.seat}).items()))
        client.receive(messages.encode(plan, Committee(members)))
        frame = messages.encode(plan, Delivery(tuple(self._dealt(plan, Seats(plan, members), join.seat))))
        started = perf_counter()
        client.receive(frame)
        return perf_counter() - started

    def _dealt(self, plan: RoundPlan, seats: Seats, to: Seat) -> Iterator[Contribution]:
        share = bytes(sharing_of(plan).share_bytes)
        for number in map(Number, range(self.config.n)):
            key, hashes = AgreementKey(os.urandom(32)), (bytes(32), bytes(32))
            signed = (*seats.bound(number), key.public, *hashes)
            signature = self._identities[number].key.sign(labels.ONESHOT_UPLOAD, *signed)
            sealing = seats.box_key(key.agree(to.key), number, to.client)
            box = seal(sealing, share, transcript(labels.ONESHOT_BOX, *seats.bound(number, to.client)), os.urandom)
            yield Contribution(Header(number, key.public, *hashes, signature), box)


# Real clients.


def _real(config: Config, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    plan, roster = _plan(config.real_n, config.real_d, config.drop, config)
    identities, _ = people(config.real_n)
    gone = frozenset(roster.names[: round(config.drop * config.real_n)])
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(config.rounds):
        for scene in SCENES:
            say(f"a round of {config.real_n} real clients, d = {config.real_d}, dropouts: {scene}")
            plan = plan.next_round()
            clients = {i.name: Client(i, roster, policy=_POLICY, journal=ForgetfulJournal()) for i in identities}
            silent_at = {"none": "", "before": Phase.UPLOAD, "after": Phase.CONSENT}[scene]
            took[scene].append(_real_round(plan, roster, clients, gone, silent_at))
    for scene in SCENES:
        figures[f"real_server_{scene}_s"] = median(took[scene])
    ratios["real_server_30pct_vs_none"] = _ratio(took, "after", "none")
    ratios["real_server_30pct_before_upload_vs_none"] = _ratio(took, "before", "none")


def _real_round(
    plan: RoundPlan, roster: Roster, clients: Mapping[str, Client], gone: frozenset[str], silent_at: str
) -> float:
    server = serve(plan, roster)
    phases = [str(phase) for phase in server.steps]

    def say(phase: str, name: str, frame: bytes) -> bytes | None:
        if silent_at and name in gone and phases.index(phase) >= phases.index(silent_at):
            return None
        if phase == Phase.JOIN:
            return clients[name].start(plan, update_of(roster.number(name), plan))
        return clients[name].receive(frame)

    seconds = sum(_drive(server, say).values())
    there = [name for name in roster.names if not (silent_at == Phase.UPLOAD and name in gone)]
    _check(server, np.sum([update_of(roster.number(name), plan) for name in there], axis=0))
    return seconds


# Both.


def _drive(server: ServerRound, say: Callable[[str, str, bytes], bytes | None]) -> Seconds:
    """A whole round; the server's seconds to take frames in, to close each phase, and to make frames."""
    seconds: Seconds = defaultdict(float)
    gc.collect()
    requests: Iterator[tuple[str, bytes]] = iter([(name, b"") for name in server.roster.names])
    while server.outcome is None:
        phase = str(server.phase)
        while True:
            started = perf_counter()
            request = next(requests, None)
            seconds[f"{phase}_frames"] += perf_counter() - started
            if request is None:
                break
            answer = say(phase, *request)
            if answer is not None:
                started = perf_counter()
                server.receive(request[0], answer)
                seconds[f"{phase}_received"] += perf_counter() - started
        started = perf_counter()
        server.close(phase)
        seconds[f"{phase}_closed"] += perf_counter() - started
        requests = server.outbox()
    return seconds


def _check(server: ServerRound, expected: NDArray[np.int64]) -> None:
    """A benchmark of a wrong sum is worth nothing."""
    if server.outcome is None or not np.array_equal(server.outcome.total, expected):
        raise RuntimeError("the sum is wrong")


def _ratio(took: Mapping[str, list[float]], one: str, other: str) -> float:
    return median(a / b for a, b in zip(took[one], took[other], strict=True))


def _extra_bytes(work: Callable[[], object]) -> int:
    """Peak memory of this process beyond what it has now (Linux starts the peak again on demand)."""
    gc.collect()
    start_peak()
    before = peak()
    work()
    return peak() - before
