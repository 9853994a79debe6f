"""Models as files of LiteRT: the same scores, and read only by who knows that the file is the right one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secagg.cli import main
from secagg.errors import DecodeError, UsageError
from tests.scenes.devices import DEVICES, HISTORIES, trained
from tests.scenes.run_with_model import recorded
from tests.scenes.runs import make
from tests.scenes.stored_models import ITEMS

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")
pytest.importorskip("ai_edge_litert", reason="NOT TESTED: LiteRT needs ai-edge-litert, pip install 'secagg[litert]'")

from recsys.edge import folder
from recsys.edge.exporting import export
from recsys.edge.forms import form_of
from recsys.edge.lite import converted
from recsys.edge.on_device import on_device
from recsys.edge.on_lite import OnLiteRt


@pytest.mark.parametrize("name", DEVICES)
def test_scores_are_those_of_the_model(name: str) -> None:
    model = trained(name)
    expected = model.scores(HISTORIES)
    assert np.ptp(expected) > 0.01
    lite = OnLiteRt(converted(form_of(model).onnx))
    assert np.abs(lite.scores(HISTORIES) - expected).max() <= 1e-4
    again = HISTORIES[::-1]
    assert np.abs(lite.scores(again) - expected[::-1]).max() <= 1e-4


@pytest.mark.parametrize("name", ["Ease", "PrivateEase", "MatrixFactorisation", "SasRec", "TwoTower"])
def test_bytes_for_numbers_stay_bytes(name: str) -> None:
    model = trained(name)
    graph = form_of(model, int8=True).onnx
    small, whole = converted(graph), converted(form_of(model).onnx)
    assert len(small) < len(whole)
    assert np.abs(OnLiteRt(small).scores(HISTORIES) - on_device(graph).scores(HISTORIES)).max() <= 1e-4


@pytest.mark.long
@pytest.mark.parametrize("name", ["ease", "mf", "autoencoder", "sasrec"])
def test_scores_of_a_trained_model_with_many_items(name: str) -> None:
    from benchmarks.studies.edge import _MODELS
    from recsys.data.synthetic import population

    events = population(1000, 5000, 1)
    model = _MODELS[name](3)
    model.fit(events)
    histories = [*list(events.histories())[:100], np.empty(0, np.int32), np.arange(5000, dtype=np.int32)]
    expected = model.scores(histories)
    assert np.abs(OnLiteRt(converted(form_of(model).onnx)).scores(histories) - expected).max() <= 1e-4


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a file for LiteRT, and the SHA-256 of its manifest. Nobody may change it."""
    (run := tmp_path_factory.mktemp("runs") / "one").mkdir()
    make(run, "none")
    recorded(run, trained("SasRec"))
    _, digest = export(run, run.parent / "device", lite=True)
    export(run, run.parent / "without")
    return run.parent / "device", digest


def test_only_a_known_folder_is_read(exported: tuple[Path, str], tmp_path: Path) -> None:
    place, digest = exported
    history = ITEMS[3:9]
    expected, found = (one.recommend(history, 5) for one in (folder.load(place), folder.load_lite(place, digest)))
    assert [name for name, _ in found.items] == [name for name, _ in expected.items]
    with pytest.raises(DecodeError, match="SHA-256 is another one"):
        folder.load_lite(place, "0" * 64)
    without = place.parent / "without"
    manifest = folder.content((without / folder.MANIFEST).read_bytes()).sha256
    with pytest.raises(UsageError, match="without a file for LiteRT"):
        folder.load_lite(without, manifest)
    (other := tmp_path / "other").mkdir()
    for one in place.iterdir():
        (other / one.name).write_bytes(one.read_bytes())
    folder.load_lite(other, digest)  # control
    (other / folder.LITE).write_bytes((other / folder.LITE).read_bytes()[:-1] + b"x")
    with pytest.raises(DecodeError, match="is damaged, or another one"):
        folder.load_lite(other, digest)


def test_what_is_no_file_of_it_is_one_line() -> None:
    for data in (b"", b"nonsense", form_of(trained("ItemPop")).onnx):
        with pytest.raises(DecodeError, match="no model that LiteRT can run"):
            OnLiteRt(data)
    lite = OnLiteRt(converted(form_of(trained("Ease")).onnx))
    lite.scores([np.int32([len(ITEMS) - 1])])  # control
    with pytest.raises(DecodeError, match="cannot compute"):
        lite.scores([np.int32([len(ITEMS)])])


WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # neither found nor imported
from secagg.cli import main
sys.exit(main(sys.argv[2:]))
"""


def without(modules: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT, modules, *words], capture_output=True, text=True)


def test_a_device_needs_nothing_but_litert(exported: tuple[Path, str], tmp_path: Path) -> None:
    place, digest = exported
    (tmp_path / "history").write_text("\n".join(ITEMS[3:9]))
    words = ["recommend", str(place), "--history", str(tmp_path / "history"), "-k", "3", "--json"]
    done = without("torch,scipy,onnx,onnxruntime,usearch", *words, "--manifest", digest, "--explain", "1")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["how"] == "leave-one-out"
    expected = folder.load(place).recommend(ITEMS[3:9], 3)
    assert [one["item"] for one in answer["items"]] == [name for name, _ in expected.items]
    done = without("onnxruntime", *words)
    assert done.returncode == 2
    assert "--manifest" in done.stderr
    done = without("ai_edge_litert", *words, "--litert", "--manifest", digest)
    assert done.returncode == 6
    assert "needs the extra [litert]" in done.stderr


def test_the_command(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, _ = exported
    run = str(place.parent / "one")
    monkeypatch.chdir(tmp_path)
    Path("history").write_text("\n".join(ITEMS[3:9]))
    assert main(["export", run, "--edge", "--int8", "--litert", "--out", "device", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["bytes"]["model.tflite"] == Path("device", "model.tflite").stat().st_size
    fine = ["recommend", "device", "--history", "history", "-k", "3", "--json", "--manifest", answer["manifest"]]
    said = []
    for words in ([], ["--litert"]):
        assert main([*fine, *words]) == 0
        said.append([one["item"] for one in json.loads(capsys.readouterr().out)["items"]])
    assert said[0] == said[1]
    for wrong, why in (
        ([*fine[:-2], "--litert"], "--manifest"),
        ([*fine, "--litert", "--approximate"], "--litert goes without"),
        (["recommend", run, "--history", "history", "--litert"], "there is no manifest.json"),
        (["export", run, "--litert"], "go with --edge"),
    ):
        assert main(wrong) == 2
        assert why in capsys.readouterr().err
