"""Rosters and models as signed versions: a client takes what its deployment signed, and goes back to nothing older."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dp.turns import Turns
from protocols import newest
from protocols.client import Client
from protocols.journal import ForgetfulJournal, Journal, MemoryJournal, SqliteJournal
from protocols.newest import Newest
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import simulate
from protocols.tree import Terms, Tree
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PolicyError, UsageError
from secagg.signed_versions import Signatory, Signer, What, signed
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal

NAMES = ("ann", "bob", "cat", "dan")
PEOPLE = {name: Identity.generate(name, Prg(name.encode().ljust(32))) for name in (*NAMES, "mallory")}
HOSPITALS = Identity.generate("hospitals", Prg(b"h" * 32))
SIGNED_BY = str(Signatory(HOSPITALS.name, HOSPITALS.key.public))
POLICY = Policy(min_contributors=3, corrupt=0, dropout="0.25", signed_by=SIGNED_BY)
MODELS = [bytes([number]) * 32 for number in range(10)]


def roster_of(*names: str, number: int | None = 1, by: Identity = HOSPITALS) -> Roster:
    roster = Roster.of([PEOPLE[name] for name in names])
    if number is None:
        return roster
    return replace(roster, version=signed(by.name, by.key, What.ROSTER, number, roster.digest))


ROSTER = roster_of(*NAMES)


def plan_of(model: int, number: int | None, roster: Roster = ROSTER, by: Identity = HOSPITALS) -> RoundPlan:
    """A round of a session of its own for this model under this number."""
    plan = RoundPlan.propose(
        "secagg", roster, Encoding.integers(4), min_contributors=3, corrupt=0, dropout="0.25", model=MODELS[model]
    )
    return plan if number is None else plan.signed(lambda digest: signed(by.name, by.key, What.MODEL, number, digest))


def client_of(journal: Journal, roster: Roster = ROSTER, policy: Policy = POLICY) -> Client:
    return Client(PEOPLE["ann"], roster, policy=policy, journal=journal)


class Training:
    """Counts how often the data were touched: asked before, as whoever trains must."""

    def __init__(self, client: Client) -> None:
        self.client, self.times = client, 0

    def join(self, plan: RoundPlan) -> bytes:
        if not self.client.check(plan):
            self.times += 1
        return self.client.start(plan, np.ones(4))


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    if request.param == "memory":
        yield KeptJournal()
        return
    with closing(SqliteJournal(tmp_path / "ann.db")) as opened:
        yield opened


REFUSED = {
    "unsigned model": (lambda: plan_of(1, None), ROSTER, "the model is not signed, and hospitals signs its own"),
    "a model of mallory's": (
        lambda: plan_of(1, 1, by=PEOPLE["mallory"]), ROSTER, "the model is not signed by hospitals",
    ),
    "another model": (
        lambda: replace(plan_of(1, 1), model=MODELS[2]), ROSTER, "the model is not signed by hospitals",
    ),
    "a roster's signature": (
        lambda: replace(plan_of(1, None), version=ROSTER.version), ROSTER, "the model is not signed by hospitals",
    ),
    "unsigned roster": (lambda: plan_of(1, 1), roster_of(*NAMES, number=None), "the roster is not signed, and"),
    "a roster of mallory's": (
        lambda: plan_of(1, 1), roster_of(*NAMES, by=PEOPLE["mallory"]), "the roster is not signed by hospitals",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_deployment_did_not_sign_is_refused_before_the_data_are_touched(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, roster, words = REFUSED[what]
    training = Training(client_of(KeptJournal(), roster))
    with pytest.raises(PolicyError, match=words):
        training.join(made())
    assert training.times == 0
    checked = (
        "ROSTER, roster.version, roster.whole"
        if "roster" in words.split(" is ")[0]
        else "MODEL, plan.version, plan.model"
    )
    switch_off(monkeypatch, Policy, "check", f"signatory.check(What.{checked})", "None")
    Training(client_of(KeptJournal(), roster)).join(made())  # the control


def test_who_asks_for_no_signature_takes_all_of_it() -> None:
    policy = replace(POLICY, signed_by=None)
    for plan in (plan_of(1, None), plan_of(1, 1), plan_of(1, 1, by=PEOPLE["mallory"])):
        assert not client_of(MemoryJournal(), policy=policy).check(plan)
    assert not client_of(MemoryJournal(), roster_of(*NAMES, number=None), policy).check(plan_of(1, None))


def test_an_older_model_is_refused_though_it_is_signed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server replays the model of round 3 at round 5, with its good signature."""
    training = Training(client_of(journal))
    for number in (3, 4):
        training.join(plan_of(number, number))
    for again in (plan_of(3, 3), plan_of(3, 3).next_round()):
        with pytest.raises(PolicyError, match="version 3 of the model is older than version 4"):
            training.join(again)
    assert training.times == 2
    training.join(plan_of(4, 4))  # a round that is made again, in another session
    with pytest.raises(PolicyError, match="another model than the one that was seen here under the number 4"):
        training.join(plan_of(5, 4))
    training.join(plan_of(5, 9))
    monkeypatch.setattr(newest, "check_not_older", lambda *_: False)
    training.join(plan_of(3, 3))  # the control


def test_an_older_roster_is_refused_though_it_is_signed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back to the one with the colluder in it that was thrown out."""
    old, new = roster_of(*NAMES, "mallory", number=1), roster_of(*NAMES, number=2)
    client_of(journal, old).check(plan_of(1, 1, old))
    client_of(journal, new).check(plan_of(1, 1, new))
    training = Training(client_of(journal, old))
    with pytest.raises(PolicyError, match="version 1 of the roster is older than version 2"):
        training.join(plan_of(1, 1, old))
    with pytest.raises(PolicyError, match="another roster than the one that was seen here under the number 2"):
        client_of(journal, (other := roster_of(*NAMES, "mallory", number=2))).check(plan_of(1, 1, other))
    assert training.times == 0
    monkeypatch.setattr(newest, "check_not_older", lambda *_: False)
    training.join(plan_of(1, 1, old))  # the control


def test_clients_join_and_leave_between_rounds(tmp_path: Path) -> None:
    """One goes, another comes, and they change again. Who has left stops in a line."""
    signer = Signer(HOSPITALS.name, HOSPITALS.key, tmp_path / "hospitals.versions")
    journals = {name: KeptJournal() for name in PEOPLE}
    for members in (NAMES, ("ann", "bob", "cat", "mallory"), NAMES):
        roster = roster_of(*members, number=None).signed(signer)
        plan = plan_of(1, None, roster).signed(signer.model)
        clients = {name: Client(PEOPLE[name], roster, policy=POLICY, journal=journals[name]) for name in members}
        simulation = simulate(serve(plan, roster), clients, dict.fromkeys(members, np.ones(4)).get)
        assert simulation.outcome.survivors == members
        for client in clients.values():
            client.finish()
    with pytest.raises(UsageError, match=r"^'mallory' is not in the roster$"):
        Client(PEOPLE["mallory"], roster, policy=POLICY, journal=journals["mallory"])


def test_a_new_roster_ends_the_rounds_of_the_old_one() -> None:
    """They are of one deployment: the secrets of a round that was given up do not outlive the roster."""
    old, new, journal = roster_of(*NAMES, "mallory", number=1), roster_of(*NAMES, number=2), KeptJournal()
    begun = plan_of(1, 1, old)
    client_of(journal, old).start(begun, np.ones(4))
    before = len(journal._records)
    client_of(journal, new).start(plan_of(1, 1, new), np.ones(4))
    assert len(journal._records) == before
    named = replace(POLICY, signed_by=None)  # the control: without a deployment's name each roster is one
    journal = KeptJournal()
    client_of(journal, old, named).start(begun, np.ones(4))
    client_of(journal, new, named).start(plan_of(1, 1, new), np.ones(4))
    assert len(journal._records) == 2


@pytest.mark.parametrize("moment", ["checked", "begun"])
def test_a_crash_after_acceptance_neither_locks_out_nor_lets_an_older_one_in(moment: str, tmp_path: Path) -> None:
    plan = plan_of(4, 4)
    with closing(SqliteJournal(tmp_path / "ann.db")) as journal:
        said = (
            b"" if client_of(journal).check(plan) or moment == "checked" else client_of(journal).start(plan, np.ones(4))
        )
    with closing(SqliteJournal(tmp_path / "ann.db")) as journal:
        client = client_of(journal)
        with pytest.raises(PolicyError, match="older"):
            client.check(plan_of(3, 3))
        assert client.check(plan) is (moment == "begun")
        assert said in (b"", client.start(plan, np.ones(4)))
        assert not client.check(plan_of(5, 5))
        with pytest.raises(PolicyError, match="older"):  # of the two that were accepted the newer one counts
            client.start(plan, np.ones(4))


def test_a_plan_that_is_refused_moves_nothing() -> None:
    """Neither the number of its model nor that of its roster: whoever refuses a plan has not seen it."""
    journal = KeptJournal()
    training = Training(client_of(journal))
    training.join(plan_of(3, 3))
    for refused in (replace(plan_of(9, 9), min_contributors=2), plan_of(9, 9, by=PEOPLE["mallory"])):
        with pytest.raises(PolicyError):
            training.join(refused)
    newer = roster_of(*NAMES, number=8)
    with pytest.raises(PolicyError, match="older"):
        client_of(journal, newer).check(plan_of(2, 2, newer))
    training.join(plan_of(4, 4))


def test_a_journal_that_was_rolled_back(tmp_path: Path) -> None:
    """It has forgotten the newer version with all else; who pins its head notices."""
    with closing(SqliteJournal(tmp_path / "ann.db")) as journal:
        client_of(journal).check(plan_of(3, 3))
    shutil.copy(tmp_path / "ann.db", tmp_path / "old.db")
    with closing(SqliteJournal(tmp_path / "ann.db")) as journal:
        client_of(journal).check(plan_of(4, 4))
        head = journal.head()
    with pytest.raises(PolicyError, match="rolled back"):
        SqliteJournal(tmp_path / "old.db", pinned=head)
    with closing(SqliteJournal(tmp_path / "old.db")) as journal:
        assert not client_of(journal).check(plan_of(3, 3))


@pytest.mark.parametrize("kind", [MemoryJournal, ForgetfulJournal])
def test_what_forgets_cannot_refuse_what_is_older(kind: type[MemoryJournal]) -> None:
    with pytest.raises(UsageError, match="a journal that outlives it"):
        client_of(kind())


def test_what_is_remembered_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record in the place of that of another kind, or of another version, is not believed."""
    altered = "not this client's, or has been altered"
    journal = KeptJournal()
    client_of(journal).check(plan_of(3, 1))
    roster, model = journal._records
    journal._records[model] = of_roster = journal._records[roster]  # both are version 1
    with pytest.raises(PolicyError, match=altered):
        client_of(journal).check(plan_of(3, 1))
    journal = KeptJournal()
    client_of(journal).check(plan_of(3, 3))
    [*_, (name, _)] = journal._records
    old = journal._records[name, 3]
    client_of(journal).check(plan_of(4, 4))
    journal._records[name, 4] = old
    with pytest.raises(PolicyError, match=altered):
        client_of(journal).check(plan_of(3, 4))
    monkeypatch.setattr(newest, "_associated", lambda *_: b"")
    journal = KeptJournal()
    client_of(journal).check(plan_of(3, 1))
    assert journal._records[model] != of_roster
    journal._records[model] = journal._records[roster]
    with pytest.raises(PolicyError, match="another model"):  # the control: a digest of something else is believed
        client_of(journal).check(plan_of(3, 1))


def test_deployments_and_their_keys_are_remembered_apart() -> None:
    """Another deployment's numbers say nothing here; and one that has lost its key begins anew under another."""
    journal, key = KeptJournal(), PEOPLE["mallory"].key
    client_of(journal).check(plan_of(8, 8))
    for by in (Identity("clinics", HOSPITALS.key), Identity("hospitals", key)):
        policy = replace(POLICY, signed_by=Signatory(by.name, by.key.public))
        roster = roster_of(*NAMES, by=by)
        assert not client_of(journal, roster, policy).check(plan_of(1, 1, roster, by=by))
        with pytest.raises(PolicyError, match="the model is not signed by"):
            client_of(journal, roster, policy).check(plan_of(9, 9, roster))
    with pytest.raises(PolicyError, match="older"):
        client_of(journal).check(plan_of(1, 1))


def test_the_next_round_of_another_model_is_unsigned() -> None:
    plan = plan_of(1, 1)
    assert plan.next_round().version == plan.next_round(MODELS[1]).version == plan.version
    assert plan.next_round(MODELS[2]).version is None


def test_parts_of_a_roster_are_signed_as_the_whole_is() -> None:
    """Cohorts that are drawn by turns, or in a tree."""
    turns = Turns(ROSTER.names, ROSTER.keys, b"beacon", size=3)
    part = ROSTER.part(next(turns.cohort(number) for number in range(4) if "ann" in turns.cohort(number)))
    assert part == Roster.build(dict(zip(part.names, part.keys, strict=True)))
    assert not client_of(KeptJournal(), part).check(plan_of(1, 1, part))
    with pytest.raises(PolicyError, match="the roster is not signed by hospitals"):
        client_of(KeptJournal(), replace(part, version=part.version)).check(plan_of(1, 1, part))  # no part of anything
    leaders = Roster.of([Identity.generate(f"leader-{number}") for number in range(2)])
    tree = Tree((ROSTER, leaders), 2, bytes(32), (Terms(2), Terms(2)))
    assert {tree.cohort(0, number).version for number in range(2)} == {ROSTER.version}
    with pytest.raises(UsageError, match="drawn anew from the whole"):
        part.save("never.toml")


def test_a_signed_roster_in_a_file(tmp_path: Path) -> None:
    ROSTER.save(tmp_path / "roster.toml")
    again = Roster.load(tmp_path / "roster.toml")
    assert (again, again.version, again.whole) == (ROSTER, ROSTER.version, ROSTER.digest)
    text = (tmp_path / "roster.toml").read_text()
    for number, (good, bad) in enumerate(
        [
            ("number = 1", "number = 0"),
            ("number = 1", "number = '1'"),
            ("number = 1\n", ""),
            ("[version]", "[signature]"),
        ]
    ):
        (path := tmp_path / f"{number}.toml").write_text(text.replace(good, bad))
        with pytest.raises(DecodeError):
            Roster.load(path)


def test_newest_takes_nothing_if_one_of_two_is_older() -> None:
    journal = KeptJournal()
    kept = Newest(Signatory.parse(SIGNED_BY), journal, bytes(32), Prg(bytes(32)))
    kept.take(plan_of(5, 5), ROSTER)
    head = journal.head()
    with pytest.raises(PolicyError, match="older"):
        kept.take(plan_of(4, 4), roster_of(*NAMES, number=2))
    assert journal.head() == head
