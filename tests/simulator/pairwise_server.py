"""A lying server of pairwise rounds, with corrupt clients in its hand: ``tests.scenes.pairwise.Evil``, told by moves
what to say to whom.

A ``Story`` is what an honest server would do, phase by phase; a move changes some of it. Whoever refuses is left out
from there on, and whoever does not is asked for all it would give. What the server makes of it, the leak oracle says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from protocols.pairwise.messages import SECRETS, ConsistencySignatures, Neighbour, Survivors, Upload, Verdict
from protocols.pairwise.parameters import parameters_of
from protocols.roster import SERVER
from protocols.rounds.dealing import (
    COMMITMENT_BYTES,
    Accusations,
    Complaint,
    Complaints,
    Dealing,
    Dealt,
    Defence,
    Delivered,
    Delivery,
    Opened,
    box_hash,
    complaint,
)
from protocols.rounds.exchange import Exchange
from protocols.rounds.sets import to_bitmap
from protocols.rounds.survivors import ConsistencySignature, SignedBy
from secagg.crypto.dealing import BLINDS
from secagg.crypto.field import PRIME
from secagg.crypto.graph import Graph
from secagg.crypto.keys import SigningKey
from secagg.errors import DecodeError, PeerError, PolicyError, SecAggError, ThresholdError
from tests.scenes.pairwise import Evil
from tests.simulator.deployment import Deployment
from tests.simulator.moves import mutated, random_words
from tests.simulator.network import damaged
from tests.simulator.parties import Party, Record


class Told(Evil):
    """``Evil`` whose clients may refuse, die and come back, and whose every word is recorded."""

    def __init__(
        self, deployment: Deployment, record: Record, parties: Mapping[str, Party], earlier: Sequence[Record]
    ) -> None:
        corrupt = [deployment.roster.number(name) for name in deployment.corrupt]
        seed = deployment.draw("evil", record.number).getrandbits(60)
        super().__init__(record.plan, deployment.roster, deployment.identities, corrupt, deployment.policy, seed=seed)
        self.record, self.draw, self.phase = record, deployment.draw("server", record.number), ""
        self.clients = {u: parties[self.name(u)] for u in self.honest}  # type: ignore[misc]
        self.parties, self.earlier = parties, [(one.plan, said.message) for one in earlier for said in one.said]
        self.restarting = deployment.draw("restart").random() < 0.3
        updates = deployment.updates(record.number)
        self.values = [updates[self.name(u)] for u in self.members]  # type: ignore[assignment]
        self.got: dict[int, dict[int, Delivered]] = {}
        """holder -> dealer -> the box, as the holder has taken it"""

    def keep_boxes(self, u: int, dealt: Dealt) -> None:
        exchange = Exchange(self.cohort, self.holders, self.t, SECRETS)
        try:
            exchange.take(u, dealt)
        except PeerError:  # dealt in another cohort
            return
        for v in self.others(u):
            self.boxes.setdefault(v, {})[u] = exchange.delivered(u, v)

    def ruling(self, u: int, dealers: Iterable[int] | None = None) -> Verdict:
        """To keep the shares of ``dealers``, or of all, as far as this client will believe it."""
        opened, doubted = self.opened_for(u), {said.peer for said in self.complaints[u].complaints}
        good = self.got[u].keys() - (doubted - {one.peer for one in opened})
        kept = good if dealers is None else good & set(dealers)
        return Verdict(
            to_bitmap(kept | {u}, self.holders(u)), tuple(one for one in opened if one.peer in kept & doubted)
        )

    def ask(self, u: int, messages: Sequence[Any], kind: type) -> Any:
        """The last answer of this kind that this client gives to these messages; None if there is none."""
        answer = None
        name = self.name(self.leaves[u].client)
        if self.restarting and name in self.parties and self.puppet(u) is None and self.draw.random() < 0.1:
            self.parties[name].restart(self.draw)
        for message in messages:
            frame = message if isinstance(message, bytes) else self.frame(message)
            self.record.hear(self.phase, SERVER, name, frame)
            try:
                if (puppet := self.puppet(u)) is not None:
                    step = puppet.round.steps.get(puppet.round.phase)
                    if step is not None and step.optional and not isinstance(message, step.hears):
                        step = puppet.round.steps[step.then]
                    if step is None or not isinstance(message, step.hears):
                        continue
                    said = self.frame(puppet.hear(message))
                else:
                    said = self.client(u).receive(frame)
            except (PeerError, DecodeError, PolicyError, ThresholdError) as error:
                if puppet is None:
                    self.record.errors.append((self.phase, name, SERVER, error))
                continue
            self.record.hear(self.phase, name, SERVER, said)
            reply = self.messages.decode(self.plan, said)
            if isinstance(reply, kind):
                answer = reply
            if isinstance(reply, Complaints):  # to what it took, which may be a frame that was damaged
                delivery = self.messages.decode(self.plan, frame)
                self.got[u] = {box.peer: box for box in delivery.boxes}  # type: ignore[attr-defined]
        return answer

    def begin(self) -> None:
        for u in list(self.members):
            try:
                if u in self.corrupt:
                    self.adverts[u] = self.puppets[u].round.opening()
                else:
                    party = self.parties[self.name(u)]
                    self.adverts[u] = self.messages.decode(self.plan, party.join(self.record, self.values[u]))  # type: ignore[assignment,arg-type]
            except SecAggError as error:
                self.record.refused[self.name(u)] = error
            else:
                self.record.hear("advertise", self.name(u), SERVER, self.frame(self.adverts[u]))
        self.found([self.adverts[u] for u in sorted(self.adverts)])


class Story:
    """The round, as an honest server would lead it with all that it was sent. Positions are u, v, w."""

    def __init__(self, evil: Told, moves: Sequence[str]) -> None:
        self.evil, self.draw = evil, evil.draw
        self.everybody = list(range(len(evil.leaves)))
        self.honest = [u for u in self.everybody if evil.puppet(u) is None]
        self.victim = self.draw.choice(self.honest)
        self.dealing = set(self.everybody)
        self.uploading = set(self.everybody)
        self.consenting = set(self.everybody)
        self.introductions: Callable[[int], list[Any]] = lambda u: [evil.introduction(u)]
        self.deliveries: Callable[[int], list[Any]] = lambda u: [evil.delivery(u)]
        self.accusations: Callable[[int], list[Any]] = self.all_complaints
        self.keeping: Callable[[int], Iterable[int] | None] = lambda u: None
        self.verdicts: Callable[[int], list[Any]] = lambda u: [evil.ruling(u, self.keeping(u))]
        self.afterwards: Callable[[int], list[Any]] = lambda u: []
        self.alive: Callable[[int], set[int]] = lambda u: set(evil.headers)
        self.survivors: Callable[[int, set[int]], list[Any]] = lambda u, alive: [evil.survivors(u, alive)]
        self.signing: Callable[[int, Mapping[int, tuple[set[int], bytes]]], dict[int, bytes]] = self.same_set
        self.consents: Callable[[int, dict[int, bytes]], list[Any]] = lambda v, signed: [evil.consents(v, signed)]
        if self.draw.random() < 0.4:  # some fall silent by themselves
            lost = self.draw.sample(self.honest, self.draw.randint(0, max(len(self.honest) // 4, 1)))
            self.uploading -= set(lost)
            if self.draw.random() < 0.3:
                self.dealing -= set(lost)
        for move in moves:
            MOVES[move](self)

    def same_set(self, v: int, signed: Mapping[int, tuple[set[int], bytes]]) -> dict[int, bytes]:
        """All signatures on the set that v itself has signed, corrupt clients' made as needed."""
        mine = signed[v][0] if v in signed else set()
        found = {u: signature for u, (alive, signature) in signed.items() if alive == mine and u in mine}
        for u in self.evil.corrupt:
            position = self.at(u)
            if position in mine:
                found[position] = self.evil.sign(u, mine)
        return found

    def at(self, number: int) -> int:
        return next((u for u, leaf in enumerate(self.evil.leaves) if leaf.client == number), -1)

    def all_complaints(self, u: int) -> list[Any]:
        said = self.evil.accusations(u)
        return [said] if said.complaints else []

    def tell(self) -> None:
        evil = self.evil
        evil.phase = "share"
        for u in self.everybody:
            if u in self.dealing and (dealt := evil.ask(u, self.introductions(u), Dealt)) is not None:
                evil.keep_boxes(u, dealt)
        evil.phase = "complain"
        for u in self.everybody:
            if u in self.dealing and (said := evil.ask(u, self.deliveries(u), Complaints)) is not None:
                evil.complaints[u] = said
        evil.phase = "defend"
        for u in sorted(evil.complaints):
            if (defence := evil.ask(u, self.accusations(u), Defence)) is not None:
                evil.defences[u] = defence
        evil.phase = "upload"
        for u in sorted(self.uploading & evil.complaints.keys()):
            if (upload := evil.ask(u, self.verdicts(u), Upload)) is not None:
                evil.keep_upload(u, upload)
        evil.phase = "consistency"
        signed: dict[int, tuple[set[int], bytes]] = {}
        for u in sorted(evil.headers):
            alive = self.alive(u)
            if evil.puppet(u) is None and u in self.consenting:
                consent = evil.ask(u, self.survivors(u, alive), ConsistencySignature)
                if consent is not None:
                    signed[u] = set(alive), consent.signature
        evil.phase = "reveal"
        for v in sorted(signed):
            evil.ask(v, self.consents(v, self.signing(v, signed)), object)
        evil.phase = "afterwards"
        for v in self.honest:
            evil.ask(v, self.afterwards(v), object)

    def some(self, of: Iterable[int], least: int = 1) -> list[int]:
        of = sorted(of)
        return self.draw.sample(of, self.draw.randint(min(least, len(of)), len(of)))

    def arc(self) -> list[int]:
        """A stretch of the ring, or any part of the cohort where there is none."""
        graph = self.evil.cohort._graph
        order = graph._order.tolist()
        if parameters_of(self.evil.plan).graph is not Graph.RING:
            self.draw.shuffle(order)
        start = self.draw.randrange(len(order))
        size = self.draw.randint(2, max(2, len(order) - 1))
        return [order[(start + i) % len(order)] for i in range(size)]

    def core(self) -> list[int]:
        """A part of the cohort in which everybody has t holders of its shares, so that it can do without the rest."""
        evil, part = self.evil, set(self.everybody)
        part -= set(self.draw.sample(self.everybody, self.draw.randint(1, max(len(part) // 3, 1))))
        while short := {u for u in part if len(part & set(evil.holders(u))) < evil.t}:
            part -= short
        return sorted(part) or self.arc()


# Who is to keep whose shares.


def _withhold(story: Story, dealers: Callable[[int], Iterable[int] | None]) -> None:
    """By delivering no more boxes, or by the verdict."""
    evil = story.evil
    if story.draw.random() < 0.4:
        story.deliveries = lambda u: [evil.delivery(u, dealers(u))]
    else:
        story.keeping = dealers


def withhold_from_a_group(story: Story) -> None:
    """A group masks only among itself; it is large enough for that."""
    group = set(story.core())
    _withhold(story, lambda u: group if u in group else None)


def withhold_both_ways(story: Story) -> None:
    """Two parts mask each only among itself."""
    group = set(story.arc())
    _withhold(story, lambda u: [v for v in story.everybody if (v in group) == (u in group)])


def withhold_at_random(story: Story) -> None:
    _withhold(story, lambda u: story.some(story.evil.others(u), story.evil.t))


def isolate(story: Story) -> None:
    """The victim masks with corrupt clients only, or with as few as it accepts."""
    evil, friends = story.evil, {story.at(number) for number in story.evil.corrupt}

    def dealers(u: int) -> list[int] | None:
        if u != story.victim:
            return None
        others = evil.others(u)
        own = evil.cohort.holders(u).count(u)
        rest = [v for v in others if v not in friends]
        return [v for v in others if v in friends] + rest[: max(evil.t - own - len(friends & set(others)), 0)]

    _withhold(story, dealers)


def cut_at_gaps(story: Story) -> None:
    """Two gaps of silent clients, and the near side keeps no shares of the far one."""
    near = set(story.arc())
    silent = set(story.draw.sample(story.everybody, min(len(story.everybody) // 3, 4)))
    story.uploading -= silent
    _withhold(story, lambda u: near | silent if u in near else None)


def two_verdicts(story: Story) -> None:
    """Two halves hear that different clients were left out."""
    half, out = set(story.arc()), story.some(story.everybody)[: max(len(story.everybody) // 4, 1)]
    other = set(story.some(story.everybody)[: len(out)]) if story.draw.random() < 0.5 else set()
    story.keeping = lambda u: set(story.everybody) - (set(out) if u in half else other) | {u}


def second_verdict(story: Story) -> None:
    """Another one after masking, and the first again."""
    evil, out = story.evil, set(story.some(story.everybody)[:2])
    story.verdicts = lambda u: [
        evil.ruling(u),
        evil.ruling(u, set(story.everybody) - out),
        *story.all_complaints(u),
        evil.ruling(u),
    ]


def verdict_first(story: Story) -> None:
    """The verdict before anybody could complain, or before whoever is accused could answer."""
    evil, early = story.evil, story.draw.random() < 0.3
    puppets_complain(story)
    if early:
        full = lambda u: Verdict(to_bitmap({*evil.boxes.get(u, {}), u}, evil.holders(u)), ())  # noqa: E731
        story.deliveries = lambda u: [full(u), evil.delivery(u), full(u)]
    else:
        accused = story.accusations
        story.accusations = lambda u: []
        story.verdicts = lambda u: [evil.ruling(u), *accused(u), evil.ruling(u)]


def left_out_and_alive(story: Story) -> None:
    """Some are left out for everybody else, upload all the same, and are called survivors to all or to some."""
    evil, out = story.evil, set(story.some(story.everybody)[: max(len(story.everybody) // 4, 1)])
    story.keeping = lambda u: None if u in out else set(story.everybody) - out
    if story.draw.random() < 0.5:
        told = set(story.arc())
        story.alive = lambda u: {u} | set(evil.headers) - (set() if u in told else out)


def left_out_and_dead(story: Story) -> None:
    """Some are left out for a part, and called dead to all: who kept their shares may give their keys away."""
    evil, out, part = story.evil, set(story.some(story.everybody)[:2]), set(story.arc())
    story.keeping = lambda u: set(story.everybody) - out if u in part and u not in out else None
    story.alive = lambda u: {u} | set(evil.headers) - out


# Boxes on their way.


def _box_lie(change: Callable[[Story, int, list[Delivered]], list[Delivered]]) -> Callable[[Story], None]:
    def move(story: Story) -> None:
        evil = story.evil

        def lies(u: int) -> list[Any]:
            true = evil.delivery(u)
            if story.draw.random() < 0.5 or not true.boxes:
                return [true]
            return [Delivery(tuple(change(story, u, list(true.boxes)))), true]

        story.deliveries = lies

    return move


def _swapped(story: Story, u: int, boxes: list[Delivered]) -> list[Delivered]:
    i, j = (story.draw.randrange(len(boxes)) for _ in range(2))
    boxes[i], boxes[j] = replace(boxes[j], peer=boxes[i].peer), replace(boxes[i], peer=boxes[j].peer)
    return boxes


def _reflected(story: Story, u: int, boxes: list[Delivered]) -> list[Delivered]:
    """What u dealt to another comes back as if from it."""
    own = {v: received[u] for v, received in story.evil.boxes.items() if u in received}
    return [replace(own.get(one.peer, one), peer=one.peer) for one in boxes]


def _repeated(story: Story, u: int, boxes: list[Delivered]) -> list[Delivered]:
    i = story.draw.randrange(len(boxes))
    return boxes[: i + 1] + boxes[i:]


def _damaged(draw: Any, box: Delivered) -> Delivered:
    """One of its parts is another: a value shifted, or all of it drawn anew."""
    kind = draw.randrange(5)
    if kind == 0:
        return replace(
            box, points=_shifted(draw, box.points, draw.randrange(len(box.points) // 4), draw.randrange(1, PRIME))
        )
    if kind == 1:
        return replace(box, points=random_words(draw, len(box.points) // 4))
    if kind == 2:
        return replace(box, commitments=draw.randbytes(COMMITMENT_BYTES * SECRETS))
    if kind == 3:
        return replace(box, response=_shifted(draw, box.response, draw.randrange(BLINDS), draw.randrange(1, PRIME)))
    return replace(box, challenge=draw.randbytes(len(box.challenge)))


def _shifted(draw: Any, words: bytes, at: int, by: int) -> bytes:
    values = np.frombuffer(words, "<u4").astype(np.uint64)
    values[at] = (values[at] + np.uint64(by)) % np.uint64(PRIME)
    return values.astype("<u4").tobytes()


def _unopenable(story: Story, u: int, boxes: list[Delivered]) -> list[Delivered]:
    bad = story.some(range(len(boxes)))
    return [_damaged(story.draw, one) if i in bad else one for i, one in enumerate(boxes)]


def _forged(story: Story, u: int, boxes: list[Delivered]) -> list[Delivered]:
    """Corrupt clients' boxes, dealt anew to this holder alone."""
    evil = story.evil
    return [
        evil.forged_box(one.peer, u) if evil.puppet(one.peer) is not None and evil.puppet(u) is None else one
        for one in boxes
    ]


swap_boxes, reflect_boxes, repeat_a_box = map(_box_lie, (_swapped, _reflected, _repeated))
boxes_that_do_not_open, forge_boxes = map(_box_lie, (_unopenable, _forged))


def _targets(story: Story) -> list[int]:
    """Few of the victim's holders, or t of them."""
    holders = story.evil.others(story.victim)
    return story.draw.sample(holders, min(story.draw.choice([1, 2, story.evil.t, len(holders)]), len(holders)))


def damage_boxes(story: Story) -> None:
    """The victim's boxes are damaged on their way, and the complaints are handed to it: as they are, or with the hash
    of what it made. Then everybody is told to keep its shares all the same, with whatever was opened, or something."""
    evil, victim, targets = story.evil, story.victim, _targets(story)

    def delivery(u: int) -> list[Any]:
        boxes = evil.delivery(u).boxes
        return [Delivery(tuple(_damaged(story.draw, b) if b.peer == victim and u in targets else b for b in boxes))]

    def accuse(u: int) -> list[Any]:
        said = evil.accusations(u).complaints
        if not said:
            return []
        true = [replace(one, box=box_hash(evil.cohort, one.peer, evil.boxes[one.peer][u])) for one in said]
        return [Accusations(tuple(true)), *[Accusations((one,)) for one in said], Accusations(said)]

    def verdict(u: int) -> list[Any]:
        doubted = {one.peer for one in evil.complaints[u].complaints}
        kept = to_bitmap({*evil.got[u], u}, evil.holders(u))
        false = tuple(Opened(v, story.draw.randbytes(32)) for v in sorted(doubted))
        return [Verdict(kept, evil.opened_for(u)), Verdict(kept, false), evil.ruling(u)]

    story.deliveries, story.accusations, story.verdicts = delivery, accuse, verdict


def shift_blinding_values(story: Story) -> None:
    """By as much as what the proof says about them: nobody can tell, and nothing is told."""
    evil, victim, targets = story.evil, story.victim, _targets(story)

    def shifted(box: Delivered) -> Delivered:
        by, at = story.draw.randrange(1, PRIME), story.draw.randrange(BLINDS)
        points = _shifted(story.draw, box.points, len(box.points) // 4 - BLINDS + at, by)
        return replace(box, points=points, response=_shifted(story.draw, box.response, at, by))

    story.deliveries = lambda u: [
        Delivery(tuple(shifted(b) if b.peer == victim and u in targets else b for b in evil.delivery(u).boxes))
    ]


def open_falsely(story: Story) -> None:
    """Some boxes of the victim are replaced by such as nobody can open, of the server's making; it shows their
    keys. Its holders believe it: each of them has a useless share."""
    evil, victim, targets = story.evil, story.victim, _targets(story)
    made = dict[int, tuple[Delivered, bytes]]()
    for u in targets:
        made[u] = _made_up(story, victim, u)
    story.deliveries = lambda u: [
        Delivery(tuple(made[u][0] if b.peer == victim and u in made else b for b in evil.delivery(u).boxes))
    ]
    story.accusations = lambda u: []

    def verdict(u: int) -> list[Any]:
        kept = to_bitmap({*evil.got[u], u}, evil.holders(u))
        if u not in made or victim not in evil.got[u]:
            return [evil.ruling(u)]
        true, wrong = made[u][1], story.draw.randbytes(32)
        return [Verdict(kept, (Opened(victim, wrong),)), Verdict(kept, (Opened(victim, true),))]

    story.verdicts = verdict


def _made_up(story: Story, dealer: int, holder: int) -> tuple[Delivered, bytes]:
    """A box of an honest dealer that the server has made, and its key."""
    evil, key = story.evil, story.draw.randbytes(32)
    dealing = Dealing(
        evil.cohort,
        dealer,
        [holder],
        1,
        [story.draw.randbytes(32)] * SECRETS,
        story.draw.randbytes,
        lambda v: key,
    )
    return dealing.delivered(holder), key


# Complaints.


def _complaints_of_puppets(story: Story, dealer: int) -> list[Complaint]:
    """What the corrupt among its holders say about its boxes, signed, though there is nothing to say."""
    evil, said = story.evil, list[Complaint]()
    for v in evil.others(dealer):
        box = evil.boxes.get(v, {}).get(dealer)
        if evil.puppet(v) is not None and box is not None:
            key = evil.identities[evil.name(evil.leaves[v].client)].key
            said.append(replace(complaint(key, evil.cohort, v, box), peer=v))
    return said


def puppets_complain(story: Story) -> None:
    """Corrupt holders complain about good boxes: their dealers open what the server knows."""
    accused = set(story.some(story.honest))
    story.accusations = lambda u: (
        [Accusations(tuple(said))] if u in accused and (said := _complaints_of_puppets(story, u)) else []
    )


def forge_complaints(story: Story) -> None:
    """Honest holders' complaints that they never made, beside true ones of the corrupt."""
    evil, draw = story.evil, story.draw

    def accuse(u: int) -> list[Any]:
        true = {one.peer: one for one in _complaints_of_puppets(story, u)}
        forged = dict[int, Complaint]()
        for v in draw.sample(evil.others(u), draw.randint(1, len(evil.others(u)))):
            if v not in true and (box := evil.boxes.get(v, {}).get(u)) is not None:
                key = SigningKey(draw.randbytes(32))
                if evil.corrupt and draw.random() < 0.5:
                    key = evil.identities[evil.name(evil.corrupt[0])].key
                forged[v] = replace(complaint(key, evil.cohort, v, box), peer=v)
        both = true | forged
        one_by_one = [Accusations((one,)) for one in forged.values()]
        return [Accusations(tuple(both[v] for v in sorted(both))), *one_by_one] if forged else []

    story.accusations = accuse


def replay_complaints(story: Story) -> None:
    """True complaints about altered boxes, shown to other dealers, as if of other holders, again, or a round later."""
    evil, draw = story.evil, story.draw
    damage_boxes(story)
    before = story.accusations

    def accuse(u: int) -> list[Any]:
        heard = [(v, one) for v, said in evil.complaints.items() for one in said.complaints]
        old = [one for _, said in evil.earlier if isinstance(said, Complaints) for one in said.complaints]
        heard += [(v, one) for one in old for v in evil.others(u)]
        if not heard:
            return before(u)
        v, one = draw.choice(heard)
        lies = [Accusations((replace(one, peer=w),)) for w in {v, *evil.others(u)}]
        lies.append(Accusations((replace(one, peer=v),) * 2))
        lies += [message for _, message in evil.earlier if isinstance(message, Accusations)]
        return [*lies, *before(u)]

    story.accusations = accuse


def accuse_again(story: Story) -> None:
    """Whoever has answered, masked or revealed is accused once more, by fewer or by others."""
    evil = story.evil
    puppets_complain(story)

    def more(u: int) -> list[Any]:
        said = _complaints_of_puppets(story, u)
        return [Accusations(tuple(said[:i])) for i in range(1, len(said) + 1)]

    first = story.accusations
    story.accusations = lambda u: [*first(u)[:1], *more(u)]
    story.verdicts = lambda u: [evil.ruling(u), *more(u)]
    story.afterwards = lambda u: [*more(u), evil.delivery(u), *([evil.ruling(u)] if u in evil.got else [])]


# Who is in the sum.


def two_stories(story: Story) -> None:
    """A stretch of the ring hears that all survived, the rest that one or two of the others did not."""
    evil, part = story.evil, set(story.arc())
    gone = set(story.draw.sample(story.everybody, min(2, len(story.everybody) - 1)))
    if story.draw.random() < 0.5:  # two halves of the ring, and the difference as far from one as it can be
        order = evil.cohort._graph._order.tolist()
        half, far = len(order) // 2, 3 * len(order) // 4
        part, gone = set(order[:half]), set(order[far : far + story.draw.randint(1, 2)])
    story.alive = lambda u: set(evil.headers) if u in part else {u} | set(evil.headers) - gone


def many_stories(story: Story) -> None:
    evil, sets = story.evil, [set(story.some(story.everybody, len(story.everybody) // 2)) for _ in range(3)]
    story.alive = lambda u: {u} | set(evil.headers) & story.draw.choice(sets)


def called_dead(story: Story) -> None:
    """Some who uploaded are called dead, to all but themselves."""
    evil, dead = story.evil, set(story.some(story.everybody)[: max(len(story.everybody) // 3, 1)])
    story.alive = lambda u: set(evil.headers) - dead
    if story.draw.random() < 0.3:
        story.alive = lambda u: {u} | set(evil.headers) - dead


def ghosts(story: Story) -> None:
    """Some never upload and are called survivors."""
    evil = story.evil
    lost = set(story.some(story.honest)[:2])
    story.uploading -= lost
    story.alive = lambda u: set(evil.headers) | lost


def too_few(story: Story) -> None:
    evil = story.evil
    few = set(story.some(story.everybody)[: story.draw.randint(1, max(evil.plan.min_contributors - 1, 1))])
    story.alive = lambda u: {u} | few & set(evil.headers)


def alter_headers(story: Story) -> None:
    """Headers left out, repeated, of others, or with other names in their lists."""
    evil = story.evil

    def lies(u: int, alive: set[int]) -> list[Any]:
        true = evil.survivors(u, alive)
        if not true.headers:
            return [true]
        headers, i = list(true.headers), story.draw.randrange(len(true.headers))
        kind = story.draw.randrange(4)
        if kind == 0:
            del headers[i]
        elif kind == 1:
            headers.insert(i, headers[i])
        elif kind == 2:
            headers[i] = replace(headers[story.draw.randrange(len(headers))], position=headers[i].position)
        else:
            full = to_bitmap(set(story.everybody), evil.holders(headers[i].position))
            headers = [replace(one, holders=full) for one in headers]
        return [Survivors(true.survivors, tuple(headers)), true]

    story.survivors = lies


# Signatures.


def both_kinds(story: Story) -> None:
    """After an answer for one set, signatures on another are shown to the same clients, and they are asked again."""
    evil = story.evil

    def two(v: int, signed: dict[int, bytes]) -> list[Any]:
        fewer = set(evil.headers) - {story.victim}
        other = {u: evil.sign(evil.leaves[u].client, fewer) for u in signed if evil.puppet(u) is not None}
        return [
            evil.consents(v, signed),
            evil.consents(v, signed | other),
            evil.survivors(v, fewer),
            evil.consents(v, signed),
        ]

    story.consents = two


def few_signatures(story: Story) -> None:
    true = story.signing

    def fewer(v: int, signed: Mapping[int, tuple[set[int], bytes]]) -> dict[int, bytes]:
        all_of_them = true(v, signed)
        kept = story.some(all_of_them) if all_of_them else []
        return {u: all_of_them[u] for u in kept}

    story.signing = fewer


def few_are_asked(story: Story) -> None:
    """No more sign than the server likes, and these are shown all that there is."""
    story.consenting = set(story.some(story.everybody)[: max(len(story.everybody) * 2 // 3, 1)])


def signatures_on_other_sets(story: Story) -> None:
    """All that were made, whatever they are on."""
    story.signing = lambda v, signed: {u: signature for u, (_, signature) in signed.items()}


def repeated_signatures(story: Story) -> None:
    evil = story.evil

    def lies(v: int, signed: dict[int, bytes]) -> list[Any]:
        true = evil.consents(v, signed)
        if not true.signatures:
            return [true]
        again = story.draw.choice(true.signatures)
        others = [SignedBy(u, again.signature) for u in story.everybody if u not in signed]
        more = sorted((*true.signatures, *(others or [again])), key=lambda one: one.signer)
        return [ConsistencySignatures(tuple(more), true.others, true.proof), true]

    story.consents = lies


def corrupt_sign_everything(story: Story) -> None:
    """Two stories, and the corrupt clients sign both."""
    two_stories(story)
    true, evil = story.signing, story.evil

    def more(v: int, signed: Mapping[int, tuple[set[int], bytes]]) -> dict[int, bytes]:
        mine = signed[v][0]
        return true(v, signed) | {story.at(n): evil.sign(n, mine) for n in evil.corrupt if story.at(n) in mine}

    story.signing = more


# The cohort.


def wrong_introduction(story: Story) -> None:
    """Another root, size, place or neighbours than the true ones; then the truth."""
    evil = story.evil

    def lies(u: int) -> list[Any]:
        true = evil.introduction(u)
        kind = story.draw.randrange(5)
        if kind == 0:
            return [replace(true, root=story.draw.randbytes(32)), true]
        if kind == 1:
            return [replace(true, size=true.size + story.draw.choice([-1, 1])), true]
        if kind == 2 and len(story.everybody) > 1:
            return [evil.introduction(story.draw.choice([v for v in story.everybody if v != u])), true]
        if kind == 3 and true.neighbours:  # fewer, or others, with a proof that fits
            shown = story.some(v for v in story.everybody if v != u)
            neighbours = tuple(Neighbour(v, evil.leaves[v]) for v in sorted(shown))
            return [replace(true, neighbours=neighbours, proof=evil.tree.proof([u, *sorted(shown)])), true]
        return [mutated(true, story.draw), true]

    story.introductions = lies


def two_cohorts(story: Story) -> None:
    """Two parts are shown two cohorts, each true in itself; or all are shown one and then another."""
    evil, part = story.evil, set(story.some(story.everybody, 2))
    full = list(evil.leaves)
    kept = [leaf for u, leaf in enumerate(full) if u in part]
    small = Told.__new__(Told)
    small.__dict__ = dict(evil.__dict__)
    small.found(kept)
    small.corrupt = evil.corrupt
    places = {leaf.client: u for u, leaf in enumerate(kept)}
    both = story.draw.random() < 0.5

    def lies(u: int) -> list[Any]:
        if u not in part or len(kept) < 2:
            return [evil.introduction(u)]
        other = small.introduction(places[full[u].client])
        return [evil.introduction(u), other] if both else [other]

    story.introductions = lies
    if not both and len(kept) >= 2:
        evil.__dict__.update(cohort=small.cohort, tree=small.tree, leaves=small.leaves, nodes=small.nodes)
        story.everybody = list(range(len(kept)))
        story.honest = [u for u in story.everybody if evil.puppet(u) is None]
        story.dealing = story.uploading = set(story.everybody)
        story.introductions = lambda u: [evil.introduction(u)]
        if story.victim not in story.honest:
            story.victim = story.honest[0] if story.honest else 0


def sybils(story: Story) -> None:
    """A corrupt client's advert in place of honest ones."""
    evil = story.evil
    if not evil.corrupt:
        return
    mine = evil.leaves[story.at(evil.corrupt[0])]
    leaves = [mine if story.draw.random() < 0.3 else leaf for leaf in evil.leaves]
    if mine in leaves and len({leaf.client for leaf in leaves}) < len(leaves):
        truth = dict(evil.__dict__)
        evil.found(leaves)
        lies = {u: evil.introduction(u) for u in story.everybody}
        evil.__dict__.update(truth)
        story.introductions = lambda u: [lies[u], evil.introduction(u)]


# Anything.


def _everywhere(story: Story, change: Callable[[Any], list[Any]]) -> None:
    """One kind of message, for some of the clients."""
    victims = set(story.some(story.everybody))
    intro, deliver, survive, consent = story.introductions, story.deliveries, story.survivors, story.consents
    rule = story.verdicts

    def lied(u: int, messages: list[Any]) -> list[Any]:
        return [lie for one in messages for lie in (change(one) if u in victims else [one])]

    kind = story.draw.randrange(6)
    if kind == 4:
        story.verdicts = lambda u: lied(u, rule(u))
    elif kind == 5:
        puppets_complain(story)
        accuse = story.accusations
        story.accusations = lambda u: lied(u, accuse(u))
    elif kind == 0:
        story.introductions = lambda u: lied(u, intro(u))
    elif kind == 1:
        story.deliveries = lambda u: lied(u, deliver(u))
    elif kind == 2:
        story.survivors = lambda u, alive: lied(u, survive(u, alive))
    else:
        story.consents = lambda v, signed: lied(v, consent(v, signed))


def mutate(story: Story) -> None:
    _everywhere(story, lambda one: [mutated(one, story.draw)])


def truth_then_lie(story: Story) -> None:
    _everywhere(story, lambda one: [one, mutated(one, story.draw)])


def garbage(story: Story) -> None:
    _everywhere(story, lambda one: [damaged(story.evil.frame(one), story.draw), one])


def earlier_round(story: Story) -> None:
    """Frames of earlier rounds, as they were or with this round's number; those of the next one; everything twice."""
    _everywhere(story, lambda one: [*old_frames(story.evil, one), one, one])


def old_frames(evil: Any, one: Any) -> list[Any]:
    """Of all that passed in earlier rounds something of this kind, if there is any. Bytes are of no kind."""
    if isinstance(one, bytes):
        return []
    frames: list[Any] = [evil.messages.encode(replace(evil.plan, round=evil.plan.round + 1), one)]
    like = [(plan, message) for plan, message in evil.earlier if type(message) is type(one)]
    if like:
        plan, message = evil.draw.choice(like)
        frames += [evil.messages.encode(plan, message), message]
    return frames


def another_plan(story: Story) -> None:
    """The victim is asked to join a second round of the same number under another plan, in the midst of this one."""
    evil = story.evil
    deliver = story.deliveries

    def lies(u: int) -> list[Any]:
        name = evil.name(evil.leaves[u].client)
        if u == story.victim and name in evil.parties and evil.puppet(u) is None:
            plan = replace(evil.plan, model=story.draw.randbytes(32))
            try:
                evil.parties[name].client.start(plan, evil.values[evil.leaves[u].client])
            except SecAggError as error:
                evil.record.errors.append((evil.phase, name, SERVER, error))
            else:
                raise AssertionError("a client joined two plans of one round")
        return deliver(u)

    story.deliveries = lies


MOVES: dict[str, Callable[[Story], None]] = {
    "withhold_from_a_group": withhold_from_a_group,
    "withhold_both_ways": withhold_both_ways,
    "withhold_at_random": withhold_at_random,
    "isolate": isolate,
    "cut_at_gaps": cut_at_gaps,
    "two_verdicts": two_verdicts,
    "second_verdict": second_verdict,
    "verdict_first": verdict_first,
    "left_out_and_alive": left_out_and_alive,
    "left_out_and_dead": left_out_and_dead,
    "damage_boxes": damage_boxes,
    "shift_blinding_values": shift_blinding_values,
    "open_falsely": open_falsely,
    "puppets_complain": puppets_complain,
    "forge_complaints": forge_complaints,
    "replay_complaints": replay_complaints,
    "accuse_again": accuse_again,
    "swap_boxes": swap_boxes,
    "reflect_boxes": reflect_boxes,
    "repeat_a_box": repeat_a_box,
    "boxes_that_do_not_open": boxes_that_do_not_open,
    "forge_boxes": forge_boxes,
    "two_stories": two_stories,
    "many_stories": many_stories,
    "called_dead": called_dead,
    "ghosts": ghosts,
    "too_few": too_few,
    "alter_headers": alter_headers,
    "both_kinds": both_kinds,
    "few_signatures": few_signatures,
    "few_are_asked": few_are_asked,
    "signatures_on_other_sets": signatures_on_other_sets,
    "repeated_signatures": repeated_signatures,
    "corrupt_sign_everything": corrupt_sign_everything,
    "wrong_introduction": wrong_introduction,
    "two_cohorts": two_cohorts,
    "sybils": sybils,
    "mutate": mutate,
    "truth_then_lie": truth_then_lie,
    "garbage": garbage,
    "earlier_round": earlier_round,
    "another_plan": another_plan,
}


def attack(
    deployment: Deployment, record: Record, parties: Mapping[str, Party], earlier: Sequence[Record] = ()
) -> None:
    evil = Told(deployment, record, parties, earlier)
    evil.begin()
    if len(evil.leaves) >= 2:
        Story(evil, deployment.moves).tell()
    record.machines |= {evil.name(u): puppet.round for u, puppet in evil.puppets.items()}
