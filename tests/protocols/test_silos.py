"""Clients that are silos of users: which plans they refuse, what a refusal tells, that a restart changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp.calibrate import calibrate, release_of, user_level
from dp.events import Holder, Relation
from dp.filter import Kind
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.journal import MemoryJournal
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, simulate
from secagg.assumptions import colluders
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding, Rounding
from secagg.errors import PeerError, PolicyError, UsageError
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal

N, LENGTH, CAP = 6, 5, 4
IDENTITIES = [Identity.generate(f"silo-{i}", Prg(bytes([i]) * 32)) for i in range(N)]
ROSTER = Roster.of(IDENTITIES)
SILOS = Encoding(LENGTH, clip_l2=1.0, bits=16, users=CAP, overlap=2)
POLICY = Policy(min_contributors=4, dropout="0.34", users=CAP, overlap=2)
USERS = np.eye(LENGTH)[:CAP]
ALONE, ONCE = replace(SILOS, overlap=1), replace(POLICY, overlap=1)
RATE = "encoding.sampled != self.sampled"


def plan_of(encoding: Encoding = SILOS, **more: Any) -> RoundPlan:
    return RoundPlan.propose("secagg", ROSTER, encoding, min_contributors=4, dropout="0.34", **more)


def silo(number: int = 0, policy: Policy = POLICY, **more: Any) -> Client:
    return Client(IDENTITIES[number], ROSTER, policy=policy, **more)


# Plans that a silo refuses, and a client that is none.


REFUSED: list[tuple[str, Encoding, Policy, str, str]] = [
    (
        "the silo as one unit",
        replace(SILOS, users=0, overlap=1),
        POLICY,
        "takes this client for one unit",
        "not encoding.users and self.users",
    ),
    (
        "a device as a silo",
        SILOS,
        replace(POLICY, users=0, overlap=1),
        "this client is one unit",
        "encoding.users and (not self.users)",
    ),
    ("a lower cap", replace(SILOS, users=CAP - 1), POLICY, "allows a silo 3 users", "encoding.users != self.users"),
    ("a higher cap", replace(SILOS, users=CAP + 1), POLICY, "allows a silo 5 users", "encoding.users != self.users"),
    ("less overlap", replace(SILOS, overlap=1), POLICY, "in up to 1 silos", "encoding.overlap != self.overlap"),
    ("more overlap", replace(SILOS, overlap=3), POLICY, "in up to 3 silos", "encoding.overlap != self.overlap"),
    *(
        (f"sampled {asked}, not {agreed}", replace(ALONE, sampled=asked), replace(ONCE, sampled=agreed), said, RATE)
        for asked, agreed, said in (
            (Fraction(1, 2), 1, "samples users at 1/2, this silo has agreed on 1"),
            (Fraction(1, 1000), Fraction(1, 2), "samples users at 1/1000"),
            (Fraction(1), Fraction(1, 2), "samples users at 1, this silo has agreed on 1/2"),
        )
    ),
]
"""With a larger rate than agreed on a user is protected by less than it counts on, and with a smaller one its silo's
part of the sum may be its vector alone."""


@pytest.mark.parametrize(
    ("encoding", "policy", "said", "condition"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_a_plan_for_other_units_is_refused(
    encoding: Encoding, policy: Policy, said: str, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that could choose caps would find out by halving how many users there are."""
    client = silo(policy=policy)
    for asked in (client.check, lambda plan: client.start(plan, Unread(1))):
        with pytest.raises(PolicyError, match=said):
            asked(plan_of(encoding, noise=GAUSSIANS))
    switch_off(monkeypatch, Policy, "_check_users", condition)
    for other in ("encoding.users != self.users", "encoding.overlap != self.overlap"):
        if "not" in condition:  # what is not said by one check, the next says
            switch_off(monkeypatch, Policy, "_check_users", other)
    assert not silo(policy=policy).check(plan_of(encoding, noise=GAUSSIANS))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"users": -1}, {"users": 1 << 31}, {"overlap": 0}, {"overlap": 1 << 16, "users": 2}, {"overlap": 2}),
        *({"sampled": "1/2"}, {"users": 2, "sampled": 0}, {"users": 2, "sampled": 1.5}),
        {"users": 2, "overlap": 2, "sampled": "1/2"},
    ],
)
def test_no_such_policy(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Policy(min_contributors=2, **wrong)


def test_no_sample_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """All other coins may come up tails: the sum is one user's vector then. Control: unchecked, it is a plan."""
    sampled = replace(ALONE, sampled=Fraction(1, 2))
    for noise in (None, NOISE):
        with pytest.raises(UsageError, match="under discrete Gaussian noise only"):
            plan_of(sampled, noise=noise)
    assert plan_of(sampled, noise=GAUSSIANS).encoding.sampled == Fraction(1, 2)
    condition = "self.noise is None or self.noise.family is not Family.DISCRETE_GAUSSIAN"
    switch_off(monkeypatch, RoundPlan, "__post_init__", condition)
    assert plan_of(sampled)


def test_nobody_is_in_more_silos_than_there_are() -> None:
    assert plan_of(replace(SILOS, overlap=N))
    with pytest.raises(UsageError, match="no more silos than the 6"):
        plan_of(replace(SILOS, overlap=N + 1))
    with pytest.raises(UsageError, match="no more silos"):
        replace(with_noise().secure_sum(N), overlap=N + 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"users": -1}, "fewer than 2\\^31"),
        ({"users": 0, "overlap": 2}, "no more silos"),
        ({"overlap": 0}, "no more silos"),
        ({"weight_bound": 2}, "no weights"),
        ({"rounding": "up"}, "stochastic or nearest or exact"),
    ],
)
def test_no_such_facts_of_a_sum(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(with_noise().secure_sum(N), **wrong)


def test_facts_are_those_of_the_plan() -> None:
    plan = with_noise()
    facts = plan.secure_sum(N)
    assert (facts.users, facts.overlap, facts.rounding, facts.holder) == (CAP, 2, "stochastic", Holder.SILO)
    assert RoundPlan.charged(facts) == plan
    for other in ({"users": CAP - 1}, {"overlap": 1}, {"rounding": "nearest"}):
        with pytest.raises(PeerError, match="not the facts of the plan"):
            RoundPlan.charged(replace(facts, **other))  # type: ignore[arg-type]


# More users than the cap.


class Unread:
    """So many users, whom nobody may look at."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        raise AssertionError("a refusal comes before the data are read")


def test_more_users_than_the_cap_are_refused_unread_and_nothing_is_said() -> None:
    """The refusal tells that there are more, and not how many; nothing of the round is in the journal."""
    journal, plan = MemoryJournal(), plan_of()
    client = silo(journal=journal)
    before, said = journal.head(), set()
    for count in (CAP + 1, 1000):
        with pytest.raises(UsageError) as caught:
            client.start(plan, Unread(count))
        said.add(str(caught.value))
    assert said == {"a silo has at most 4 users, this one has more"}
    assert journal.head() == before
    assert not client.check(plan)
    assert client.start(plan, USERS)


def test_a_silo_without_users_and_one_that_failed_are_the_same() -> None:
    vectors = {
        tuple(plan_of().encode_update(update, 1, Prg(bytes(32)))) for update in (None, [], np.zeros((0, LENGTH)))
    }
    assert vectors == {(0,) * LENGTH}


# A restart.


def test_a_silo_goes_on_with_the_integers_with_which_it_began() -> None:
    """Its users' vectors are made once: after a restart they are asked for by nobody."""
    journals = [MemoryJournal() for _ in range(N)]
    plan, kept = plan_of(), {}
    server = serve(plan, ROSTER)
    for i, identity in enumerate(IDENTITIES):
        client = silo(i, journal=journals[i])
        server.receive(identity.name, client.start(plan, USERS[: i % CAP + 1]))
        kept[identity.name] = client.encoded()
    while server.outcome is None:
        server.close(server.phase)
        for name, frame in server.outbox():
            number = ROSTER.names.index(name)
            client = silo(number, journal=journals[number])
            client.resume(plan, lambda name=name: kept[name])
            server.receive(name, client.receive(frame))
    decoded = server.outcome.decode()
    assert np.abs(decoded.vector - sum(USERS[: i % CAP + 1].sum(axis=0) for i in range(N))).max() < 1e-3
    assert decoded.weight == N


# Noise and ledgers.

NOISE = NoiseSpec(Family.SKELLAM, Fraction(10**11), dropouts=2, colluders=1)
GAUSSIANS = replace(NOISE, family=Family.DISCRETE_GAUSSIAN)
BUDGET = Budget(Fraction(20), Fraction(1, 10**5), slack=Fraction(1, 10**8))


def with_noise(encoding: Encoding = SILOS) -> RoundPlan:
    return plan_of(encoding, noise=NOISE)


def test_a_silos_own_ledger_is_for_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose budget is for the silo as a whole, begins nothing, and asks for no data."""

    def ledger(holder: Holder) -> Ledger:
        guarantee = user_level(Relation.ZERO_OUT, holder)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        return Ledger.create(path, IDENTITIES[0].key, BUDGET, guarantee, run="a test", elsewhere="nothing")

    wrong = silo(journal=KeptJournal(), ledger=ledger(Holder.DEVICE))
    with pytest.raises(UsageError, match="a silo holds each unit of the sum, a device those of the guarantee"):
        wrong.check(with_noise())
    with pytest.raises(UsageError, match="a silo holds each unit"):
        wrong.start(with_noise(), Unread(1))
    assert silo(journal=KeptJournal(), ledger=ledger(Holder.SILO)).start(with_noise(), USERS)


def test_a_round_of_silos_is_charged_for_one_of_their_users(tmp_path: Path) -> None:
    path, guarantee = tmp_path / "ledger.db", user_level(Relation.ZERO_OUT, Holder.SILO)
    plan = with_noise()
    with_ledger = Ledger.create(path, IDENTITIES[0].key, BUDGET, guarantee, run="a test", elsewhere="nothing")
    clients = {one.name: silo(i) for i, one in enumerate(IDENTITIES)}
    faults = Faults(dropouts={"silo-5": "upload"})
    simulate(serve(plan, ROSTER, ledger=with_ledger), clients, lambda name: USERS, faults=faults)
    (commit,) = [entry for entry in with_ledger.entries() if entry["phase"] == "commit"]
    found, once = commit["sum"], replace(SILOS, users=0, overlap=1).sensitivity()
    assert (found["users"], found["overlap"], found["survivors"]) == (CAP, 2, 5)
    assert (found["l2_squared"], found["l1"]) == (4 * once.l2_squared, 2 * once.l1)
    with_ledger.close()


def test_noise_is_for_users_in_as_many_silos_as_are_declared() -> None:
    """In two silos: twice the deviation. Were such a person charged twice over instead, the noise would be
    sqrt(2) times, and the two parts of one sum would show through it."""
    asked: dict[str, Any] = {"epsilon": 6, "delta": 1e-6, "rounds": 3, "clients": 20, "length": 64, "clip_l2": 1.0}
    asked |= {"ring_bits": 40, "dropouts": 2, "rotate": False}
    device, once, twice = (calibrate(**asked, **more) for more in ({}, {"users": 9}, {"users": 9, "overlap": 2}))
    assert once.deviation == pytest.approx(device.deviation, rel=1e-3)
    assert twice.deviation == pytest.approx(2 * once.deviation, rel=1e-3)
    nearest = calibrate(**asked, users=9, rounding="nearest")
    assert nearest.encoding.rounding is Rounding.NEAREST
    assert nearest.deviation == pytest.approx(once.deviation, rel=0.01)
    with pytest.raises(UsageError, match="no noise makes this private in a ring of 18 bits"):
        calibrate(**asked | {"ring_bits": 18}, users=9, rounding="nearest")
    for encoding, holder in ((SILOS, Holder.DEVICE), (replace(SILOS, users=0, overlap=1), Holder.SILO)):
        with pytest.raises(UsageError, match="holds each unit"):
            release_of(encoding, NOISE, N, N, user_level(Relation.ZERO_OUT, holder))


# Samples of users.


def test_coins_are_tossed_once_for_a_round_and_anew_for_the_next() -> None:
    """A client that is restarted in a round has the same users in its sum, one that enters another round has others;
    whoever is not in it has handed over zeros."""
    cap = 40
    encoding = Encoding(cap, clip_l2=1.0, bits=16, users=cap, sampled=Fraction(1, 2), rounding=Rounding.NEAREST)
    policy = replace(ONCE, users=cap, sampled=Fraction(1, 2))
    plan, journal = plan_of(encoding, noise=GAUSSIANS), KeptJournal()

    def members(client: Client, plan: RoundPlan) -> list[int]:
        client.start(plan, np.eye(cap))
        values = plan.ring.centred(plan.ring.unpack(client.encoded(), cap))
        assert set(values.tolist()) == {0, encoding.largest}
        return np.flatnonzero(values).tolist()

    first = members(silo(policy=policy, journal=journal), plan)
    assert members(silo(policy=policy, journal=journal), plan) == first
    rounds = [members(silo(policy=policy, journal=journal), plan := plan.next_round()) for _ in range(4)]
    assert len({tuple(one) for one in (first, *rounds)}) == 5  # that two of five are alike: 10 / 2^40
    assert members(silo(1, policy=policy), plan) != rounds[-1]


def test_a_round_of_samples_is_charged_as_one(tmp_path: Path) -> None:
    """To a budget of kind renyi; one of kind gdp has no bound for it, and begins nothing."""
    guarantee = user_level(Relation.ZERO_OUT, Holder.SILO)
    plan = plan_of(replace(ALONE, sampled=Fraction(1, 4)), noise=GAUSSIANS)
    policy, costs = replace(ONCE, sampled=Fraction(1, 4)), []
    for kind, agreed, asked in (
        (Kind.RENYI, policy, plan),
        (Kind.RENYI, ONCE, plan_of(ALONE, noise=GAUSSIANS)),
        (Kind.GDP, policy, plan),
    ):
        path = tmp_path / f"{len(costs)}.db"
        budget = replace(BUDGET, kind=kind, order=0)
        ledger = Ledger.create(path, IDENTITIES[0].key, budget, guarantee, run="a test", elsewhere="nothing")
        clients = {one.name: silo(i, agreed) for i, one in enumerate(IDENTITIES)}
        if kind is Kind.GDP:
            with pytest.raises(UsageError, match="no GDP bound"):
                simulate(serve(asked, ROSTER, ledger=ledger), clients, lambda name: USERS)
            continue
        simulate(serve(asked, ROSTER, ledger=ledger), clients, lambda name: USERS)
        (commit,) = [entry for entry in ledger.entries() if entry["phase"] == "commit"]
        costs.append((commit["cost"][0], commit["sum"]["sampling"], commit["sum"]["seen_by"], commit["sum"]["sampled"]))
        ledger.close()
    assert [cost[1:] for cost in costs] == [("PoissonSample", "silo", "1/4"), ("Everyone", "server", "1")]
    assert costs[0][0] < costs[1][0] / 4


# Colluders.


def test_how_many_clients_noise_does_not_count() -> None:
    assert [colluders("0.05", n) for n in (2, 4, 19, 20, 21, 40, 41, 1000)] == [1, 1, 1, 1, 2, 2, 3, 50]
    assert colluders(0, 10**6) == 1
    assert colluders(0.07, 100) == 7  # 7.000000000000001 in floats


def test_a_silo_knows_its_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few clients are feared: one of them may be who looks at the sum."""
    unaware = plan_of(noise=replace(NOISE, colluders=0))
    with pytest.raises(PolicyError, match="allows for 0 colluders, not the 1 feared"):
        silo(policy=replace(POLICY, corrupt=0)).check(unaware)
    assert not silo(policy=replace(POLICY, corrupt=0)).check(with_noise())
    switch_off(monkeypatch, Policy, "check", "plan.noise.colluders < (feared := colluders(self.corrupt, plan.clients))")
    assert not silo(policy=replace(POLICY, corrupt=0)).check(unaware)


# A server that lies, with as many silos as the noise is counted against, opens one sum


def proposed(protocol: str, n: int, family: Family | None = Family.SKELLAM) -> RoundPlan:
    """For the usual fractions: a twentieth dishonest, a tenth silent."""
    names = [Identity.generate(f"silo-{i:02}", Prg(i.to_bytes(32, "big"))) for i in range(n)]
    gone, known = n // 10, colluders("0.05", n)
    noise = None if family is None else NoiseSpec(family, Fraction(10**10), gone, known)
    return RoundPlan.propose(protocol, Roster.of(names), SILOS, min_contributors=max(2, n - gone), noise=noise)


def opened_twice(plan: RoundPlan, n: int) -> bool:
    """Whether two sets of survivors can be signed, with the colluders' names under both: each honest one signs once."""
    signers, known = rules_of(plan.protocol).signers(plan), colluders("0.05", n)
    return 2 * (signers - known) <= n - known


@pytest.mark.parametrize("protocol", ["secagg", "secagg+", "oneshot"])
def test_of_colluders_that_the_noise_allows_for_no_second_sum_is_opened(protocol: str) -> None:
    """Two sums over other sets of silos have less noise between them than each of them has. Control: without noise the
    fraction is rounded down, and one of 11 silos is none."""
    for n in (4, 5, 10, 11, 15, 21, 24, 30):
        assert not opened_twice(proposed(protocol, n), n), n
    assert opened_twice(proposed("oneshot", 11, None), 11)


def test_where_each_silos_noise_is_enough_it_does_not_matter_which_sums_are_opened() -> None:
    """With parts that are removed it does: one silo shows the seed of its parts, and the other keeps its own."""
    noise = NoiseSpec(Family.SKELLAM, Fraction(10**10), dropouts=1, colluders=1)
    alone, removable = noise.enough_alone(3), replace(noise, components=1).enough_alone(3)
    assert (alone, removable, noise.enough_alone(4)) == (True, False, False)
    roster = Roster.of(IDENTITIES[:3])
    how: dict[str, Any] = {"min_contributors": 2, "corrupt": "0", "dropout": "0.34"}
    RoundPlan.propose("secagg", roster, SILOS, noise=noise, **how)
    with pytest.raises(UsageError, match="infeasible: 3 clients need threshold 3"):
        RoundPlan.propose("secagg", roster, SILOS, noise=replace(noise, components=1), **how)


@pytest.mark.parametrize(
    ("protocol", "said"), [("oneshot", "bears 0 corrupt members, not the 1 feared"), ("secagg", "threshold 6 is too")]
)
def test_a_silo_refuses_noise_whose_colluders_the_protocol_does_not_bear(protocol: str, said: str) -> None:
    plan, trusting = proposed(protocol, 11), proposed(protocol, 11, None)
    roster = Roster.of([Identity.generate(f"silo-{i:02}", Prg(i.to_bytes(32, "big"))) for i in range(11)])
    me = Identity.generate("silo-00", Prg(bytes(32)))
    policy = Policy(min_contributors=10, protocols={protocol}, users=CAP, overlap=2)
    Client(me, roster, policy=policy).check(plan)
    Client(me, roster, policy=policy).check(trusting)
    with pytest.raises(PolicyError, match=said):
        Client(me, roster, policy=policy).check(replace(plan, parameters=trusting.parameters))
