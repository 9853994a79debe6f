"""A few deployments of fixed seeds; and the controls: with a bug planted, some seed finds it, by the right oracle.

Each control names what was broken and the promise that must be seen broken. The seeds to try are bounded, and without
the bug the same seeds keep all promises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.client import Client
from protocols.oneshot.client import OneshotClient
from protocols.oneshot.messages import Answer
from protocols.oneshot.parameters import parameters_of
from protocols.oneshot.server import OneshotServer
from protocols.pairwise import client as client_module
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import MASK_KEY
from protocols.pairwise.server import PairwiseServer
from protocols.rounds import client as round_module
from protocols.rounds import dealer as dealer_module
from protocols.rounds import dealing as exchange_module
from protocols.rounds import survivors as survivors_module
from protocols.rounds.client import ClientRound
from protocols.rounds.dealing import Delivery, delivered_codec
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.rounds.steps import Charge
from protocols.simulation.network import Envelope
from secagg.codec import Rows
from secagg.crypto import dealing as dealing_module
from secagg.crypto.keys import derive
from secagg.crypto.masking import pack_masked
from tests.controls import switch_off
from tests.oracle.leak_oracle import Round, View, judge, secrets_of
from tests.scenes.pairwise import believe_that_masking_is_mutual
from tests.simulator import exhaustive
from tests.simulator.__main__ import again, main
from tests.simulator.deployment import Narrowed
from tests.simulator.leaks import Memory, oneshot_combinations, pairwise_sums
from tests.simulator.moves import mutated
from tests.simulator.oracles import Noise, check_variance
from tests.simulator.parties import Failure
from tests.simulator.run import Tally, run, run_many

SHORT, MIDDLE, LONG = 25, 60, 500


def kept(tally: Tally) -> None:
    assert tally.failures == []
    check_variance(tally.noise)


@pytest.mark.parametrize("rounds", [SHORT, pytest.param(MIDDLE, marks=pytest.mark.long)])
def test_all_promises_are_kept(rounds: int) -> None:
    """In 25 deployments by default, in 60 in the long version."""
    kept(run_many(1, rounds, Narrowed()))


@pytest.mark.long
def test_all_promises_are_kept_in_many_more() -> None:
    kept(run_many(1_000_000, LONG, Narrowed()))


def test_a_seed_is_the_same_deployment_each_time() -> None:
    one, two = run(4), run(4)
    assert one.deployment == two.deployment
    assert [r.said for r in one.records] == [r.said for r in two.records]


def test_boxes_are_mutated_though_nobody_has_read_them() -> None:
    boxes = Delivery(Rows(delivered_codec(1), bytes(3 * delivered_codec(1).least)))
    assert len({mutated(boxes, Random(seed)) for seed in range(20)}) > 5


# Controls


@dataclass(frozen=True)
class Bug:
    plant: Callable[[pytest.MonkeyPatch], None]
    promise: str
    """What an oracle says of it, in part."""
    where: Narrowed
    first: int = 0
    """The first that is tried: it finds the bug. If deployments are drawn otherwise, it takes more of them."""
    seeds: int = 60
    """So many are tried at most."""


def switched_off(owner: Any, name: str, condition: str, instead: str = "False") -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: switch_off(patch, owner, name, condition, instead)


def no_charges_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    for charge in ("_reserve", "_commit"):
        switch_off(monkeypatch, Client, charge, "self._ledger is not None")


def charged_too_late(patch: pytest.MonkeyPatch) -> None:
    """The server commits when shares have come, not before it asks for them."""
    steps = dict(PairwiseServer.steps)
    steps[Phase.CONSISTENCY] = steps[Phase.CONSISTENCY]._replace(charge=None)
    steps[Phase.REVEAL] = steps[Phase.REVEAL]._replace(charge=Charge.COMMIT)
    patch.setattr(PairwiseServer, "steps", steps)


def both_kinds_revealed(patch: pytest.MonkeyPatch) -> None:
    reveal = PairwiseClient._reveal

    def careless(self: PairwiseClient) -> Any:
        said, mine = reveal(self), sorted(self._held.items())
        keys = tuple(client_module.Revealed(v, client_module.share_of(points, MASK_KEY)) for v, points in mine)
        return replace(said, key_shares=keys)

    patch.setattr(PairwiseClient, "_reveal", careless)


def no_self_masks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        client_module, "pack_masked", lambda values, ring, plus, *rest: pack_masked(values, ring, plus[1:], *rest)
    )


def shares_of_no_degree(patch: pytest.MonkeyPatch) -> None:
    """Every share is the secret, whatever the threshold."""
    patch.setattr(dealing_module, "uniform", lambda shape, rng: np.zeros(shape, np.uint64))


def same_masks_in_each_round(patch: pytest.MonkeyPatch) -> None:
    def drawn(self: ClientRound, purpose: bytes, *context: bytes) -> bytes:
        return derive(self.identity.key.secret, b"always the same", purpose)

    patch.setattr(ClientRound, "_drawn", drawn)


def the_bearer_of_news_is_blamed(patch: pytest.MonkeyPatch) -> None:
    """Members whose boxes did not open are named, and who dealt them is not."""
    switch_off(patch, OneshotServer, "_blamed", "sure or {*complaints, *self._unopened}", "set(self._unopened)")


def one_client_without_noise(patch: pytest.MonkeyPatch) -> None:
    noised = ClientRound.noised

    def careless(self: ClientRound, *context: bytes) -> Any:
        return self.values().copy() if self.identity.name == "client-00" else noised(self, *context)

    patch.setattr(ClientRound, "noised", careless)


def an_exception_that_nobody_declared(patch: pytest.MonkeyPatch) -> None:
    """Bits beyond the universe are not refused."""

    def loose(bitmap: bytes, universe: Any) -> frozenset[int]:
        bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little").tolist()
        return frozenset(universe[i] for i, bit in enumerate(bits) if bit)

    for module in (survivors_module, round_module, client_module):
        patch.setattr(module, "from_bitmap", loose)


REVEALED_SHARE_CHECKED = "self._exchange.check_shares(v, shares)"


def complaints_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    """A dealer opens a box whatever hash its holder names."""
    switch_off(patch, dealer_module, "check_complaint", "said.box != box_hash(context, holder, delivered)")


def complaints_are_believed(patch: pytest.MonkeyPatch) -> None:
    """A dealer opens a box whoever signed the complaint."""
    signed = "verify(public, said.signature, labels.COMPLAINT, *context.bound(delivered.peer, holder), said.box)"
    switch_off(patch, dealer_module, "check_complaint", signed)


BUGS = {
    "masking is not mutual": Bug(
        believe_that_masking_is_mutual,
        "the server can compute a sum over",
        Narrowed("secagg+", "server", "withhold_from_a_group"),
    ),
    "no quorum of witnesses": Bug(
        switched_off(
            PairwiseClient, "_check_signatures", "(seen := len(set(signers).intersection(witnesses))) < quorum"
        ),
        "honest clients have revealed for one set of survivors",
        Narrowed("secagg+", "server", "two_stories"),
        first=5,
    ),
    "too few neighbours sign": Bug(
        switched_off(PairwiseClient, "_check_signatures", "len(own) < self._t"),
        "honest clients have revealed for one set of survivors",
        Narrowed("secagg", "server", "two_stories"),
        first=27,
    ),
    "few signatures are enough": Bug(
        switched_off(PairwiseClient, "_check_signatures", "len(signers) < least"),
        "enough have signed a set that is revealed for",
        Narrowed("secagg+", "server", "few_are_asked"),
        first=18,
    ),
    "an upload counts twice": Bug(
        switched_off(OneshotClient, "_open", "not ascending(clients) or len(clients) > self.plan.clients"),
        "nobody's upload is counted twice",
        Narrowed("oneshot", "server", "count_twice"),
    ),
    "the charge comes after the shares": Bug(
        charged_too_late, "the server's ledger before reveal", Narrowed("secagg", "", noisy=True)
    ),
    "nothing is charged": Bug(
        switched_off(ServerRound, "_closed", "self._ledger is not None and step.charge is Charge.COMMIT"),
        "the server's ledger before",
        Narrowed("oneshot", "", noisy=True),
    ),
    "a client does not reserve": Bug(
        no_charges_of_clients,
        "a client reserves before it uploads",
        Narrowed("secagg", "", noisy=True),
    ),
    "a mask with the wrong sign": Bug(
        switched_off(PairwiseServer, "_pair_seeds", "plus if u < w else minus", "plus"),
        "the sum of the survivors",
        Narrowed("secagg", ""),
        first=9,
    ),
    "excess noise stays in the sum": Bug(
        switched_off(ServerRound, "_release", "plan.noise is not None and excess_due(plan, len(survivors))"),
        "the sum of the survivors",
        Narrowed("secagg", "", noisy=True),
        first=11,
    ),
    "both kinds of share": Bug(both_kinds_revealed, "never both kinds of share", Narrowed("secagg", "")),
    "no self-masks": Bug(
        no_self_masks,
        "an upload is its input and the masks that it lists",
        Narrowed("secagg+", "server", "called_dead"),
    ),
    "shares with too low a threshold": Bug(
        shares_of_no_degree, "the server can compute a sum over", Narrowed("secagg", "server", "called_dead"), first=4
    ),
    "the same masks in each round": Bug(
        same_masks_in_each_round, "the server can compute a sum over", Narrowed("secagg", ""), first=9, seeds=200
    ),
    "an honest client is blamed": Bug(
        the_bearer_of_news_is_blamed,
        "nobody is blamed who is honest",
        Narrowed("oneshot", "client", "oneshot_boxes_that_do_not_open"),
        first=3,
    ),
    "a restart forgets the secret": Bug(
        switched_off(Client, "start", "records[0].secret if records else self._rng(KEY_BYTES)", "self._rng(KEY_BYTES)"),
        "a restarted client goes on where it was",
        Narrowed("secagg", ""),
        first=3,
    ),
    "a repeated frame is checked anew": Bug(
        switched_off(Client, "_received", "request in self._answered"),
        "an honest server passes nothing on that a client refuses",
        Narrowed("secagg", ""),
    ),
    "an exception that nobody declared": Bug(
        an_exception_that_nobody_declared, "IndexError", Narrowed("secagg", "server", "mutate"), first=24
    ),
    "a round that could have ended well": Bug(
        switched_off(OneshotServer, "_deliver", "least_contributors(self.plan)", "self.plan.clients"),
        "a sum, or the liar named",
        Narrowed("oneshot", ""),
    ),
    "complaints are not compared with the box that was dealt": Bug(
        complaints_are_not_compared,
        "an honest dealer opens only boxes of corrupt holders",
        Narrowed("secagg", "server", "damage_boxes"),
    ),
    "complaints need no signature": Bug(
        complaints_are_believed,
        "an honest dealer opens only boxes of corrupt holders",
        Narrowed("secagg", "server", "forge_complaints"),
    ),
    "shares of whoever was left out are kept": Bug(
        switched_off(PairwiseClient, "_good_shares", "sorted(dealers - {self._u})", "sorted(held)"),
        "an honest client's frame is refused",
        Narrowed("secagg", "client", "deals_badly_to_few"),
    ),
    "masks of whoever was left out": Bug(
        switched_off(PairwiseClient, "_upload", "self._held.keys() - {self._u}", "self._peers"),
        "the sum of the survivors",
        Narrowed("secagg", "client", "deals_badly_to_few"),
    ),
    "shares are not checked as they are revealed": Bug(
        switched_off(PairwiseServer, "_take_reveal", REVEALED_SHARE_CHECKED, "None"),
        "nobody is blamed who is honest",
        Narrowed("secagg", "client", "wrong_shares_revealed"),
    ),
    "nobody is left out": Bug(
        switched_off(PairwiseServer, "_leave_out", "self._exchange.leave_out(dealers)", "None"),
        "an honest server passes nothing on that a client refuses",
        Narrowed("secagg", "client", "deals_badly_to_few"),
    ),
    "shares are not compared with commitments": Bug(
        switched_off(
            exchange_module, "fit", "commitments(context, box.peer, holder, inside, secrets) == box.commitments", "True"
        ),
        "an honest client's frame is refused",
        Narrowed("secagg", "client", "commits_to_other_shares"),
    ),
    "points are not compared with the proof": Bug(
        switched_off(
            exchange_module,
            "fit",
            "consistent(points, [box.challenge for box in boxes], shown)",
            "np.ones(len(boxes), bool)",
        ),
        "a budget is spent for nothing only by another secret",
        Narrowed("secagg", "client", "deals_badly_to_few"),
    ),
    "two sets with one-shot clients": Bug(
        switched_off(OneshotClient, "_check_signatures", "len(signers) < (quorum := parameters_of(self.plan).quorum)"),
        "honest members have answered for one set",
        Narrowed("oneshot", "server", "two_sets"),
    ),
}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    bug.plant(monkeypatch)
    played = (run(seed, bug.where) for seed in range(bug.first, bug.first + bug.seeds))
    found = next(result for result in played if result.failure)
    assert bug.promise in found.failure
    monkeypatch.undo()
    assert run(found.seed, bug.where).failure == ""


def test_a_failing_seed_replays_and_loses_the_faults_that_it_does_not_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    BUGS["a restart forgets the secret"].plant(monkeypatch)
    assert main(["--replay", "4", "--protocol", "secagg", "--liar", "nobody"]) == 1
    said = capsys.readouterr().out
    assert "FAILED: a restarted client goes on where it was" in said
    assert "-> server: Dealt" in said
    (without,) = [line for line in said.splitlines() if "as well without" in line]
    assert "dropouts" in without
    assert "restarts" not in without
    assert again(4, Narrowed("secagg", "")) == "python -m tests.simulator --replay 4 --protocol secagg --liar nobody"


@pytest.mark.parametrize("rounds", [12, pytest.param(24, marks=pytest.mark.long)])
def test_a_client_that_leaves_out_its_noise_is_found(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No single round shows it. In 12 deployments by default, in 24 in the long version."""
    where = Narrowed("secagg", "", noisy=True, length=400)
    kept(run_many(0, rounds, where))
    one_client_without_noise(monkeypatch)
    tally = run_many(0, rounds, where)
    assert tally.failures == []
    with pytest.raises(Failure, match="noise of the planned variance"):
        check_variance(tally.noise)


def test_the_variance_test_bounds_both_sides() -> None:
    check_variance({"secagg": Noise(10_300, 10_000, 10_000)})
    for squares in (9_000, 11_200):
        with pytest.raises(Failure):
            check_variance({"secagg": Noise(squares, 10_000, 10_000)})


# Everything that one liar among four can do


@pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.long)])
def test_one_liar_among_four_clients_ends_nothing_unnamed(few: bool) -> None:
    """All oracles of an honest server's rounds, for each combination of the choices at each of its messages."""
    count = exhaustive.liars(few)
    assert count.ends["sum"] > count.ends["named"] > 0
    assert count.rounds >= (30 if few else 500)


@pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.long)])
def test_whatever_a_server_says_to_four_clients_it_learns_a_sum_or_nothing(few: bool) -> None:
    count = exhaustive.servers(few, every=5 if few else 1)
    assert count.states >= (60 if few else 500)
    assert count.ends["the sum"] > 0
    assert count.ends["nothing"] > 0


def test_the_search_finds_a_client_that_masks_after_any_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    believe_that_masking_is_mutual(monkeypatch)
    with pytest.raises(Failure, match="the server can compute a sum over"):
        exhaustive.servers(few=True)


def test_the_search_finds_a_server_that_believes_what_is_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS["shares are not checked as they are revealed"].plant(monkeypatch)
    with pytest.raises(Failure, match="nobody is blamed who is honest"):
        exhaustive.liars(few=True)


# Two leak oracles


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("move", "mutual"), [("both_kinds", True), ("withhold_from_a_group", False)])
def test_both_leak_oracles_say_the_same(move: str, mutual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph and the elimination, over rounds of lying servers, with and without the check that matters most."""
    if not mutual:
        believe_that_masking_is_mutual(monkeypatch)
    compared = sums = 0
    for seed in range(200, 210):
        protocol = ("secagg", "secagg+")[seed % 2]
        result = run(seed, Narrowed(protocol, "server", move, noisy=False, length=150))
        (d, record), messages = (result.deployment, result.records[0]), registry.find(protocol).messages
        assert d is not None
        frames = {
            Envelope(one.phase, one.sender, one.receiver, messages.encode(record.plan, one.message)): None
            for one in record.said
            if one.message is not None
        }
        secrets = {name: secrets_of(_Of(machine)) for name, machine in record.machines.items()}  # type: ignore[arg-type]
        inputs = {name: record.machines[name].values() for name in d.corrupt} | record.noised
        verdict = judge([Round(View(record.plan, d.roster, frames=list(frames)), inputs, secrets)], d.corrupt)
        corrupt = [record.machines[name] for name in d.corrupt]
        mine = set(pairwise_sums(record, corrupt, Memory()))
        theirs = {frozenset(name for _, name in one.coefficients) for one in verdict.computable}
        assert mine == theirs
        compared, sums = compared + 1, sums + len(mine)
    assert compared == 10
    assert sums >= 4


class _Of:
    """A client, as ``secrets_of`` wants it."""

    def __init__(self, machine: Any) -> None:
        self._round = machine


@pytest.mark.parametrize("answers", ["all", "one less than a quorum"])
def test_the_one_shot_oracle_sees_the_one_sum(answers: str) -> None:
    """It is not blind, and what too few members say is nothing."""
    seen = 0
    for seed in range(8):
        record = run(seed, Narrowed("oneshot", "")).records[0]
        members = {name: record.opened[name] for name, _ in record.from_clients(Answer) if name in record.opened}
        if record.outcome is None or not members:
            continue
        if answers != "all":
            members = dict(list(members.items())[: parameters_of(record.plan).quorum - 1])
        found = oneshot_combinations(record, members, [])
        assert found is not None
        uploads, basis = found
        assert basis.tolist() == ([[1] * len(uploads)] if answers == "all" else [])
        seen += 1
    assert seen >= 4
