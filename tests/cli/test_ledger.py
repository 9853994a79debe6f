"""``secagg ledger`` on the ledgers of real rounds: a server's, and a client's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import verify_ledger
from dp.events import Guarantee, Relation, Trust, Unit
from dp.ledger import Budget, Ledger, state
from dp.ledger.file import read
from dp.noise import Family, NoiseSpec
from dp.secure_sum import Signed
from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, simulate
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, digest
from secagg.encoding import Encoding
from secagg.errors import UsageError
from tests.scenes.journals import KeptJournal
from tests.scenes.ledger import forged

N, LENGTH = 6, 50
NOISE = NoiseSpec(Family.SKELLAM, Fraction(4_000_000), dropouts=2, colluders=1, components=2)
USER = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
BUDGET = Budget(Fraction(20), Fraction(1, 10**5), slack=Fraction(1, 10**8))
KEY = SigningKey(bytes(range(32)))
IDENTITIES = [Identity(f"client-{i}", SigningKey(bytes([i + 1]) * 32)) for i in range(N)]
ROSTER = Roster.of(IDENTITIES)
OWN_FOLDER = "verified, under a key from the ledger's own folder"
POLICY = Policy(min_contributors=4, corrupt=0, dropout="0.34")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds, the second without client-1, and the ledger that client-0 kept."""
    folder = tmp_path_factory.mktemp("run")
    arguments: dict[str, Any] = {"run": "two rounds", "elsewhere": "local training"}
    server = Ledger.create(folder / "ledger.db", KEY, BUDGET, USER, **arguments)
    own = Ledger.create(folder / "client-0.db", IDENTITIES[0].key, BUDGET, USER, **arguments)
    clients = {one.name: Client(one, ROSTER, policy=POLICY) for one in IDENTITIES}
    clients["client-0"] = Client(IDENTITIES[0], ROSTER, policy=POLICY, journal=KeptJournal(), ledger=own)
    encoding = Encoding.integers(LENGTH, bits=4)
    plan = RoundPlan.propose(
        "secagg", ROSTER, encoding, min_contributors=4, dropout="0.34", corrupt=0, adversary="curious", noise=NOISE
    )
    updates = {name: np.ones(LENGTH) for name in clients}
    for gone in ({}, {"client-1": "upload"}):
        simulate(serve(plan, ROSTER, ledger=server), clients, updates.get, faults=Faults(dropouts=gone))
        plan = plan.next_round()
    (folder / "ledger.pub").write_text(KEY.public.hex() + "\n")
    (folder / "head").write_text(server.head.hex())
    (folder / "client.pub").write_text(IDENTITIES[0].key.public.hex())
    ROSTER.save(folder / "roster.toml")
    server.reserve(plan.secure_sum(N))
    server.close()
    own.close()
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


Secagg = Callable[..., tuple[int, str, str]]


def pinned(run: Path) -> list[object]:
    return ["verify", run, "--key", run / "ledger.pub", "--head", (run / "head").read_text()]


# An honest run


def test_verified(run: Path, secagg: Secagg) -> None:
    client = ["--against", run / "client-0.db", "--against-key", run / "client.pub"]
    code, out, _ = secagg(*pinned(run), *client, "--roster", run / "roster.toml", "--json")
    answer = json.loads(out.splitlines()[-1])
    assert (code, answer["verdict"], answer["entries"]) == (0, OWN_FOLDER, 6)
    assert "all are in the roster that was given" in answer["statement"]["signers"]
    assert 0 < answer["epsilon"] < answer["budget"] == 20
    assert '"local training"' in answer["statement"]["elsewhere"]
    code, out, _ = secagg(*pinned(run))
    assert code == 0
    assert out.startswith(f"verdict     {OWN_FOLDER}\n")
    (run / "elsewhere").mkdir()
    elsewhere = (run / "ledger.pub").rename(run / "elsewhere" / "ledger.pub")
    assert secagg(*pinned(run), "--key", elsewhere)[1].startswith("verdict     verified\n")
    assert "not compared with a roster" in out


@pytest.mark.parametrize("option", [[], ["--head"]])
def test_without_a_key_it_is_only_consistent(run: Path, secagg: Secagg, option: list[str]) -> None:
    """Anybody can have written it: says the exit code, too."""
    value = {"--head": (run / "head").read_text()}
    code, out, _ = secagg("verify", run, *option, *(value[name] for name in option), "--json")
    assert code == 5
    assert json.loads(out)["verdict"].startswith("internally consistent only")


def test_somebody_elses_ledger_is_consistent_and_not_verified(run: Path, secagg: Secagg) -> None:
    """Written from beginning to end by another owner, who left all sums out."""
    (run / "ledger.db").unlink()
    other = SigningKey(b"o" * 32)
    Ledger.create(run / "ledger.db", other, BUDGET, USER, run="two rounds", elsewhere="local training").close()
    assert secagg("verify", run)[0] == 5
    assert secagg("verify", run, "--key", run / "ledger.pub")[0] == 4


def test_without_a_head_it_may_be_an_older_copy(run: Path, secagg: Secagg) -> None:
    code, out, _ = secagg("verify", run, "--key", run / "ledger.pub", "--json")
    assert code == 0
    assert "may be an older copy" in json.loads(out)["verdict"]


def test_a_ledger_to_compare_with_needs_a_key_of_its_own(run: Path, secagg: Secagg) -> None:
    """Or whoever keeps this one has written that one, too. A copy is by the same owner."""
    assert secagg(*pinned(run), "--against", run / "client-0.db")[0] == 5
    assert secagg(*pinned(run), "--against", run / "client-0.db", "--against-key", run / "ledger.pub")[0] == 4
    assert secagg("verify", run, "--against", run / "client-0.db", "--against-key", run / "client.pub")[0] == 5
    shutil.copy(run / "ledger.db", run / "copy.db")
    assert secagg(*pinned(run), "--against", run / "copy.db")[0] == 0


def test_a_ledger_with_which_it_has_nothing_in_common(run: Path, secagg: Secagg) -> None:
    """Then nothing was compared, and it says so; with that of a client it says how much was."""
    stranger = SigningKey(b"s" * 32)
    Ledger.create(run / "stranger.db", stranger, BUDGET, USER, run="another", elsewhere="-").close()
    (run / "stranger.pub").write_text(stranger.public.hex())
    for name, key, said in (
        ("stranger", "stranger", "no committed sum in common"),
        ("client-0", "client", "2 committed sums in"),
    ):
        words = ["--against", run / f"{name}.db", "--against-key", run / f"{key}.pub", "--json"]
        code, out, _ = secagg(*pinned(run), *words)
        assert (code, said in json.loads(out)["statement"]["recomputed"]) == (0, True)


def test_a_file_will_do(run: Path, secagg: Secagg) -> None:
    code, _, _ = secagg("verify", run / "client-0.db", "--key", run / "client.pub")
    assert code == 0


def test_show(run: Path, secagg: Secagg) -> None:
    code, out, _ = secagg("show", run)
    assert code == 0
    for part in (
        "two rounds",
        "reserve",
        "commit",
        "4 of 6",
        "6 of 6",
        "5 of 6",
        "signed by clients",
        "survivors_digest",
    ):
        assert part in out
    answer = json.loads(secagg("show", run, "--json")[1])
    assert [entry["phase"] for entry in answer["entries"]] == ["genesis", *["reserve", "commit"] * 2, "reserve"]
    assert answer["fields"]["bitmap"] == "signed by clients"


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_text_that_cannot_be_shown(run: Path, secagg: Secagg, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of error. Control: without the check, ``show`` shows it, in characters that are seen."""
    rewritten(run / "ledger.db", lambda bodies: bodies[0].update(run="\ud800"))
    code, out, error = secagg(command, run)
    assert (code, out, error.count("\n"), "surrogate" in error) == (4, "", 1, True)
    if command == "show":
        monkeypatch.setattr(state, "check_text", str)
        code, out, error = secagg(command, run)
        assert (code, "\\ud800" in out, error) == (0, True, "")


def test_export_goes_to_the_stand_alone_auditor(run: Path, secagg: Secagg) -> None:
    code, out, _ = secagg("export", run)
    assert (code, len(out.splitlines())) == (0, 6)
    head = bytes.fromhex((run / "head").read_text())
    assert list(verify_ledger.problems(out.encode(), KEY.public, head)) == []
    answer = json.loads(secagg("export", run, "--json")[1])
    assert [json.loads(line) for line in out.splitlines()] == answer["entries"]


def test_one_statement_by_two_verifiers(run: Path, secagg: Secagg, capsys: pytest.CaptureFixture[str]) -> None:
    """Word by word, but for what only the library looks at: plans. And both fail the same ledgers."""
    words: list[Any] = [run / "ledger.db", "--key", run / "ledger.pub", "--head", (run / "head").read_text()]
    code, out, _ = secagg("verify", *words)
    audit = verify_ledger.Audit(KEY.public)
    assert list(verify_ledger.problems(b"".join(_export(run)), KEY.public, None, audit)) == []
    number = audit.heads.index(bytes.fromhex((run / "head").read_text()))
    given = verify_ledger.Given(key=True, head=number, plans=True, beside=True)
    assert (code, out.splitlines()) == (0, list(verify_ledger.columns(verify_ledger.statement(audit.book(), given))))
    said = json.loads(secagg("verify", *words, "--json")[1])["statement"]
    theirs = verify_ledger.statement(audit.book(), replace(given, plans=False))
    assert {label for label in said if said[label] != theirs[label]} == {"signed"}
    assert said.keys() == theirs.keys()
    for wrong in (["--key", run / "client.pub"], ["--head", "11" * 32]):
        code, out, error = secagg("verify", run, *wrong)
        assert (code, out, error.startswith(f"secagg: {verify_ledger.FAILED}: ")) == (4, "", True)
        assert verify_ledger.main([str(run / "ledger.db"), *map(str, wrong)]) == 4
        assert capsys.readouterr().out.startswith(f"verdict     {verify_ledger.FAILED}\n")


# A run that is none


def rewritten(path: Path, change: Callable[[list[Any]], object], key: SigningKey = KEY) -> None:
    """The owner writes its ledger again."""
    rows = forged(read(path), change, key)
    path.unlink()
    ledger = Ledger.create(path, key, BUDGET, USER, run="two rounds", elsewhere="local training")
    ledger._db.execute("DROP TRIGGER no_delete")
    ledger._db.execute("DELETE FROM entries")
    ledger._db.executemany("INSERT INTO entries VALUES (?, ?)", [(i, body) for i, (body, _) in enumerate(rows)])
    ledger._db.execute("UPDATE head SET signature = ?", (rows[-1][1],))
    ledger._db.execute(
        "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END"
    )
    ledger.close()


def planned_facts(bodies: list[Any], change: Callable[[dict[str, Any]], object]) -> None:
    """The same change in each entry about a sum."""
    for body in bodies[1:]:
        change(body["sum"])


def test_rewriting_alone_is_not_what_is_found(run: Path, secagg: Secagg) -> None:
    """The control of the tests below."""
    rewritten(run / "ledger.db", lambda bodies: None)
    assert secagg(*pinned(run))[0] == 0


@pytest.mark.parametrize(
    "fact",
    [
        {"scale": "2"},
        {"clip_l2": "1/2"},
        {"beta": "1/2"},
        {"rotated": True},
        {"round": 7},
        {"session": "00" * 16},
        {"ring_bits": 40},
        {"weight_bound": 9},
        {"rounding": "nearest"},
        {"signers": 1},
    ],
    ids=str,
)
def test_facts_that_are_not_the_plans(run: Path, secagg: Secagg, fact: dict[str, Any]) -> None:
    """Nothing else depends on these: only who decodes the plan can tell."""
    rewritten(run / "ledger.db", lambda bodies: planned_facts(bodies, lambda facts: facts.update(fact)))
    code, _, error = secagg("verify", run)
    assert code == 4
    assert "not the facts of the plan" in error
    assert list(verify_ledger.problems(b"".join(_export(run)), KEY.public, None)) == []


def _export(run: Path) -> Iterator[bytes]:
    for body, signature in read(run / "ledger.db"):
        yield b'{"body":' + body + b',"signature":"' + signature.hex().encode() + b'"}\n'


def test_a_plan_that_is_none(run: Path, secagg: Secagg) -> None:
    def change(bodies: list[Any]) -> None:
        del bodies[1:5]
        facts = bodies[1]["sum"]
        facts["plan"] = "00"
        facts["plan_digest"] = bodies[1]["release"] = digest(labels.PLAN, b"\0").hex()
        facts["survivors_digest"] = digest(labels.SURVIVORS, digest(labels.PLAN, b"\0"), b"", b"").hex()
        bodies[1] |= {"total": bodies[1]["cost"], "total_samples": bodies[1]["samples"], "epsilon_before": 0}

    rewritten(run / "ledger.db", change)
    code, _, error = secagg("verify", run)
    assert (code, error.count("\n")) == (4, 1)


def test_signers_who_are_not_in_the_roster(run: Path, secagg: Secagg) -> None:
    strangers = Roster.of([replace(identity, key=SigningKey(bytes([90]) * 32)) for identity in IDENTITIES[:1]])
    strangers.save(run / "other.toml")
    code, _, error = secagg("verify", run, "--roster", run / "other.toml")
    assert (code, "another roster" in error) == (4, True)

    def change(bodies: list[Any]) -> None:
        facts = bodies[4]["sum"]
        stranger, agreed = SigningKey(bytes([91]) * 32), bytes.fromhex(facts["survivors_digest"])
        facts["signatures"][0] |= {
            "key": stranger.public.hex(),
            "signature": stranger.sign(labels.SURVIVORS, agreed).hex(),
        }

    rewritten(run / "ledger.db", change)
    assert secagg("verify", run, "--key", run / "ledger.pub")[0] == 0
    code, _, error = secagg("verify", run, "--roster", run / "roster.toml")
    assert (code, "not in the roster [client-0]" in error) == (4, True)


def test_a_server_that_shows_an_auditor_other_survivors(run: Path, secagg: Secagg) -> None:
    """With the keys of corrupt clients it can sign another set; the client knows better."""
    rows = read(run / "ledger.db")
    ledger = Ledger.create(run / "lie.db", KEY, BUDGET, USER, run="two rounds", elsewhere="local training")
    for number, gone in ((2, []), (4, [1, 2])):
        facts = json.loads(rows[number][0])["sum"]
        alive = [identity for u, identity in enumerate(IDENTITIES) if u not in gone]
        bitmap = bytes([sum(1 << u for u in range(N) if u not in gone)])
        plan, cohort = RoundPlan.decode(bytes.fromhex(facts["plan"])), bytes.fromhex(facts["cohort"])
        agreed = digest(labels.SURVIVORS, plan.digest(), cohort, bitmap)
        signatures = [Signed(i.name, i.key.public, i.key.sign(labels.SURVIVORS, agreed)) for i in alive]
        ledger.reserve(plan.secure_sum(N))
        ledger.commit(plan.secure_sum(len(alive), cohort=cohort, bitmap=bitmap, signatures=signatures))
    ledger.close()
    assert secagg("verify", run / "lie.db", "--key", run / "ledger.pub")[0] == 0
    code, _, error = secagg("verify", run / "lie.db", "--against", run / "client-0.db")
    assert (code, "fork" in error) == (4, True)


def test_one_corrupt_client_signs_for_more_survivors(
    run: Path, secagg: Secagg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More survivors than there were means more noise than there was, and a smaller epsilon. Nobody compares with the
    ledger of a client."""
    entry = json.loads(read(run / "ledger.db")[4][0])["sum"]
    plan, corrupt = RoundPlan.decode(bytes.fromhex(entry["plan"])), IDENTITIES[0]
    cohort, bitmap = bytes(range(32)), bytes([(1 << N) - 1])
    agreed = digest(labels.SURVIVORS, plan.digest(), cohort, bitmap)
    signatures = [Signed(corrupt.name, corrupt.key.public, corrupt.key.sign(labels.SURVIVORS, agreed))]

    def lie() -> None:
        ledger = Ledger.create(run / "lie.db", KEY, BUDGET, USER, run="two rounds", elsewhere="local training")
        ledger.reserve(plan.secure_sum(N))
        ledger.commit(plan.secure_sum(N, cohort=cohort, bitmap=bitmap, signatures=signatures))
        ledger.close()

    with pytest.raises(UsageError, match="1 signed the survivors, nothing comes out for fewer than"):
        lie()
    (run / "lie.db").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(state, "check_agreed", lambda what: None)
        lie()
        checked = ["--key", run / "ledger.pub", "--roster", run / "roster.toml"]
        assert secagg("verify", run / "lie.db", *checked)[0] == 0
    code, _, error = secagg("verify", run / "lie.db", "--roster", run / "roster.toml")
    assert (code, "1 signed the survivors" in error) == (4, True)


def test_an_older_file(run: Path, secagg: Secagg) -> None:
    reserved = json.loads(read(run / "ledger.db")[5][0])["sum"]
    ledger = Ledger.open(run / "ledger.db", KEY)
    ledger.abort(RoundPlan.decode(bytes.fromhex(reserved["plan"])).secure_sum(N), "given up")
    newest = ledger.head.hex()
    ledger.close()
    shutil.copy(run / "ledger.db", run / "newer.db")
    rewritten(run / "ledger.db", lambda bodies: bodies.pop())
    code, _, error = secagg("verify", run, "--key", run / "ledger.pub", "--head", newest)
    assert (code, "pinned head" in error) == (4, True)
    code, _, error = secagg("verify", run, "--key", run / "ledger.pub", "--against", run / "newer.db")
    assert (code, "this is an older copy of the other ledger" in error) == (4, True)


def test_another_key(run: Path, secagg: Secagg) -> None:
    code, _, error = secagg("verify", run, "--key", run / "client.pub")
    assert (code, "another key" in error) == (4, True)


def test_a_damaged_file(run: Path, secagg: Secagg) -> None:
    data = bytearray((run / "ledger.db").read_bytes())
    data[data.index(b'"phase":"commit"') + 10] ^= 1
    (run / "ledger.db").write_bytes(data)
    code, out, error = secagg("verify", run)
    assert (code, out, error.count("\n")) == (4, "", 1)
    (run / "ledger.db").write_bytes(data[: len(data) // 2])
    for command in ("verify", "show", "export"):
        code, out, error = secagg(command, run)
        assert (code, error.count("\n")) == (4, 1)


def test_what_is_no_ledger_is_not_shown(run: Path, secagg: Secagg) -> None:
    rewritten(run / "ledger.db", lambda bodies: bodies[3].pop("release"))
    code, out, error = secagg("show", run)
    assert (code, out, error.count("\n")) == (4, "", 1)


def test_a_run_may_be_named_with_brackets(tmp_path: Path, secagg: Secagg) -> None:
    """They are markup to rich."""
    Ledger.create(tmp_path / "ledger.db", KEY, BUDGET, USER, run="[bold]run", elsewhere="-").close()
    assert "[bold]run" in secagg("show", tmp_path)[1]


def test_while_a_run_is_writing(run: Path, secagg: Secagg) -> None:
    ledger = Ledger.open(run / "ledger.db", KEY)
    code, _, error = secagg("verify", run)
    assert (code, "locked" in error) == (1, True)
    ledger.close()


# Wrong use


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["show", "nowhere"], "there is no ledger at nowhere"),
        (["export", "."], "there is no ledger at ledger.db"),
        (["verify"], "RUN_DIR"),
        (["verify", "{run}", "--head", "abc"], "64 hexadecimal digits"),
        (["verify", "{run}", "--key", "{run}/roster.toml"], "64 hexadecimal digits"),
        (["verify", "{run}", "--key", "{run}"], "cannot read"),
        (["verify", "{run}", "--against", "{run}/none.db"], "there is no ledger at"),
        (["verify", "{run}", "--roster", "{run}/head"], "is not a"),
        (["edit", "{run}"], "edit"),
        ([], "command"),
    ],
)
def test_wrong_use(run: Path, secagg: Secagg, words: list[str], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    code, out, error = secagg(*(word.format(run=run) for word in words))
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert reason in error
