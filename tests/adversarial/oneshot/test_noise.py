"""One-shot rounds with noise under attack: the seeds of excess noise, and ledgers.

Attackers as in ``test_oneshot``.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp.ledger import Ledger
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.oneshot.client import OneshotClient
from protocols.oneshot.messages import Upload
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.server import serve
from secagg.errors import PeerError, PolicyError, ThresholdError, UsageError
from tests.controls import switch_off
from tests.scenes.oneshot import VICTIM, Evil, Fixture, attempt, make, new_ledger
from tests.scenes.oneshot_deployment import FIRST

# Noise: 12 clients, 3 may be missing and 2 collude. With nobody missing three components of each noise come off again.

SKELLAM = NoiseSpec(Family.SKELLAM, Fraction(4_000_000), dropouts=3, colluders=2, components=3)


def noised(**options: Any) -> Evil:
    return make(min_contributors=9, noise=SKELLAM, bits=8, **options)


def seed_of(evil: Evil, alive: list[int], uploads: dict[int, Upload] | None = None, signers: int = 12) -> bytes:
    """The seed of the victim's excess, from a set that all the others and the corrupt sign."""
    signed = evil.ask(evil.honest[1:], alive, uploads)
    if evil.clients[VICTIM].current.phase is not Phase.REVEAL:  # type: ignore[union-attr]
        evil.tell(VICTIM, evil.delivery(VICTIM, sorted(alive), uploads))
    chosen = {v: signed[v] for v in sorted(signed)[-signers:]}
    return evil.tell(VICTIM, evil.consents(alive, chosen)).excess  # type: ignore[no-any-return]


def components(evil: Evil, seed: bytes) -> list[int]:
    """Which levels of the victim's removable noise this seed opens."""
    chain = evil.clients[VICTIM].current._drawn(  # type: ignore[union-attr]
        b"removable noise", *evil.committee.bound(VICTIM)
    )
    return [level for level in range(4) if SKELLAM.seed(chain, level) == seed]


def test_seeds_of_excess_are_for_survivors_only(monkeypatch: Fixture) -> None:
    def attack(alive: list[int]) -> tuple[Evil, bytes]:
        evil = noised()
        evil.join()
        evil.upload()
        return evil, seed_of(evil, alive)

    for alive, level in ((range(12), 0), (range(10), 2)):
        evil, seed = attack(list(alive))
        assert components(evil, seed) == [level]
    without = list(range(1, 12))
    assert attack(without)[1] == b""
    switch_off(monkeypatch, OneshotClient, "_answer", "self._u in self._survivors", "True")
    evil, seed = attack(without)
    assert components(evil, seed) == [1]


def test_seeds_of_excess_only_against_a_quorum(monkeypatch: Fixture) -> None:
    def attack() -> bytes:
        evil = noised()
        evil.join()
        evil.upload()
        return seed_of(evil, evil.present, signers=7)

    attempt(attack, ThresholdError, "7 members signed the survivors, at least 8 are needed")
    switch_off(
        monkeypatch, OneshotClient, "_check_signatures", "len(signers) < (quorum := parameters_of(self.plan).quorum)"
    )
    assert len(attack()) == 32


def test_more_survivors_claimed_than_there_are(monkeypatch: Fixture) -> None:
    """Clients 1, 2 and 3 uploaded nothing. If the others believe that they did, they take all the excess off, and the
    sum of nine has the noise of twelve: a quarter less than it must."""

    def attack() -> tuple[Evil, bytes]:
        evil = noised()
        evil.join()
        evil.upload([0, *range(4, 12)])
        ghosts = {u: evil.forged(u, signer=11) for u in (1, 2, 3)}
        evil.uploads |= ghosts
        for v in (1, 2, 3):
            evil.tell(v, evil.shown)
        return evil, seed_of(evil, evil.present, ghosts)

    attempt(attack, PeerError, "bad signature")
    switch_off(
        monkeypatch, OneshotClient, "_open", "check_header(self._committee, self.roster, contribution.header)", "None"
    )
    evil, seed = attack()
    assert components(evil, seed) == [0]


def test_two_seeds_of_one_client() -> None:
    """First for a sum of ten, then for one of twelve, of which it is a survivor as well."""

    def attack(forget: bool) -> list[int]:
        evil = noised()
        evil.join()
        evil.upload()
        found = list[int]()
        for alive in (range(10), range(12)):
            found += components(evil, seed_of(evil, list(alive)))
            for v in evil.honest if forget else ():
                evil.clients[v].current.phase = Phase.CONSISTENCY  # type: ignore[union-attr]
        return found

    attempt(lambda: attack(forget=False), PeerError, "Delivery does not belong in phase")
    assert attack(forget=True) == [2, 0]


# Ledgers.


def phases(ledger: Ledger) -> list[str]:
    return [entry["phase"] for entry in ledger.entries()]


def test_a_server_without_a_ledger(monkeypatch: Fixture) -> None:
    evil = noised()
    attempt(lambda: serve(evil.plan, evil.roster), UsageError, "charged to a ledger")
    switch_off(monkeypatch, ServerRound, "__init__", "(plan.noise is None) != (ledger is None)")
    assert serve(evil.plan, evil.roster).phase is Phase.JOIN


def test_a_client_with_a_ledger_and_a_plan_without_noise(tmp_path: Path, monkeypatch: Fixture) -> None:
    book = new_ledger(tmp_path / "book.db")
    evil = make(ledgers=lambda name: book if name == FIRST else None)
    attempt(lambda: evil.start(VICTIM), PolicyError, "keeps a privacy budget, and the plan has no noise")
    switch_off(monkeypatch, Client, "_accepted", "plan.noise is None")
    monkeypatch.setattr(Ledger, "check", lambda *_: None)
    attempt(lambda: evil.start(VICTIM), UsageError, "the plan has no noise")  # what is charged has no bound
    book.close()


class Torn(Exception):
    pass


def tear(*_: Any) -> None:
    raise Torn


@pytest.mark.parametrize(("phase", "write"), [(Phase.UPLOAD, "reserve"), (Phase.REVEAL, "commit")])
def test_nothing_is_said_before_it_is_charged(phase: Phase, write: str, tmp_path: Path, monkeypatch: Fixture) -> None:
    """The ledger fails at this moment: no upload, and no share, leaves. Without the row in the table both do."""

    def attack(name: str) -> tuple[list[str], bool]:
        book = new_ledger(tmp_path / f"{name}.db")
        evil = noised(ledgers=lambda name: book if name == FIRST else None)
        evil.join()
        evil.upload(range(1, 12))
        with monkeypatch.context() as torn:
            if phase is Phase.UPLOAD:
                torn.setattr(Ledger, write, tear)
            spoken = speaks(lambda: evil.upload([VICTIM]))
        if phase is Phase.REVEAL:
            assert phases(book) == ["genesis", "reserve"]
            signed = evil.ask(evil.honest, evil.present)
            with monkeypatch.context() as torn:
                torn.setattr(Ledger, write, tear)
                spoken = speaks(lambda: evil.reveal([VICTIM], evil.present, signed))
        written = phases(book)
        book.close()
        return written, spoken

    before = ["genesis"] if phase is Phase.UPLOAD else ["genesis", "reserve"]
    assert attack("with") == (before, False)
    steps = OneshotClient.steps | {phase: OneshotClient.steps[phase]._replace(charge=None)}
    monkeypatch.setattr(OneshotClient, "steps", steps)
    assert attack("without") == (before, True)


def speaks(act: Any) -> bool:
    try:
        act()
    except Torn:
        return False
    return True


def test_what_the_ledger_of_a_client_says(tmp_path: Path) -> None:
    """Reserved when it uploads; what happened, when it reveals, with the signatures that it has seen."""
    book = new_ledger(tmp_path / "book.db")
    evil = noised(ledgers=lambda name: book if name == FIRST else None)
    evil.join()
    assert phases(book) == ["genesis"]
    evil.upload()
    assert phases(book) == ["genesis", "reserve"]
    alive = list(range(11))
    signed = evil.ask(evil.honest, alive)
    assert phases(book) == ["genesis", "reserve"]
    evil.reveal([VICTIM], alive, signed)
    assert phases(book) == ["genesis", "reserve", "commit"]
    entry = list(book.entries())[-1]["sum"]
    assert (entry["survivors"], len(entry["signatures"])) == (11, 12)
    book.close()
