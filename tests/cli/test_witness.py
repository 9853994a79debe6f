"""A server with two ledgers, and what finds it: real rounds, clients' own ledgers, and ``secagg ledger witness``."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dp.events import Guarantee, Relation, Trust, Unit
from dp.ledger import Budget, Ledger
from dp.ledger.entries import canonical, from_facts, parse, plain
from dp.ledger.file import read
from dp.ledger.heads import SignedHead, note_text
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import simulate
from secagg.assumptions import Adversary
from secagg.cli import ledger as verify_command
from secagg.cli import witness as command
from secagg.crypto.keys import SigningKey
from secagg.encoding import Encoding
from secagg.files import alone
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal

N, LENGTH = 8, 20
NOISE = NoiseSpec(Family.SKELLAM, Fraction(4_000_000), dropouts=0, colluders=1)
USER = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
BUDGET = Budget(Fraction(30), Fraction(1, 10**5), slack=Fraction(1, 10**8))
KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(b"o" * 32)
IDENTITIES = [Identity(f"client-{i}", SigningKey(bytes([i + 1]) * 32)) for i in range(N)]
ROSTER = Roster.of(IDENTITIES)
POLICY = Policy(min_contributors=4, corrupt=0, dropout=0, adversary=Adversary.CURIOUS, ledger_owner=KEY.public)
KEEPERS = {"ann": 0, "bob": N - 1}
"""Two clients that keep ledgers of their own, one of each half."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One round of all; then the server goes on in two copies of its ledger, one for each half of the clients. One
    round later ``other.db`` has an entry more."""
    folder = tmp_path_factory.mktemp("split")
    more: dict[str, Any] = {"run": "a split", "elsewhere": "nothing"}
    own = {
        name: Ledger.create(folder / f"{name}.db", IDENTITIES[i].key, BUDGET, USER, **more)
        for name, i in KEEPERS.items()
    }
    clients = {one.name: Client(one, ROSTER, policy=POLICY) for one in IDENTITIES}
    for name, i in KEEPERS.items():
        one = IDENTITIES[i]
        clients[one.name] = Client(one, ROSTER, policy=POLICY, journal=KeptJournal(), ledger=own[name])
    halves = list(clients)[: N // 2], list(clients)[N // 2 :]
    updates = dict.fromkeys(clients, np.ones(LENGTH))
    Ledger.create(folder / "ledger.db", KEY, BUDGET, USER, **more).close()

    def round_(file: str, number: int, who: list[str]) -> None:
        with closing(Ledger.open(folder / file, KEY)) as ledger:
            plan = plan_of(number, len(who), ledger.signed_head)
            some = {name: clients[name] for name in who}
            simulate(serve(plan, ROSTER, ledger=ledger), some, updates.get)

    round_("ledger.db", 0, list(clients))
    shutil.copy(folder / "ledger.db", folder / "other.db")
    for number in (1, 2):
        round_("ledger.db", number, halves[0])
        round_("other.db", number, halves[1])
    with closing(Ledger.open(folder / "other.db", KEY)) as ledger:
        ledger.reserve(plan_of(9, N).secure_sum(N))
    round_("other.db", 3, halves[1])
    for one in own.values():
        one.close()
    (folder / "owner.pub").write_text(KEY.public.hex() + "\n")
    (folder / "ann.pub").write_text(IDENTITIES[0].key.public.hex())
    IDENTITIES[3].save(folder / "witness.key")
    return folder


def plan_of(number: int, clients: int, head: SignedHead | None = None) -> RoundPlan:
    plan = RoundPlan.propose(
        "secagg",
        ROSTER,
        Encoding.integers(LENGTH, bits=4),
        clients=clients,
        min_contributors=clients,
        dropout="0",
        corrupt="0",
        adversary="curious",
        noise=NOISE,
        session=bytes(16),
        ledger=head,
    )
    return replace(plan, round=number)


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here"


Secagg = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(here: Path, secagg: Secagg) -> Path:
    """What each keeper hands to the witness."""
    for name in KEEPERS:
        code, out, _ = secagg("heads", here / f"{name}.db")
        assert code == 0
        (here / f"{name}.jsonl").write_text(out)
    return here


def put(path: Path, *heads: SignedHead) -> Path:
    path.write_bytes(b"".join(canonical(plain(head)) + b"\n" for head in heads))
    return path


def heads_of(path: Path) -> list[SignedHead]:
    return command._lines(path, SignedHead)


def signed(head: SignedHead, key: SigningKey = KEY, **change: Any) -> SignedHead:
    other = replace(head, owner=key.public, **change)
    return replace(other, signature=key.sign_raw(note_text(other.ledger, other.size, other.root)))


def test_heads(told: Path, secagg: Secagg) -> None:
    """Of the server's ledger, from the plans that a client has signed; and of the ledger itself, with its last."""
    assert [head.size for head in heads_of(told / "ann.jsonl")] == [1, 3, 5]
    assert [head.size for head in heads_of(told / "bob.jsonl")] == [1, 3, 5, 8]
    assert {head.owner for head in heads_of(told / "ann.jsonl")} == {KEY.public}
    code, out, _ = secagg("heads", told, "--json")
    assert (code, [head["size"] for head in json.loads(out)["heads"]]) == (0, [1, 3, 5, 7])


def test_one_half_alone_sees_one_ledger(told: Path, secagg: Secagg) -> None:
    """Each is whole, and verified against its keeper's: that is the attack."""
    for name, ledger in (("ann", "ledger.db"), ("bob", "other.db")):
        words = ["--key", told / "owner.pub", "--log", told / ledger]
        code, out, _ = secagg("witness", told / f"{name}.state", told / f"{name}.jsonl", *words)
        assert (code, "consistent up to" in out) == (0, True)
    code, out, _ = secagg("verify", told, "--key", told / "owner.pub", "--json")
    assert code == 0
    assert "3 heads of this ledger in plans" in json.loads(out)["statement"]["signed"]


@pytest.mark.parametrize("parties", [("ann", "bob"), ("bob", "ann")])
def test_a_split_view(told: Path, secagg: Secagg, parties: tuple[str, str]) -> None:
    """From the two clients' ledgers, without the server; what was written shows it to anybody."""
    files = [told / f"{name}.jsonl" for name in parties]
    code, out, error = secagg("witness", told / "state", *files, "--key", told / "owner.pub")
    assert (code, out) == (4, "")
    assert "split view" in error
    assert "two heads of 5 entries" in error
    assert not (told / "state").exists()
    for more in ([], ["--key", told / "owner.pub"]):
        code, out, error = secagg("evidence", told / "state.split-view", *more)
        assert (code, out, error.startswith("secagg: split view: the owner of key")) == (4, "", True)
    assert secagg("evidence", told / "state.split-view", "--key", told / "ann.pub")[0] == 2


def test_a_split_view_of_two_sizes(told: Path, secagg: Secagg) -> None:
    """Nobody has two heads of one size: then a ledger shows it, or it is said that a proof is missing."""
    (told / "ledger.jsonl").write_text(secagg("heads", told)[1])
    last = command._lines(told / "ledger.jsonl", SignedHead)[-1]
    ours, theirs = put(told / "a", last), put(told / "b", heads_of(told / "bob.jsonl")[-1])
    words = ["witness", told / "state", ours, theirs, "--key", told / "owner.pub"]
    code, out, _ = secagg(*words)
    assert (code, "no proof given for sizes 7 and 8" in out) == (5, True)
    code, _, error = secagg(*words, "--log", told / "other.db")
    assert (code, "goes on from another" in error) == (4, True)
    assert secagg("evidence", told / "state.split-view")[0] == 4
    proof = told / "proof"
    proof.write_text(secagg("prove", told / "other.db", "--first", 7, "--second", 8)[1])
    code, _, error = secagg(*words, "--proofs", proof)
    assert (code, "this is no proof" in error, "split view" in error) == (4, True, False)


def test_a_witness_remembers(told: Path, secagg: Secagg) -> None:
    """And finds a server that goes on with an older copy, when the next party comes."""
    state, words = told / "state", ["--key", told / "owner.pub"]
    assert secagg("witness", state, told / "bob.jsonl", *words, "--log", told / "other.db")[0] == 0
    remembered = command._remembered(state)
    assert remembered is not None
    assert remembered.size == 10
    code, out, _ = secagg("witness", state, told / "ann.jsonl", *words)
    assert (code, "no proof given for sizes 1 and 3" in out) == (5, True)
    assert command._remembered(state) == remembered  # it does not go back
    code, out, _ = secagg("witness", state, told / "ann.jsonl", *words, "--log", told / "ledger.db")
    assert (code, "no proof given for sizes 7 and 10" in out) == (5, True)
    code, _, error = secagg("witness", state, told / "ann.jsonl", *words, "--log", told / "other.db")
    assert (code, "split view" in error) == (4, True)
    assert command._remembered(state) == remembered


def test_with_proofs_and_without_the_ledger(told: Path, secagg: Secagg) -> None:
    sizes = [1, 3, 5, 8]
    for first, second in pairwise(sizes):
        out = secagg("prove", told / "other.db", "--first", first, "--second", second)[1]
        with (told / "proofs").open("a") as file:
            file.write(out)
    words = ["witness", told / "state", told / "bob.jsonl", "--proofs", told / "proofs"]
    assert secagg(*words)[0] == 5
    assert not (told / "state").exists()  # whose ledger it is, is not said by whoever comes first
    code, out, _ = secagg(*words, "--key", told / "owner.pub", "--json")
    answer = json.loads(out)
    assert (code, answer["consistent_up_to"], answer["unproven"], answer["heads"]) == (0, 8, [], 4)
    assert secagg(*words)[0] == 5  # without a key anybody can have signed them


def test_ledgers_say_themselves_that_they_were_forked(
    told: Path, secagg: Secagg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the server's ledger and a client's of the other half: the client's plans have heads that it never had."""
    words = ["verify", told, "--key", told / "owner.pub", "--against", told / "bob.db"]
    code, _, error = secagg(*words)
    assert (code, "another head of 5 entries than this ledger had: a fork" in error) == (4, True)
    monkeypatch.setattr(verify_command, "_checked_heads", lambda state, rows: 0)
    code, _, error = secagg(*words)
    assert (code, "another head" in error) == (4, False)  # but its releases are missing, or have other survivors


def test_a_ledger_written_again_has_other_heads_than_its_plans(
    told: Path, secagg: Secagg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner leaves a release out, and makes the ledger anew: all follows from its facts, but a plan that clients
    signed has a head of the old one. Control: without that check the ledger is verified."""
    rows = read(told / "other.db")
    with closing(Ledger.create(told / "again.db", KEY, BUDGET, USER, run="a split", elsewhere="nothing")) as again:
        for body, _ in [*rows[1:7], *rows[8:]]:
            entry = parse(body)
            {"reserve": again.reserve, "commit": again.commit}[entry["phase"]](from_facts(entry))
    words = ["verify", told / "again.db", "--key", told / "owner.pub"]
    code, _, error = secagg(*words)
    assert (code, "another head of 8 entries than this ledger had: a fork" in error) == (4, True)
    monkeypatch.setattr(verify_command, "_checked_heads", lambda state, rows: 0)
    assert secagg(*words)[0] == 0


def test_heads_that_nobody_signed(told: Path, secagg: Secagg, monkeypatch: pytest.MonkeyPatch) -> None:
    """They show nothing of the owner: whose file they are in is said."""
    false = put(told / "false.jsonl", replace(heads_of(told / "ann.jsonl")[1], root=b"r" * 32))
    words = ["witness", told / "state", told / "bob.jsonl", false, "--key", told / "owner.pub"]
    code, _, error = secagg(*words)
    assert (code, "bad signature" in error, "false.jsonl, line 1" in error) == (4, True, True)
    assert not (told / "state.split-view").exists()
    monkeypatch.setattr(SignedHead, "check", lambda self, culprit="": None)
    assert "split view" in secagg(*words)[2]


def test_heads_of_other_owners(told: Path, secagg: Secagg) -> None:
    """A party that takes part elsewhere, too, hands in those heads as well: they are counted, and not compared."""
    strange = put(told / "strange.jsonl", signed(heads_of(told / "ann.jsonl")[1], OTHER, root=b"r" * 32))
    words = ["--key", told / "owner.pub", "--log", told / "ledger.db"]
    code, out, _ = secagg("witness", told / "state", told / "ann.jsonl", strange, *words)
    assert (code, "1 heads of other owners: not looked at" in out) == (0, True)
    assert secagg("witness", told / "new", strange, *words[:2])[0] == 2  # no head is left


LIES: list[tuple[Callable[[SignedHead], bytes], int, str]] = [
    (lambda head: canonical({"latest": plain(replace(head, size=99))}), 4, "bad signature"),
    (lambda head: canonical({"latest": plain(signed(head, OTHER))}), 4, "another owner"),
    (lambda head: b"{}", 2, "is not the memory of a witness"),
    (lambda head: b"not JSON", 2, "is not the memory of a witness"),
    (lambda head: canonical(plain(head)), 2, "is not the memory of a witness"),
]


@pytest.mark.parametrize(("lie", "expected", "why"), LIES)
def test_a_memory_that_lies(
    lie: Callable[[SignedHead], bytes], expected: int, why: str, told: Path, secagg: Secagg
) -> None:
    state = told / "state"
    state.write_bytes(lie(heads_of(told / "ann.jsonl")[-1]))
    words = ["--key", told / "owner.pub", "--log", told / "ledger.db"]
    before = state.read_bytes()
    code, _, error = secagg("witness", state, told / "ann.jsonl", *words)
    assert (code, why in error, state.read_bytes()) == (expected, True, before)


def test_control_of_the_memory(told: Path, secagg: Secagg, monkeypatch: pytest.MonkeyPatch) -> None:
    (told / "state").write_bytes(canonical({"latest": plain(signed(heads_of(told / "ann.jsonl")[-1], OTHER))}))
    switch_off(monkeypatch, command, "_witness", "known is not None and known.owner != owner")
    words = ["--key", told / "owner.pub", "--log", told / "ledger.db"]
    assert secagg("witness", told / "state", told / "ann.jsonl", *words)[0] == 0


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"not JSON",
        b'{"size":9223372036854775808}',
        lambda head: canonical(plain(head)).replace(b'"size":1', b'"size":0'),
        lambda head: canonical(plain(head)).replace(b'"size":1', b'"size":true'),
        lambda head: canonical(plain(head)).replace(b'"size":1', b'"size":9223372036854775808'),
        lambda head: canonical(plain(head)).replace(b'"root":"', b'"root":"00'),
    ],
)
def test_files_that_are_none(line: Any, told: Path, secagg: Secagg) -> None:
    (told / "bad").write_bytes(line(heads_of(told / "ann.jsonl")[0]) if callable(line) else line)
    for words in (["witness", told / "state", told / "bad"], ["evidence", told / "bad"]):
        code, out, error = secagg(*words)
        assert (code, out, error.count("\n")) == (2, "", 1)


def test_a_cosigned_note(told: Path, secagg: Secagg) -> None:
    """Checked by the words of C2SP's tlog-cosignature: kind 4, a time, and a signature of it and the checkpoint."""
    words = ["witness", told / "state", told / "ann.jsonl", "--log", told / "ledger.db"]
    cosign = ["--identity", told / "witness.key", "--note", told / "note"]
    assert secagg(*words, *cosign)[0] == 2  # not without the owner's key
    assert secagg(*words, "--key", told / "owner.pub", *cosign[:2])[0] == 2
    assert secagg(*words, "--key", told / "owner.pub", *cosign)[0] == 0
    text, _, signatures = (told / "note").read_text().partition("\n\n")
    owner, witness, end = signatures.split("\n")
    raw = b64decode(witness.split(" ")[2])
    assert (end, owner.split(" ")[1], witness.split(" ")[1]) == ("", text.split("\n")[0], "client-3")
    when = int.from_bytes(raw[4:12], "big")
    public = Ed25519PublicKey.from_public_bytes(IDENTITIES[3].key.public)
    public.verify(raw[12:], f"cosignature/v1\ntime {when}\n{text}\n".encode())
    (told / "note").unlink()
    secagg("witness", told / "state", told / "bob.jsonl", "--key", told / "owner.pub", *cosign)
    assert not (told / "note").exists()  # nothing is cosigned that was not shown


def test_two_at_a_time(told: Path, secagg: Secagg) -> None:
    with alone(told):
        code, _, error = secagg("witness", told / "state", told / "ann.jsonl")
    assert (code, "another process is at work" in error) == (1, True)


def test_a_release_is_included(told: Path, secagg: Secagg, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "My round is in the budget that you publish": with the client's ledger, and a few hashes of the server's."""
    releases = [entry["release"] for entry in map(parse, (b for b, _ in read(told / "ann.db"))) if entry["number"]]
    proof = told / "proof"
    for release in dict.fromkeys(releases):
        proof.write_text(secagg("prove", told, "--release", release)[1])
        words = ["included", proof, told / "ann.db"]
        code, out, _ = secagg(*words, "--key", told / "owner.pub", "--json")
        assert (code, json.loads(out)["release"], json.loads(out)["size"]) == (0, release, 7)
        assert secagg(*words)[0] == 5
    assert secagg(*words, "--key", told / "ann.pub")[0] == 4
    assert secagg("included", proof, told / "bob.db")[0] == 2
    assert secagg("prove", told / "other.db", "--release", releases[-1])[0] == 2
    content = json.loads(proof.read_text())
    entry = json.loads(content["entry"])
    entry["sum"]["cohort"] = "00" * 32
    proof.write_text(json.dumps({**content, "entry": canonical(entry).decode()}))
    code, _, error = secagg(*words)
    assert (code, "this is no proof that the entry is number" in error) == (4, True)
    monkeypatch.setattr(command.Inclusion, "check", lambda self: None)
    code, _, error = secagg(*words)
    assert (code, "says something else" in error) == (4, True)
    switch_off(monkeypatch, command, "included", "_facts_in(entry) != unsigned(mine.happened)")
    assert command.included(proof, told / "ann.db", key=told / "owner.pub") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "words", [[], ["--first", 1, "--release", "x"], ["--first", 0], ["--first", 3, "--second", 99]]
)
def test_prove_what_cannot_be(words: list[object], told: Path, secagg: Secagg) -> None:
    assert secagg("prove", told, *words)[0] == 2
