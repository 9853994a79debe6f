"""Personal heads: what travels is the vector without them, each client goes on with its own, and nobody gets it."""

from __future__ import annotations

import json
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
from recsys.data.negatives import frozen
from recsys.data.split import leave_last_out
from recsys.deployment import Deployment
from recsys.export import export
from recsys.federated import ClientData, Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.kept_by_clients import KeptByClients
from recsys.metrics.ranking import evaluate
from recsys.models.autoencoder import Autoencoder
from recsys.models.recommender import Local
from recsys.models.store import load
from recsys.network import Network
from recsys.optimisers import Optimiser, Rule
from recsys.personal_heads import HEAD, evaluated, personal
from recsys.run_record import MODEL, Run, signed
from recsys.run_start import CHECKPOINT
from recsys.secure_aggregator import SecureAggregator
from recsys.served_heads import load_own
from recsys.training_state import TrainingState
from recsys.users_in_silos import UsersInSilos
from secagg.encoding import Encoding
from secagg.errors import DecodeError, StorageError, UsageError
from tests.controls import switch_off
from tests.scenes.bias import Bias
from tests.scenes.private_training import private, small, step_of
from tests.scenes.recommender import BITS, SECRET, client_data, config, federation, ledger_for, population
from tests.scenes.whole_runs import Killed, go, key_of, killed_in

ITEMS, HEADED = 12, 4
TRAVELS = ITEMS - HEADED


class Layered(Bias):
    """A number for each item, of which the last ones are a layer of their own."""

    layers = {"body.items": TRAVELS, "head.items": HEADED}  # noqa: RUF012


class Watched(IdealAggregator):
    """Keeps what it is asked to sum up."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.sums = list[dict[str, NDArray[np.float64]]]()

    def aggregate(self, request: Request, update: Update) -> Result:
        made = {name: np.asarray(update(name)) for name in request.cohort}
        self.sums.append(made)
        return super().aggregate(request, made.__getitem__)


def headed(aggregator: Aggregator | None = None, clients: ClientData | None = None, **more: Any) -> Federation:
    more = {"model": Layered(), "measured": 0.0, "clip": 20.0, "personal": ("head",), **more}
    return federation(clients or client_data(), aggregator, **more)


def secure(**more: Any) -> SecureAggregator:
    return SecureAggregator(Deployment(dropout="0.34"), SECRET, **more)


def rounds(done: Federation, count: int) -> Federation:
    for _ in range(count):
        done.advance()
    return done


def kept(done: Federation) -> dict[str, NDArray[np.float32]]:
    return dict(done._kept.of(HEAD))


# Which coordinates


def test_a_layer_is_named_itself_or_by_what_it_is_part_of() -> None:
    model = small()
    model.begin(ITEMS, 0)
    assert model.layers == {"items": 24, "bias": 12}
    assert np.flatnonzero(personal(model, ["bias"])).tolist() == list(range(24, 36))
    assert not personal(model, []).any()
    inner = Layered()
    inner.begin(ITEMS, 0)
    assert np.flatnonzero(personal(inner, ["head"])).tolist() == list(range(TRAVELS, ITEMS))
    assert personal(inner, ["head.items", "head"]).tolist() == personal(inner, ["head"]).tolist()
    for wrong in ("hea", "head.item", "", "head.items.more"):
        with pytest.raises(UsageError, match=r"there is no layer .*; there are body.items, head.items"):
            personal(inner, [wrong])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["training.personal=['towers']"], "there is no layer 'towers'; there are items, bias"),
        (["training.personal=['items','bias']"], "names all layers"),
        (["training.personal=['items']", "model.name=mf", "model.settings={}"], "MatrixFactorisation has none"),
        (["training.personal=['items']", "model.name=private-ease", "model.settings={}"], "is made of sums"),
        (["training.personal=['bias']", "privacy.mode=distributed"], "carry it into the vectors of all others"),
        (["training.personal='bias'"], "training.personal is a list of texts, not 'bias'"),
        (["training.personal=[1]"], "training.personal is a list of texts, not"),
    ],
)
def test_what_cannot_be_personal_is_refused_in_one_line(changes: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        prepare(config(*changes))
    assert "\n" not in str(refused.value)


def test_users_in_silos_have_no_head_of_their_silo() -> None:
    silos: dict[str, Any] = {"silos": UsersInSilos(24, 4), "encoding": Encoding(TRAVELS, 20.0, BITS, users=4)}
    with pytest.raises(UsageError, match="which no user's clip bounds"):
        headed(**silos)


# What travels, and what is kept


def test_each_trains_its_own_head_with_the_shared_part_and_sends_the_latter_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As written out by hand, over three rounds. Control: whoever forgets its head is seen."""
    clients = client_data()

    def by_hand() -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        model = small()
        model.begin(ITEMS, 3)
        vector, heads = model.vector, dict.fromkeys(clients.names, model.vector[24:])
        for number in range(3):
            changes = []
            for name in clients.names:
                own = model.with_vector(np.concatenate([vector[:24], heads[name]]))
                own.train(clients.histories(name), Local(rate=0.5), done._seed_of(name, number))
                heads[name] = own.vector[24:]
                changes.append(own.vector[:24] - vector[:24])
            vector = vector.copy()
            vector[:24] += np.mean(changes, axis=0)
        return vector, heads

    watched = Watched()
    done = headed(watched, clients, model=small(), personal=("bias",))
    vector, heads = by_hand()
    rounds(done, 3)
    np.testing.assert_allclose(done.state.vector, vector, atol=1e-5)
    assert {name: head.shape for name, head in kept(done).items()} == dict.fromkeys(clients.names, (12,))
    for name, head in kept(done).items():
        np.testing.assert_allclose(head, heads[name], atol=1e-5)
    assert not np.allclose(heads["silo-0"], heads["silo-1"])
    assert {len(one) for made in watched.sums for one in made.values()} == {24}
    with monkeypatch.context():
        switch_off(monkeypatch, Federation, "_own_vector", "name in self._heads", "False")
        forgetful = rounds(headed(None, clients, model=small(), personal=("bias",)), 3)
        assert not np.allclose(kept(forgetful)["silo-0"], heads["silo-0"], atol=1e-3)


@pytest.mark.parametrize("rule", ["fedavg", "fedadam"])
def test_the_server_never_moves_a_head(rule: Any) -> None:
    """Whatever its optimiser does, weight decay included: it stays what the seed made it."""
    done = headed(optimiser=Optimiser(Rule(rule), 0.5, decay=0.3))
    start = done.state.vector
    rounds(done, 2)
    assert done.state.vector[TRAVELS:].tolist() == start[TRAVELS:].tolist()
    assert np.abs(done.state.vector[:TRAVELS] - start[:TRAVELS]).min() > 0


def test_what_is_sent_says_nothing_of_a_head() -> None:
    """Each item has a number of its own here, so data about items of the head move nothing else. Control: without
    heads they are in what is sent."""

    def sent(personal: tuple[str, ...], last: int) -> NDArray[np.float64]:
        clients, watched = client_data(), Watched()
        swapped = clients.train.items.copy()
        swapped[swapped == ITEMS - 1] = last
        object.__setattr__(clients.train, "items", swapped)
        done = rounds(headed(watched, clients, personal=personal), 2)
        heads.append([one.tolist() for one in kept(done).values()])
        return np.array([list(made.values()) for made in watched.sums])

    heads = list[list[Any]]()
    one, other = (sent(("head",), last) for last in (ITEMS - 1, ITEMS - 2))
    assert one.shape == (2, 6, TRAVELS)
    np.testing.assert_allclose(one, other, atol=1e-12)
    assert heads[0] != heads[1]
    assert np.abs(sent((), ITEMS - 1) - sent((), ITEMS - 2)).max() > 1e-2


def test_a_plan_is_as_long_as_what_travels() -> None:
    asked = config("training.personal=['bias']")
    with_heads, without = prepare(asked), prepare(config())
    assert without.encoding.length - with_heads.encoding.length == 150
    assert with_heads.encoding.length == 2 * 150 + 3
    noised = ["clients.kind=devices", "privacy.mode=distributed", "data.users=30", "protocol.adversary=curious"]
    devices = prepare(config("training.personal=['bias']", *noised))
    assert devices.encoding.length == 2 * 150 + 3
    with pytest.raises(UsageError, match="the encoding is for 12 numbers"):
        headed(encoding=Encoding(ITEMS, 20.0, BITS))


@pytest.mark.parametrize("place", [0, ITEMS - 1], ids=["shared", "head"])
def test_a_training_that_comes_to_nothing_leaves_the_head(place: int) -> None:
    """In whichever part it does; nothing is in the sum then."""

    class Overflowing(Layered):
        def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
            super().train(histories, local, seed)
            if len(histories) == 9:
                self._vector[place] = np.inf

    watched = Watched()
    done = headed(watched, client_data((2, 9, 4)), model=Overflowing())
    done._will_keep = {"silo-1": {HEAD: np.ones(HEADED, np.float32)}}  # left over from a sum that it refused
    rounds(done, 2)
    assert not any(made["silo-1"].any() for made in watched.sums)
    assert all(made["silo-0"].any() for made in watched.sums)
    assert set(kept(done)) == {"silo-0", "silo-2"}
    assert np.isfinite(done.state.vector).all()


# Who is not in a sum


def test_who_drops_out_keeps_its_head_and_who_is_in_the_sum_moves_on() -> None:
    """Over the protocol, with another set of survivors in each round; one is in none before the second sum."""
    done, still = headed(secure(network=Network(dropout=0.12), seed=1)), set[int]()
    for _ in range(4):
        before = kept(done)
        one = done.advance()
        moved = [name for name, head in kept(done).items() if name not in before or (head != before[name]).any()]
        assert len(moved) == one.survivors
        still.add(6 - len(moved))
    assert still == {0, 1}
    assert len(kept(done)) == 6


def test_a_round_that_is_given_up_trains_no_head() -> None:
    done = headed(secure(network=Network(dropout=0.9), seed=1))
    assert done.advance().survivors == 0
    assert not kept(done)


# Killed


class Other(Layered):
    """Another machine, which computes otherwise: by much, so that it is seen."""

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        super().train(histories, local, seed)
        self._vector += np.float32(0.25)


@pytest.mark.parametrize("place", ["before", "in the sum", "after the sum"])
def test_a_round_that_is_attempted_twice_trains_each_head_once(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To what was decided before anything left, on whatever machine it goes on. One more crash changes nothing."""
    whole, done = rounds(headed(), 2), headed(secure(folder=tmp_path))
    done.advance()
    checkpoint = b"".join(done.state.encode(SECRET))
    killed_in(done, monkeypatch, place)
    for again in range(2):
        done = headed(secure(folder=tmp_path), model=Layered() if place == "before" else Other())
        done.resume(TrainingState.decode(checkpoint, SECRET))
        if again:
            done.advance()
        else:
            killed_in(done, monkeypatch, place)
    np.testing.assert_allclose(done.state.vector, whole.state.vector, atol=1e-4)
    for name, head in kept(whole).items():
        np.testing.assert_allclose(kept(done)[name], head, atol=1e-4)


def test_control_a_head_that_is_trained_anew_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the machine that goes on, which never met what went into the sum."""
    whole, done = rounds(headed(), 1), headed(secure(folder=tmp_path))
    killed_in(done, monkeypatch, "in the sum")
    done = headed(secure(folder=tmp_path), model=Other())
    anew = {name: done._moved(name, 0) is not None and done._will_keep[name] for name in done._data.names}
    monkeypatch.setattr("recsys.federated.decode_kinds", lambda data: anew.popitem()[1])
    done.advance()
    assert np.abs(kept(done)["silo-0"] - kept(whole)["silo-0"]).max() > 0.1


# Measured


def test_clients_measure_with_their_own_heads() -> None:
    """Means of what each client's own model comes to on its own held-out events. Control: not what the shared start
    does."""
    clients = client_data()
    done = rounds(headed(clients=clients, model=small(), personal=("bias",), measured=0.1, local=Local(rate=20.0)), 2)
    expected, owned = dict[str, list[float]](), list(done.owned())
    split = leave_last_out(population(24))
    start = evaluate(done._model, split, on="valid")
    measured = done.advance().measured
    for model, users in owned:
        found = evaluate(model, split, on="valid")
        for name in measured:
            chosen = np.isin(found.users, users)
            expected.setdefault(name, []).extend(found.values[name][chosen])
    assert {name: pytest.approx(np.mean(values), abs=1e-3) for name, values in expected.items()} == measured
    assert abs(start.mean("NDCG@10") - np.mean(expected["NDCG@10"])) > 0.01


def test_each_user_is_measured_by_the_model_of_its_client() -> None:
    """With one model for all it is what ``evaluate`` says, ties and negatives included; users without a client have the
    shared start."""
    split, clients = replace(leave_last_out(population(24)), tied=np.arange(24) % 3 == 0), client_data()
    assert split.interchangeable.any()
    done = headed(clients=ClientData(clients.names[:5], clients.members[:5], clients.train, clients.held_out))
    among = frozen(split, 3, seed=1)
    for negatives in (None, among):
        one, other = evaluate(done._model, split, negatives=negatives), evaluated(done.owned(), split, negatives)
        assert one.users.tolist() == other.users.tolist()
        assert one.skipped == other.skipped
        for name, values in other.values.items():
            np.testing.assert_allclose(values, one.values[name])
    rounds(done, 2)
    found = evaluated(done.owned(), split)
    for model, users in done.owned():
        alone = evaluate(model, split)
        mine = np.isin(alone.users, users)
        np.testing.assert_allclose(found.values["rank"][mine], alone.values["rank"][mine])
    both = evaluated([(done._model, np.arange(12, 24)), (done._model, np.arange(12))], split)
    np.testing.assert_allclose(both.values["rank"], evaluate(done._model, split).values["rank"])


# Beside other things that clients do


def test_with_scaffold_the_control_variate_has_the_shared_part() -> None:
    """And corrects that: a head, whose numbers depend on no others here, moves as far as without it."""
    local = Local(epochs=3, rate=0.3)
    done, plain = headed(scaffold=True, local=local), headed(local=local)
    for _ in range(3):
        rounds(done, 1)
        rounds(plain, 1)
        for name, head in kept(plain).items():
            np.testing.assert_allclose(kept(done)[name], head, atol=1e-6)
    assert done._controls is not None
    own = list(done._kept.of("control variate").values())
    assert {one.shape for one in own} == {(TRAVELS,)}
    np.testing.assert_allclose(np.mean(own, axis=0), done._controls.common, atol=1e-5)
    again = headed(scaffold=True, local=local)
    again.resume(TrainingState.decode(b"".join(done.state.encode(SECRET)), SECRET))
    for name, head in kept(done).items():
        assert kept(again)[name].tolist() == head.tolist()


def test_under_local_privacy_steps_are_charged_as_without_heads(tmp_path: Path) -> None:
    """They are over the whole vector, and a head has its noise."""
    clients, charged = client_data((4, 4)), list[Any]()
    for number, names in enumerate(((), ("bias",))):
        ledger = ledger_for(tmp_path / f"{number}.db", step_of(clients))
        done = rounds(private(clients, ledger, personal=names), 2)
        charged.append([entry.get("steps") for entry in ledger.entries()])
        ledger.close()
    assert charged[0] == charged[1]
    heads = kept(done)
    assert set(heads) == set(clients.names)
    assert all(head.all() for head in heads.values())  # of few items only is there a gradient without noise


# Sealed, and handed to nobody


def test_a_checkpoint_holds_heads_sealed_and_is_for_one_training() -> None:
    done = rounds(headed(), 2)
    data, earlier = b"".join(done.state.encode(SECRET)), rounds(headed(), 1).state.sealed
    assert not any(head.tobytes() in data for head in kept(done).values())
    assert b"silo-1" not in data
    for one, other in ((headed(), headed(personal=())), (headed(personal=()), headed())):
        with pytest.raises(UsageError, match="another model"):
            one.resume(other.state)
    state = TrainingState.decode(data, SECRET)
    state.sealed = earlier
    with pytest.raises(StorageError, match="something else kept by clients"):
        headed().resume(state)


ASKED = ("training.personal=['bias']", "evaluation.exact=true", "protocol.dropout=0.34", "training.rate=3")


def test_a_run_hands_on_the_shared_start_and_serves_each_client_with_its_head(tmp_path: Path) -> None:
    """It was killed after a round. Its record has both qualities; heads go with its secrets."""
    folder, asked = tmp_path / "run", config(*ASKED)

    def watch(run: Run) -> None:
        if len(run.rounds) == 1:
            raise Killed

    with pytest.raises(Killed):
        go(asked, folder, watch=watch)
    run = go(asked, folder)
    start, own = run.results[-2:]
    secret = (folder / "private" / "secret.key").read_bytes()
    assert (start.name, own.name) == ("its shared start", "this run")
    assert start.metrics != own.metrics
    assert dict(run.rounds[-1].exact).items() <= dict(own.metrics).items()

    state = TrainingState.decode((folder / "private" / CHECKPOINT).read_bytes(), secret)
    heads = KeptByClients(secret)
    heads.open(2, state.sealed)
    assert len(heads.of(HEAD)) == 6
    served, fresh = load(folder / MODEL), prepare(asked).model()
    assert isinstance(served.model, Autoencoder)
    assert isinstance(fresh, Autoencoder)
    fresh.begin(150, 0)
    assert served.model.vector[300:].tolist() == fresh.vector[300:].tolist()
    assert np.abs(served.model.vector[:300] - fresh.vector[:300]).max() > 0
    export(folder, tmp_path / "archive.tar", model=True)
    files = [path for path in folder.iterdir() if path.is_file()]
    public = [path.read_bytes() for path in (*files, tmp_path / "archive.tar")]
    for name, head in heads.of(HEAD).items():
        assert not any(head.tobytes() in data for data in public)
        mine = load_own(folder, name)
        assert isinstance(mine.model, Autoencoder)
        assert mine.model.vector[300:].tolist() == head.tolist()
        assert mine.model.vector[:300].tolist() == served.model.vector[:300].tolist()
    assert mine.recommend([]).items != served.recommend([]).items
    with pytest.raises(UsageError, match="no client 'somebody' of this run has a head"):
        load_own(folder, "somebody")
    record = (folder / "run.json").read_text()
    signer = key_of(folder)
    (folder / "run.json").write_bytes(signed(json.loads(record.replace('"bias"', '"items"')), signer))
    with pytest.raises(UsageError, match="of other layers than its record says"):
        load_own(folder, name)
    (folder / "run.json").write_bytes(signed(json.loads(record.replace(run.model, "0" * 64)), signer))
    with pytest.raises(DecodeError, match="was altered"):
        load_own(folder, name)
    (folder / "run.json").write_text(record)
    go(asked, folder, keep_secrets=False)
    with pytest.raises(UsageError, match="were deleted with its secrets"):
        load_own(folder, name)


def test_a_run_without_personal_layers_has_one_model(tmp_path: Path) -> None:
    run = go(config("training.rounds=1", "evaluation.exact=true"), tmp_path / "run")
    assert "its shared start" not in [one.name for one in run.results]
    with pytest.raises(UsageError, match="no personal layers"):
        load_own(tmp_path / "run", "client-0")
