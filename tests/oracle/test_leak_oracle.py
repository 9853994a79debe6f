"""Honest rounds give the server the sum over the survivors and nothing else; naive variants are caught.

Each variant is made here, by patching one step of the real machines: the oracle must not need to be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.client import Client
from protocols.pairwise import client as client_module
from protocols.pairwise.client import PairwiseClient, check_header
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import MASK_KEY, SELF_MASK, Reveal, Revealed, Upload
from protocols.pairwise.messages import Verdict as Ruling
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from protocols.rounds import dealer as dealer_module
from protocols.rounds.dealing import Complaints, Delivery, share_of
from protocols.rounds.server import Sends
from protocols.rounds.sets import from_bitmap, to_bitmap
from protocols.simulation.network import Envelope, Faults, local_clients, simulate
from secagg.assumptions import Adversary
from secagg.crypto import labels
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import derive
from secagg.crypto.masking import pack_masked
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.encoding import Encoding
from secagg.errors import ThresholdError
from tests.controls import switch_off
from tests.oracle.leak_oracle import Combination, Round, Verdict, View, _Transcript, judge, secrets_of

pytestmark = pytest.mark.thinned(4)

LENGTH = 160  # long enough to tell all of a client's streams in two rounds apart
PHASES = [str(phase) for phase in PairwiseServer.steps]


@dataclass
class Session:
    """Clients, and the rounds that they have been through."""

    plan: RoundPlan
    roster: Roster
    clients: Mapping[str, Client]
    rounds: list[Round] = field(default_factory=list)
    aborted: bool = False

    @property
    def names(self) -> list[str]:
        return list(self.clients)

    def run(
        self,
        *,
        silent: Mapping[str, str] | None = None,
        late: Iterable[str] = (),
        view: View | None = None,
        server: PairwiseServer | None = None,
    ) -> Round:
        """One round. The uploads of those who are ``late`` reach the server, which calls these clients dead."""
        late = set(late)
        if view is None:
            view = View(self.plan, self.roster, hidden=lambda e: e.phase == "upload" and e.sender in late)
        rng = np.random.default_rng(self.plan.round)
        inputs = {name: rng.integers(-1000, 1000, LENGTH) for name in self.names}
        faults = Faults(dropouts=silent or {}, corrupted=view)
        try:
            simulate(
                server or PairwiseServer(self.plan, self.roster, registry.find(self.plan.protocol).messages),
                self.clients,
                inputs.__getitem__,
                faults=faults,
            )
            self.aborted = False
        except ThresholdError:
            self.aborted = True
        secrets = {name: secrets_of(client) for name, client in self.clients.items()}
        self.rounds.append(Round(view, inputs, secrets))
        self.plan = self.plan.next_round()
        return self.rounds[-1]


def session(
    protocol: str, n: int, *, degree: int = 6, threshold: int = 4, least: int = 4, adversary: str = "active"
) -> Session:
    """Clients that fear no dropouts: so they accept rings small enough to look at."""
    policy = Policy(min_contributors=least, corrupt="0", dropout="0", adversary=Adversary(adversary))
    roster, clients = local_clients(n, policy, Prg(n.to_bytes(32, "big")))
    encoding = Encoding.integers(LENGTH, bits=12)
    plan = RoundPlan.propose(
        protocol, roster, encoding, min_contributors=least, corrupt="0", dropout="0", session=bytes(16)
    )
    if protocol == "secagg+":
        witnesses = (n, n // 2 + 1) if adversary == "active" else (0, 0)
        plan = replace(plan, parameters=GraphParameters(Graph.RING, degree, threshold, *witnesses))
    return Session(plan, roster, clients)


def total(names: Iterable[str], round_: int = 0) -> Combination:
    return Combination({(round_, name): 1 for name in names})


def single(verdict: Verdict) -> set[str]:
    """Whose inputs are bare."""
    return {name for leak in verdict.leaks if len(leak.coefficients) == 1 for _, name in leak.coefficients}


# Honest rounds.

both_protocols = pytest.mark.parametrize(("protocol", "n"), [("secagg", 8), ("secagg+", 12)])


@both_protocols
@pytest.mark.parametrize("corrupt", [0, 2])
@pytest.mark.parametrize("phase", [None, *PHASES, "late"])
def test_an_honest_round_gives_the_sum_and_nothing_else(protocol: str, n: int, phase: str | None, corrupt: int) -> None:
    """Two clients drop in one phase, or their uploads come too late; two others tell the server all they know."""
    here = session(protocol, n)
    gone, insiders = here.names[1:6:4], here.names[2 : 2 + corrupt]
    late = phase == "late"
    one = here.run(late=gone if late else (), silent=dict.fromkeys(gone, phase) if phase and not late else {})
    verdict = judge([one], insiders)
    assert verdict.safe
    assert not here.aborted
    out = [] if phase in (None, "consistency", "reveal") else gone
    honest = [name for name in here.names if name not in out and name not in insiders]
    assert verdict.computable == (total(honest),)  # the oracle is not blind


@both_protocols
def test_dropouts_in_every_phase_at_once(protocol: str, n: int) -> None:
    here = session(protocol, n)
    one = here.run(silent=dict(zip(here.names[::3], PHASES[1:], strict=False)), late=[here.names[1]])
    assert judge([one], here.names[2:3]).safe


@both_protocols
@pytest.mark.parametrize("phase", PHASES)
def test_an_aborted_round_gives_nothing(protocol: str, n: int, phase: str) -> None:
    here = session(protocol, n)
    verdict = judge([here.run(silent=dict.fromkeys(here.names[2:], phase))], here.names[:1])
    assert here.aborted
    assert verdict.safe
    assert verdict.computable == ()


@both_protocols
def test_two_rounds_give_two_sums(protocol: str, n: int) -> None:
    """Although the same client is dead in one round and alive in the other."""
    here = session(protocol, n)
    rounds = [here.run(late=here.names[:1]), here.run(silent={here.names[4]: "upload"})]
    verdict = judge(rounds, here.names[2:3])
    assert verdict.safe
    out = {here.names[2]}
    assert list(verdict.computable) == [
        total([name for name in here.names if name not in out | {here.names[0]}]),
        total([name for name in here.names if name not in out | {here.names[4]}], 1),
    ]


# Beyond what is promised: the oracle must notice.


def test_with_a_quorum_of_corrupt_clients_there_is_no_privacy() -> None:
    """Four shares of five: the corrupt clients' boxes are enough."""
    here = session("secagg", 6)
    one = here.run()
    assert judge([one], here.names[:3]).safe
    verdict = judge([one], here.names[:4])
    assert single(verdict) == set(here.names[4:])


def test_a_ring_that_falls_apart_gives_the_sums_of_its_parts() -> None:
    """Two neighbours each side, and two gaps of two: parameters that count on dropouts rule this out."""
    here = session("secagg+", 12, degree=4, threshold=2, adversary="curious")
    server = PairwiseServer(here.plan, here.roster, registry.find(here.plan.protocol).messages)

    def in_ring_order(*ranks: range) -> set[str]:
        order = server._cohort._graph._order.tolist()
        return {here.roster.names[server._clients[order[i]]] for part in ranks for i in part}

    def lost(envelope: Envelope) -> bool:
        return envelope.phase == "upload" and envelope.sender in in_ring_order(range(2), range(6, 8))

    verdict = judge([here.run(view=View(here.plan, here.roster, lost=lost), server=server)])
    assert not here.aborted
    parts = [total(in_ring_order(part)) for part in (range(2, 6), range(8, 12))]
    assert sorted(map(str, verdict.leaks)) == sorted(map(str, parts))


# Naive variants.


def test_without_self_masks_whoever_is_late_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack_with_pair_masks_only(values: Any, ring: Ring, plus: list[bytes], minus: list[bytes], out: Any) -> None:
        pack_masked(values, ring, plus[1:], minus, out)

    monkeypatch.setattr(client_module, "pack_masked", pack_with_pair_masks_only)
    here = session("secagg", 7)
    assert judge([here.run()]).safe  # nobody is late: this variant's weakness does not show
    verdict = judge([here.run(late=here.names[3:4])])
    assert single(verdict) == {here.names[3]}


def test_with_both_shares_revealed_everybody_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    def reveal_all(self: PairwiseClient) -> Reveal:
        shares = sorted(self._held.items())
        return Reveal(
            self_shares=tuple(Revealed(v, share_of(points, SELF_MASK)) for v, points in shares),
            key_shares=tuple(Revealed(v, share_of(points, MASK_KEY)) for v, points in shares),
            excess=b"",
        )

    monkeypatch.setattr(PairwiseClient, "_reveal", reveal_all)
    here = session("secagg", 6)
    verdict = judge([here.run(late=here.names[3:4])])
    assert single(verdict) == set(here.names)


def test_with_the_same_seeds_in_two_rounds_differences_are_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(self: PairwiseClient, purpose: bytes, *context: bytes) -> bytes:
        return derive(self.identity.key.secret, labels.CLIENT_SECRET, purpose, *context)

    def bound(self: Cohort, *positions: int) -> tuple[bytes, ...]:
        return tuple(bytes([position]) for position in positions)

    monkeypatch.setattr(PairwiseClient, "_drawn", drawn)
    monkeypatch.setattr(Cohort, "bound", bound)
    here = session("secagg", 6)
    rounds = [here.run(), here.run()]
    assert judge(rounds[:1]).safe
    assert judge(rounds[1:]).safe
    verdict = judge(rounds)
    differences = [Combination({(0, name): 1, (1, name): -1}) for name in here.names]
    assert all(difference in verdict.leaks for difference in differences[1:])
    assert total(here.names, 1) in verdict.computable  # from it and the others follows the first difference
    assert len(verdict.computable) == 7


def test_with_the_same_keys_in_two_rounds_a_dropout_is_bare_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks differ, but the key that was revealed in round 0 still works in round 1."""

    def drawn(self: PairwiseClient, purpose: bytes, *context: bytes) -> bytes:
        return derive(self.identity.key.secret, labels.CLIENT_SECRET, purpose, *context)

    monkeypatch.setattr(PairwiseClient, "_drawn", drawn)
    here = session("secagg", 6)
    rounds = [here.run(silent={here.names[2]: "upload"}), here.run()]
    assert judge(rounds[1:]).safe
    assert single(judge(rounds)) == {here.names[2]}


class CuttingServer(PairwiseServer):
    """Cuts the ring at two gaps: tells those on one side to keep no shares of those on the other.

    Ring order: two dead, nine on the near side, two dead, the rest on the far side. Far clients keep all shares, also
    those of near clients; near clients mask only among themselves and with the dead.
    """

    near: frozenset[int]
    dead: frozenset[int]

    def _introduce(self) -> Sends:
        sends = super()._introduce()
        order = self._cohort._graph._order.tolist()
        self.dead, self.near = frozenset(order[:2] + order[11:13]), frozenset(order[2:11])
        return sends

    def _verdict(self, number: int) -> Ruling:
        v = self._positions[number]
        if v not in self.near:
            return super()._verdict(number)
        return Ruling(to_bitmap(self._dealers_to(v) & (self.near | self.dead), self._holders[v]), ())

    def _add(self, number: int, upload: Upload, _hash: bytes) -> None:
        u = self._positions[number]
        self._headers[u] = upload.header
        self._masked_with[u] = check_header(self._cohort, self.roster, number, self._t, upload.header)

    def _take_reveal(self, number: int, reveal: Reveal) -> None:
        pass

    def _unmask(self) -> Sends:
        raise ThresholdError("this server computes on its own")


def cut(here: Session) -> tuple[Verdict, set[str]]:
    server = CuttingServer(here.plan, here.roster, registry.find(here.plan.protocol).messages)

    def lost(envelope: Envelope) -> bool:
        return envelope.phase == "upload" and envelope.sender in {
            here.roster.names[server._clients[u]] for u in server.dead
        }

    one = here.run(view=View(here.plan, here.roster, lost=lost), server=server)
    return judge([one]), {here.roster.names[server._clients[u]] for u in server.near}


def test_the_ring_cannot_be_cut_because_masking_is_mutual() -> None:
    verdict, _ = cut(session("secagg+", 24, degree=8, threshold=6, least=12))
    assert verdict.safe
    assert verdict.computable == ()


def test_without_mutual_masking_the_ring_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve had to be in the sum; the server gets a sum of nine."""
    mutual = (
        "not self._held.keys() >= set(alive)",
        "[header.position for header in message.headers] != alive",
        "self._u not in check_header(self._cohort, self.roster, client, self._t, header)",
    )
    for condition in mutual:
        switch_off(monkeypatch, PairwiseClient, "_hear_survivors", condition)
    verdict, near = cut(session("secagg+", 24, degree=8, threshold=6, least=12))
    assert [leak.coefficients for leak in verdict.leaks] == [total(near).coefficients]


class DamagingServer(PairwiseServer):
    """Damages the first client's boxes for so many holders on their way, and hands their complaints to it."""

    damaged: int

    def _delivery(self, number: int) -> Delivery:
        delivery = super()._delivery(number)
        if not 1 <= self._positions[number] <= self.damaged:
            return delivery
        first, *rest = delivery.boxes
        return Delivery((replace(first, points=bytes(4) + first.points[4:]), *rest))

    def _take_complaints(self, number: int, said: Complaints) -> None:
        for one in said.complaints:
            self._exchange._complaints.setdefault(one.peer, {})[self._positions[number]] = one


def damage(damaged: int, insiders: int = 0) -> tuple[Verdict, str]:
    """Six clients, t = 4; the insiders are the last ones."""
    here = session("secagg", 6)
    server = DamagingServer(here.plan, here.roster, registry.find(here.plan.protocol).messages)
    server.damaged = damaged
    return judge([here.run(server=server)], here.names[6 - insiders :]), here.names[0]


def believe_complaints(monkeypatch: pytest.MonkeyPatch, however_many: bool) -> None:
    switch_off(monkeypatch, dealer_module, "check_complaint", "said.box != box_hash(context, holder, delivered)")
    if however_many:
        switch_off(
            monkeypatch, PairwiseClient, "_hear_complaints", "len(complaining) > (most := self._most_complaints())"
        )


@pytest.mark.parametrize("damaged", [1, 3, 4, 5])
def test_damaged_boxes_are_not_opened(damaged: int) -> None:
    assert damage(damaged)[0].safe


def test_what_a_dealer_opens_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dealers' checks gone, t boxes give everything away: both secrets, and what blinded them."""
    believe_complaints(monkeypatch, however_many=True)
    assert damage(3)[0].safe
    verdict, dealer = damage(4)
    assert dealer in single(verdict)
    assert verdict.unblinded == {dealer}


def test_what_a_dealer_opens_adds_up_with_what_the_corrupt_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its bound on complaints alone, three are opened: too few without insiders, enough with one."""
    believe_complaints(monkeypatch, however_many=False)
    assert damage(4)[0].safe
    assert damage(3)[0].safe
    verdict, dealer = damage(3, insiders=1)
    assert dealer in single(verdict)
    assert verdict.unblinded == {dealer}


def masks_and_lists(here: Session) -> list[tuple[set[str], set[str]]]:
    """For each upload, with whom its vector is masked, as measured, and whom its signed header lists."""
    never, late = here.names[2], here.names[5]
    one = here.run(silent={never: "share", late: "upload"})
    seen = _Transcript(one)
    streams = seen.streams(frozenset(chain(*one.secrets.values())))
    found = []
    for (u, upload), (_, _, masks) in zip(seen.uploads, seen.equations(streams), strict=True):
        own = seen.name(u)
        masked = {name for seed in masks for name in streams[seed].split()[1:]} - {own}
        listed = from_bitmap(upload.header.holders, seen.cohort.holders(u))
        found.append((masked, {seen.name(v) for v in listed} - {own}))
    return found


@both_protocols
def test_an_upload_is_masked_with_those_whom_it_lists(protocol: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What mutual masking rests on: neighbours check the list, and nobody can look into the vector."""
    assert all(masked == listed for masked, listed in masks_and_lists(session(protocol, n)))
    monkeypatch.setattr(
        client_module, "pack_masked", lambda values, ring, plus, *rest: pack_masked(values, ring, plus[:1], *rest)
    )
    assert any(masked < listed for masked, listed in masks_and_lists(session(protocol, n)))


# The oracle itself.


def test_a_mask_that_is_added_twice_hides_no_low_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the rationals 2s is as unknown as s; over Z_{2^m} half of the ring's ends is bare."""
    monkeypatch.setattr(
        client_module,
        "pack_masked",
        lambda values, ring, plus, *rest: pack_masked(values, ring, [plus[0], *plus], *rest),
    )
    here = session("secagg", 6)
    verdict = judge([here.run(late=here.names[3:4])])
    assert not verdict.leaks
    assert verdict.torsion == 1
    assert not verdict.safe


def test_what_the_server_knows_is_what_it_rebuilt() -> None:
    """All self-masks of the survivors, all pair masks of the dead, and not one more."""
    here = session("secagg", 6)
    one = here.run(late=here.names[:1])
    dead, *alive = here.names
    assert judge([one]).known == {f"self {name}" for name in alive} | {f"pair {dead} {name}" for name in alive}
    assert f"self {dead}" in judge([one], [dead]).known


def test_an_upload_that_is_no_sum_of_masks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "pack_masked", lambda values, *rest: pack_masked(values + 7, *rest))
    here = session("secagg", 5)
    one = here.run()
    with pytest.raises(ValueError, match="neither the input nor"):
        judge([one])
