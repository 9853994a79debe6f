"""A stored model is the same model; any other file is refused with one line."""

from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.models.autoencoder import Autoencoder
from recsys.models.ease import Ease
from recsys.models.neumf import NeuMf
from recsys.models.popularity import ItemPop
from recsys.models.store import MODELS, load, save
from recsys.serving import ServedModel
from secagg import tensors
from secagg.errors import SecAggError, StorageError, UsageError
from tests.scenes.mutations import peak_of
from tests.scenes.stored_models import ITEMS, events, made


@pytest.mark.parametrize("name", MODELS)
def test_the_same_model_again(name: str, tmp_path: Path) -> None:
    model = made(name)
    with pytest.raises(UsageError):
        save(ServedModel(model, ITEMS), tmp_path / "model.safetensors")  # before it was trained
    assert not list(tmp_path.iterdir())
    if hasattr(model, "begin"):
        model.begin(len(ITEMS), seed=4)  # parameters like any others, and quicker
    else:
        model.fit(events())
    save(ServedModel(model, ITEMS), tmp_path / "model.safetensors")
    served = load(tmp_path / "model.safetensors")
    assert type(served.model) is type(model)
    assert list(served.item_ids) == ITEMS
    asked = [np.array([3, 7, 1], np.int32), np.array([], np.int32), np.array([29], np.int32)]
    np.testing.assert_allclose(served.model.scores(asked), model.scores(asked), rtol=1e-4, atol=1e-5)
    save(served, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def stored(tmp_path: Path) -> Path:
    model = Ease(regularisation=7.0, items=12)
    model.fit(events())
    save(ServedModel(model, ITEMS), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_settings_come_back(tmp_path: Path) -> None:
    path = stored(tmp_path)
    model = load(path).model
    assert isinstance(model, Ease)
    assert (model.regularisation, model.items) == (7.0, 12)
    for items, fits in ((1_000_000, True), (1_000_001, False)):
        rewritten(path, {"settings": {"regularisation": 7.0, "items": items, "reach": 0.0, "floor": 0.0}})
        with nullcontext() if fits else pytest.raises(StorageError, match="its parts do not make a"):
            load(path)


def test_cut_short_or_altered(tmp_path: Path) -> None:
    """Cut at every 20th place; and with a flipped bit before the numbers, which is refused or no other model."""
    path = stored(tmp_path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in range(0, len(whole), 20):
        path.write_bytes(whole[:place])
        with pytest.raises(StorageError, match="is not the file of a model, or damaged"):
            load(path)
    refused = 0
    for place in range(0, start, 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        try:
            assert len(load(path).item_ids) == len(ITEMS)  # called otherwise
        except StorageError:
            refused += 1
    assert refused > start / 5 / 4


def test_the_digest_of_the_file(tmp_path: Path) -> None:
    model = ItemPop()
    model.fit(events())
    digest = save(ServedModel(model, ITEMS), tmp_path / "model.safetensors")
    assert digest == sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()


def rewritten(path: Path, header: dict[str, Any] | None = None, **arrays: np.ndarray) -> None:
    known, parts = tensors.decode(path.read_bytes())
    path.write_bytes(b"".join(tensors.encode(known | (header or {}), parts | arrays)))


@pytest.mark.parametrize(
    ("header", "arrays"),
    [
        ({"items": ITEMS[:-1]}, {}),
        ({"settings": {"regularisation": -1.0}}, {}),
        ({"settings": {"unknown": 1}}, {}),
        ({"settings": None}, {}),
        ({"items": 5}, {}),
        ({"model": "ItemPop"}, {}),
        ({"model": "ItemKnn"}, {}),
        ({}, {"part": np.array([99])}),
        ({}, {"part": np.arange(13)}),
        ({}, {"weights": np.zeros((3, 3), np.float32)}),
        ({}, {"weights": np.full((12, 12), np.nan, np.float32)}),
    ],
)
def test_parts_that_do_not_fit_together(header: dict[str, Any], arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = stored(tmp_path)
    rewritten(path, header, **arrays)
    with pytest.raises(StorageError, match=r"its parts do not make a|not the file of a model"):
        load(path)


@pytest.mark.parametrize(
    "settings", [{"width": 1_000_000}, {"items": 999_999}, {"recent": 2**40}, {"width": 2**62}], ids=str
)
def test_nothing_is_made_as_large_as_a_header_says(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without these settings the network is made, and the vector put into it."""
    made: list[int] = []
    begin = Autoencoder.begin

    def beginning(model: Autoencoder, item_count: int, seed: int) -> None:
        made.append(model.width * item_count)
        begin(model, item_count, seed)

    model = Autoencoder(width=2)
    model.begin(len(ITEMS), seed=1)
    path = tmp_path / "model.safetensors"
    save(ServedModel(model, ITEMS), path)
    monkeypatch.setattr(Autoencoder, "begin", beginning)
    load(path)
    assert made == [2 * len(ITEMS)]
    known = tensors.decode(path.read_bytes())[0]["settings"]
    rewritten(path, {"settings": known | settings})
    with pytest.raises(StorageError, match="its parts do not make a"):
        load(path)
    assert len(made) == 1


def fresh(name: str, tmp_path: Path) -> Path:
    """The file of a model that is like new."""
    model = made(name)
    if hasattr(model, "begin"):
        model.begin(len(ITEMS), seed=1)
    else:
        model.fit(events())
    save(ServedModel(model, ITEMS), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("kind", ["u1", "i8", "?"])
@pytest.mark.parametrize("name", ["ItemPop", "Ease"])
def test_scores_that_are_no_floats(name: str, kind: str, tmp_path: Path) -> None:
    """What a user has is scored below all numbers, for which integers have no room."""
    path = fresh(name, tmp_path)
    rewritten(path, popularity=np.ones(len(ITEMS), np.float32))
    assert load(path).recommend([ITEMS[3]]).items
    rewritten(
        path, popularity=np.ones(len(ITEMS), kind), **({"weights": np.zeros((30, 30), kind)} if name == "Ease" else {})
    )
    with pytest.raises(StorageError, match="its parts do not make a"):
        load(path)


def test_a_table_without_rows_is_no_wider_than_what_is_there(tmp_path: Path) -> None:
    """A product of it with itself would have the square of its width."""
    path = fresh("PrivateMf", tmp_path)
    nothing = {"items": np.zeros(0, np.int64), "bias": np.zeros(0, np.float32)}
    rewritten(path, factors=np.zeros((0, 1000), np.float32), **nothing)

    def opened() -> None:
        with pytest.raises(StorageError, match="its parts do not make a PrivateMf"):
            load(path)

    opened()  # what is imported for it
    assert peak_of(opened) < 1 << 20


def test_a_user_costs_no_more_work_than_is_sensible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some settings of NeuMf are in the length of no array, and multiply."""
    path, built = fresh("NeuMf", tmp_path), list[int]()
    monkeypatch.setattr(NeuMf, "begin", lambda model, items, seed: built.append(items))
    known = tensors.decode(path.read_bytes())[0]["settings"]
    for settings in ({"recent": 10_001}, {"negatives": 401}, {"descent": 501}):
        rewritten(path, {"settings": known | settings})
        with pytest.raises(StorageError, match="its parts do not make a NeuMf"):
            load(path)
    assert not built


@pytest.mark.parametrize("header", [{"version": 1}, {"model": "os.system"}, {"model": ["Ease"]}])
def test_what_this_release_does_not_know(header: dict[str, Any], tmp_path: Path) -> None:
    path = stored(tmp_path)
    rewritten(path, header)
    with pytest.raises(StorageError, match=r"does not know it|not the file of a model"):
        load(path)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    """A pickle is refused, not unpickled. The control: numpy, where pickle is allowed, runs it."""
    ran: list[str] = []
    _Trap.ran = ran
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        np.savez(file, part=np.array([_Trap()], dtype=object))
    with pytest.raises(StorageError, match="not the file of a model"):
        load(path)
    assert not ran
    with np.load(path, allow_pickle=True) as found:
        found["part"]
    assert ran


class _Trap:
    ran: list[str]

    def __reduce__(self) -> tuple[Any, ...]:
        return _spring, ()


def _spring() -> None:
    _Trap.ran.append("sprung")


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path / "nothing.safetensors")
    with pytest.raises(StorageError):
        load(tmp_path)
    path = tmp_path / "array.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(StorageError, match="not the file of a model"):
        load(path)
    (tmp_path / "other.safetensors").write_bytes(b"".join(tensors.encode({}, {"a": np.zeros(3)})))
    with pytest.raises(StorageError, match="not the file of a model"):
        load(tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("user,item\n")
    with pytest.raises(StorageError, match="not the file of a model"):
        load(tmp_path / "text")


def test_wrong_use(tmp_path: Path) -> None:
    class Own(ItemPop):
        pass

    model = Own()
    model.fit(events())
    with pytest.raises(UsageError, match="Own is none of the models"):
        save(ServedModel(model, ITEMS), tmp_path / "model.safetensors")
    known = ItemPop()
    known.fit(events())
    with pytest.raises(UsageError, match="29 items, but"):
        save(ServedModel(known, ITEMS[1:]), tmp_path / "model.safetensors")
    with pytest.raises(SecAggError, match="cannot write"):
        save(ServedModel(known, ITEMS), tmp_path / "no" / "folder" / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_recommends_as_before(tmp_path: Path) -> None:
    served = load(stored(tmp_path))
    known = served.recommend([f"item {number}" for number in events().history(4)], k=3)
    assert len(known.items) == 3
    assert not known.unknown
