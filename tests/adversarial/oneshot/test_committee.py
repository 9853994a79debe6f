"""One-shot rounds under attack: each with the check, and without it, when an honest client's vector comes out.

12 clients, all with a seat, two of them corrupt (see ``tests.scenes.oneshot``). "The vector" is always client 0's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from protocols import registry
from protocols.oneshot import client
from protocols.oneshot import committee as rules
from protocols.oneshot.client import OneshotClient
from protocols.oneshot.messages import Upload
from protocols.oneshot.parameters import CommitteeSize
from protocols.oneshot.protocol import ONESHOT
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from secagg.crypto.keys import AgreementKey
from secagg.crypto.prg import Prg
from secagg.errors import PeerError, PolicyError, SecAggError, ThresholdError
from tests.controls import Denied, switch_off
from tests.scenes.oneshot import VICTIM, Evil, Fixture, attempt, cloned, make


def halves(evil: Evil, cut: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """The honest members in two groups; everybody, and everybody but the victim."""
    return evil.honest[:cut], evil.honest[cut:], evil.present, [u for u in evil.present if u != VICTIM]


def test_an_honest_round_is_the_sum() -> None:
    """What the attacker's own arithmetic gives when nobody is attacked: it can open what it has the shares of."""
    evil = make()
    evil.join()
    evil.upload()
    evil.reveal(evil.honest, evil.present, evil.ask(evil.honest, evil.present))
    assert evil.sum_of(evil.present) == evil.plain(evil.present)


# Two sets.


def two_halves(evil: Evil) -> list[int]:
    """A set for each half of the honest members, each signed by that half and by the corrupt; the difference."""
    evil.join()
    evil.upload()
    one, two, more, fewer = halves(evil, 5)
    for half, alive in ((one, more), (two, fewer)):
        evil.reveal(half, alive, evil.ask(half, alive))
    return (np.array(evil.sum_of(more)) - evil.sum_of(fewer)).tolist()  # type: ignore[no-any-return]


def test_two_sets_to_two_halves_of_the_committee(monkeypatch: Fixture) -> None:
    attempt(lambda: two_halves(make()), ThresholdError, "7 members signed the survivors, at least 8 are needed")
    monkeypatch.setattr(
        CommitteeSize, "quorum", property(lambda committee: (committee.members + committee.corrupt) // 2)
    )
    assert two_halves(evil := make()) == evil.plain([VICTIM])


def test_a_committee_that_bears_fewer_corrupt_than_there_are(monkeypatch: Fixture) -> None:
    trusting = CommitteeSize(12, 0)  # Q = 7 = 5 + 2
    attempt(lambda: two_halves(make(parameters=trusting)), PolicyError, "bears 0 corrupt members, not the 2 feared")
    switch_off(monkeypatch, rules, "check_policy", "committee.corrupt < bad")
    lax = replace(ONESHOT, check_policy=rules.check_policy)  # the registry has its own reference to the function
    monkeypatch.setattr(registry, "find", lambda name: lax)
    assert two_halves(evil := make(parameters=trusting)) == evil.plain([VICTIM])


def asked_twice(evil: Evil, forget: bool) -> list[int]:
    """All honest members sign and reveal one set, and then another."""
    evil.join()
    evil.upload()
    _, _, more, fewer = halves(evil, 5)
    for alive in (more, fewer):
        evil.reveal(evil.honest, alive, evil.ask(evil.honest, alive))
        for v in evil.honest if forget else ():
            evil.clients[v].current.phase = Phase.CONSISTENCY  # type: ignore[union-attr]
    return (np.array(evil.sum_of(more)) - evil.sum_of(fewer)).tolist()  # type: ignore[no-any-return]


def test_two_sets_to_one_member() -> None:
    attempt(lambda: asked_twice(make(), forget=False), PeerError, "Delivery does not belong in phase done")
    assert asked_twice(evil := make(), forget=True) == evil.plain([VICTIM])


def test_a_second_set_before_the_first_is_revealed() -> None:
    evil = make()
    evil.join()
    evil.upload()
    _, _, more, fewer = halves(evil, 5)
    evil.consent(1, more)
    attempt(lambda: evil.consent(1, fewer), PeerError, "Delivery does not belong in phase reveal")
    again = [evil.frame(evil.delivery(1, more)) for _ in range(2)]
    assert evil.clients[1].receive(again[0]) == evil.clients[1].receive(again[1])
    attempt(lambda: evil.tell(1, evil.delivery(1, more[::-1])), PeerError, "does not belong in phase reveal")


# Six honest members reveal, as they may. The other four are made to tell a little of another sum: four shares are
# too few to interpolate, and enough for the nearest lattice point, since secrets are short.


def a_few_shares(evil: Evil, how: str) -> list[int]:
    evil.join()
    evil.upload()
    six, four, more, fewer = halves(evil, 6)
    signed, other = evil.ask(six, more), evil.ask(four, fewer)
    evil.reveal(six, more, signed)
    strangers = {v: evil.sign(v, fewer) for v in range(evil.plan.clients, len(evil.roster))}
    if how == "another set than it has signed":
        evil.reveal(four, more, signed, really=fewer)
    elif how == "too few":
        evil.reveal(four, fewer, other)
    elif how == "repeated":
        message = evil.consents(fewer, other)
        twice = sorted([*message.signatures, *message.signatures], key=lambda signed: signed.signer)
        for v in four:
            evil.keep_answer(v, fewer, evil.tell(v, replace(message, signatures=tuple(twice))))
    elif how == "without a seat":
        evil.reveal(four, fewer, other | strangers)
    else:
        evil.reveal(four, fewer, other | {v: bytes(64) for v in six})
    return evil.victim(more, fewer)


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    ("how", "error", "match", "condition", "instead"),
    [
        (
            "another set than it has signed",
            PeerError,
            "other survivors than those that this member has signed",
            "self._mine.bitmap and agreed != self._mine",
            "False",
        ),
        (
            "too few",
            ThresholdError,
            "6 members signed the survivors, at least 8 are needed",
            "len(signers) < (quorum := parameters_of(self.plan).quorum)",
            "False",
        ),
        (
            "repeated",
            PeerError,
            "signers out of order, repeated, or no members",
            "not ascending(signers) or not self._committee.members.keys() >= set(signers)",
            "False",
        ),
        (
            "without a seat",
            PeerError,
            "signers out of order, repeated, or no members",
            "not ascending(signers) or not self._committee.members.keys() >= set(signers)",
            "False",
        ),
        (
            "forged",
            PeerError,
            "bad signature",
            "check_consistency(self.roster, Number(signed.signer), signed.signature, agreed.digest)",
            "None",
        ),
    ],
)
def test_members_reveal_only_what_a_quorum_has_signed(
    how: str, error: type[SecAggError], match: str, condition: str, instead: str, monkeypatch: Fixture
) -> None:
    outsiders = 2 if how == "without a seat" else 0
    attempt(lambda: a_few_shares(make(outsiders=outsiders), how), error, match)
    switch_off(monkeypatch, OneshotClient, "_check_signatures", condition, instead)
    assert a_few_shares(evil := make(outsiders=outsiders), how) == evil.plain([VICTIM])


# Whose shares are added.


def shares_of(evil: Evil, alive: list[int], uploads: Mapping[int, Upload]) -> list[int]:
    signed = evil.ask(evil.honest, alive, uploads)
    evil.reveal(evil.honest, alive, signed)
    shares = dict(evil.shares[frozenset(alive)])
    return evil.unmask(evil.total([evil.uploads[VICTIM]]), evil.secret(shares))


def with_ghosts(evil: Evil) -> list[int]:
    """The victim and clients who have uploaded nothing: the server says that they have, with shares of nothing."""
    evil.join()
    evil.upload([VICTIM])
    ghosts = {u: evil.forged(u, signer=evil.corrupt[0]) for u in (1, 2, 3)}
    evil.uploads |= ghosts
    for v in evil.honest[1:]:  # they have heard who is on the committee, and their uploads are lost
        evil.tell(v, evil.shown)
    return shares_of(evil, [VICTIM, 1, 2, 3], ghosts)


def test_contributors_who_have_not_contributed(monkeypatch: Fixture) -> None:
    attempt(lambda: with_ghosts(make()), PeerError, "bad signature")
    switch_off(
        monkeypatch, OneshotClient, "_open", "check_header(self._committee, self.roster, contribution.header)", "None"
    )
    assert with_ghosts(evil := make()) == evil.plain([VICTIM])


def all_alone(evil: Evil) -> list[int]:
    evil.join()
    evil.upload()
    return shares_of(evil, [VICTIM], {})


def test_a_sum_of_too_few(monkeypatch: Fixture) -> None:
    """Members do not sign it, and would not reveal it."""
    attempt(lambda: all_alone(make()), ThresholdError, "1 contributors, at least 4 are needed")
    switch_off(monkeypatch, OneshotClient, "_open", "len(clients) < (least := least_contributors(self.plan))")
    attempt(lambda: all_alone(make()), ThresholdError, "1 survivors, at least 4 are needed")
    switch_off(
        monkeypatch,
        OneshotClient,
        "_check_signatures",
        "len((survivors := agreed.survivors)) < (least := least_contributors(self.plan))",
        "not (survivors := agreed.survivors)",
    )
    assert all_alone(evil := make()) == evil.plain([VICTIM])


def with_the_corrupt(evil: Evil) -> list[int]:
    """The victim and corrupt clients are min_contributors together: their sum, and what the attacker knows of it."""
    evil.join()
    evil.upload()
    alive = [VICTIM, *evil.corrupt]
    members = evil.honest[1:]
    evil.reveal(members, alive, evil.ask(members, alive))
    return (np.array(evil.sum_of(alive)) - evil.plain(evil.corrupt)).tolist()  # type: ignore[no-any-return]


def test_fewer_honest_than_two(monkeypatch: Fixture) -> None:
    attempt(lambda: with_the_corrupt(make(min_contributors=3)), ThresholdError, "3 contributors, at least 4 are needed")
    for name in ("_open", "_check_signatures"):
        switch_off(
            monkeypatch,
            OneshotClient,
            name,
            "least_contributors(self.plan)",
            "self.plan.min_contributors",
        )
    assert with_the_corrupt(evil := make(min_contributors=3)) == evil.plain([VICTIM])


def test_who_fears_more_than_the_others(monkeypatch: Fixture) -> None:
    """The members who sign fear nobody, the victim two of twelve; it is not asked again after its upload."""

    def careless() -> Evil:
        evil = make(min_contributors=3)
        for u in evil.honest[1:]:
            evil.clients[u].policy = Policy(min_contributors=2, protocols={"oneshot"}, corrupt=0)
        return evil

    attempt(lambda: with_the_corrupt(careless()), ThresholdError, "3 contributors, at least 4 are needed")
    monkeypatch.setattr(
        client, "least_contributors", lambda plan: max(plan.min_contributors, 2)
    )  # what each of them would say by its own policy
    assert with_the_corrupt(evil := careless()) == evil.plain([VICTIM])


# The committee.


def test_seats_with_keys_of_the_server(monkeypatch: Fixture) -> None:
    """Every seat is an honest member's, and every key the server's."""

    def attack(evil: Evil) -> list[int]:
        evil.join()
        keys = {u: AgreementKey(Prg(bytes([u]) * 32)(32)) for u in evil.present if u != VICTIM}
        evil.form([evil.joins[VICTIM].member, *[evil.forged_seat(u, key, evil.corrupt[0]) for u, key in keys.items()]])  # type: ignore[list-item]
        evil.corrupt = []  # their true keys open nothing here
        evil.upload([VICTIM])
        shares = {u: evil.opened(VICTIM, u, key) for u, key in keys.items()}
        return evil.unmask(evil.total([evil.uploads[VICTIM]]), evil.secret(shares))

    attempt(lambda: attack(make()), PeerError, "bad signature")
    switch_off(monkeypatch, OneshotClient, "_meet", "check_member(self.plan, self.roster, member)", "None")
    assert attack(evil := make()) == evil.plain([VICTIM])


def test_more_members_than_seats(monkeypatch: Fixture) -> None:
    """A roster of 16 for a plan of 12: with the four others f would be six."""

    def crowd() -> Evil:
        return make(outsiders=4, corrupt=range(10, 16), present=range(16))

    attempt(lambda: two_halves(crowd()), PeerError, "16 members for a committee of 12")
    switch_off(monkeypatch, OneshotClient, "_meet", "len(members) > committee.members")
    switch_off(monkeypatch, OneshotClient, "_open", "not ascending(clients) or len(clients) > self.plan.clients")
    assert two_halves(evil := crowd()) == evil.plain([VICTIM])


# A client that is made to upload twice: a copy of it without a journal, under the same committee.


OTHER = np.arange(7) * 3


def test_two_vectors_under_one_secret(monkeypatch: Fixture) -> None:
    def attack(evil: Evil) -> list[int]:
        evil.join()
        evil.upload()
        difference = evil.total([evil.uploads[VICTIM]]) - evil.total([cloned(evil, OTHER)])
        return evil.unmask(difference, np.zeros(evil.sharing.length, np.int64))

    with pytest.raises(Denied, match="out of range"):
        attack(make())
    switch_off(monkeypatch, OneshotClient, "_upload", "self._fingerprint(values)", "b''")
    evil = make()
    assert attack(evil) == (evil.values[VICTIM] - OTHER).tolist()


def test_members_who_were_shown_other_uploads_answer_nothing(monkeypatch: Fixture) -> None:
    """The same set of clients, and enough signatures on it: but what these members have added is another sum."""

    def attack(evil: Evil) -> list[int]:
        evil.join()
        evil.upload()
        second, alive = cloned(evil, OTHER), evil.present
        six, four, _, _ = halves(evil, 6)
        signed = evil.ask(six, alive)
        evil.ask(four, alive, {VICTIM: second})
        evil.reveal(four, alive, signed)
        return sorted(evil.shares[frozenset(alive)])

    with pytest.raises(PeerError, match="other survivors than those that this member has signed"):
        attack(make())
    whole, set_only = "self._mine.bitmap and agreed != self._mine", "agreed.bitmap != self._mine.bitmap"
    switch_off(monkeypatch, OneshotClient, "_check_signatures", whole, set_only)
    assert len(attack(make())) == 4


def test_two_vectors_shown_to_two_groups_of_members(monkeypatch: Fixture) -> None:
    """Both groups would sign the same set, and have added different shares. What six and the corrupt have is a sum;
    the other four shares say what the second secret is more than the first, since both are short."""

    def attack(evil: Evil) -> list[int]:
        evil.join()
        evil.upload()
        second, alive = cloned(evil, OTHER), evil.present
        six, four, _, _ = halves(evil, 6)
        signed = evil.ask(six, alive) | evil.ask(four, alive, {VICTIM: second})
        evil.reveal(six, alive, signed)
        full = evil.loot(alive)
        evil.shares.clear()
        evil.reveal(four, alive, signed)
        part = dict(evil.shares[frozenset(alive)])
        for v in evil.corrupt:
            others = [evil.dealt[v][u] for u in alive if u != VICTIM]
            own = evil.opened(VICTIM, v, evil.puppets[v].round._member_key, second)
            part[v] = evil.sharing.total([*others, own])
        difference = evil.total([evil.uploads[VICTIM]]) - evil.total([second])
        return evil.unmask(difference, evil.guess(full, part))

    attempt(lambda: attack(make()), PeerError, "bad signature")
    switch_off(monkeypatch, rules.Committee, "contributed", "map(HEADER.encode, headers)", "()")
    evil = make()
    assert attack(evil) == (evil.values[VICTIM] - OTHER).tolist()
