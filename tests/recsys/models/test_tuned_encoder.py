"""A tuned encoder: it begins as the frozen one, only its adapters move and travel, and PEFT reads what was trained."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="NOT TESTED: adapters need transformers, pip install 'secagg[large]'")

import torch

from dp.events import Unit
from dp.training import Flat, Settings
from recsys.models.draws import Draws
from recsys.models.neural import tensors, trained
from recsys.models.over_text import TwoTower
from recsys.models.recommender import Local
from recsys.models.store import ModelState, load, save
from recsys.models.tuned_encoder import TunedEncoder
from recsys.serving import ServedModel
from recsys.text.coordinates import Coordinates
from recsys.text.layers import vectors_by
from secagg.errors import UsageError
from tests.scenes.encoders import encoder
from tests.scenes.item_vectors import coordinates, vectors
from tests.scenes.tuned import layered, titled, tuned

ITEMS = 20
SMALL: dict[str, Any] = {"width": 4, "recent": 6, "negatives": 5, "dropout": 0.0}
HISTORIES = [np.int32([3, 1, 4, 11, 5]), np.int32([9, 2, 6]), np.int32([]), np.int32([8, 7]), np.int32([0, 19, 10])]
PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
KINDS = pytest.mark.parametrize("adapter", ["ffa-lora", "fed-sb", "lora"])


def begun(seed: int = 3, *, moved: bool = True, **settings: Any) -> Any:
    made = tuned(ITEMS, **{**SMALL, **settings})
    made.begin(ITEMS, seed)
    if moved:
        made.vector = made.vector + np.random.default_rng(1).normal(0, 0.3, len(made.vector)).astype(np.float32)
    return made


@KINDS
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_it_begins_as_the_model_over_the_frozen_encoder(adapter: str, kind: str) -> None:
    made = begun(adapter=adapter, kind=kind, layers=2, moved=False)
    frozen = TwoTower(made.text, **SMALL)
    frozen.begin(ITEMS, 0)
    frozen.vector = made.vector[: len(frozen.vector)]
    before = frozen.scores(HISTORIES)
    np.testing.assert_allclose(made.scores(HISTORIES), before, rtol=1e-3, atol=1e-3)
    maps = 2 * 2 * {"ffa-lora": 8 * 2, "fed-sb": 2 * 2, "lora": 2 * 8 * 2}[adapter]
    assert len(made.vector) == len(frozen.vector) + maps
    made.vector = np.concatenate([made.vector[:-maps], np.full(maps, 0.5, np.float32)])
    assert np.abs(made.scores(HISTORIES) - before).max() > 0.01


@KINDS
def test_training_moves_the_adapters_and_nothing_that_is_frozen(adapter: str) -> None:
    made = begun(adapter=adapter, moved=False)
    before = {name: one.detach().clone() for name, one in made._begun.named_parameters()}
    made.train(HISTORIES, Local(epochs=2, batch=2, rate=0.5), seed=1)
    moved = {name for name, one in made._begun.named_parameters() if not torch.equal(one, before[name])}
    adapters = {name for name in moved if name.startswith("top.")}
    last = {"ffa-lora": ("up",), "fed-sb": ("between",), "lora": ("up", "down")}[adapter]
    assert adapters == {f"top.layers.0.attention.self.{one}.{part}" for one in ("query", "value") for part in last}


def test_the_last_places_and_some_negatives_go_through_the_encoder() -> None:
    made = begun(encoded=6)
    seen, there, following, others, encoded = (
        part[0] for part in made._examples(HISTORIES[:1], Draws(0, HISTORIES[:1]))
    )
    assert encoded[:4].tolist() == [1, 4, 11, 5]
    assert encoded[4:].tolist() == others[:2].tolist()
    assert seen[-3:].tolist() == [1, 4, 11]
    assert following[-3:].tolist() == [4, 11, 5]
    assert there[-3:].all()


def test_the_loss_is_that_of_the_towers_and_that_of_what_is_encoded() -> None:
    """With an encoder that has not moved since its coordinates were computed both see the same items."""
    made = begun()
    made._encode()
    example = tensors(made._examples(HISTORIES, Draws(0, HISTORIES)))
    *towers, encoded = example
    last = made.encoded // 2
    negatives = encoded[:, last + 1 :].repeat(1, 5)  # one stands for all five
    few = [encoded[:, :last], towers[1][:, -last:], encoded[:, 1 : last + 1], negatives]
    frozen = super(TunedEncoder, made)._losses
    wanted = frozen(made._begun, *towers) + frozen(made._begun, *few)
    found = made._losses(made._begun, *example)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-3, abs=1e-3)
    assert found[2] == 0  # who has taken nothing


def test_copies_share_what_is_frozen_and_nothing_else() -> None:
    made = begun()
    other = made.with_vector(made.vector + 1)
    pairs = zip(made._begun.parameters(), other._begun.parameters(), strict=True)
    assert all((one is copy) == (not one.requires_grad) for one, copy in pairs)
    assert np.abs(made.scores(HISTORIES) - other.scores(HISTORIES)).max() > 0.01


def test_one_step_of_all_silos_is_one_central_step() -> None:
    """The mean of the silos' changes, by their users, after one step on all of each silo's users."""
    made, silos = begun(), [HISTORIES[:2], HISTORIES[2:]]
    step = Local(epochs=1, batch=5, rate=0.1)

    class Fixed(Draws):  # what is drawn about a user must not differ between the silo and the centre
        def __init__(self, seed: int, histories: Any) -> None:
            super().__init__(0, histories)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.models.neural.Draws", Fixed)
        central = made.with_vector(made.vector)
        central.train(HISTORIES, step, 0)
        total = np.zeros(len(made.vector))
        for histories in silos:
            silo = made.with_vector(made.vector)
            silo.train(histories, step, 0)
            total += len(histories) * (silo.vector.astype(np.float64) - made.vector)
    change = central.vector.astype(np.float64) - made.vector
    np.testing.assert_allclose(total / len(HISTORIES), change, rtol=1e-3, atol=1e-6)
    adapters = sum(one.numel() for one in trained(made._begun.top))
    assert np.abs(change[-adapters:]).max() > 1e-4


@KINDS
def test_private_steps_without_noise_are_plain_steps(adapter: str) -> None:
    """Of everybody, with a bound that nobody reaches: the adapters' gradients of each example are those of a loop."""
    made = begun(adapter=adapter)
    other = made.with_vector(made.vector)
    settings = Settings(Flat(1000.0), Fraction(1), expected_batch=len(HISTORIES))
    made.train_privately(HISTORIES, settings, 1, 0.1, unit=Unit.USER, charge=None, seed=4)
    other._encode()
    loss = 0
    for history in HISTORIES:
        loss = loss + other._losses(other._begun, *tensors(other._examples([history], Draws(4, [history])))).sum()
    gradients = torch.autograd.grad(loss, trained(other._begun))
    moved = torch.cat([one.flatten() for one in gradients]).numpy() * -0.1 / len(HISTORIES)
    np.testing.assert_allclose(made.vector - other.vector, moved, rtol=1e-2, atol=2e-5)


def test_a_clipped_user_moves_the_adapters_by_no_more_than_the_bound() -> None:
    made = begun()
    before = made.vector
    settings = Settings(Flat(0.01), Fraction(1), expected_batch=1)
    made.train_privately(HISTORIES[:1], settings, 1, 1.0, unit=Unit.USER, charge=None, seed=4)
    assert np.linalg.norm(made.vector - before) == pytest.approx(0.01, rel=0.02)


def test_coordinates_are_those_of_the_round_and_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = list[int]()
    real = TunedEncoder._coordinates

    def counting(self: Any, top: Any, of: Any) -> Any:
        computed.append(len(of))
        return real(self, top, of)

    monkeypatch.setattr(TunedEncoder, "_coordinates", counting)
    made = begun()
    for silo in (made.with_vector(made.vector), made.with_vector(made.vector)):
        silo.train(HISTORIES, Local(batch=2, rate=0.1), 0)
        list(made.changes(HISTORIES, Local(rate=0.1), 0))
    assert computed == [ITEMS]
    made.vector = made.vector + 1
    made.scores(HISTORIES)
    assert computed == [ITEMS] * 2


@KINDS
def test_coordinates_follow_from_what_is_drawn_too(adapter: str) -> None:
    """A model that begins again with another seed, and gets the vector that it had."""
    made, fresh = begun(seed=3, adapter=adapter), begun(seed=4, adapter=adapter)
    vector = made.vector
    made.scores(HISTORIES)
    made.begin(ITEMS, seed=4)
    made.vector = fresh.vector = vector
    np.testing.assert_allclose(made.scores(HISTORIES), fresh.scores(HISTORIES), rtol=1e-4, atol=1e-5)


@KINDS
def test_the_adapters_alone_learn(adapter: str) -> None:
    """The towers stand still, so all that the loss falls by is what the encoder has learnt."""
    made = begun(adapter=adapter, encoded=8)
    made._encode()
    examples = tensors(made._examples(HISTORIES, Draws(0, HISTORIES)))
    optimizer, losses = torch.optim.Adam(trained(made._begun.top), lr=0.05), list[float]()
    for _ in range(30):
        loss = made._losses(made._begun, *examples).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2


def test_a_stored_model_gives_the_same_scores_and_is_trained_by_nobody(tmp_path: Path) -> None:
    made, ids = begun(adapter="fed-sb"), [str(item) for item in range(ITEMS)]
    save(ServedModel(made, ids), tmp_path / "model.safetensors")
    other: Any = load(tmp_path / "model.safetensors").model
    np.testing.assert_allclose(other.scores(HISTORIES), made.scores(HISTORIES), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="needs an encoder whose last layers are tuned"):
        other.train(HISTORIES, Local(), 0)


def test_a_stored_model_takes_other_towers_and_no_other_adapters(tmp_path: Path) -> None:
    """Its items are as its adapters made them. Control: with the encoder, both are taken, and scores are those."""
    made = begun()
    save(ServedModel(made, [str(item) for item in range(ITEMS)]), tmp_path / "a.model")
    other: Any = load(tmp_path / "a.model").model
    vector = made.vector
    vector[0] += 1
    np.testing.assert_allclose(
        other.with_vector(vector).scores(HISTORIES), made.with_vector(vector).scores(HISTORIES), rtol=1e-4, atol=1e-5
    )
    vector[-1] += 1  # of the last adapter
    made.with_vector(vector)
    with pytest.raises(UsageError, match="other adapters need the encoder"):
        other.with_vector(vector)


@pytest.mark.parametrize("popular", [True, False])
def test_items_that_come_later(popular: bool, tmp_path: Path) -> None:
    """They score as they would have from the start, but for their own popularity; also by a model from a file."""
    whole, few = layered(ITEMS), layered(ITEMS - 3)
    made = TunedEncoder(Coordinates.of(few, 4), few, rank=2, encoded=4, popular=popular, **SMALL)
    made.begin(ITEMS - 3, 0)
    made.vector = made.vector + np.random.default_rng(1).normal(0, 0.3, len(made.vector)).astype(np.float32)
    asked = [np.int32([3, 1, 4]), np.int32([5])]
    save(ServedModel(made, [str(item) for item in range(ITEMS - 3)]), tmp_path / "model.safetensors")
    stored: Any = load(tmp_path / "model.safetensors").model
    new = layered(3, seed=9)
    for one in (made, stored):
        more = one.with_items(new)
        scores = more.scores(asked)
        assert scores.shape == (2, ITEMS)
        np.testing.assert_allclose(scores[:, :-3], made.scores(asked), rtol=1e-3, atol=1e-3)
        rows = made._coordinates(made._begun.top, new)
        np.testing.assert_allclose(more.text.rows[-3:], rows, rtol=1e-3, atol=1e-4)
    assert whole.encoder == new.encoder


@pytest.mark.parametrize("places", [[["a", 1_000_000, 2]] * 2, [["a", 1, 1]] * 145], ids=["large", "many"])
def test_nothing_is_made_as_large_as_places_say(
    places: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained is as long as it should be. The control: the state itself is taken."""
    state, taken = begun(rank=1).state(), list[int]()
    begin = TunedEncoder.begin

    def beginning(model: Any, item_count: int, seed: int) -> None:
        taken.append(item_count)
        begin(model, item_count, seed)

    monkeypatch.setattr(TunedEncoder, "begin", beginning)
    TunedEncoder.from_state(state)
    assert taken == [ITEMS]
    towers = len(state.arrays["vector"]) - sum(rows for *_, rows in state.settings["places"])
    vector = np.zeros(towers + sum(rows for *_, rows in places), np.float32)
    other = ModelState({**state.settings, "places": places}, {**state.arrays, "vector": vector})
    with pytest.raises(UsageError, match=r"more numbers that are not trained|at most 144 maps"):
        TunedEncoder.from_state(other)
    assert taken == [ITEMS]


def test_vectors_without_layers_or_of_another_encoder_are_refused() -> None:
    made = begun()
    with pytest.raises(UsageError, match="layered_vectors"):
        made.with_items(vectors(2))
    with pytest.raises(UsageError, match="another encoder"):
        made.with_items(layered(3, kind="distilbert"))
    with pytest.raises(UsageError, match="another number of last layers"):
        made.with_items(layered(3, layers=2))
    with pytest.raises(UsageError, match="layered_vectors"):
        TunedEncoder(coordinates(ITEMS))
    with pytest.raises(UsageError, match="layered_vectors"):
        TunedEncoder.configured({}, None, None)


@PEFT
@KINDS
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_peft_reads_the_adapter(adapter: str, kind: str, tmp_path: Path) -> None:
    """The encoder with it, as PEFT loads it, makes the vectors that the model has trained."""
    peft = pytest.importorskip("peft", reason="NOT TESTED: needs peft, pip install 'secagg[large]'")
    from recsys.text.directory import read_directory
    from recsys.text.encoder import Encoder
    from tests.scenes.encoders import BERT, DISTILBERT

    made = begun(adapter=adapter, kind=kind)
    made.write_adapter(tmp_path / "adapter")
    whole = Encoder(read_directory(encoder(tmp_path / "encoder", BERT if kind == "bert" else DISTILBERT)))
    texts = [one or "" for one in titled(ITEMS).titles]
    before = whole(texts)
    whole.network = peft.PeftModel.from_pretrained(whole.network, str(tmp_path / "adapter"))
    tuned_rows = vectors_by(made._begun.top, made._layered.states, made._layered.there)
    short = [int(number) for number in (made._layered.there.sum(1) < 6).nonzero()]  # of longer ones the end is cut off
    assert len(short) > 5
    with torch.no_grad():
        found = whole.encoded(*whole.tokens([texts[number] for number in short])).numpy()
    np.testing.assert_allclose(found, tuned_rows[short], atol=0.02)
    assert np.abs(found - before[short]).max() > 0.1
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"adapter": "dora"}, "adapter is one of ffa-lora, fed-sb, lora"),
        ({"rank": 0}, "rank is from 1 to 256"),
        ({"rank": 257}, "rank is from 1 to 256"),
        ({"alpha": 0}, "alpha above 0"),
        ({"targets": []}, "targets are some of q, k and v"),
        ({"targets": ["q", "o"]}, "targets are some of q, k and v"),
        ({"targets": ["q", "q"]}, "targets are some of q, k and v"),
        ({"encoded": 2}, "encoded is from 3 to 64"),
        ({"encoded": 65}, "encoded is from 3 to 64"),
        ({"encoded": 14}, "half of it at most recent"),
        ({"encoded": 12, "negatives": 5}, "half of it at most recent, and negatives"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tuned(ITEMS, **{**SMALL, **settings})


def test_the_towers_part_of_the_loss_has_no_gradient_in_the_encoder() -> None:
    made = begun()
    made._encode()
    *towers, _ = tensors(made._examples(HISTORIES, Draws(0, HISTORIES)))
    loss = super(TunedEncoder, made)._losses(made._begun, *towers).sum()
    found = torch.autograd.grad(loss, trained(made._begun.top), allow_unused=True)
    assert all(one is None for one in found)
