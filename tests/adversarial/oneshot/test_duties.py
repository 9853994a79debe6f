"""One-shot rounds: clients that do what is not theirs to do, or not what is, against the honest server."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from dp.noise import Family, NoiseSpec
from protocols.oneshot.committee import sortition
from protocols.oneshot.messages import Join, Member
from protocols.oneshot.parameters import sharing_of
from protocols.oneshot.server import OneshotServer
from protocols.rounds.phases import Phase
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, simulate
from secagg import extras
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey
from secagg.errors import MissingExtraError, PeerError, ThresholdError
from tests.controls import switch_off
from tests.scenes.oneshot import new_ledger
from tests.scenes.oneshot_deployment import FIRST, TWELVE, Scene, changing, complaint, identities, run, scene, total_of

Fixture = pytest.MonkeyPatch


def test_without_a_compiler_a_server_does_not_even_begin(monkeypatch: Fixture) -> None:
    here = scene(12, **TWELVE)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="the protocol oneshot needs the extra"):
        serve(here.plan, here.roster)


def test_a_committee_without_enough_contributors(monkeypatch: Fixture) -> None:
    """Members enough for a quorum, and too few vectors to come: nobody is asked for one."""

    def nine() -> Any:
        here = scene(12, **TWELVE | {"min_contributors": 11})
        server = serve(here.plan, here.roster)
        for name, client in list(here.clients().items())[:9]:
            server.receive(name, client.start(here.plan, here.updates()[name]))
        server.close(Phase.JOIN)
        return server

    with pytest.raises(ThresholdError, match="clients joined"):
        nine()
    needed = "self._need(len(self._joined), least_contributors(self.plan), 'clients joined')"
    switch_off(monkeypatch, OneshotServer, "_convene", needed, "None")
    assert len(list(nine().outbox())) == 9


# Committee.


def signed_seat(here: Scene, number: int) -> Member:
    public = AgreementKey(b"k" * 32).public
    key = identities(len(here.roster))[number].key
    return Member(number, public, key.sign(labels.ONESHOT_SEAT, here.plan.digest(), u32.encode(number), public))


@pytest.mark.parametrize("lucky", [False, True])
def test_a_seat_that_the_lot_did_not_give(lucky: bool, monkeypatch: Fixture) -> None:
    """Who is not drawn takes none, and who is drawn does not leave it empty."""
    here = scene(140, corrupt="0.05", dropout="0.05", length=2)
    number = min(u for u in range(140) if (u in sortition(here.plan, here.roster)) == lucky)
    join = here.encode(Join(None if lucky else signed_seat(here, number)))
    with pytest.raises(PeerError, match="a member who was not drawn, or none although it was"):
        serve(here.plan, here.roster).receive(here.names[number], join)
    switch_off(monkeypatch, OneshotServer, "_admit", "(join.member is not None) != (number in self._eligible)")
    server: Any = serve(here.plan, here.roster)
    server.receive(here.names[number], join)
    assert number in server._joined


def test_a_seat_in_anothers_name(monkeypatch: Fixture) -> None:
    """Its key would be the other's: shares for one member would be sealed to another."""
    here = scene(12, **TWELVE)
    join = here.encode(Join(signed_seat(here, 1)))
    with pytest.raises(PeerError, match="a membership in somebody else's name"):
        serve(here.plan, here.roster).receive(here.names[2], join)
    switch_off(monkeypatch, OneshotServer, "_admit", "join.member.client != number")
    server: Any = serve(here.plan, here.roster)
    server.receive(here.names[2], join)
    assert server._joined[2].client == 1


# Answers.


def test_a_complaint_about_everybody_is_heard() -> None:
    """It may be true, and the others are a quorum."""
    here = scene(12, **TWELVE)
    result, _ = run(here, Faults(corrupted=changing(here, "consistency", {FIRST}, lambda _: complaint(*range(12)))))
    assert result.incidents == ()
    assert result.outcome.total.tolist() == total_of(here)


def test_a_signer_that_keeps_its_share(monkeypatch: Fixture) -> None:
    """It would count as one that has answered."""
    here = scene(12, **TWELVE)

    def refusals() -> list[str]:
        faults = Faults(corrupted=changing(here, "reveal", {FIRST}, lambda answer: replace(answer, share=b"")))
        result, _ = run(here, faults)
        assert result.outcome.total.tolist() == total_of(here)
        return [str(incident.error) for incident in result.incidents]

    (refused,) = refusals()
    assert "no share of the sum from a member who has signed" in refused
    switch_off(monkeypatch, OneshotServer, "_take_answer", "not answer.share and number in self._signatures")
    assert refusals() == []


def test_a_seed_of_noise_that_is_not_in_the_sum(tmp_path: Any, monkeypatch: Fixture) -> None:
    """A member whose vector was turned away helps to open the sum. Were its seed taken, noise would be taken off that
    nobody has put in."""
    noise = NoiseSpec(Family.SKELLAM, Fraction(4_000_000), dropouts=2, colluders=2, components=2)
    here = scene(12, bits=5, **TWELVE | {"min_contributors": 10, "noise": noise})

    def seeds(folder: str) -> tuple[list[str], set[int]]:
        (tmp_path / folder).mkdir()
        spoil = changing(here, "upload", {FIRST}, lambda upload: replace(upload, vector=b"another"))
        forge = changing(here, "reveal", {FIRST}, lambda answer: replace(answer, excess=bytes(32)))

        def corrupted(envelope: Envelope) -> bytes:
            return spoil(replace(envelope, frame=forge(envelope)))

        server: Any = serve(here.plan, here.roster, ledger=new_ledger(tmp_path / folder / "ledger.db"))
        result = simulate(server, here.clients(), here.updates().get, faults=Faults(corrupted=corrupted))
        return [str(incident.error) for incident in result.incidents][1:], set(server._excess)

    errors, taken = seeds("with")
    assert ["a seed of noise that is not in the sum" in error for error in errors] == [True]
    assert 0 not in taken
    monkeypatch.setattr(OneshotServer, "_take_answer", unchecked)
    errors, taken = seeds("without")
    assert errors == []
    assert 0 in taken


def unchecked(self: Any, number: int, answer: Any) -> None:
    self._shares[number] = self._sharing.unpack(answer.share)
    self._excess[number] = answer.excess


def test_a_share_from_a_client_without_a_seat(monkeypatch: Fixture) -> None:
    """Nobody dealt it one: what it sends belongs to no place among the members."""
    here = scene(130, corrupt="0.05", dropout="0.05", length=2)
    outside = here.names[min(set(range(130)) - sortition(here.plan, here.roster))]
    share = bytes(sharing_of(here.plan).share_bytes)

    def run_with_a_stranger() -> list[str]:
        forge = changing(here, "reveal", {outside}, lambda answer: replace(answer, share=share))
        result, _ = run(here, Faults(corrupted=forge))
        assert result.outcome.total.tolist() == total_of(here)
        return [str(incident.error) for incident in result.incidents]

    (refused,) = run_with_a_stranger()
    assert "a share of the sum from a client that is no member" in refused
    switch_off(monkeypatch, OneshotServer, "_take_answer", "answer.share and number not in self._committee.members")
    with pytest.raises(KeyError):  # an undeclared error
        run_with_a_stranger()
