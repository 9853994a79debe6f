"""A lying server of one-shot rounds: ``tests.scenes.oneshot.Evil``, told by moves what to say to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from protocols.oneshot.messages import ConsistencySignatures, Delivery, Members
from protocols.oneshot.parameters import least_contributors
from protocols.roster import SERVER
from protocols.rounds.survivors import SignedBy
from secagg.crypto.keys import AgreementKey
from secagg.errors import DecodeError, PeerError, PolicyError, SecAggError, ThresholdError
from tests.scenes.oneshot import Evil
from tests.simulator.deployment import Deployment
from tests.simulator.moves import mutated
from tests.simulator.network import damaged
from tests.simulator.pairwise_server import old_frames
from tests.simulator.parties import Party, Record


class Told(Evil):
    """``Evil`` whose clients may refuse, die and come back, and whose every word is recorded."""

    def __init__(
        self, deployment: Deployment, record: Record, parties: Mapping[str, Party], earlier: Sequence[Record]
    ) -> None:
        corrupt = [deployment.roster.number(name) for name in deployment.corrupt]
        super().__init__(record.plan, deployment.roster, deployment.identities, corrupt, deployment.policy)
        self.record, self.draw, self.phase = record, deployment.draw("server", record.number), ""
        self.parties, self.restarting = parties, deployment.draw("restart").random() < 0.3
        self.earlier = [(one.plan, said.message) for one in earlier for said in one.said]
        updates = deployment.updates(record.number)
        self.values = [updates[name] for name in deployment.roster.names]

    def ask(self, u: int, messages: Sequence[Any]) -> Any:
        """The last answer that this client gives to these messages; None if it refuses them all."""
        answer, name = None, self.name(u)
        if self.restarting and u not in self.puppets and self.draw.random() < 0.1:
            self.parties[name].restart(self.draw)
        for message in messages:
            frame = message if isinstance(message, bytes) else self.frame(message)
            self.record.hear(self.phase, SERVER, name, frame)
            try:
                if u in self.puppets:
                    machine = self.puppets[u].round
                    step = machine.steps.get(machine.phase)
                    if step is None or not isinstance(message, step.hears):
                        continue
                    said = self.frame(self.puppets[u].hear(message))
                else:
                    said = self.parties[name].receive(frame)
            except (PeerError, DecodeError, PolicyError, ThresholdError) as error:
                if u not in self.puppets:
                    self.record.errors.append((self.phase, name, SERVER, error))
                continue
            self.record.hear(self.phase, name, SERVER, said)
            answer = self.messages.decode(self.plan, said)
        return answer

    def begin(self) -> None:
        for u in self.present:
            try:
                if u in self.puppets:
                    self.joins[u] = self.puppets[u].round.opening()
                else:
                    frame = self.parties[self.name(u)].join(self.record, self.values[u])
                    self.joins[u] = self.messages.decode(self.plan, frame)
            except SecAggError as error:
                self.record.refused[self.name(u)] = error
        self.form([seat for u in sorted(self.joins) if (seat := self.joins[u].member) is not None])


class Story:
    """The round, as an honest server would lead it with all that it was sent. All are numbers in the roster."""

    def __init__(self, evil: Told, moves: Sequence[str]) -> None:
        self.evil, self.draw = evil, evil.draw
        self.everybody = sorted(evil.joins)
        self.honest = [u for u in self.everybody if u not in evil.puppets]
        self.victim = self.draw.choice(self.honest)
        self.uploading = set(self.everybody)
        self.committees: Callable[[int], list[Any]] = lambda u: [evil.shown]
        self.alive: Callable[[int], set[int]] = lambda v: set(evil.uploads)
        self.deliveries: Callable[[int, set[int]], list[Any]] = lambda v, alive: [self.true_delivery(v, alive)]
        self.signing: Callable[[int, Mapping[int, tuple[set[int], bytes]]], dict[int, bytes]] = self.same_set
        self.consents: Callable[[int, set[int], dict[int, bytes]], list[Any]] = lambda v, alive, signed: [
            evil.consents(alive, signed)
        ]
        if self.draw.random() < 0.4:
            self.uploading -= set(self.draw.sample(self.honest, self.draw.randint(0, max(len(self.honest) // 4, 1))))
        for move in moves:
            MOVES[move](self)

    def true_delivery(self, v: int, alive: set[int]) -> Any:
        return self.evil.delivery(v, sorted(alive & set(self.evil.uploads)))

    def same_set(self, v: int, signed: Mapping[int, tuple[set[int], bytes]]) -> dict[int, bytes]:
        mine = signed[v][0] if v in signed else set(self.evil.uploads)
        found = {u: signature for u, (alive, signature) in signed.items() if alive == mine}
        return found | {u: self.evil.sign(u, mine) for u in self.evil.corrupt if u in self.evil.committee.members}

    def some(self, of: Any, least: int = 1) -> list[int]:
        of = sorted(of)
        return self.draw.sample(of, self.draw.randint(min(least, len(of)), len(of)))

    def tell(self) -> None:
        evil = self.evil
        evil.phase = "upload"
        for u in sorted(self.uploading):
            upload = evil.ask(u, self.committees(u))
            if type(upload).__name__ == "Upload":
                evil.uploads[u] = upload
        evil.phase = "consistency"
        signed: dict[int, tuple[set[int], bytes]] = {}
        for v in list(evil.committee.members):
            if v not in evil.joins or v in evil.puppets:
                continue
            alive = self.alive(v) & set(evil.uploads)
            if not alive:
                continue
            consent = evil.ask(v, self.deliveries(v, alive))
            if type(consent).__name__ == "Vote" and consent.signature:
                signed[v] = alive, consent.signature
        evil.phase = "reveal"
        for v in sorted(self.honest):
            alive = signed[v][0] if v in signed else set(evil.uploads)
            if alive:
                evil.ask(v, self.consents(v, alive, self.signing(v, signed)))


def two_sets(story: Story) -> None:
    """Half of the committee hears of one client less."""
    evil, part = story.evil, set(story.some(story.everybody))
    story.alive = lambda v: set(evil.uploads) - ({story.victim} if v in part else set())


def many_sets(story: Story) -> None:
    sets = [set(story.some(story.everybody, len(story.everybody) // 2)) for _ in range(3)]
    story.alive = lambda v: story.draw.choice(sets)


def too_few(story: Story) -> None:
    few = set(story.some(story.everybody)[: story.draw.randint(1, max(least_contributors(story.evil.plan) - 1, 1))])
    story.alive = lambda v: few


def uploads_left_out(story: Story) -> None:
    gone = set(story.some(story.everybody)[:2])
    story.alive = lambda v: set(story.evil.uploads) - gone


def ghosts(story: Story) -> None:
    """A contribution of somebody who has not uploaded: a corrupt server's own, in that client's name."""
    evil = story.evil
    story.uploading -= {story.victim}
    signer = evil.corrupt[0] if evil.corrupt else None

    def lies(v: int, alive: set[int]) -> list[Any]:
        forged = evil.forged(story.victim, signer) if signer is not None else None
        true = story.true_delivery(v, alive)
        if forged is None:
            return [mutated(true, story.draw), true]
        return [evil.delivery(v, sorted(alive | {story.victim}), {story.victim: forged}), true]

    story.deliveries = lies


def count_twice(story: Story) -> None:
    """One client's contribution stands twice, and everybody is told the same."""
    evil = story.evil

    def order(alive: set[int]) -> list[int]:
        return sorted([*alive, *(alive & {story.victim})])

    def signed_by_honest(v: int, alive: set[int], signed: dict[int, bytes]) -> list[Any]:
        true = evil.consents(alive, {u: one for u, one in signed.items() if u not in evil.puppets})
        return [replace(true, contributed=evil.committee.contributed([evil.uploads[u].header for u in order(alive)]))]

    story.deliveries = lambda v, alive: [evil.delivery(v, order(alive))]
    story.consents = signed_by_honest


def _delivery_lie(change: Callable[[Story, int, list[Any]], list[Any]]) -> Callable[[Story], None]:
    def move(story: Story) -> None:
        def lies(v: int, alive: set[int]) -> list[Any]:
            true = story.true_delivery(v, alive)
            if story.draw.random() < 0.5 or not true.contributions:
                return [true]
            return [Delivery(tuple(change(story, v, list(true.contributions)))), true]

        story.deliveries = lies

    return move


def _repeated(story: Story, v: int, ones: list[Any]) -> list[Any]:
    i = story.draw.randrange(len(ones))
    return ones[: i + 1] + ones[i:]


def _of_another_member(story: Story, v: int, ones: list[Any]) -> list[Any]:
    evil = story.evil
    other = story.draw.choice(list(evil.committee.members))
    return [replace(one, box=evil.box(one.header.client, other)) for one in ones]


def _headers_altered(story: Story, v: int, ones: list[Any]) -> list[Any]:
    i = story.draw.randrange(len(ones))
    ones[i] = replace(ones[i], header=mutated(ones[i].header, story.draw))
    return ones


def _swapped(story: Any, u: int, boxes: list[Any]) -> list[Any]:
    i, j = (story.draw.randrange(len(boxes)) for _ in range(2))
    boxes[i], boxes[j] = replace(boxes[i], box=boxes[j].box), replace(boxes[j], box=boxes[i].box)
    return boxes


swap_boxes, repeat_contributions = _delivery_lie(_swapped), _delivery_lie(_repeated)
boxes_of_another_member, alter_headers = _delivery_lie(_of_another_member), _delivery_lie(_headers_altered)


def other_committee(story: Story) -> None:
    """A member left out, doubled, or in a seat with a key of the server's; then the truth, or another for a part."""
    evil = story.evil

    def lies(u: int) -> list[Any]:
        members = list(evil.shown.members)
        i, kind = story.draw.randrange(len(members)), story.draw.randrange(4)
        if kind == 0:
            del members[i]
        elif kind == 1:
            members.insert(i, members[i])
        elif kind == 2:
            members[i] = replace(members[i], key=AgreementKey(story.draw.randbytes(32)).public)
        else:
            signer = evil.corrupt[0] if evil.corrupt else u
            if evil.corrupt:
                members[i] = evil.forged_seat(members[i].client, AgreementKey(story.draw.randbytes(32)), signer)
        return [Members(tuple(members)), evil.shown]

    story.committees = lies


def smaller_committee(story: Story) -> None:
    """Everybody is shown a committee without some honest members: whatever is left, for all the same."""
    evil = story.evil
    out = set(story.some(story.honest)[:2])
    evil.form([seat for seat in evil.shown.members if seat.client not in out])


def few_signatures(story: Story) -> None:
    true = story.signing

    def fewer(v: int, signed: Mapping[int, tuple[set[int], bytes]]) -> dict[int, bytes]:
        whole = true(v, signed)
        return {u: whole[u] for u in story.some(whole)} if whole else {}

    story.signing = fewer


def signatures_on_other_sets(story: Story) -> None:
    two_sets(story)
    story.signing = lambda v, signed: {u: signature for u, (_, signature) in signed.items()}


def corrupt_sign_everything(story: Story) -> None:
    two_sets(story)


def repeated_signatures(story: Story) -> None:
    evil = story.evil

    def lies(v: int, alive: set[int], signed: dict[int, bytes]) -> list[Any]:
        true = evil.consents(alive, signed)
        if not true.signatures:
            return [true]
        again = story.draw.choice(true.signatures)
        more = [SignedBy(u, again.signature) for u in evil.committee.members if u not in signed] or [again]
        everything = sorted((*true.signatures, *more), key=lambda one: one.signer)
        return [replace(true, signatures=tuple(everything)), true]

    story.consents = lies


def asked_for_another_sum(story: Story) -> None:
    """Members are shown signatures for another set than they signed, before and after the truth."""
    evil = story.evil

    def lies(v: int, alive: set[int], signed: dict[int, bytes]) -> list[Any]:
        true = evil.consents(alive, signed)
        fewer = alive - {story.victim}
        if not fewer:
            return [true]
        mine = {u: evil.sign(u, fewer) for u in evil.corrupt if u in evil.committee.members}
        other: ConsistencySignatures = evil.consents(fewer, signed | mine)
        return [other, true, other]

    story.consents = lies


def _everywhere(story: Story, change: Callable[[Any], list[Any]]) -> None:
    victims, kind = set(story.some(story.everybody)), story.draw.randrange(3)
    committee, deliver, consent = story.committees, story.deliveries, story.consents

    def lied(u: int, messages: list[Any]) -> list[Any]:
        return [lie for one in messages for lie in (change(one) if u in victims else [one])]

    if kind == 0:
        story.committees = lambda u: lied(u, committee(u))
    elif kind == 1:
        story.deliveries = lambda v, alive: lied(v, deliver(v, alive))
    else:
        story.consents = lambda v, alive, signed: lied(v, consent(v, alive, signed))


def mutate(story: Story) -> None:
    _everywhere(story, lambda one: [mutated(one, story.draw)])


def truth_then_lie(story: Story) -> None:
    _everywhere(story, lambda one: [one, mutated(one, story.draw)])


def garbage(story: Story) -> None:
    _everywhere(story, lambda one: [damaged(story.evil.frame(one), story.draw), one])


def earlier_round(story: Story) -> None:
    _everywhere(story, lambda one: [*old_frames(story.evil, one), one, one])


MOVES: dict[str, Callable[[Story], None]] = {
    "two_sets": two_sets,
    "many_sets": many_sets,
    "too_few": too_few,
    "uploads_left_out": uploads_left_out,
    "ghosts": ghosts,
    "swap_boxes": swap_boxes,
    "count_twice": count_twice,
    "repeat_contributions": repeat_contributions,
    "boxes_of_another_member": boxes_of_another_member,
    "alter_headers": alter_headers,
    "other_committee": other_committee,
    "smaller_committee": smaller_committee,
    "few_signatures": few_signatures,
    "signatures_on_other_sets": signatures_on_other_sets,
    "corrupt_sign_everything": corrupt_sign_everything,
    "repeated_signatures": repeated_signatures,
    "asked_for_another_sum": asked_for_another_sum,
    "mutate": mutate,
    "truth_then_lie": truth_then_lie,
    "garbage": garbage,
    "earlier_round": earlier_round,
}


def attack(
    deployment: Deployment, record: Record, parties: Mapping[str, Party], earlier: Sequence[Record] = ()
) -> None:
    evil = Told(deployment, record, parties, earlier)
    evil.begin()
    if len(evil.joins) >= 2:
        Story(evil, deployment.moves).tell()
    record.machines |= {evil.name(u): puppet.round for u, puppet in evil.puppets.items()}
