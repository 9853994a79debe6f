"""An index finds about what all scores say, and is read only by who knows that it is the right one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from recsys.models.mf import MatrixFactorisation
from secagg.cli import main
from secagg.errors import DecodeError, UsageError
from tests.scenes.run_with_model import recorded
from tests.scenes.runs import make
from tests.scenes.stored_models import ITEMS, events

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")

from recsys.edge import folder
from recsys.edge.approximate import built, nearest, opened, recommend
from recsys.edge.exporting import export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with an index, and the SHA-256 of its manifest."""
    (run := tmp_path_factory.mktemp("runs") / "one").mkdir()
    make(run, "none")
    model = MatrixFactorisation(width=4)
    model.begin(len(ITEMS), seed=0)
    model.vector = np.random.default_rng(0).standard_normal(model.vector.size).astype(np.float32)
    recorded(run, model)
    _, digest = export(run, run.parent / "device", index=True)
    return run.parent / "device", digest


def test_it_finds_what_all_scores_say(exported: tuple[Path, str]) -> None:
    place, digest = exported
    model, index = folder.load(place), folder.load_index(place, digest)
    for history in ([], ITEMS[3:4], ["fish", *ITEMS[5:20]], ITEMS):
        exact, found = model.recommend(history, 5), recommend(model, index, history, 5)
        assert [name for name, _ in found.items] == [name for name, _ in exact.items]
        assert [score for _, score in found.items] == pytest.approx([score for _, score in exact.items], abs=1e-2)
        assert found.unknown == exact.unknown
    with pytest.raises(UsageError, match="at least 1 item"):
        recommend(model, index, [], 0)


def test_nearly_all_of_many_are_found() -> None:
    rng = np.random.default_rng(0)
    vectors, users = (rng.standard_normal((count, 8)).astype(np.float32) for count in (2000, 50))
    index = opened(built(vectors), 2000)
    best = np.argsort(-users @ vectors.T, axis=1)[:, :10]
    found = [nearest(index, user, 10)[0] for user in users]
    assert np.mean([len(np.intersect1d(*pair)) for pair in zip(best, found, strict=True)]) >= 9


def test_an_index_of_an_unknown_folder_is_not_read(exported: tuple[Path, str]) -> None:
    """The control: with the right SHA-256 it is, in ``test_it_finds_what_all_scores_say``."""
    place, digest = exported
    for read in (folder.load_index, folder.load):
        with pytest.raises(DecodeError, match="SHA-256 is another one"):
            read(place, "0" * 64)
        read(place, digest.upper())


def test_what_is_no_index_of_these_items() -> None:
    from usearch.index import Index, MetricKind, ScalarKind

    vectors = np.eye(4, dtype=np.float32)
    opened(built(vectors), 4)
    for data in (b"", b"nonsense", built(vectors)[:-1]):
        with pytest.raises(DecodeError, match="no index"):
            opened(data, 4)
    with pytest.raises(DecodeError, match="no index of 5 items"):
        opened(built(vectors), 5)
    for metric, dtype in ((MetricKind.Cos, ScalarKind.F16), (MetricKind.IP, ScalarKind.F32)):
        other = Index(ndim=4, metric=metric, dtype=dtype)
        other.add(np.arange(4), vectors)
        with pytest.raises(DecodeError, match="no index of 4 items"):
            opened(bytes(other.save()), 4)
    with pytest.raises(DecodeError, match="vectors of another length"):
        nearest(opened(built(vectors), 4), np.zeros(3, np.float32), 2)


def test_the_command(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, digest = exported
    monkeypatch.chdir(tmp_path)
    Path("history").write_text(ITEMS[3])
    fine = ["recommend", str(place), "--history", "history", "--json", "-k", "3"]
    answers = []
    for words in ([], ["--approximate", "--manifest", digest]):
        assert main([*fine, *words]) == 0
        answers.append([one["item"] for one in json.loads(capsys.readouterr().out)["items"]])
    assert answers[0] == answers[1]
    for words, why in (
        (["--approximate"], "--manifest"),
        (["--approximate", "--manifest", digest, "--explain", "1"], "--explain goes without"),
        (["--manifest", "0" * 64], "SHA-256 is another one"),
    ):
        assert main([*fine, *words]) == 2
        assert why in capsys.readouterr().err
    assert main(["recommend", ".", "--history", "history", "--manifest", digest]) == 2


def test_the_index_alone_needs_usearch(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, digest = exported
    (tmp_path / "history").write_text(ITEMS[3])
    run, made = str(place.parent / "one"), str(tmp_path / "made")
    for name in ("usearch", "usearch.index"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "recsys.edge.approximate")
    recommend = ["recommend", str(place), "--history", str(tmp_path / "history")]
    for fine, more in ((["export", run, "--edge", "--out", made], ["--index"]), (recommend, ["--approximate"])):
        assert main(fine) == 0
        capsys.readouterr()
        assert main([*fine, *more, *(["--manifest", digest] if fine is recommend else [])]) == 6
        assert "needs the extra [edge]" in capsys.readouterr().err


def test_without_vectors_there_is_no_index(tmp_path: Path) -> None:
    from recsys.models.popularity import ItemPop

    (run := tmp_path / "one").mkdir()
    make(run, "none")
    (model := ItemPop()).fit(events())
    recorded(run, model)
    with pytest.raises(UsageError, match="scores of ItemPop are no products of vectors"):
        export(run, tmp_path / "device", index=True)
    _, digest = export(run, tmp_path / "device")
    with pytest.raises(UsageError, match="exported without an index"):
        folder.load_index(tmp_path / "device", digest)
