"""``secagg bench liars``: each lie ends as its class says, and the oracles of the random rounds can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.case import QUICK, run_case
from benchmarks.regression.dealing import Amid
from benchmarks.studies.liars import random_rounds
from benchmarks.studies.liars.lies import LIES, BadBoxes, FalseComplaints, FewerMasks, OneWrongShare, OtherSecret
from benchmarks.studies.liars.parties import Mixed, Recording, Setting, check_sum, played
from benchmarks.studies.liars.random_rounds import ended, random_round, spent
from protocols import registry
from protocols.pairwise.server import PairwiseServer
from protocols.rounds.phases import Phase
from secagg.errors import PeerError
from tests.controls import switch_off

SETTING = Setting("secagg", 20, 16, "0.1", "0.1")
LIAR, NAME = 3, "client-0000003"

CAUGHT = {"WrongShares", "OneWrongShare", "UnsignedComplaint", "FalseDefence", "FewerMasks", "ForgedConsent"}
LEFT_OUT = {"UnsignedComplaint", "BadBoxes", "OneBadBox", "TwoPolynomials", "FalseDefence"}
IN_THE_SUM = set(LIES) - LEFT_OUT - {"OtherSecret", "FewerMasks"}


@pytest.mark.thinned(6)
@pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
@pytest.mark.parametrize("lie", sorted(set(LIES) - {"OtherSecret"}))
def test_a_lie_costs_nobody_the_round(lie: str, protocol: str) -> None:
    plan, _ = (setting := Setting(protocol, 20, 16, "0.1", "0.1")).plan()
    parties = Mixed(plan, setting.policy, {NAME: LIES[lie]})
    server = PairwiseServer(plan, parties.roster, registry.find(plan.protocol).messages)
    ran = played(server, parties, {})
    check_sum(ran, parties)
    assert server.liars == ((NAME,) if lie in CAUGHT else ())
    assert server.excluded == ((NAME,) if lie in LEFT_OUT else ())
    assert (NAME in ran.outcome.survivors) is (lie in IN_THE_SUM)
    assert {holder for holder, _ in server.disputes} == ({NAME} if lie == "FalseComplaints" else set())


def test_another_secret_costs_the_round_and_its_dealer_is_named() -> None:
    found = ended(SETTING, {LIAR: OtherSecret}, {})
    assert (found.exact, found.named, found.burnt) == (False, (NAME,), True)


@pytest.mark.parametrize("rounds", [2, pytest.param(4, marks=pytest.mark.long)])
def test_random_rounds_are_exact_or_named(rounds: int) -> None:
    """Two by default, four in the long version."""
    for number in range(rounds):
        found = random_round(1, number, "0.1", "0.1")
        assert found.exact or found.named
        assert found.liars > 0


def test_control_a_sum_that_is_not_that_of_the_others_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes an upload with a mask less: honest clients see it, or the sum does."""
    switch_off(monkeypatch, PairwiseServer, "_add", "listed != self._dealers_to(u)")
    with pytest.raises(RuntimeError, match=r"honest client|the sum is wrong"):
        ended(SETTING, {LIAR: FewerMasks}, {})


def test_control_a_round_that_ends_without_names_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_rounds, "played", failing)
    with pytest.raises(RuntimeError, match="nobody is named"):
        ended(SETTING, {LIAR: OneWrongShare}, {})


def failing(*_: object) -> None:
    raise PeerError("nobody knows why")


def test_control_an_innocent_that_is_named_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PairwiseServer, "liars", property(lambda self: ("client-0000001",)))
    with pytest.raises(RuntimeError, match="1 honest clients are named"):
        ended(SETTING, {LIAR: OneWrongShare}, {})


@pytest.mark.long
def test_budgets(tmp_path: Path) -> None:
    """Boxes that nobody can open cost nothing; another secret one sum each time, and whose it is, is said."""
    found = {}
    for lie in (BadBoxes, OtherSecret):
        (tmp_path / lie.__name__).mkdir()
        found[lie] = spent(lie, tmp_path / lie.__name__)
    assert (found[BadBoxes].sums, found[BadBoxes].burnt) == (3, 0)
    assert (found[OtherSecret].sums, found[OtherSecret].burnt, found[OtherSecret].named) == (0, 3, (NAME[:-1] + "1",))


def test_a_recording_is_the_same_round_to_every_server() -> None:
    honest = Recording.of(SETTING)
    lying = honest.with_wrong_shares(LIAR)
    assert honest.frames[Phase.REVEAL] != lying.frames[Phase.REVEAL]
    complained = Recording.of(SETTING, {LIAR: FalseComplaints})
    assert len(complained.frames[Phase.DEFEND]) == 19
    for recorded in (honest, lying, complained):
        took = recorded.replayed()
        assert set(took) == set(recorded.frames)
        assert all(seconds > 0 for seconds in took.values())


def test_a_client_amid_others_deals_and_opens() -> None:
    amid = Amid(8, 5)
    assert len(amid.deal(3).dealt.boxes) == len(amid.plain_deal(3)) == len(amid.plain_open(0)) == 8
    assert sorted(amid.open(0)) == amid.holders(0)
    assert min(amid.seconds(1).deal, amid.seconds(1).open) > 0


PARTS = "parts=server,reveal,exchange,rounds"


@pytest.mark.long
def test_the_case() -> None:
    said = list[str]()
    report = run_case("liars", [*QUICK["liars"], PARTS, "n=20", "large_n=40", "rounds=2"], said.append)
    assert report.figures["rounds_exact"] + report.figures["rounds_named"] == report.figures["rounds"] == 2
    assert report.figures["exchange_complain_bytes_up"] == 27
    k, t = report.figures["exchange_k"], report.figures["exchange_t"]
    # 20 bytes more a box, 4 less since boxes come in order; the proof and its length, the other message
    assert report.figures["exchange_more_bytes_up"] == k * 16 + t * 16 + 4 + 27
    assert {"secagg_holder_server", "secagg+_dealer_reveal", "large_holder_reveal", "exchange_deal"} <= set(
        report.ratios
    )
