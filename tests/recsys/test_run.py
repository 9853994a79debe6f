"""Runs in their directory: whole, accounted for, not begun twice, and never where something else is."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dp import verify_ledger
from dp.filter import Budget, Kind
from dp.ledger.file import read
from dp.ledger.verify import verify
from protocols.parameters import ALLOWED
from recsys import run as running
from recsys import run_start
from recsys.aggregator import Request, Result, Update
from recsys.assembly import Prepared, prepare
from recsys.config import Config
from recsys.deployment import Deployment
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.ranking import evaluate
from recsys.models.popularity import ItemPop
from recsys.models.private_sums import Contribution, Noised
from recsys.models.recommender import SharedModel
from recsys.models.store import load
from recsys.other_runs import RunList
from recsys.requested_sums import LearnsFromSums
from recsys.run import agreed, train
from recsys.run_record import Round, Run, as_kept
from recsys.secure_aggregator import SecureAggregator
from recsys.training_state import TrainingState
from secagg import cli
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, derive
from secagg.errors import AlteredError, BudgetError, DecodeError, PeerError, StorageError, ThresholdError, UsageError
from tests.controls import switch_off
from tests.scenes.recommender import config, same_secrets
from tests.scenes.whole_runs import Killed, contents, go

EASE = ("model.name=private-ease", "model.settings={}", "clients.kind=devices", "protocol.adversary=curious")
LINEAR = ("ItemKNN", "EASE", "tuned EASE")
ALWAYS = {"config.json", "ledger.pub", "run.json", "model.safetensors", "private"}
SECRETS = {"secret.key", "ledger.key", "checkpoint.safetensors"}
KINDS = {
    "none": (("privacy.mode=none",), set[str]()),
    "local": (("privacy.mode=local",), {"ledger.db"}),
    "distributed": (("privacy.mode=distributed",), {"ledger.db"}),
    "both": (("privacy.mode=both",), {"ledger.db", "local.db"}),
    "sums": (("privacy.mode=distributed", *EASE), {"ledger.db"}),
}


def of_kind(kind: str, *changes: str) -> Config:
    return config("protocol.dropout=0.34", *KINDS[kind][0], *changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Path, Run]]]:
    """One run of each kind, made when it is asked for. Nobody may change it."""
    made: dict[str, tuple[Path, Run]] = {}

    def of(kind: str) -> tuple[Path, Run]:
        if kind not in made:
            folder = tmp_path_factory.mktemp("runs") / kind
            made[kind] = (folder, go(of_kind(kind), folder))
        return made[kind]

    yield of
    for folder, _ in made.values():
        shutil.rmtree(folder)


Runs = Callable[[str], tuple[Path, Run]]


# What is there in the end


@pytest.mark.thinned(4)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_what_it_says_and_nothing_else(kind: str, runs: Runs) -> None:
    folder, run = runs(kind)
    assert set(os.listdir(folder)) == ALWAYS | KINDS[kind][1]
    assert set(os.listdir(folder / "private")) == SECRETS | {"name", "inputs"}
    assert Run.load(folder) == run
    assert run.ended == "all rounds are done"
    assert len(run.rounds) == 2
    of_kind = {"local": ["plain federated training"], "distributed": ["trained in one place"]}
    references = of_kind.get("local" if kind == "both" else kind, [])
    names = ["ItemPop", *LINEAR, "this recipe without noise", *references, "this run"]
    assert [result.name for result in run.results] == names
    assert json.loads((folder / "config.json").read_bytes()) == json.loads(json.dumps(run.config))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.thinned(3)
def test_the_ledgers_can_be_verified_and_say_what_the_rounds_say(
    kind: str, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = runs(kind)
    assert [spending.ledger for spending in run.spendings] == sorted(KINDS[kind][1] & {"ledger.db", "local.db"})
    key = bytes.fromhex((folder / "ledger.pub").read_text())
    for spending in run.spendings:
        state = verify(read(folder / spending.ledger), key)
        assert state.genesis.guarantee.trust.value == spending.trust
        assert float(state.genesis.budget.epsilon) == spending.epsilon == 8
        assert cli.main(["ledger", "export", str(folder / spending.ledger)]) == 0
        exported = capsys.readouterr().out.encode()
        assert list(verify_ledger.problems(exported, key, state.head)) == []
        reached = state.filter.reached
        assert reached is not None
        if spending is run.spendings[0]:
            assert run.rounds[-1].epsilon == reached / 10**12
        whole = spending.trust == "local"  # all rounds are one schedule
        assert len(state.records) == (1 if whole else 2)
    if run.spendings:
        spent = [one.epsilon for one in run.rounds]
        assert spent == sorted(spent)  # type: ignore[type-var]
        assert all(one.epsilon_left == pytest.approx(8 - one.epsilon) for one in run.rounds)  # type: ignore[operator]
        assert 7.9 < spent[-1] <= 8  # type: ignore[operator]
    else:
        assert all(one.epsilon is None for one in run.rounds)


NEARLY = 0.06
"""Where scores are computed again two of 60 users may be ranked otherwise: those with near ties."""


@pytest.mark.thinned(3)
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_what_was_measured(kind: str, runs: Runs) -> None:
    folder, run = runs(kind)
    served = load(folder / "model.safetensors")
    split = prepare(of_kind(kind)).split
    assert list(served.item_ids) == list(split.train.item_ids)
    found = evaluate(served.model, split)
    measured = {name: found.mean(name) for name in run.results[-1].metrics}
    assert measured == pytest.approx(run.results[-1].metrics, abs=NEARLY)
    assert run.rounds[-1].exact == pytest.approx(run.results[-1].metrics, abs=NEARLY)
    popular = ItemPop()
    popular.fit(split.train)
    assert run.results[0].metrics["HR@10"] == evaluate(popular, split).mean("HR@10")


class Quiet:
    """Adds up without the noise that was asked for, and lets everybody pay nothing."""

    def __init__(self) -> None:
        self._ideal = IdealAggregator(bytes(32))
        self.budget = Budget(Fraction(8), Fraction(1, 1000), Fraction(0), kind=Kind.SCHEDULE)

    def aggregate(self, request: Request, update: Update) -> Result:
        return self._ideal.aggregate(replace(request, noise=None), update)

    def reserve(self, what: object) -> None: ...

    commit = reserve

    def committed(self, what: object) -> bool:
        return False


def trained(prepared: Prepared, ledger: Any = None, **more: Any) -> np.ndarray[Any, Any]:
    """The vector in the end."""
    model = cast(SharedModel, prepared.model())
    federation = prepared.federation(model, Quiet(), bytes(32), ledger, **more)
    for _ in range(prepared.config.training.rounds):
        federation.advance()
    return federation.state.vector.astype(np.float64)


POISSON = ("clients.count=20", "training.draw=poisson", "training.size=8", "privacy.share=1.0")


def longer(kind: str) -> Any:
    """What ``make test-long`` alone looks at: by default "both" stands for "local", whose noise and ledger it has."""
    return pytest.param(kind, marks=pytest.mark.long)


@pytest.mark.parametrize("kind", [longer("local"), longer("distributed"), "both"])
def test_the_reference_is_the_runs_own_recipe_without_noise(kind: str) -> None:
    """Cohort, clipping, steps, divisor: with the noise taken out of a run, nearly nothing of it is left in training,
    and then it is the reference. Another recipe is far away (the control).

    By default with both kinds of noise at once, in the long version with each of them alone, too.
    """
    prepared = prepare(of_kind(kind, *POISSON))
    reference = trained(prepared, noiseless=True)
    ledger = None
    if (locally := prepared.locally) is not None:
        little = replace(locally.settings, noise_multiplier=Fraction(1, 1000))
        prepared, ledger = replace(prepared, locally=replace(locally, settings=little)), Quiet()
    start = cast(SharedModel, prepared.model())
    start.begin(prepared.split.train.item_count, prepared.config.seed)
    moved = np.linalg.norm(reference - start.vector)
    assert np.linalg.norm(trained(prepared, ledger) - reference) < 0.05 * moved
    another = prepared.without_privacy()
    if kind == "distributed":  # users of silos are clipped one by one without noise as well: that is the same recipe
        another = prepare(of_kind(kind, *POISSON, "training.server_rate=2.0"))
    assert np.linalg.norm(trained(another, noiseless=True) - reference) > 0.1 * moved


def test_the_reference_of_a_model_of_sums_asks_for_the_same_sums(tmp_path: Path) -> None:
    """Over silos, too, where each user counts as on a device."""
    asked = config("privacy.mode=distributed", "model.name=private-ease", "model.settings={}")
    results = {one.name: one.metrics["NDCG@10"] for one in go(asked, tmp_path / "run").results}
    assert list(results) == ["ItemPop", *LINEAR, "this recipe without noise", "this run"]
    seen = list[Contribution]()

    def same(purpose: str, length: int, share: Fraction, contribution: Contribution) -> Noised:
        seen.append(contribution)
        return prepare(asked).without_privacy().sums(IdealAggregator(bytes(32)))(purpose, length, share, contribution)

    model = cast(LearnsFromSums, prepare(asked).model())
    model.learn(same, 150)
    assert evaluate(model, prepare(asked).split).mean("NDCG@10") == results["this recipe without noise"]
    assert len(seen) == 2


def test_a_parameter_does_not_replace_the_fraction_of_its_name() -> None:
    """The committee of ``oneshot`` has a number of corrupt members."""
    said = agreed(prepare(of_kind("none", "protocol.name=oneshot", "protocol.corrupt=0.1")))
    assert said["corrupt"] == "0.1"
    assert "members" in said


def test_the_secret_is_its_owners_and_nobody_else_knows_it(runs: Runs) -> None:
    folder, _ = runs("both")
    private = folder / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in private.iterdir()} == {0o600}
    for name in ("secret.key", "ledger.key"):
        secret = (private / name).read_bytes()
        for path in (*folder.iterdir(), *private.iterdir()):
            data = path.read_bytes() if path.is_file() else b""
            assert path.name == name or (secret not in data and secret.hex().encode() not in data)


def test_the_key_of_a_ledger_does_not_follow_from_the_secret(runs: Runs) -> None:
    folder, _ = runs("both")
    secret, key = ((folder / "private" / name).read_bytes() for name in ("secret.key", "ledger.key"))
    derived = {SigningKey(derive(one, labels.SIMULATED, b"ledger")).public.hex(): one for one in (secret, key)}
    public = (folder / "ledger.pub").read_text().strip()
    assert derived[public] == key != secret
    assert public not in (SigningKey(secret).public.hex(), SigningKey(key).public.hex())


def test_secrets_are_deleted_when_a_run_has_ended(tmp_path: Path) -> None:
    folder, asked = tmp_path / "run", of_kind("local", "training.rounds=1", "evaluation.users=true")
    run = go(asked, folder, keep_secrets=False)
    assert set(os.listdir(folder / "private")) == {"name", "inputs", "users.csv"}
    before = contents(folder)
    for keep in (True, False):
        assert go(asked, folder, keep_secrets=keep) == run  # there is nothing left to do
    assert contents(folder) == before
    key = bytes.fromhex((folder / "ledger.pub").read_text())
    assert verify(read(folder / "ledger.db"), key).genesis.run == asked.title


def test_a_run_that_was_killed_at_its_end_deletes_them_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = of_kind("none", "training.rounds=1", "evaluation.exact=false")
    with monkeypatch.context() as patched:
        patched.setattr(running, "delete_secrets", lambda folder: stop_here())
        with pytest.raises(Killed):
            go(asked, tmp_path, keep_secrets=False)
    draft = tmp_path / "private" / ".0123456789abcdef.draft"
    draft.touch()
    assert set(os.listdir(tmp_path / "private")) == SECRETS | {"name", "inputs", draft.name}
    go(asked, tmp_path, keep_secrets=False)
    assert sorted(os.listdir(tmp_path / "private")) == ["inputs", "name"]


def test_a_run_in_which_others_can_get_at_secrets_does_not_go_on(tmp_path: Path) -> None:
    stopped("none", tmp_path, 1)
    private, prepared = tmp_path / "private", prepare(of_kind("none"))
    run_list = RunList(tmp_path.with_name(f"{tmp_path.name}.state"))

    def refused(why: str) -> None:
        before = contents(tmp_path)
        with pytest.raises(StorageError, match=why):
            train(prepared, tmp_path, machine={}, run_list=run_list)
        assert contents(tmp_path) == before

    for name in ("", "secret.key", "ledger.key"):
        mode = stat.S_IMODE((private / name).stat().st_mode)
        (private / name).chmod(mode | 0o040)
        refused(r"others can get at it \(mode [67]40")
        (private / name).chmod(mode)
    private.rename(elsewhere := tmp_path.with_name(f"{tmp_path.name}.private"))
    private.symlink_to(elsewhere)
    refused("it is a link")


def test_a_run_of_an_earlier_release_is_refused(tmp_path: Path) -> None:
    """Its secret lies beside what is shared."""
    asked = of_kind("local")
    (tmp_path / "config.json").write_bytes(as_kept(asked.plain()))
    assert run_start.existing_run(tmp_path, asked) is None
    (tmp_path / "secret.key").write_bytes(bytes(32))
    with pytest.raises(UsageError, match=r"begun by an earlier release, .* take a new directory") as refused:
        run_start.existing_run(tmp_path, asked)
    assert "\n" not in str(refused.value)


def test_two_runs_have_two_secrets(runs: Runs) -> None:
    secrets = {
        (runs(kind)[0] / "private" / name).read_bytes() for kind in KINDS for name in ("secret.key", "ledger.key")
    }
    assert len(secrets) == 2 * len(KINDS)


def test_whoever_watches_sees_the_record_grow(tmp_path: Path) -> None:
    seen = list[Run]()
    done = go(of_kind("local"), tmp_path / "run", watch=seen.append)
    assert [(len(run.results), len(run.rounds), bool(run.ended)) for run in seen] == [
        *((references, 0, False) for references in range(7)),
        (6, 1, False),
        (6, 2, False),
        (7, 2, True),
    ]
    assert seen[-1] == done


def test_whoever_waits_is_told_what_is_being_done(tmp_path: Path) -> None:
    said = list[str]()
    go(of_kind("none"), tmp_path / "run", tell=said.append)
    assert said[:4] == [
        "tuned EASE: its settings are chosen by validation events",
        "this recipe without noise, 0 of 2 rounds are done",
        "this recipe without noise, 1 of 2 rounds are done",
        "sum 0, updates",
    ]
    assert [one for one in said[4:] if one.startswith("sum 1")][:2] == ["sum 1, updates", "sum 1, phase share"]
    assert "sum 0, phase upload" in said


def test_references_that_are_on_record_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed after the first goes on with the second."""

    def killed(run: Run) -> None:
        if len(run.results) == 1:
            raise Killed

    with pytest.raises(Killed):
        go(of_kind("none"), tmp_path / "run", watch=killed)
    measured, real = list[str](), running.evaluate
    monkeypatch.setattr(
        running, "evaluate", lambda model, *more: measured.append(type(model).__name__) or real(model, *more)
    )
    run = go(of_kind("none"), tmp_path / "run")
    assert [result.name for result in run.results] == ["ItemPop", *LINEAR, "this recipe without noise", "this run"]
    assert "ItemPop" not in measured
    assert len(measured) == 3 + 1 + 2 + 1


# Again


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_has_ended_is_not_touched(kind: str, runs: Runs) -> None:
    folder, run = runs(kind)
    before = contents(folder)
    assert go(of_kind(kind), folder) == run
    assert contents(folder) == before


def test_another_configuration_does_not_go_on_with_it(runs: Runs) -> None:
    folder, _ = runs("local")
    before = contents(folder)
    for change in ("seed=1", "training.rounds=3", "title=another"):
        with pytest.raises(UsageError, match="another configuration"):
            go(of_kind("local", change), folder)
    assert contents(folder) == before


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds no run"):
        go(of_kind("none"), tmp_path)
    assert os.listdir(tmp_path) == ["letter.txt"]
    with pytest.raises(UsageError, match="cannot use"):
        go(of_kind("none"), tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_run_that_was_killed_while_it_wrote_its_first_file_can_begin(tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef.draft").write_bytes(b'{"tit')
    assert go(of_kind("none"), tmp_path).ended


def stopped(kind: str, folder: Path, rounds: int) -> None:
    """A run that ends when it has told of so many rounds."""

    def watch(run: Run) -> None:
        if len(run.rounds) == rounds:
            raise Killed

    with pytest.raises(Killed):
        go(of_kind(kind), folder, watch=watch)


def test_what_was_reached_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rulers and twin are in the record by then."""
    stopped("distributed", tmp_path, 1)
    monkeypatch.setattr(running, "ItemPop", None)
    assert [one.number for one in go(of_kind("distributed"), tmp_path).rounds] == [0, 1]


@pytest.mark.long
def test_what_had_been_spent_after_a_sum_stays_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the first of two sums is asked for again, when the second is in the ledger already."""
    asked = of_kind("sums")
    with monkeypatch.context() as patched:
        patched.setattr(running, "save", lambda *arguments: stop_here())
        with pytest.raises(Killed):
            go(asked, tmp_path)
    before = Run.load(tmp_path).rounds
    stopped("sums", tmp_path, 2)  # once more
    assert unmeasured(go(asked, tmp_path)) == [replace(one, exact={}) for one in before]
    first, second = (one.epsilon for one in before)
    assert 0 < first < second  # type: ignore[operator]


def unmeasured(run: Run) -> list[Round]:
    """What is measured in the end is measured on a model that is computed again, from the same sums."""
    return [replace(one, exact={}) for one in run.rounds]


def stop_here() -> None:
    raise Killed


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "name", ["private/checkpoint.safetensors", "run.json", "private/secret.key", "private/ledger.key"]
)
def test_a_file_that_is_cut_short_ends_the_run(name: str, tmp_path: Path) -> None:
    stopped("distributed", tmp_path, 1)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:20])
    before = contents(tmp_path)
    with pytest.raises((DecodeError, StorageError)) as refused:
        go(of_kind("distributed"), tmp_path)
    assert "\n" not in str(refused.value)
    changed = {name for name, digest in contents(tmp_path).items() if digest != before.get(name)}
    assert changed <= {"run.json", "ledger.db"}  # where a sum is set aside before it is begun


@pytest.mark.parametrize("kind", [longer("local"), "both"])
def test_what_was_released_is_not_released_again_for_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Record and checkpoint are deleted, ledger and secret are there: the same noise, charged before, on other data."""
    asked = of_kind(kind, "evaluation.exact=false", "training.rounds=1")
    go(asked, tmp_path)
    before = Run.load(tmp_path).rounds[-1].epsilon
    for name in ("run.json", "private/checkpoint.safetensors"):
        (tmp_path / name).unlink()
    with pytest.raises(StorageError, match="sum 0 is in the ledger"):
        go(asked, tmp_path)
    monkeypatch.setattr(SecureAggregator, "_check_new", lambda *arguments: None)  # the control
    (tmp_path / "private" / "checkpoint.safetensors").unlink()
    assert go(asked, tmp_path).rounds[-1].epsilon == before


def test_an_older_ledger_put_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would forget what the first round cost. Control: without the check the run goes on."""
    asked, older, folder = of_kind("local", "evaluation.exact=false"), tmp_path / "older.db", tmp_path / "run"

    def watch(run: Run) -> None:
        if run.rounds:
            raise Killed
        older.write_bytes((folder / "ledger.db").read_bytes())

    with pytest.raises(Killed):
        go(asked, folder, watch=watch)
    (folder / "ledger.db").write_bytes(older.read_bytes())
    before = contents(folder)
    with pytest.raises(StorageError, match="is older than the record of this run"):
        go(asked, folder)
    assert contents(folder) == before
    monkeypatch.setattr(run_start, "_check_reached", lambda *_: None)
    assert go(asked, folder).ended


def test_another_key_does_not_open_the_ledger(tmp_path: Path) -> None:
    stopped("distributed", tmp_path, 1)
    (tmp_path / "private" / "ledger.key").write_bytes(bytes(32))
    with pytest.raises(AlteredError, match="another key"):  # by the record
        go(of_kind("distributed"), tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(PeerError, match="another key"):
        go(of_kind("distributed"), tmp_path)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("kind", "name"), [("local", "ledger.db"), ("both", "local.db")])
def test_without_its_ledger_a_run_does_not_go_on(kind: str, name: str, tmp_path: Path) -> None:
    stopped(kind, tmp_path, 1)
    (tmp_path / name).unlink()
    for gone in ("run.json", "private/checkpoint.safetensors"):  # either of them tells that sums were made
        with pytest.raises(StorageError, match=f"{name} is gone"):
            go(of_kind(kind), tmp_path)
        assert not (tmp_path / name).exists()
        (tmp_path / gone).rename(tmp_path.with_name(f"{tmp_path.name}.{Path(gone).name}"))


def test_a_ledger_that_is_cut_short_is_not_written_to(tmp_path: Path) -> None:
    stopped("local", tmp_path, 1)
    path = tmp_path / "ledger.db"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises((PeerError, StorageError)):
        go(of_kind("local"), tmp_path)


@pytest.mark.parametrize("kind", ["none", "local"])
def test_two_processes_do_not_share_a_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no ledger of its own is locked. Of two, one would go on with what the other is writing."""
    shared = (f"privacy.ledger={tmp_path / 'shared.db'}",) if kind == "local" else ()
    asked = of_kind(kind, "evaluation.exact=false", "training.rounds=1", *shared)

    def second(run: Run) -> None:
        with pytest.raises(StorageError, match="locked: another process is at work"):
            go(asked, tmp_path / "run")
        if kind == "none":  # the control
            monkeypatch.setattr(run_start, "alone", lambda folder: nullcontext())
            assert go(asked, tmp_path / "run").ended
        raise Killed

    with pytest.raises(Killed):
        go(asked, tmp_path / "run", watch=second)


# Lost clients, spent budgets


def test_given_up_rounds_are_on_record_and_made_up_for(tmp_path: Path) -> None:
    run = go(of_kind("none", "network.dropout=0.3", "training.rounds=3", "seed=2"), tmp_path / "run")
    assert [one.number for one in run.rounds] == list(range(len(run.rounds)))
    given_up = [one for one in run.rounds if not one.survivors]
    assert given_up
    assert all(one.purpose.startswith("training, given up") for one in given_up)
    assert len(run.rounds) - len(given_up) == 3
    assert run.ended == "all rounds are done"


def test_a_first_round_that_is_given_up_is_not_the_end(tmp_path: Path) -> None:
    run = go(of_kind("none", "network.dropout=0.3", "training.rounds=1", "seed=2"), tmp_path / "run")
    assert run.rounds[0].survivors == 0
    assert run.ended == "all rounds are done"


def test_five_in_a_row_are_the_end_and_again(tmp_path: Path) -> None:
    for tried in (5, 6):
        with pytest.raises(ThresholdError, match="too many clients were lost, 5 times"):
            go(of_kind("none", "network.dropout=0.95"), tmp_path / "run")
        rounds = Run.load(tmp_path / "run").rounds
        assert len(rounds) == tried
    assert not any(one.survivors for one in rounds)


def test_when_the_budget_is_spent_the_model_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that are given up are charged, too, where clients train under privacy by themselves."""
    asked = of_kind("local", "network.dropout=0.3", "training.rounds=3", "seed=2")
    run = go(asked, tmp_path / "run")
    assert run.ended == "the budget is spent: the schedule that is reserved ends with round 3: no step is left"
    assert len(run.rounds) == 3
    private = tmp_path / "run" / "private"
    secret = (private / "secret.key").read_bytes()
    state = TrainingState.decode((private / "checkpoint.safetensors").read_bytes(), secret)
    model = load(tmp_path / "run" / "model.safetensors").model
    assert model.vector.tobytes() == state.vector.tobytes()  # type: ignore[attr-defined]
    before = contents(tmp_path / "run")
    assert go(asked, tmp_path / "run") == run
    assert contents(tmp_path / "run") == before


PATIENT = ("training.patience=2", "training.measured_every=1", "training.rounds=12", "training.rate=1e-30")
"""Nothing gets better but by rounding."""


@pytest.mark.long
def test_a_run_that_stops_early_says_so_and_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a restart in between. Control: without the question it goes on."""
    asked = of_kind("none", *PATIENT)

    def killed(run: Run) -> None:
        if len(run.rounds) == 2:
            raise Killed

    with pytest.raises(Killed):
        go(asked, tmp_path / "run", watch=killed)
    run = go(asked, tmp_path / "run")
    assert run.ended == "stopped early: 2 measured rounds in a row brought no better NDCG@10"
    values = [one.measured["NDCG@10"] for one in run.rounds]
    assert len(values) < 12
    assert max(values) == max(values[:-2]) == values[-3]
    assert go(asked, tmp_path / "run") == run
    switch_off(monkeypatch, running._Running, "_train", "federation.stalled")
    assert len(go(asked, tmp_path / "control").rounds) == 12


def test_nothing_that_was_measured_decides_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all measured values turned around, the model is the same."""
    go(of_kind("none"), tmp_path / "run")
    other = tmp_path / "other"
    same_secrets(tmp_path / "run", other)
    real = running.evaluate

    def turned(*arguments: object, **more: object) -> object:
        found = real(*arguments, **more)  # type: ignore[arg-type]
        return replace(found, values={name: 1 - value for name, value in found.values.items()})

    monkeypatch.setattr(running, "evaluate", turned)
    run = go(of_kind("none"), other)
    assert run.results[-1].metrics != Run.load(tmp_path / "run").results[-1].metrics
    one, another = (load(folder / "model.safetensors").model for folder in (tmp_path / "run", other))
    np.testing.assert_allclose(one.vector, another.vector, rtol=1e-3, atol=1e-4)  # type: ignore[attr-defined]


@pytest.mark.thinned(2)
@pytest.mark.parametrize("kind", ["none", "sums"])
def test_a_sum_that_is_on_record_is_not_made_again(kind: str, tmp_path: Path) -> None:
    """Its vectors are deleted, and those that are computed now could be others."""
    stopped(kind, tmp_path, 1)
    older = (tmp_path / "private" / "checkpoint.safetensors").read_bytes()
    stopped(kind, tmp_path, 2)
    (tmp_path / "private" / "checkpoint.safetensors").write_bytes(older)
    for said in ("is older than the record", "is gone, and sums are on record"):
        with pytest.raises(StorageError, match=rf"checkpoint\.safetensors {said}: start a new run"):
            go(of_kind(kind), tmp_path)
        (tmp_path / "private" / "checkpoint.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize("kind", ["none", "sums"])
def test_a_checkpoint_of_another_run_or_with_another_bit_is_not_gone_on_with(kind: str, tmp_path: Path) -> None:
    """Its format is right, and the number of its sums. The control: put back as it was, it is gone on with."""
    for name in ("one", "other"):
        stopped(kind, tmp_path / name, 1)
    path = tmp_path / "one" / "private" / "checkpoint.safetensors"
    own, others = path.read_bytes(), (tmp_path / "other" / "private" / path.name).read_bytes()
    record = (tmp_path / "one" / "run.json").read_bytes()
    for wrong in (others, own[:-1] + bytes([own[-1] ^ 1])):
        path.write_bytes(wrong)
        with pytest.raises(DecodeError, match="no checkpoint of this run, or it was altered"):
            go(of_kind(kind), tmp_path / "one")
        (tmp_path / "one" / "run.json").write_bytes(record)
    path.write_bytes(own)
    assert go(of_kind(kind), tmp_path / "one").ended


def test_control_without_that_check_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped("none", tmp_path, 1)
    (tmp_path / "private" / "checkpoint.safetensors").unlink()
    switch_off(monkeypatch, running._Running, "_check_reached", "sums < len(self._record.rounds)")
    seen = list[int]()
    go(of_kind("none"), tmp_path, watch=lambda run: seen.append(len(run.rounds)))
    assert seen == [1, 1, 2, 2]


@pytest.mark.long
def test_a_run_goes_on_with_the_protocol_that_was_chosen_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another release chose otherwise in between."""
    asked = of_kind("none", "protocol.name=auto")

    def watch(run: Run) -> None:
        if len(run.rounds) == 1:
            raise Killed

    with pytest.raises(Killed):
        go(asked, tmp_path, watch=watch)
    before = Run.load(tmp_path).protocol["name"]
    (other,) = ALLOWED - {before}
    chosen = Deployment.chosen
    monkeypatch.setattr(
        Deployment, "chosen", lambda self, *sizes: replace(chosen(self, *sizes), protocol=other, why="it rains")
    )
    planned = list[str]()
    real = SecureAggregator._plan

    def plan(self: SecureAggregator, *arguments: Any) -> Any:
        made = real(self, *arguments)
        planned.append(made.protocol)
        return made

    monkeypatch.setattr(SecureAggregator, "_plan", plan)
    assert go(asked, tmp_path).protocol["name"] == before
    assert set(planned) == {before}


def test_an_impossible_budget_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises((UsageError, BudgetError)):
        go(of_kind("local", "privacy.epsilon=1e-9", "privacy.delta=1e-12"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
