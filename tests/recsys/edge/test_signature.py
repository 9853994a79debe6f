"""A folder for devices that the deployment signed: what is taken for it, and that no older one is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.models.ease import Ease
from recsys.models.popularity import ItemPop
from secagg.cli import main
from secagg.errors import DecodeError, PolicyError
from secagg.signed_versions import Signatory, What
from secagg.signed_versions import signed as sign
from tests.controls import switch_off
from tests.scenes.run_with_model import recorded
from tests.scenes.runs import make
from tests.scenes.stored_models import ITEMS, events

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")

from protocols.roster import Identity, load_signer
from recsys.edge import signature
from recsys.edge.exporting import export
from recsys.edge.signature import signed, signing
from secagg.crypto.prg import Prg

HOSPITALS = Identity.generate("hospitals", Prg(b"h" * 32))
BY = Signatory(HOSPITALS.name, HOSPITALS.key.public)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that have ended, and a signed folder of each; nobody may change them."""
    place = tmp_path_factory.mktemp("signed")
    HOSPITALS.save(place / "hospitals.key")
    signer = load_signer(place / "hospitals.key")
    for number, model in enumerate((ItemPop(), Ease(1.0)), 1):
        (run := place / f"run-{number}").mkdir()
        make(run, "none")
        model.fit(events())
        recorded(run, model)
        export(run, place / f"device-{number}", sign=signing(signer))
    (place / "history").write_text(ITEMS[4])
    return place


def recommend(folder: Path, *words: object) -> int:
    history = ["--history", folder.parent / "history", "-k", 2, "--signed-by", BY]
    return main(["recommend", *map(str, [folder, *history, *words])])


def test_what_was_signed_is_taken_and_nothing_older(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, (first, second) = tmp_path / "newest.json", (place / "device-1", place / "device-2")
    assert [signed(folder, BY).number for folder in (first, second)] == [1, 2]
    assert recommend(first, "--remember", newest) == 0
    assert recommend(second, "--remember", newest) == 0
    assert recommend(second, "--remember", newest) == 0
    capsys.readouterr()
    assert recommend(first, "--remember", newest) == 3
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "", "secagg: version 1 of the folder for devices is older than version 2, which was seen here\n"
    )  # fmt: skip
    assert recommend(first) == 0  # who remembers nothing cannot tell
    switch_off(monkeypatch, signature, "signed", "newest is not None")
    monkeypatch.setattr(signature, "check_not_older", lambda *_: False)
    assert recommend(first, "--remember", newest) == 0  # the control


def test_a_folder_that_cannot_be_read_is_not_remembered(place: Path, tmp_path: Path) -> None:
    """Somebody's damaged copy of the newest leaves the device with the one that it has."""
    shutil.copytree(place / "device-2", damaged := tmp_path / "device")
    shutil.copy(place / "history", tmp_path)
    (damaged / "model.onnx").write_bytes(b"damaged")
    newest = tmp_path / "newest.json"
    assert recommend(place / "device-1", "--remember", newest) == 0
    assert recommend(damaged, "--remember", newest) == 2
    assert recommend(place / "device-1", "--remember", newest) == 0


def test_deployments_are_remembered_side_by_side(place: Path, tmp_path: Path) -> None:
    newest, clinics = tmp_path / "newest.json", Identity.generate("clinics")
    clinics.save(tmp_path / "clinics.key")
    (other := load_signer(tmp_path / "clinics.key")).sign(What.FOLDER, bytes(32), 6)
    export(place / "run-1", tmp_path / "theirs", sign=signing(other))
    for folder, by, number in ((place / "device-2", BY, 2), (tmp_path / "theirs", other.signatory, 7)):
        (found := signed(folder, by, newest)).keep(newest)
        assert found.number == number
    with pytest.raises(PolicyError, match="version 1 of the folder for devices is older than version 2"):
        signed(place / "device-1", BY, newest)
    with pytest.raises(PolicyError, match="older"):
        signed(place / "device-1", BY).keep(newest)


def test_what_is_read_is_what_was_signed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody exchanges the folder after its signature was looked at."""
    shutil.copytree(place / "device-2", folder := tmp_path / "device")
    shutil.copy(place / "history", tmp_path)

    def exchanged_later(*given: Any) -> signature.SignedManifest:
        found = signed(*given)
        shutil.copytree(place / "device-1", folder, dirs_exist_ok=True)
        return found

    monkeypatch.setattr(signature, "signed", exchanged_later)
    assert recommend(folder) == 2
    assert recommend(folder) == 0  # it is version 1 now, from beginning to end


def unsigned(folder: Path) -> None:
    (folder / "signature.json").unlink()


def altered(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"guarantee": ["all of it is private"]}))


def renumbered(folder: Path) -> None:
    told = json.loads((folder / "signature.json").read_text())
    (folder / "signature.json").write_text(json.dumps(told | {"number": 9}))


def exchanged(folder: Path) -> None:
    shutil.copy(folder.parent / "other" / "signature.json", folder)


@pytest.mark.parametrize("change", [unsigned, altered, renumbered, exchanged])
def test_what_was_not_signed_is_refused(
    change: Callable[[Path], None],
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(place / "device-1", folder := tmp_path / "device")
    shutil.copytree(place / "device-2", tmp_path / "other")
    shutil.copy(place / "history", tmp_path)
    assert recommend(folder) == 0
    change(folder)
    assert recommend(folder) == 3
    assert "the folder for devices is not signed" in capsys.readouterr().err
    monkeypatch.setattr(Signatory, "check", lambda *_: 1)
    assert recommend(folder) == 0  # the control


@pytest.mark.parametrize(
    "by", [Signatory("clinics", BY.key), Signatory("hospitals", Identity.generate("x").key.public)]
)
def test_another_deployments_folder(by: Signatory, place: Path) -> None:
    with pytest.raises(PolicyError, match="is not signed by"):
        signed(place / "device-1", by)


def test_a_roster_signed_by_the_same_key_is_no_folder(place: Path, tmp_path: Path) -> None:
    """Nor is a model of a round, though both are digests of 32 bytes."""
    shutil.copytree(place / "device-1", folder := tmp_path / "device")
    digest = bytes.fromhex(signed(folder, BY).sha256)
    for what, accepted in ((What.ROSTER, False), (What.MODEL, False), (What.FOLDER, True)):
        version = sign(HOSPITALS.name, HOSPITALS.key, what, 1, digest)
        text = json.dumps({"number": 1, "signature": version.signature.hex()})
        (folder / "signature.json").write_text(text)
        if accepted:
            assert signed(folder, BY).number == 1
            continue
        with pytest.raises(PolicyError, match="is not signed by"):
            signed(folder, BY)


@pytest.mark.parametrize("content", ["", "{}", '{"number": 0, "signature": ""}', "[" * 500, " " * 2000])
def test_a_signature_that_is_none(content: str, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "device-1", folder := tmp_path / "device")
    shutil.copy(place / "history", tmp_path)
    (folder / "signature.json").write_text(content)
    assert recommend(folder) in (1, 2)


def test_the_command_signs(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(place / "history", tmp_path)
    HOSPITALS.save("hospitals.key")
    run = str(place / "run-1")
    wanted = ["export", run, "--edge", "--sign", "hospitals.key", "--json"]
    assert main([*wanted, "--out", "one", "--version", "7"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["version"], answer["signed_by"]) == (7, str(BY))
    assert signed(Path("one"), BY).sha256 == answer["manifest"]
    assert main([*wanted, "--out", "again"]) == 0  # the same once more
    assert json.loads(capsys.readouterr().out)["version"] == 7
    assert main([*wanted, "--out", "none", "--version", "6"]) == 3
    assert not Path("none").exists()
    for wrong in (["--edge", "--version", "8"], ["--sign", "hospitals.key"], ["--version", "8"]):
        assert main(["export", run, "--out", "none", *wrong]) == 2
    assert recommend(Path("one").absolute(), "--manifest", answer["manifest"]) == 2
    assert main(["recommend", "one", "--history", "history", "--remember", "newest.json"]) == 2
    assert main(["recommend", run, "--history", "history", "--signed-by", str(BY)]) == 2
    assert not Path("newest.json").exists()


def test_a_signed_manifest_is_a_known_one(place: Path, tmp_path: Path) -> None:
    """What has no index says so, and not that its folder is unknown; an altered one is refused before that."""
    assert recommend(place / "device-2", "--approximate") == 2
    shutil.copytree(place / "device-2", folder := tmp_path / "device")
    altered(folder)
    shutil.copy(place / "history", tmp_path)
    assert recommend(folder, "--approximate") == 3
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(DecodeError, match="not the manifest"):
        signed(folder, BY)
