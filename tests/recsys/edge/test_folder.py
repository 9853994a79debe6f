"""A folder for devices: written from a run, and read as a stranger's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dp.ledger.file import read
from dp.ledger.state import replay
from recsys.models.popularity import ItemPop
from recsys.run_record import Run
from secagg.cli import main
from secagg.cli.recommend import ids_in
from secagg.errors import DecodeError, SecAggError, StorageError, UsageError
from secagg.files import write_file
from tests.scenes.run_with_model import recorded
from tests.scenes.runs import KEY, make
from tests.scenes.stored_models import ITEMS, events

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")

from recsys.edge import folder
from recsys.edge.exporting import export


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, of EASE. Nobody may change it."""
    from recsys.models.ease import Ease

    (place := tmp_path_factory.mktemp("runs") / "one").mkdir()
    make(place, "distributed", rounds=2)
    (model := Ease(1.0)).fit(events())
    recorded(place, model)
    replace(Run.load(place), outside=("how many rounds there were",)).save(place, KEY)
    (place / "private").mkdir(mode=0o700)
    write_file(place / "private" / "secret.key", b"a secret of this run, which is nobody's business", private=True)
    return place


@pytest.fixture
def exported(run: Path, tmp_path: Path) -> Path:
    export(run, tmp_path / "device")
    return tmp_path / "device"


def test_a_folder_says_what_it_is_and_what_was_promised(run: Path, exported: Path) -> None:
    record, manifest = Run.load(run), folder.load_manifest(exported)
    state = replay(read(run / "ledger.db"))
    assert (manifest.model, manifest.items, manifest.precision, manifest.trained) == (
        "Ease",
        30,
        "float32",
        record.model,
    )
    assert manifest.guarantee == tuple(one.words for one in record.spendings)
    assert manifest.guarantee[0]
    assert (manifest.public, manifest.outside) == (("what there is to buy",), ("how many rounds there were",))
    assert manifest.ledgers == {"ledger.db": folder.Head(state.genesis.owner.hex(), state.head.hex())}
    assert sorted(path.name for path in exported.iterdir()) == ["items.json", "manifest.json", "model.onnx"]


def test_nothing_private_is_in_it(exported: Path) -> None:
    assert not any(b"secret" in path.read_bytes() for path in exported.iterdir())


def test_it_recommends_what_the_run_does(run: Path, exported: Path) -> None:
    from recsys.models.store import load

    own, here = load(run / "model.safetensors"), folder.load(exported)
    history = [ITEMS[4], "never heard of", ITEMS[9]]
    expected, found = (one.recommend(history, 5, explain=2) for one in (own, here))
    assert (found.unknown, found.how) == (("never heard of",), expected.how)
    assert [name for name, _ in found.items] == [name for name, _ in expected.items]
    assert [score for _, score in found.items] == pytest.approx([score for _, score in expected.items], abs=1e-4)
    assert [dict(one.items).keys() for one in found.reasons] == [dict(one.items).keys() for one in expected.reasons]


def test_nothing_is_overwritten(run: Path, exported: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        export(run, exported)


def test_a_folder_is_made_where_there_is_a_place_for_it(run: Path, tmp_path: Path) -> None:
    """The control: one level higher, in ``exported``."""
    with pytest.raises(UsageError, match=r"there is no .*missing to make device in"):
        export(run, tmp_path / "missing" / "device")


def test_nothing_is_written_that_is_too_long_to_be_read(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = len(json.dumps(list(ITEMS)).encode())
    monkeypatch.setitem(folder._MOST, folder.ITEMS, length)
    export(run, tmp_path / "control")
    monkeypatch.setitem(folder._MOST, folder.ITEMS, length - 1)
    with pytest.raises(UsageError, match=r"too large for a device: items\.json"):
        export(run, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_a_run_that_goes_on_is_not_exported(run: Path, tmp_path: Path) -> None:
    (place := tmp_path / "run").mkdir()
    make(place, "none", ended="")
    (model := ItemPop()).fit(events())
    recorded(place, model)
    with pytest.raises(UsageError, match="has not ended"):
        export(place, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_another_model_than_that_on_record_is_not_exported(run: Path, tmp_path: Path) -> None:
    (place := tmp_path / "run").mkdir()
    make(place, "none")
    (model := ItemPop()).fit(events())
    recorded(place, model)
    export(place, tmp_path / "control")
    (place / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    with pytest.raises(DecodeError, match="was altered"):
        export(place, tmp_path / "device")


def rewritten(place: Path, **changes: Any) -> None:
    record = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(record | changes))


def described(place: Path, name: str, data: bytes) -> None:
    """Another file, with a manifest that knows it: what whoever alters all of it can do."""
    (place / name).write_bytes(data)
    files = json.loads((place / "manifest.json").read_text())["files"]
    content = folder.content(data)
    rewritten(place, files=files | {name: {"bytes": content.bytes, "sha256": content.sha256}})


def flipped(place: Path) -> None:
    data = bytearray((place / "model.onnx").read_bytes())
    data[200] ^= 1
    (place / "model.onnx").write_bytes(data)


def cut(place: Path) -> None:
    (place / "model.onnx").write_bytes((place / "model.onnx").read_bytes()[:-1])


def longer(place: Path) -> None:
    (place / "items.json").write_bytes((place / "items.json").read_bytes() + b" ")


def linked(place: Path) -> None:
    (place / "model.onnx").rename(place / "elsewhere")
    (place / "model.onnx").symlink_to("elsewhere")


def gone(place: Path) -> None:
    (place / "items.json").unlink()


def other_format(place: Path) -> None:
    rewritten(place, format=2)


def more_fields(place: Path) -> None:
    rewritten(place, more=1)


def no_manifest(place: Path) -> None:
    (place / "manifest.json").write_text("[]")


def other_names(place: Path) -> None:
    files = json.loads((place / "manifest.json").read_text())["files"]
    rewritten(place, files=files | {"../secret": files["items.json"]})


def no_graph(place: Path) -> None:
    files = json.loads((place / "manifest.json").read_text())["files"]
    rewritten(place, files={"items.json": files["items.json"]})


def fewer_items(place: Path) -> None:
    rewritten(place, items=29)


def the_same_twice(place: Path) -> None:
    described(place, "items.json", json.dumps([ITEMS[0], *ITEMS[:29]]).encode())


def no_texts(place: Path) -> None:
    described(place, "items.json", json.dumps(list(range(30))).encode())


def other_graph(place: Path) -> None:
    described(place, "model.onnx", b"nonsense")


def too_long(place: Path) -> None:
    files = json.loads((place / "manifest.json").read_text())["files"]
    rewritten(place, files=files | {"items.json": files["items.json"] | {"bytes": -5}})


def other_length(place: Path) -> None:
    files = json.loads((place / "manifest.json").read_text())["files"]
    rewritten(place, files=files | {"items.json": files["items.json"] | {"bytes": 1 << 62}})


def long_manifest(place: Path) -> None:
    (place / "manifest.json").write_bytes((place / "manifest.json").read_bytes() + b" " * (1 << 20))


WRONG: list[tuple[Callable[[Path], None], type[SecAggError], str]] = [
    (flipped, DecodeError, "model.onnx is damaged"),
    (cut, DecodeError, "model.onnx is damaged"),
    (longer, StorageError, "longer than"),
    (too_long, StorageError, "longer than 0 bytes"),
    (other_length, DecodeError, "items.json is damaged"),
    (long_manifest, StorageError, "longer than 1048576 bytes"),
    (linked, StorageError, "it is a link"),
    (gone, UsageError, "there is no .*items.json"),
    (other_format, DecodeError, "format 1, and not '2'"),
    (more_fields, DecodeError, "no field 'more'"),
    (no_manifest, DecodeError, "not the manifest"),
    (other_names, DecodeError, "names other files"),
    (no_graph, DecodeError, "names other files"),
    (fewer_items, DecodeError, "other items than"),
    (the_same_twice, DecodeError, "other items than"),
    (no_texts, DecodeError, "in the place of"),
    (other_graph, DecodeError, "ONNX"),
]


@pytest.mark.parametrize(("change", "kind", "why"), WRONG, ids=[change.__name__ for change, *_ in WRONG])
def test_what_is_not_as_it_was_written_is_one_line(
    change: Callable[[Path], None], kind: type[SecAggError], why: str, exported: Path
) -> None:
    """The control: ``test_it_recommends_what_the_run_does``."""
    change(exported)
    with pytest.raises(kind, match=why):
        folder.load(exported)


def test_a_file_is_no_longer_than_any_may_be(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(folder._MOST, folder.ITEMS, 10)
    with pytest.raises(StorageError, match="longer than 10 bytes"):
        folder.load(exported)


def test_what_was_not_written_to_the_end_is_no_folder(exported: Path, tmp_path: Path) -> None:
    """The control: the same manifest, where its files can be written."""
    manifest = folder.load_manifest(exported)
    folder.write(tmp_path / "whole", {"items.json": b""}, manifest)
    assert folder.is_folder(tmp_path / "whole")
    with pytest.raises(StorageError):
        folder.write(tmp_path / "part", {"items.json": b"", "missing/folder": b""}, manifest)
    assert (tmp_path / "part" / "items.json").exists()
    assert not folder.is_folder(tmp_path / "part")


def test_a_strangers_graph_is_checked_before_it_is_run(exported: Path) -> None:
    import onnx

    model = onnx.load_model_from_string((exported / "model.onnx").read_bytes())
    model.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
    described(exported, "model.onnx", model.SerializeToString())
    with pytest.raises(DecodeError, match="in other files"):
        folder.load(exported)


WITHOUT_TORCH = """
import sys
for name in ("torch", "scipy", "pandas", "opacus", "dp_accounting", "usearch"):
    sys.modules[name] = None  # neither found nor imported
from secagg.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_device_needs_no_torch(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "history").write_text(f"{ITEMS[4]}\n\n  {ITEMS[9]}\nfish\n")
    words = ["recommend", str(exported), "--history", str(tmp_path / "history"), "-k", "3", "--explain", "1", "--json"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["unknown"] == ["fish"]
    assert answer["how"] == "exact"
    found = folder.load(exported).recommend([ITEMS[4], ITEMS[9]], 3, explain=1)
    assert [one["item"] for one in answer["items"]] == [name for name, _ in found.items]
    assert all(len(one["because"]) <= 1 for one in answer["items"])


def test_the_command_exports_and_recommends(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--edge", "--int8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == "one-edge"
    assert answer["manifest"] == folder.content(Path("one-edge", "manifest.json").read_bytes()).sha256
    assert folder.load_manifest(Path("one-edge")).precision == "int8"
    assert main(["export", str(run), "--edge", "--out", "other"]) == 0
    assert "user" in capsys.readouterr().out
    for wrong in (["--int8"], ["--index"], ["--edge", "--model"], ["--edge", "--no-model"]):
        assert main(["export", str(run), *wrong, "--out", "wrong"]) == 2
        assert "--edge" in capsys.readouterr().err
        assert not Path("wrong").exists()
    Path("history").write_text(json.dumps([ITEMS[4], "\x1b[31m"]))
    said = []
    for place in ("other", str(run)):
        assert main(["recommend", place, "--history", "history", "-k", "2", "--explain", "2"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "\\u001b[31m" in said[0]
    assert "because of" in said[0]


@pytest.mark.parametrize(
    "words", [["-k", "0"], ["--explain", "-1"], ["--history", "missing"], ["--history", "bytes"], ["--history", "json"]]
)
def test_wrong_words_are_one_line(
    words: list[str],
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("history").write_text("")
    Path("bytes").write_bytes(b"\xff")
    Path("json").write_text("[1, 2]")
    fine = ["recommend", str(exported), "--history", "history"]
    assert main(fine) == 0
    capsys.readouterr()
    assert main([*fine, *words]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("text", ["one\r\ntwo\r\n", " one\n\n two", '["one", "two"]'])
def test_a_history_may_begin_with_the_mark_that_editors_write(text: str, tmp_path: Path) -> None:
    for mark in ("", "\ufeff"):
        (tmp_path / "history").write_bytes((mark + text).encode())
        assert ids_in(tmp_path / "history") == ["one", "two"]


def test_a_run_that_goes_on_recommends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "none", ended="")
    (tmp_path / "history").write_text("")
    assert main(["recommend", str(tmp_path), "--history", str(tmp_path / "history")]) == 2
    assert "has not ended" in capsys.readouterr().err


def test_the_model_of_a_run_is_the_one_on_its_record(
    run: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "history").write_text("\n".join(f"unknown-{number}" for number in range(23)))
    (place := tmp_path / "run").mkdir()
    make(place, "none")
    (model := ItemPop()).fit(events())
    recorded(place, model)
    rest = ["--history", str(tmp_path / "history")]
    assert main(["recommend", str(place), *rest]) == 0
    said = capsys.readouterr().out
    assert "unknown-19" in said
    assert "unknown-20" not in said
    assert "and 3 more" in said
    (place / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    for words, why in (
        ([str(place)], "was altered"),
        ([str(run), "--manifest", "0" * 64], "there is no manifest.json"),
        ([str(tmp_path)], "there is no model in"),
    ):
        assert main(["recommend", *words, *rest]) == 2
        assert why in capsys.readouterr().err


def test_without_the_extra_it_is_said(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "history").write_text("")
    code = WITHOUT_TORCH.replace('"torch", ', '"onnxruntime", ')
    words = ["recommend", str(exported), "--history", str(tmp_path / "history")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 6
    assert "needs the extra [edge]" in done.stderr
