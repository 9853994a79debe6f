"""A lying server of pairwise rounds, with corrupt clients in its hand: ``tests.adversarial.attack.Evil``, told by moves
what to say to whom.

A ``Story`` is what an honest server would do, phase by phase; a move changes some of it. Whoever refuses is left out
from there on, and whoever does not is asked for all it would give. What the server makes of it, the leak oracle says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from protocols.cohort import to_bitmap
from protocols.machine import SERVER
from protocols.pairwise.messages import Consents, Delivery, Neighbour, SealedShares, SignedConsent, Survivors
from protocols.pairwise.rules import parameters_of
from secagg.errors import DecodeError, PeerError, PolicyError, SecAggError, ThresholdError
from secagg.params import Graph
from tests.adversarial.attack import Evil
from tests.simulator.deployment import Deployment
from tests.simulator.moves import mutated
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

    def ask(self, u: int, messages: Sequence[Any]) -> Any:
        """The last answer that this client gives to these messages; None if it refuses them all."""
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
            answer = self.messages.decode(self.plan, said)
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

    def tell(self) -> None:
        evil = self.evil
        evil.phase = "share"
        for u in self.everybody:
            if u in self.dealing and (dealt := evil.ask(u, self.introductions(u))) is not None:
                self._keep_boxes(u, dealt)
        evil.phase = "upload"
        for u in sorted(self.uploading):
            if (upload := evil.ask(u, self.deliveries(u))) is not None and type(upload).__name__ == "Upload":
                evil.keep_upload(u, upload)
        evil.phase = "consent"
        signed: dict[int, tuple[set[int], bytes]] = {}
        for u in sorted(evil.headers):
            alive = self.alive(u)
            if evil.puppet(u) is None and u in self.consenting:
                consent = evil.ask(u, self.survivors(u, alive))
                if type(consent).__name__ == "Consent":
                    signed[u] = set(alive), consent.signature
        evil.phase = "reveal"
        for v in sorted(signed):
            evil.ask(v, self.consents(v, self.signing(v, signed)))

    def _keep_boxes(self, u: int, dealt: Any) -> None:
        if type(dealt).__name__ != "Dealt":
            return
        for box in dealt.boxes:
            self.evil.boxes.setdefault(box.peer, {})[u] = box.box

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


# Who gets whose boxes.


def withhold_from_a_group(story: Story) -> None:
    """A group masks only among itself; it is large enough for that."""
    group, evil = set(story.core()), story.evil
    story.deliveries = lambda u: [evil.delivery(u, group if u in group else None)]


def withhold_both_ways(story: Story) -> None:
    """Two parts mask each only among itself."""
    group, evil = set(story.arc()), story.evil
    story.deliveries = lambda u: [evil.delivery(u, [v for v in story.everybody if (v in group) == (u in group)])]


def withhold_at_random(story: Story) -> None:
    evil = story.evil
    story.deliveries = lambda u: [evil.delivery(u, story.some(evil.others(u), evil.t))]


def isolate(story: Story) -> None:
    """The victim masks with corrupt clients only, or with as few as it accepts."""
    evil, friends = story.evil, {story.at(number) for number in story.evil.corrupt}

    def senders(u: int) -> list[int] | None:
        if u != story.victim:
            return None
        others = evil.others(u)
        own = evil.cohort.holders(u).count(u)
        rest = [v for v in others if v not in friends]
        return [v for v in others if v in friends] + rest[: max(evil.t - own - len(friends & set(others)), 0)]

    story.deliveries = lambda u: [evil.delivery(u, senders(u))]


def cut_at_gaps(story: Story) -> None:
    """Two gaps of silent clients, and no boxes from the far side to the near one."""
    evil, near = story.evil, set(story.arc())
    silent = set(story.draw.sample(story.everybody, min(len(story.everybody) // 3, 4)))
    story.uploading -= silent
    story.deliveries = lambda u: [evil.delivery(u, near | silent if u in near else None)]


# Boxes.


def _box_lie(change: Callable[[Story, int, list[SealedShares]], list[SealedShares]]) -> Callable[[Story], None]:
    def move(story: Story) -> None:
        evil = story.evil

        def lies(u: int) -> list[Any]:
            true = evil.delivery(u)
            if story.draw.random() < 0.5 or not true.boxes:
                return [true]
            return [Delivery(tuple(change(story, u, list(true.boxes)))), true]

        story.deliveries = lies

    return move


def swapped(story: Any, u: int, boxes: list[Any]) -> list[Any]:
    i, j = (story.draw.randrange(len(boxes)) for _ in range(2))
    boxes[i], boxes[j] = replace(boxes[i], box=boxes[j].box), replace(boxes[j], box=boxes[i].box)
    return boxes


def _reflected(story: Story, u: int, boxes: list[SealedShares]) -> list[SealedShares]:
    """What u sealed to another comes back as if from it."""
    own = {v: received[u] for v, received in story.evil.boxes.items() if u in received}
    return [replace(one, box=own.get(one.peer, one.box)) for one in boxes]


def _repeated(story: Story, u: int, boxes: list[SealedShares]) -> list[SealedShares]:
    i = story.draw.randrange(len(boxes))
    return boxes[: i + 1] + boxes[i:]


def _unopenable(story: Story, u: int, boxes: list[SealedShares]) -> list[SealedShares]:
    bad = story.some(range(len(boxes)))
    return [replace(one, box=story.draw.randbytes(len(one.box))) if i in bad else one for i, one in enumerate(boxes)]


def _forged(story: Story, u: int, boxes: list[SealedShares]) -> list[SealedShares]:
    """Corrupt clients' boxes, sealed anew with nothing in them."""
    evil = story.evil
    return [
        evil.forged_box(one.peer, u) if evil.puppet(one.peer) is not None and evil.puppet(u) is None else one
        for one in boxes
    ]


swap_boxes, reflect_boxes, repeat_a_box = map(_box_lie, (swapped, _reflected, _repeated))
boxes_that_do_not_open, forge_boxes = map(_box_lie, (_unopenable, _forged))


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
        others = [SignedConsent(u, again.signature) for u in story.everybody if u not in signed]
        more = sorted((*true.signatures, *(others or [again])), key=lambda one: one.position)
        return [Consents(tuple(more), true.others, true.proof), true]

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

    def lied(u: int, messages: list[Any]) -> list[Any]:
        return [lie for one in messages for lie in (change(one) if u in victims else [one])]

    kind = story.draw.randrange(4)
    if kind == 0:
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
