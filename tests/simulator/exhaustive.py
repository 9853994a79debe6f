"""Four clients, t = 3, one of them corrupt: everything that a liar can do of a finite list, one after the other.

``liars`` plays rounds of an honest server with a lying client. At each of its messages it has a few choices; a round is
played for each combination of them, again from the beginning, with all oracles of the simulator.

``servers`` is about a lying server with a corrupt client. What an honest client does depends on its own messages alone,
so each client is explored by itself: at each state that it can reach it is told all that the server could say, in
whatever order, and what it refuses must leave it as it was. Two histories that leave a client alike, having opened and
uploaded the same, are one state. What clients have said is then put together in all ways that are consistent: whoever
is shown a header or a signature is shown what its sender has really made. Of each the leak oracle is asked.

Where more shares never tell a server less, only the most is put together: boxes of the corrupt holder are opened, and
what an honest holder keeps is what was dealt to it. Holders alike are not told apart in how many are lied to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, islice, product
from random import Random
from threading import Lock
from typing import Any

from protocols.client import Client
from protocols.pairwise.messages import (
    SECRETS,
    Advert,
    ConsistencySignatures,
    Reveal,
    Survivors,
    Upload,
    UploadHeader,
    Verdict,
)
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import SERVER
from protocols.rounds.dealing import (
    Accusations,
    Complaints,
    Dealing,
    Dealt,
    Defence,
    Delivered,
    Delivery,
    Opened,
    complaint,
)
from protocols.rounds.sets import to_bitmap
from protocols.rounds.survivors import ConsistencySignature
from secagg.assumptions import Adversary
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import AgreementKey, SigningKey, digest, verifying_once
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import SecAggError
from tests.scenes.pairwise import Evil
from tests.simulator import moves
from tests.simulator.deployment import NONE, Deployment, people
from tests.simulator.leaks import Memory, _PairwiseView, check_pairwise
from tests.simulator.network import run_round
from tests.simulator.oracles import check
from tests.simulator.parties import Failure, Liar, Party, Record, Said, insist

N, T = 4, 3
POLICY = Policy(min_contributors=3, corrupt="1/4", dropout="1/4")


def _plan() -> RoundPlan:
    return RoundPlan.propose(
        "secagg",
        people(N)[0],
        Encoding.integers(3),
        min_contributors=3,
        corrupt="1/4",
        dropout="1/4",
        session=bytes(16),
    )


@dataclass
class Count:
    """What was visited."""

    rounds: int = 0
    """Whole rounds that were played or put together."""
    states: int = 0
    """Of single clients."""
    told: int = 0
    """Messages that were tried on these."""
    refused: int = 0
    ends: dict[str, int] = field(default_factory=dict)


# A lying client and an honest server.


class Choices:
    """One path through a tree of choices: as given, and the first of what is left from there on."""

    def __init__(self, path: Sequence[int], few: bool) -> None:
        self.path, self.few = path, few
        self.taken: list[tuple[int, int]] = []
        """Each choice, and how many there were."""

    def pick(self, options: Sequence[str]) -> str:
        options = options[:2] if self.few else options
        chosen = self.path[len(self.taken)] if len(self.taken) < len(self.path) else 0
        self.taken.append((chosen, len(options)))
        return options[chosen]

    def next(self) -> list[int] | None:
        """The path after this one, depth first."""
        for i in range(len(self.taken) - 1, -1, -1):
            chosen, count = self.taken[i]
            if chosen + 1 < count:
                return [*(c for c, _ in self.taken[:i]), chosen + 1]
        return None


OPTIONS: dict[type, tuple[str, ...]] = {
    Advert: ("true", "another commitment", "another mask key", "silent"),
    Dealt: (
        "true",
        "bad to 1",
        "another self-mask",
        "bad to 2",
        "bad to 3",
        "another mask key",
        "bad commitments to 1",
        "another proof",
        "silent",
    ),
    Complaints: ("true", "about 1", "silent", "about 2", "about 3", "another hash"),
    Defence: ("true", "other points", "silent"),
    Upload: ("true", "false list", "silent", "zeros"),
    ConsistencySignature: ("true", "another set", "silent"),
    Reveal: ("true", "other shares", "silent", "another own share", "others' shares"),
}
"""The first two are those of the short version. A liar without an answer to a complaint may upload all the same."""

SPENDS = {"another commitment", "another mask key", "another self-mask"}


def lies(liar: Liar, message: Any, choices: Choices, chosen: list[str]) -> list[Any] | None:
    """What the liar says instead of this message, by its next choice."""
    if message is None:
        if liar.phase != "upload" or liar.machine.phase != "upload":
            return None
        chosen.append(choices.pick(("nothing", "an upload though left out")))
        return moves.speaks_after_exclusion(liar, None) if chosen[-1] != "nothing" else None
    how = choices.pick(OPTIONS[type(message)])
    chosen.append(how)
    if how == "true":
        return None
    return [] if how == "silent" else [_lie(liar, message, how)]


def _lie(liar: Liar, message: Any, how: str) -> Any:
    machine, draw = liar.machine, liar.draw
    if isinstance(message, Advert):
        name = "commitment" if how == "another commitment" else "mask_key"
        advert = replace(message, **{name: AgreementKey(draw.randbytes(32)).public})
        signed = (liar.plan.digest(), u32.encode(advert.client), advert.mask_key, advert.seal_key, advert.commitment)
        return replace(advert, signature=liar.identity.key.sign(labels.ADVERT, *signed))
    if isinstance(message, Dealt):
        return _deal(liar, message, how)
    if isinstance(message, Complaints):
        if how == "another hash":
            box = replace(liar.boxes[min(liar.boxes)], commitments=draw.randbytes(32))
            return Complaints((complaint(liar.identity.key, machine._cohort, machine._u, box),))
        about = sorted(liar.boxes)[: int(how[-1])]
        return Complaints(tuple(moves._complaint_about(liar, u) for u in about))
    if isinstance(message, Defence):
        return Defence(tuple(replace(one, key=draw.randbytes(32)) for one in message.opened))
    if isinstance(message, Upload):
        return (moves.false_list if how == "false list" else moves.vector_that_is_not_masked_as_listed)(liar, message)[
            0
        ]
    if isinstance(message, ConsistencySignature):
        return ConsistencySignature(liar.identity.key.sign(labels.SURVIVORS, machine._cohort.agreed(b"\x07").digest))
    own = {"another own share": {machine._u}, "others' shares": set(machine._peers)}.get(how, set(machine._holders))
    bad = lambda ones: tuple(replace(o, share=moves.random_share(draw)) if o.peer in own else o for o in ones)  # noqa: E731
    return replace(message, self_shares=bad(message.self_shares), key_shares=bad(message.key_shares))


def _deal(liar: Liar, message: Dealt, how: str) -> Dealt:
    machine = liar.machine
    if how.startswith("bad to"):
        bad: Dealt = moves.bad_to(liar, moves._others(liar)[: int(how[-1])])[0]
        return bad
    if how == "another proof":
        return replace(message, proof=moves.random_words(liar.draw, len(message.proof) // 4))
    if how == "bad commitments to 1":
        return moves.dealt_otherwise(liar, lambda points: None, altered=lambda i: i == 0)
    secrets = [machine._mask_key.secret, machine._self_secret]
    secrets[how == "another self-mask"] = liar.draw.randbytes(32)
    return moves.dealt_otherwise(liar, lambda points: None, secrets)


def liars(few: bool = False, place: int = 1) -> Count:
    """All that the client at this place can do."""
    count, path, plan = Count(), list[int](), _plan()
    roster, identities = people(N)
    name = roster.names[place]
    while True:
        choices, chosen = Choices(path, few), list[str]()
        d = Deployment(
            0, plan, roster, identities, POLICY, 1, "client", (), {name: "silent"}, (), 1, {}, frozenset(), frozenset(),
            strapped=False,
        )  # fmt: skip
        move: Callable[[Liar, Any], list[Any] | None] = lambda liar, said: lies(liar, said, choices, chosen)  # noqa: B023, E731
        lax = Policy(2, corrupt=0, dropout=0, adversary=Adversary.CURIOUS, security=1)
        liar = Liar(identities[name], roster, Random(0), move, lax)
        parties = {
            one: Party(identities[one], roster, POLICY, digest(b"exhaustive", one.encode()), None, None)
            for one in roster.names
            if one != name
        }
        record = Record(plan, 0, liars={name: liar})
        run_round(d, record, parties, {name: liar}, NONE, None)
        if SPENDS & set(chosen):
            d = replace(d, liars={name: "deals_another_secret"})
        try:
            check(d, record, NONE, [liar.machine], Memory())
        except Failure as failure:
            raise Failure(f"{failure}, when the liar says {chosen}") from failure
        count.rounds += 1
        end = "sum" if record.outcome is not None else "named"
        count.ends[end] = count.ends.get(end, 0) + 1
        if (following := choices.next()) is None:
            return count
        path = following


# A lying server with a corrupt client.

Kept = frozenset[int]


class Scene(Evil):
    """The adversary's view of the first two phases, which are honest here: who can be told of two cohorts, is tested
    elsewhere. Everything is drawn from one seed, so a client can be made again."""

    def __init__(self) -> None:
        roster, identities = people(N)
        plan = replace(_plan(), parameters=GraphParameters(Graph.COMPLETE, N - 1, T))
        super().__init__(plan, roster, identities, [N - 1], POLICY, seed=1)
        self.advertise()
        self.share()
        self.dealing = [self.said_first(u) for u in self.honest]
        self.points = {u: machine._dealing().points for u, (machine, _) in enumerate(self.dealing)}
        self.agreed = dict[frozenset[bytes], bytes]()
        self.made = {(u, v): self._made_up(u, v) for u in self.members for v in self.honest if u != v}

    def said_first(self, u: int) -> tuple[Any, Any]:
        client = self.fresh(u)
        return client.current, self.messages.decode(self.plan, client.receive(self.frame(self.introduction(u))))

    def fresh(self, u: int) -> Client:
        rng = Prg((1).to_bytes(16, "big") + u.to_bytes(16, "big"))
        client = Client(self.identities[self.name(u)], self.roster, policy=POLICY, rng=rng)
        client.start(self.plan, self.values[u])
        return client

    def _made_up(self, dealer: int, holder: int) -> tuple[Delivered, bytes]:
        """A box that only its pad tells from the dealer's, and its key."""
        words = Random(dealer * N + holder).randbytes
        key = words(32)
        made = Dealing(self.cohort, dealer, [holder], 1, [words(32)] * SECRETS, words, lambda v: key)
        return made.delivered(holder), key

    def header_of_the_corrupt(self) -> UploadHeader:
        """It lists everybody; there is no vector that it must fit."""
        u, holders = N - 1, to_bitmap(set(range(N)), self.holders(N - 1))
        key = self.identities[self.name(u)].key
        signature = key.sign(labels.UPLOAD, *self.cohort.bound(u), holders, bytes(32))
        return UploadHeader(u, holders, bytes(32), signature)

    # What can be said to a client.

    def boxes_for(self, u: int, few: bool) -> Iterator[Delivery]:
        """Each box as it was dealt, shifted, made up, or withheld."""
        kinds = ("true", "made up") if few else ("true", "shifted", "made up", "withheld")
        for chosen in product(kinds, repeat=N - 1):
            boxes = list[Delivered]()
            for v, kind in zip(self.others(u), chosen, strict=True):
                box = self.boxes[u][v]
                if kind == "shifted":
                    box = replace(box, points=bytes([box.points[0] ^ 1]) + box.points[1:])
                elif kind == "made up":
                    box = self.made[v, u][0]
                if kind != "withheld":
                    boxes.append(box)
            yield Delivery(tuple(boxes))

    def accusations_for(self, u: int) -> Iterator[Accusations]:
        """By the corrupt client, by honest ones about boxes that were altered, with a forged signature, or together."""
        [corrupt] = [v for v in self.others(u) if self.puppet(v) is not None]
        true = self.false_complaint(corrupt, u)
        about_altered, forged = list[Any](), list[Any]()
        for v in self.others(u):
            if v != corrupt:
                key = self.identities[self.name(v)].key  # as it would complain about the altered box
                about_altered.append(replace(complaint(key, self.cohort, v, self.made[u, v][0]), peer=v))
                other = SigningKey(bytes([v]) * 32)
                forged.append(replace(complaint(other, self.cohort, v, self.boxes[v][u]), peer=v))
        yield Accusations((true,))
        for lie in (*about_altered, *forged):
            yield Accusations((lie,))
            yield Accusations(tuple(sorted((lie, true), key=lambda one: one.peer)))
        yield Accusations((true, true))
        yield Accusations(())

    def verdicts_for(self, u: int, doubted: Sequence[int]) -> Iterator[Verdict]:
        """All sets of dealers; with the keys of made-up boxes that were complained about, with none, or with others."""
        for kept in _sets(range(N)):
            bitmap = to_bitmap(set(kept), self.holders(u))
            opened = [v for v in doubted if v in kept]
            yield Verdict(bitmap, ())
            if opened:
                yield Verdict(bitmap, tuple(Opened(v, self.made[v, u][1]) for v in opened))
                yield Verdict(bitmap, tuple(Opened(v, bytes(32)) for v in opened))

    def survivors_for(self, u: int, headers: dict[int, dict[Kept, Any]]) -> Iterator[tuple[Survivors, dict[int, Kept]]]:
        """All sets, with all headers that the others can have signed; and whose lists these are."""
        for alive in _sets(range(N)):
            others = [v for v in alive if v != u and v in headers]
            for lists in product(*[headers[v] for v in others]):
                shown = tuple(headers[v][kept] for v, kept in zip(others, lists, strict=True))
                yield Survivors(self.bitmap(alive), shown), dict(zip(others, lists, strict=True))

    def consents_for(self, u: int) -> Iterator[tuple[ConsistencySignatures, frozenset[int]]]:
        """All signers, on all sets; and who they are."""
        for alive in _sets(range(N)):
            if len(alive) >= T:
                for signers in _sets(alive):
                    yield self.consents(u, {v: self.sign(v, alive) for v in signers}), frozenset(signers)


def _sets(of: Sequence[int]) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(of, size) for size in range(1, len(of) + 1)))


def _key(client: Client, said: Sequence[Any]) -> tuple[Any, ...]:
    """What a client's future, and what it has given away, follow from."""
    m: Any = client.current
    gave = tuple(one for one in said if isinstance(one, Defence | Upload | ConsistencySignature | Reveal))
    doubted = tuple(sorted((v, box.points, box.commitments) for v, box in m._doubted.items()))
    return (m.phase, tuple(sorted(m._held.items())), doubted, m._agreed.bitmap, gave)


@dataclass(frozen=True)
class Told:
    """What one client has come to, by what it was told, and what of others it was shown for that."""

    client: Client
    heard: tuple[Any, ...]
    said: tuple[Any, ...]
    lists: tuple[tuple[int, Kept], ...] = ()
    signers: frozenset[int] = frozenset()

    @property
    def machine(self) -> Any:
        return self.client.current

    @property
    def kept(self) -> Kept:
        return frozenset(self.machine._held)

    def has_said(self, kind: type) -> bool:
        return any(isinstance(one, kind) for one in self.said)


def explore(scene: Scene, u: int, few: bool, count: Count) -> list[Told]:
    """All states of this client up to its upload; of those that have masked with the same, one that gives most."""
    dealt = scene.fresh(u)
    dealt.receive(scene.frame(scene.introduction(u)))
    told = _walk([Told(dealt, (), (scene.dealing[u][1],))], _first_half(scene, u, few), scene, count)

    def worth(one: Told) -> int:
        true = [held == scene.points[v][u] for v, held in one.machine._held.items() if v in scene.honest]
        return N * one.has_said(Defence) + sum(true)

    best = dict[Kept, Told]()
    for one in sorted((one for one in told if one.has_said(Upload)), key=worth):
        best[one.kept] = one
    kept = sorted(best, key=lambda one: (-len(one), N - 1 not in one, sorted(one)))
    return [best[one] for one in kept[: 2 if few else None]]


def explore_further(
    scene: Scene, u: int, few: bool, uploaded: list[Told], headers: dict[int, dict[Kept, Any]], count: Count
) -> list[Told]:
    """From the upload on, with all headers and signatures that others can have made."""
    first, survivors = _first_half(scene, u, few), list(scene.survivors_for(u, headers))
    consents = list(scene.consents_for(u))
    if few:
        survivors = [(message, lists) for message, lists in survivors if len(message.headers) >= T - 1]
        consents = [(signed, by) for signed, by in consents if len(by) >= T]

    def options(at: Told) -> Iterator[Told]:
        yield from first(at)
        for message, lists in survivors:
            yield replace(at, heard=(*at.heard, message), lists=tuple(sorted(lists.items())))
        for signed, by in consents:
            yield replace(at, heard=(*at.heard, signed), signers=by)

    return _walk(uploaded, options, scene, count)


def _first_half(scene: Scene, u: int, few: bool) -> Callable[[Told], Iterator[Told]]:
    messages: list[Any] = [*islice(scene.boxes_for(u, few), 2 if few else None)]
    messages += islice(scene.accusations_for(u), 3 if few else None)

    def options(at: Told) -> Iterator[Told]:
        for message in (*messages, *scene.verdicts_for(u, sorted(at.machine._doubted))):
            yield replace(at, heard=(*at.heard, message))

    return options


def _walk(waiting: list[Told], options: Callable[[Told], Iterator[Told]], scene: Scene, count: Count) -> list[Told]:
    """All that a client can come to. What it refuses must leave it as it was."""
    seen, waiting = dict[tuple[Any, ...], Told](), list(waiting)
    while waiting:
        here = waiting.pop()
        client = fork(here.client)
        before = _key(client, here.said)
        if (key := (*before, here.lists, here.signers)) in seen:
            continue
        kinds = [type(one) for one in here.said]
        insist(len(set(kinds)) == len(kinds), "one answer a phase, whatever happens:", kinds)
        seen[key] = here
        count.states += 1
        for then in options(here):
            if (message := then.heard[-1]) in here.heard:
                continue  # told before, and answered as before
            count.told += 1
            try:
                answer = client.receive(scene.frame(message))
            except SecAggError:
                count.refused += 1
                insist(_key(client, here.said) == before, "what is refused changes nothing:", type(message).__name__)
            else:
                said = (*here.said, scene.messages.decode(scene.plan, answer))
                waiting.append(replace(then, client=client, said=said))
                client = fork(here.client)
    return list(seen.values())


def fork(client: Client) -> Client:
    """Another client that has been through the same. Machines replace what they know, and change it nowhere."""
    twin = copy(client)
    twin._round, twin._answered, twin._lock = copy(client._round), list(client._answered), Lock()
    twin._journal = deepcopy(client._journal)
    return twin


def servers(few: bool = False, every: int = 1) -> Count:
    """All that a server can say, to each client and to all together; of what it then has, ``every`` so many-th."""
    count = Count()
    with verifying_once():
        scene = Scene()
        uploaded = {u: explore(scene, u, few, count) for u in scene.honest}
        headers = {
            u: {one.kept: upload.header for one in told for upload in one.said if isinstance(upload, Upload)}
            for u, told in uploaded.items()
        }
        headers[N - 1] = {frozenset(range(N)): scene.header_of_the_corrupt()}
        ends = {u: explore_further(scene, u, few, uploaded[u], headers, count) for u in scene.honest}
        for together in islice(_combinations(scene, uploaded, ends), 0, None, every):
            count.rounds += 1
            _ask(scene, together, count)
    return count


def _combinations(
    scene: Scene, uploaded: dict[int, list[Told]], ends: dict[int, list[Told]]
) -> Iterator[dict[int, Told | None]]:
    """What the three can have come to together: whom each masked with, if with anybody, and which set it signed.

    Whoever can be made to reveal, is. Headers and signatures that were shown are those that were made.
    """
    sets = [None, *(scene.bitmap(alive) for alive in _sets(range(N)) if len(alive) >= T)]
    for kept in product(*[[None, *(one.kept for one in uploaded[u])] for u in scene.honest]):
        for signed in product(sets, repeat=len(scene.honest)):
            together = dict[int, Told | None]()
            for u, mine, bitmap in zip(scene.honest, kept, signed, strict=True):
                if mine is None:
                    if bitmap is not None:
                        break
                    together[u] = None
                    continue
                if bitmap is None:
                    together[u] = next(one for one in uploaded[u] if one.kept == mine)
                    continue
                there = {v for v, other in zip(scene.honest, signed, strict=True) if other == bitmap} | {N - 1}
                possible = [
                    one
                    for one in ends[u]
                    if one.kept == mine
                    and one.has_said(ConsistencySignature)
                    and one.machine._agreed.bitmap == bitmap
                    and all(v == N - 1 or kept[v] == shown for v, shown in one.lists)
                    and one.signers <= there
                ]
                if not possible:
                    break
                together[u] = max(possible, key=lambda one: one.has_said(Reveal))
            else:
                yield together


def _ask(scene: Scene, together: dict[int, Told | None], count: Count) -> None:
    """The leak oracle, about all that these clients have said."""
    record = Record(scene.plan, 0)
    for u in scene.honest:
        told = together[u]
        name = scene.name(u)
        machine: Any = scene.dealing[u][0] if told is None else told.client.current
        said = (scene.dealing[u][1],) if told is None else told.said
        record.machines[name] = machine
        record.values[name] = record.noised[name] = scene.plan.ring.centred(scene.plan.ring.lift(scene.values[u]))
        record.said += [Said("", name, SERVER, one) for one in said]
        for one in said:
            record.answers[name, type(one).__name__].add(scene.frame(one))
    puppet = scene.puppets[N - 1].round
    record.machines[scene.name(N - 1)] = puppet
    memory, again = Memory(), Memory()
    memory.agreed = again.agreed = scene.agreed
    got = check_pairwise(record, [puppet], memory)
    view = _PairwiseView(record, [puppet], again)
    for u in scene.honest:
        m = record.machines[scene.name(u)]
        both = m._mask_key.public in view.known_keys and (m._cohort.root, u) in view.known_selves
        insist(not both, "never t shares of both secrets:", scene.name(u))
    count.ends["the sum"] = count.ends.get("the sum", 0) + got
    count.ends["nothing"] = count.ends.get("nothing", 0) + (not got)
