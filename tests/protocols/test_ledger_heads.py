"""The head of the ledger that a plan is charged to: who demands it refuses a server that forgets, forks or stands
still, as far as one client alone can tell."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dp.ledger import Ledger
from dp.ledger.heads import SignedHead, note_text
from dp.ledger.proofs import LARGEST
from protocols import policy as policy_module
from protocols import seen_heads
from protocols.client import Client
from protocols.journal import ForgetfulJournal, Journal, MemoryJournal, SqliteJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import simulate
from secagg.crypto.keys import SigningKey
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PeerError, PolicyError, UsageError
from tests.controls import switch_off
from tests.scenes.client_ledgers import IDENTITIES, LENGTH, NAMES, NOISE, ROSTER, new_ledger

OTHER = SigningKey(b"o" * 32)
SCENE = SigningKey(b"l" * 32)
"""The key of ``new_ledger``."""
POLICY = Policy(min_contributors=5, protocols={"secagg"}, corrupt="0.1", dropout="0.3", ledger_owner=SCENE.public)
HERE = IDENTITIES[0]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return new_ledger(tmp_path / "server.db")


def plan_of(ledger: Ledger, round_: int = 0) -> RoundPlan:
    first = RoundPlan.propose(
        "secagg",
        ROSTER,
        Encoding.integers(LENGTH, bits=5),
        min_contributors=7,
        corrupt="0.1",
        dropout="0.3",
        noise=NOISE,
        session=bytes(16),
        ledger=ledger.signed_head,
    )
    return replace(first, round=round_)


def client(journal: Journal | None = None, deployment: str = "") -> Client:
    return Client(HERE, ROSTER, policy=POLICY, journal=journal, deployment=deployment)


def grown(ledger: Ledger, entries: int, of: int = 100) -> Ledger:
    """So many entries more: reservations, of other sums for other numbers ``of``."""
    for number in range(entries):
        ledger.reserve(replace(plan_of(ledger, of + number), ledger=None).secure_sum(len(ROSTER)))
    return ledger


def signed(head: SignedHead, key: SigningKey, **change: object) -> SignedHead:
    other = replace(head, **change)  # type: ignore[arg-type]
    return replace(other, owner=key.public, signature=key.sign_raw(note_text(other.ledger, other.size, other.root)))


def test_a_plan_carries_it(ledger: Ledger) -> None:
    """In its digest, which all sign; and one without is what it was, but for a byte."""
    plan = plan_of(grown(ledger, 2))
    assert plan.ledger == ledger.signed_head
    assert RoundPlan.decode(plan.encode()) == plan
    without = replace(plan, ledger=None)
    assert len(plan.encode()) == len(without.encode()) + 168
    assert plan.digest() != without.digest()
    ledger.reserve(plan.secure_sum(len(ROSTER)))
    assert plan.next_round().ledger == plan.ledger
    assert plan.next_round(ledger=ledger.signed_head).ledger == ledger.signed_head


def test_heads_that_are_none(ledger: Ledger) -> None:
    head = grown(ledger, 1).signed_head
    for change in ({"size": 0}, {"size": LARGEST + 1}, {"root": b"short"}, {"size": 1}, {"owner": b""}):
        with pytest.raises(UsageError):
            replace(head, **change)  # type: ignore[arg-type]
    replace(head, size=LARGEST)
    data = plan_of(ledger).encode()
    for size in (0, 1 << 63):
        with pytest.raises(DecodeError):
            RoundPlan.decode(data[:-104] + size.to_bytes(8, "big") + data[-96:])


BAD: list[tuple[str, Callable[[SignedHead], SignedHead | None], str, str]] = [
    ("none", lambda head: None, "_check_ledger", "head is None or head.owner != self.ledger_owner"),
    (
        "of another owner",
        lambda head: signed(head, OTHER),
        "_check_ledger",
        "head is None or head.owner != self.ledger_owner",
    ),
]


@pytest.mark.parametrize(("what", "change", "function", "check"), BAD, ids=[one[0] for one in BAD])
def test_a_plan_without_the_head_that_is_demanded(
    what: str,
    change: Callable[[SignedHead], SignedHead | None],
    function: str,
    check: str,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of(grown(ledger, 1))
    assert not client().check(plan)
    bad = replace(plan, ledger=change(ledger.signed_head))
    with pytest.raises(PolicyError, match="no head of the ledger"):
        client().check(bad)
    switch_off(monkeypatch, Policy, function, check)
    client().check(bad)


def test_a_head_that_nobody_signed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by whoever demands no head, too."""
    head = grown(ledger, 1).signed_head
    bad = replace(plan_of(ledger), ledger=replace(head, root=b"r" * 32))
    for policy in (POLICY, replace(POLICY, ledger_owner=b"")):
        with pytest.raises(PolicyError, match="bad signature"):
            policy.check(bad, ROSTER)
    monkeypatch.setattr(policy_module.SignedHead, "check", lambda self: None)
    POLICY.check(bad, ROSTER)


def test_a_policy_has_a_key() -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        Policy(min_contributors=2, ledger_owner=b"short")


def rewound(ledger: Ledger, folder: Path) -> Ledger:
    return new_ledger(folder / "again.db")


def forked(ledger: Ledger, folder: Path) -> Ledger:
    return grown(new_ledger(folder / "again.db"), 3, of=200)


def begun_anew(ledger: Ledger, folder: Path) -> Ledger:
    return grown(Ledger.create(folder / "again.db", SCENE, ledger.budget, ledger.guarantee, run="b", elsewhere="-"), 5)


LIES = [
    (rewound, "rewound", "head.size < before.size"),
    (forked, "two heads of 4 entries", "head.size == before.size and head.root != before.root"),
    (begun_anew, "another ledger", "head.ledger != before.ledger"),
    (lambda ledger, folder: ledger, "still has 4 entries", "head.size == before.size and seen.reserved"),
]


@pytest.mark.parametrize("durable", [False, True], ids=["in memory", "in a file"])
@pytest.mark.parametrize(("lie", "said", "check"), LIES)
def test_one_client_alone_finds(
    lie: Callable[[Ledger, Path], Ledger],
    said: str,
    check: str,
    durable: bool,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that forgets, forks, begins anew or shows an old head again, also after a restart of the client."""
    honest = plan_of(grown(ledger, 3))
    with closing(SqliteJournal(tmp_path / "a.db")) as journal:
        kept = journal if durable else MemoryJournal()
        one = client(kept)
        one.start(honest, np.ones(LENGTH))
        if said.startswith("still"):
            one._reserve(honest)  # the vector leaves
        assert one.ledger_head == honest.ledger
        if durable:
            one = client(kept)
        assert one.ledger_head == honest.ledger
        bad = plan_of(lie(ledger, tmp_path), 1)
        with pytest.raises(PolicyError, match=said):
            one.check(bad)
        with pytest.raises(PolicyError, match=said):
            one.start(bad, np.ones(LENGTH))
        assert one.ledger_head == honest.ledger
        assert not one.check(plan_of(grown(ledger, 1, of=150), 1))
        switch_off(monkeypatch, seen_heads.SeenHeads, "check", check)
        one.check(bad)


def test_the_plan_of_a_round_that_is_known_is_as_old_as_it_is(ledger: Ledger, tmp_path: Path) -> None:
    """After a crash the server sends what it had stored: it is the same head, and was accepted."""
    plan = plan_of(grown(ledger, 1))
    with closing(SqliteJournal(tmp_path / "a.db")) as journal:
        frame = client(journal).start(plan, np.ones(LENGTH))
        grown(ledger, 2, of=300)
        again = client(journal)
        assert again.check(plan)
        assert again.start(plan, np.ones(LENGTH)) == frame
        serve(plan, ROSTER, ledger=ledger)  # an older head of this ledger will do
        assert again.ledger_head == plan.ledger


def test_an_attempt_that_came_to_no_vector_may_be_made_again(ledger: Ledger) -> None:
    """With the same head: nothing was reserved that this client knows of."""
    one = client()
    one.start(plan_of(ledger), np.ones(LENGTH))
    one.start(plan_of(ledger, 1), np.ones(LENGTH))


def test_a_crash_between_head_and_round(ledger: Ledger) -> None:
    """What is remembered does not go back to the head of a round that is resumed."""
    one = client()
    older = plan_of(ledger)
    one.start(older, np.ones(LENGTH))
    newer = plan_of(grown(ledger, 1), 1)
    one._remember_head(newer, reserved=False)
    one.start(older, np.ones(LENGTH))
    one._reserve(older)
    assert one.ledger_head == newer.ledger


def test_deployments_side_by_side(ledger: Ledger) -> None:
    """The plan of one was made before that of another, and may come later."""
    journal = MemoryJournal()
    early, late = plan_of(ledger), replace(plan_of(grown(ledger, 1), 1), session=b"s" * 16)
    client(journal, "one").start(late, np.ones(LENGTH))
    client(journal, "two").start(early, np.ones(LENGTH))


def test_an_altered_journal(ledger: Ledger) -> None:
    journal = MemoryJournal()
    client(journal).start(plan_of(ledger), np.ones(LENGTH))
    stranger = Client(IDENTITIES[0], ROSTER, policy=POLICY, journal=journal)
    stranger._heads._key = b"k" * 32
    with pytest.raises(PolicyError, match="altered"):
        _ = stranger.ledger_head


def test_a_journal_that_forgets(ledger: Ledger) -> None:
    """Of simulations: as long as its client lives, the head is remembered there."""
    one = client(ForgetfulJournal())
    one.start(plan_of(grown(ledger, 2)), np.ones(LENGTH))
    assert one.ledger_head == ledger.signed_head


def test_a_server_charges_the_ledger_of_the_plan(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, fork = plan_of(grown(ledger, 2)), grown(new_ledger(tmp_path / "fork.db"), 2, of=200)
    wrong = [
        (fork, "a fork"),
        (new_ledger(tmp_path / "older.db"), "it is older"),
        (begun_anew(ledger, tmp_path), "of another ledger"),
    ]
    for other, why in wrong:
        with pytest.raises(PeerError, match=why):
            serve(plan, ROSTER, ledger=other)
    with pytest.raises(PeerError, match="bad signature"):
        serve(replace(plan, ledger=replace(ledger.signed_head, signature=bytes(64))), ROSTER, ledger=ledger)
    switch_off(monkeypatch, ServerRound, "__init__", "plan.ledger is not None")
    for other, _ in wrong:
        serve(plan, ROSTER, ledger=other)


def test_rounds_with_heads(ledger: Ledger) -> None:
    """Two sums in a row, each charged to the ledger whose head its plan has."""
    clients = {one.name: Client(one, ROSTER, policy=POLICY) for one in IDENTITIES}
    for number in range(2):
        plan = plan_of(ledger, number)
        simulate(serve(plan, ROSTER, ledger=ledger), clients, dict.fromkeys(NAMES, np.ones(LENGTH)).get)
        assert {one.ledger_head for one in clients.values()} == {plan.ledger}
    assert len(list(ledger.entries())) == 5
