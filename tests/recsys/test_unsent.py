"""What clients have not sent yet: each goes on from it, nothing is lost or sent twice, and no clip is any wider."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.aggregator import Aggregator, Request, Result, Update
from recsys.assembly import prepare
from recsys.data.interactions import History
from recsys.deployment import Deployment
from recsys.federated import ClientData, Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.kept_by_clients import KeptByClients
from recsys.models.recommender import Local
from recsys.network import Network
from recsys.secure_aggregator import SecureAggregator
from recsys.training_state import TrainingState
from recsys.unsent import UNSENT, at_round
from recsys.users_in_silos import UsersInSilos
from secagg.encoding import Encoding
from secagg.errors import StorageError, UsageError
from secagg.sketches import LowRank, RandomK, Ranges, Sketch, Table
from tests.scenes.bias import Bias
from tests.scenes.recommender import BITS, SECRET, client_data, config, federation
from tests.scenes.whole_runs import go, killed_in

ITEMS, CLIP = 12, 20.0
SOME, TABLE = RandomK(3, bytes(32)), LowRank((Table(0, 4, 3, 1),), bytes(32))


class Watched(IdealAggregator):
    """Keeps what it is asked to sum up."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.sums = list[dict[str, NDArray[np.float64]]]()
        self.encodings = list[Encoding]()

    def aggregate(self, request: Request, update: Update) -> Result:
        made = {name: np.asarray(update(name)) for name in request.cohort}
        self.sums.append(made)
        self.encodings.append(request.encoding)
        return super().aggregate(request, made.__getitem__)


def partly(
    aggregator: Aggregator | None = None,
    clients: ClientData | None = None,
    sketch: Sketch | None = SOME,
    clip: float = CLIP,
    **more: Any,
) -> Federation:
    more = {"measured": 0.0, "clip": clip, "encoding": Encoding(ITEMS, clip, BITS, sketch=sketch), **more}
    return federation(clients or client_data(), aggregator, **more)


def secure(**more: Any) -> SecureAggregator:
    return SecureAggregator(Deployment(dropout="0.34"), SECRET, **more)


def rounds(done: Federation, count: int) -> Federation:
    for _ in range(count):
        done.advance()
    return done


def unsent(done: Federation) -> dict[str, NDArray[np.float32]]:
    return dict(done._kept.of(UNSENT))


# A round


@pytest.mark.parametrize("sketch", [SOME, TABLE], ids=["coordinates", "a table"])
def test_each_goes_on_from_what_it_has_not_sent_and_sends_another_part_in_each_round(sketch: Any) -> None:
    clients, watched = client_data(), Watched()
    done, local = partly(watched, clients, sketch), Local(rate=0.5)
    model = done.state.vector.astype(np.float64)
    left = {name: np.zeros(ITEMS) for name in clients.names}
    for number in range(6):
        linear = replace(sketch, turn=number).at(ITEMS, b"")
        total = np.zeros(ITEMS)
        for name in clients.names:
            own = Bias()
            own.vector = (model + left[name]).astype(np.float32)
            own.train(clients.histories(name), local, 0)
            change = own.vector - model
            sent = linear.lift(linear.apply(change), unbiased=False)
            left[name] = change - sent
            total += sent
        model += total / 6
        done.advance()
        np.testing.assert_allclose(done.state.vector, model, atol=1e-5)
        for name in clients.names:
            np.testing.assert_allclose(unsent(done)[name], left[name], atol=1e-5)
    assert [one.sketch.turn for one in watched.encodings if isinstance(one.sketch, type(sketch))] == list(range(6))


def test_with_a_part_a_round_all_meet_where_whole_updates_do() -> None:
    """Where the mean of the silos' frequencies is; and they do not, if each trains from the round's model and adds what
    it has not sent: what it learns is learnt again in each of the rounds in which it does not travel."""
    clients = client_data((2, 3, 4, 5, 6, 4))
    whole = rounds(partly(None, clients, None, local=Local(rate=0.8)), 20).state.vector
    parts = rounds(partly(None, clients, RandomK(1, bytes(32)), clip=1e3, local=Local(rate=0.8)), 84).state.vector
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_control_who_trains_from_the_rounds_model_and_adds_what_it_kept_does_not_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clients = client_data((2, 3, 4, 5, 6, 4))
    whole = rounds(partly(None, clients, None, local=Local(rate=0.8)), 20).state.vector
    trained = Federation._train

    def train(self: Federation, model: Any, who: str, *more: Any) -> None:
        kept = self._unsent.get(who, np.zeros(ITEMS, np.float32))
        model.vector = model.vector - kept
        trained(self, model, who, *more)
        model.vector = model.vector + kept

    monkeypatch.setattr(Federation, "_train", train)
    parts = rounds(partly(None, clients, RandomK(1, bytes(32)), clip=1e3, local=Local(rate=0.8)), 84).state.vector
    assert np.abs(parts - whole).max() > 1


def test_what_the_clip_cuts_off_is_not_kept() -> None:
    done, longer = partly(clip=0.1), partly()
    for one in (done, longer):
        one.advance()
    for name, kept in unsent(done).items():
        np.testing.assert_allclose(kept, unsent(longer)[name], atol=1e-6)


@pytest.mark.parametrize("clip", [0.5, pytest.param(1e8, id="control")])
def test_however_much_a_client_has_kept_it_moves_a_sum_no_further_than_the_clip(clip: float) -> None:
    done = partly(clip=clip)
    done._kept.move({name: {UNSENT: np.full(ITEMS, 1e6, np.float32)} for name in done._data.names})
    before = done.state.vector
    done.advance()
    moved = float(np.linalg.norm(done.state.vector - before))
    assert moved > 0
    assert (moved <= 0.5 + 1e-4) == (clip == 0.5)


def test_a_training_that_comes_to_nothing_begins_anew() -> None:
    class Overflowing(Bias):
        def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
            super().train(histories, local, seed)
            if len(histories) == 9 and np.abs(self._vector).max() > 0.2:
                self._vector[-1] = np.inf

    watched = Watched()
    done = partly(watched, client_data((2, 9, 4)), model=Overflowing(), local=Local(rate=0.05))
    zeros = []
    for _ in range(20):
        done.advance()
        zeros.append(not watched.sums[-1]["silo-1"].any())
        if zeros[-1]:
            assert not unsent(done)["silo-1"].any()
    assert any(zeros)
    assert np.isfinite(done.state.vector).all()


# Who is not in a sum, and who is killed


def test_who_drops_out_keeps_what_it_had_and_who_is_in_the_sum_moves_on() -> None:
    done, still = partly(secure(network=Network(dropout=0.12))), set[int]()
    for _ in range(4):
        before = unsent(done)
        one = done.advance()
        moved = [name for name, left in unsent(done).items() if name not in before or (left != before[name]).any()]
        assert len(moved) == one.survivors
        still.add(6 - len(moved))
    assert len(still) > 1


def test_a_round_that_is_given_up_moves_nothing() -> None:
    done = partly(secure(network=Network(dropout=0.9), seed=1))
    assert done.advance().survivors == 0
    assert not unsent(done)


class Other(Bias):
    """Another machine, which computes otherwise: by much, so that it is seen."""

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        super().train(histories, local, seed)
        self._vector += np.float32(0.25)


@pytest.mark.parametrize("place", ["before", "in the sum", "after the sum"])
def test_a_round_that_is_attempted_twice_loses_and_repeats_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is of what was decided before anything left, on whatever machine it goes on."""
    whole, done = rounds(partly(), 2), partly(secure(folder=tmp_path))
    done.advance()
    checkpoint = b"".join(done.state.encode(SECRET))
    killed_in(done, monkeypatch, place)
    for again in range(2):
        done = partly(secure(folder=tmp_path), model=Bias() if place == "before" else Other())
        done.resume(TrainingState.decode(checkpoint, SECRET))
        if again:
            done.advance()
        else:
            killed_in(done, monkeypatch, place)
    np.testing.assert_allclose(done.state.vector, whole.state.vector, atol=1e-4)
    for name, left in unsent(whole).items():
        np.testing.assert_allclose(unsent(done)[name], left, atol=1e-4)


def test_a_checkpoint_holds_it_sealed_and_is_for_one_training() -> None:
    done = rounds(partly(), 2)
    data, earlier = b"".join(done.state.encode(SECRET)), rounds(partly(), 1).state.sealed
    assert not any(left.tobytes() in data for left in unsent(done).values())
    assert b"silo-1" not in data
    for one, other in ((partly(), partly(sketch=None)), (partly(sketch=None), partly())):
        with pytest.raises(UsageError, match="another model"):
            one.resume(other.state)
    state = TrainingState.decode(data, SECRET)
    state.sealed = earlier
    with pytest.raises(StorageError, match="something else kept by clients"):
        partly().resume(state)


CURIOUS = "protocol.adversary=curious"
PARTLY = (
    CURIOUS,
    "upload.kept=0.1",
    "training.measured=0",
    "training.rounds=6",
    "protocol.dropout=0.34",
    "training.rate=3",
)
RUN = """
import sys
from pathlib import Path
from recsys.assembly import prepare
from recsys.config import Config
from recsys.other_runs import RunList
from recsys.run import train
folder = Path(sys.argv[1])
train(prepare(Config.load(folder / "run.toml", sys.argv[2:])), folder / "run", run_list=RunList(folder / "state"),
      keep_secrets=True, machine={})
"""


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """By SIGKILL, while sums are under way. It ends with the model and what is left of a run that nobody killed."""
    whole = go(config(*PARTLY), tmp_path / "whole")
    assert whole.ended
    for name in ("config.json", "private/secret.key", "private/ledger.key"):
        (target := tmp_path / "killed" / "run" / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.write_bytes((tmp_path / "whole" / name).read_bytes())
        target.chmod(0o600)
    (tmp_path / "killed" / "run" / "private").chmod(0o700)
    (tmp_path / "killed" / "run.toml").write_text(
        'title = "a small run"\n[data]\nusers = 60\nitem_count = 150\n[clients]\ncount = 6\n'
        "[model.settings]\nwidth = 2\nrecent = 10\n[privacy]\nmode = 'none'\nsteps = 2\n[protocol]\nworkers = 1\n"
    )
    called = [sys.executable, "-c", RUN, str(tmp_path / "killed"), *PARTLY]
    for number in (1, 3, 4):  # sums that are on disk, and from which nothing is learnt yet
        with subprocess.Popen(called, env={**os.environ, "PYTHONPATH": os.getcwd()}) as process:
            while not (tmp_path / "killed" / "run" / "private" / f"sum-{number}.sealed").exists():
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
    subprocess.run(called, env={**os.environ, "PYTHONPATH": os.getcwd()}, check=True)
    ended = []
    for folder in ("whole", "killed/run"):
        private = tmp_path / folder / "private"
        secret = (private / "secret.key").read_bytes()
        state = TrainingState.decode((private / "checkpoint.safetensors").read_bytes(), secret)
        (kept := KeptByClients(secret)).open(len(state.rounds), state.sealed)
        ended.append((state.vector, dict(kept.of(UNSENT))))
    np.testing.assert_allclose(ended[1][0], ended[0][0], atol=1e-4)
    assert ended[0][1].keys() == ended[1][1].keys() != set()
    for name, left in ended[0][1].items():
        np.testing.assert_allclose(ended[1][1][name], left, atol=1e-4)


# Configured


def made(*changes: str) -> Encoding:
    return prepare(config("training.measured=0", CURIOUS, *changes)).encoding


def test_what_travels_is_in_the_encoding() -> None:
    whole = made()
    assert whole.length == 2 * 150 + 150
    assert made("upload.kept=0.05").coordinates == 22
    assert made("upload.rank=1").coordinates == 150 + 150
    assert made("upload.rank=1", "training.measured=0.05").coordinates == 150 + 150 + 3
    assert made("upload.frozen=['bias']").sketch == Ranges(((0, 300),))
    assert made("upload.frozen=['items']", "training.measured=0.05").sketch == Ranges(((300, 453),))
    assert made("upload.rank=1", "training.personal=['bias']").sketch == replace(
        LowRank((Table(0, 150, 2, 1),)),
        order=made("upload.kept=0.5").sketch.order,  # type: ignore[union-attr]
    )
    with pytest.raises(UsageError, match="no table of more columns"):  # the one that there is does not travel
        made("upload.rank=1", "training.personal=['items']")
    few = made("upload.bits=4", "upload.kept=0.5")
    assert (few.bits, few.coordinates, few.ring_bits(6)) == (4, 225, 7)
    assert few.clip_inf == pytest.approx(8 / 15)
    assert made("upload.kept=0.001").coordinates == 1
    mf = made("model.name=mf", "model.settings={width=4}", "upload.rank=2")
    assert mf.sketch == LowRank((Table(0, 150, 5, 2),), mf.sketch.order)  # type: ignore[union-attr]


def test_of_users_in_silos_nothing_is_kept_and_parts_are_drawn_anew(tmp_path: Path) -> None:
    prepared = prepare(config("training.measured=0", "upload.kept=0.1", "privacy.mode=distributed"))
    assert prepared.encoding.sketch == RandomK(45)
    assert prepared.encoding.coordinates == 45
    assert at_round(prepared.encoding, 3) == prepared.encoding
    whole = prepare(config("training.measured=0", "privacy.mode=distributed"))
    assert prepared.distributed is not None
    assert whole.distributed is not None
    assert prepared.distributed.planned.count == whole.distributed.planned.count
    silos: dict[str, Any] = {"silos": UsersInSilos(24, 4)}
    with pytest.raises(UsageError, match="keep nothing that they have not sent"):
        partly(encoding=Encoding(ITEMS, CLIP, BITS, users=4, sketch=SOME), **silos)
    done = partly(encoding=Encoding(ITEMS, CLIP, BITS, users=4, sketch=RandomK(3)), **silos)
    moved = []
    for _ in range(4):
        before = done.state.vector
        done.advance()
        moved.append(tuple(np.flatnonzero(done.state.vector != before)))
    assert len(set(moved)) > 1
    assert all(len(one) <= 3 for one in moved)
    assert not unsent(done)


def test_with_scaffold_all_is_sent() -> None:
    with pytest.raises(UsageError, match="with SCAFFOLD all is sent"):
        partly(encoding=Encoding(2 * ITEMS, CLIP, BITS, sketch=SOME), scaffold=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["upload.kept=0"], "kept is above 0 and at most 1"),
        (["upload.kept=1.5"], "kept is above 0 and at most 1"),
        (["upload.rank=-1"], "rank not below zero"),
        (["upload.bits=25"], "bits from 0 to 24"),
        (["upload.bits=-1"], "bits from 0 to 24"),
        (["upload.kept=0.5", "upload.rank=2"], "in one way"),
        (["upload.rank=1", "upload.frozen=['bias']"], "in one way"),
        (["upload.kept=0.5", "training.measured=0.05"], "need training.measured = 0"),
        (["upload.bits=4", "training.measured=0.05"], "need training.measured = 0"),
        (["upload.bits=4", "privacy.mode=distributed"], "the finest grid is taken that fits"),
        (["upload.kept=0.5", "training.scaffold=true"], "training.scaffold is not for"),
        (["upload.frozen=['bias']", "training.scaffold=true"], "training.scaffold is not for"),
        (["upload.rank=1", "training.draw=turns", "training.size=3"], "not for training.draw = turns"),
        (["upload.rank=1", "protocol.adversary=active"], "then only that client has not sent"),
        (["upload.kept=0.5", "protocol.adversary=active"], "then only that client has not sent"),
        (["upload.rank=2"], "autoencoder has no table of more columns"),
        (["upload.frozen=['towers']"], "upload.frozen: there is no layer 'towers'; there are items, bias"),
        (["upload.frozen=['items','bias']"], "upload.frozen names all layers"),
        (["upload.kept=0.5", "model.name=private-ease", "model.settings={}"], "nothing is set in upload"),
    ],
)
def test_what_cannot_be_uploaded_so_is_refused_in_one_line(changes: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        prepare(config("training.measured=0", CURIOUS, *changes))
    assert "\n" not in str(refused.value)


# Private


def test_local_steps_are_charged_as_without_it(tmp_path: Path) -> None:
    """What a client goes on from is private already: it follows from models that noised steps have made."""
    found = []
    for kept in ("1.0", "0.5"):
        prepared = prepare(config("privacy.mode=local", f"upload.kept={kept}"))
        assert prepared.locally is not None
        found.append((prepared.locally.planned, prepared.locally.budget))
    assert found[0] == found[1]


def test_on_devices_noise_is_that_for_what_travels() -> None:
    devices = ("clients.kind=devices", "training.measured=0", "privacy.mode=distributed")
    prepared = prepare(config("upload.kept=0.1", *devices))
    assert isinstance(prepared.encoding.sketch, RandomK)
    assert prepared.encoding.sketch.order
    assert prepared.encoding.coordinates == 45
    spec = prepared.noise(60)
    assert spec.variance > 0
