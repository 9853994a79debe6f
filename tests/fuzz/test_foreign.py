"""One fuzz target for each reader of files that strangers hand on: out comes a value, or one declared line.

Inputs are valid files after cuts, flips and insertions; for JSON inside them, also trees of which some parts are
exchanged for odd ones. Brief by default; SECAGG_HYPOTHESIS=long runs many fresh examples.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp import verify_ledger
from dp.ledger import file as ledger_file
from dp.ledger.verify import verify
from secagg import cli, tensors
from secagg.errors import AlteredError, DecodeError, PeerError, StorageError, UsageError
from secagg.foreign import parse_array
from tests.scenes import ledger as scene
from tests.scenes.mutations import LONG, NEST, accepted, inputs, mutations, trees

pa = pytest.importorskip("pyarrow")
pytest.importorskip("torch")

from recsys.aggregator import Result  # noqa: E402
from recsys.data import movielens, tables  # noqa: E402
from recsys.models.ease import Ease  # noqa: E402
from recsys.models.mf import MatrixFactorisation  # noqa: E402
from recsys.models.store import load, save  # noqa: E402
from recsys.requested_sums import _decoded, _encoded_results, _PastSum  # noqa: E402
from recsys.run_record import FILE, Run  # noqa: E402
from recsys.serving import ServedModel  # noqa: E402
from recsys.training_state import TrainingState  # noqa: E402
from tests.scenes import runs  # noqa: E402

fuzz = settings(max_examples=5_000 if LONG else 25)


def made(write: Callable[[Path], object], name: str = "file") -> bytes:
    with TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


# Records of runs, and their reports


@cache
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made(lambda path: runs.make(path.parent, "none", rounds=2), FILE))
    return found


@fuzz
@given(data=st.data())
def test_record(data: st.DataObject, folder: Path) -> None:
    text = json.dumps(record()).encode()
    if isinstance(made := data.draw(st.one_of(trees(record()), mutations(text))), bytes):
        (folder / FILE).write_bytes(made)
    else:
        runs.put(folder, made)
    if (run := accepted(lambda: Run.load(folder), DecodeError, AlteredError)) is not None:
        run.save(folder, runs.KEY)
        assert Run.load(folder) == run


def plain_round() -> dict[str, Any]:
    return dict(record()["rounds"][0])


WORST: dict[str, dict[str, Any]] = {
    "metrics": {"results": [{"name": "x", "metrics": {"$_{": 1e100, "\x1b": -1e100}}]},
    "text for metrics": {"results": [{"name": "x", "metrics": {"NDCG@10": "0.5"}}]},
    "text for clients": {"data": {"clients": "many", "users": None}},
    "a title": {"title": "\x00\ud800"},
    "characters": {"title": "\x00\x1b[2J\u202e", "ended": "\x7f", "mode": "none"},
    "10^400": {"results": [{"name": "x", "metrics": {"NDCG@10": 10**400}}]},
    "nesting": {"config": NEST},
    "nobody planned": {"rounds": [{**plain_round(), "planned": 0, "survivors": 0}]},
    "more than planned": {"rounds": [{**plain_round(), "survivors": 21}]},
    "settings": {"config": {"x" * 200: {f"{i}": {} for i in range(9000)}}},
    "names": {"results": [{"name": "x", "metrics": {f"{i} {j}": 0.5 for j in range(20)}} for i in range(400)]},
    "odd names": {"results": [{"name": "x", "metrics": {"\u0fff\U0001f600": 0.1}}], "rounds": []},
}


@pytest.mark.parametrize("what", WORST)
def test_reports_of_the_worst_records(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.put(tmp_path, record() | WORST[what])
    one_line(["report", str(tmp_path)], capsys, (0, 2))


def one_line(words: list[str], capsys: pytest.CaptureFixture[str], codes: tuple[int, ...]) -> int:
    code = cli.main(words)
    said = capsys.readouterr()
    assert code in codes
    said.out.encode()
    if code in (0, 5):
        assert said.err == ""
    else:
        assert said.out == ""
        assert len(said.err.splitlines()) == 1
        assert len(said.err) < 1500
    return code


# Ledgers


@cache
def ledger() -> bytes:
    return made(lambda path: scene.filled(path, rounds=1).close())


@cache
def rows() -> list[Any]:
    with TemporaryDirectory() as folder:
        (Path(folder) / "l.db").write_bytes(ledger())
        return ledger_file.read(Path(folder) / "l.db")


@fuzz
@given(data=st.deferred(lambda: mutations(ledger())))
def test_ledger_file(data: bytes, folder: Path) -> None:
    (folder / "l.db").write_bytes(data)
    accepted(lambda: verify(ledger_file.read(folder / "l.db")), PeerError, StorageError)


@fuzz
@given(data=st.data())
def test_ledger_entries(data: st.DataObject) -> None:
    """Written by its owner, chained and signed as they should be."""
    bodies = [json.loads(body) for body, _ in rows()]
    tree = data.draw(trees(bodies))
    if not isinstance(tree, list) or not all(isinstance(body, dict) for body in tree):
        return
    try:
        forged = scene.forged(rows(), lambda bodies: bodies.__setitem__(slice(None), tree))
    except ValueError:  # no such thing can be written down
        return
    accepted(lambda: verify(forged, scene.KEY.public), PeerError)
    for line in verify_ledger.problems(b"".join(exported(forged)), scene.KEY.public, None):
        line.encode()


def exported(forged: list[Any]) -> Iterator[bytes]:
    for body, signature in forged:
        yield b'{"body":' + body + b',"signature":"' + signature.hex().encode() + b'"}\n'


@fuzz
@given(data=st.deferred(lambda: inputs(b"".join(exported(rows())))))
def test_exported_ledger(data: bytes) -> None:
    for line in verify_ledger.problems(data, None, None):
        line.encode()


ABSURD = {
    "count": {"steps": {"count": 10**3000}},
    "multiplier": {"steps": {"event": {"mechanism": {"noise_multiplier": "1e999999999"}}}},
    "digits": {"steps": {"event": {"mechanism": {"noise_multiplier": "9" * 4000}}}},
    "rate": {"steps": {"event": {"sampling": {"rate": "1/" + "9" * 4000}}}},
}


def merged(tree: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    return {**tree, **{name: merged(tree[name], part) for name, part in change.items()}}


@pytest.mark.parametrize("what", ABSURD)
def test_absurd_numbers_in_a_ledger(what: str, tmp_path: Path) -> None:
    """Before they are calculated with: the second would take all memory there is."""
    book = scene.new(tmp_path / "l.db", budget=scene.LARGE, guarantee=scene.EXAMPLE)
    book.charge(scene.step(), 3)
    book.close()
    kept = ledger_file.read(tmp_path / "l.db")

    def change(bodies: list[Any]) -> None:
        bodies[1] = merged(bodies[1], ABSURD[what])

    with pytest.raises(PeerError, match="entry 1 of the ledger"):
        verify(scene.forged(kept, change))
    found = list(verify_ledger.problems(b"".join(exported(scene.forged(kept, change))), None, None))
    assert found
    assert max(map(len, found)) < 1000


# Arrays


@cache
def model(kind: str) -> bytes:
    from tests.scenes.stored_models import ITEMS, events

    if kind == "Ease":
        trained: Any = Ease()
        trained.fit(events())
    else:
        trained = MatrixFactorisation(width=2)
        trained.begin(len(ITEMS), seed=0)
    return made(lambda path: save(ServedModel(trained, ITEMS), path))


def finite(tree: Any) -> bool:
    with suppress(ValueError):
        return bool(json.dumps(tree, allow_nan=False))
    return False


MODELS = ("Ease", "MatrixFactorisation")


@pytest.mark.parametrize("kind", MODELS)
@fuzz
@given(data=st.data())
def test_model(kind: str, data: st.DataObject, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(data.draw(mutations(model(kind))))
    accepted(lambda: load(folder / "model.safetensors"), StorageError)


@pytest.mark.parametrize("kind", MODELS)
@fuzz
@given(data=st.data())
def test_header_of_a_model(kind: str, data: st.DataObject, folder: Path) -> None:
    header, arrays = tensors.decode(model(kind))
    (folder / "model.safetensors").write_bytes(
        b"".join(tensors.encode(data.draw(trees(header).filter(finite)), arrays))
    )
    accepted(lambda: load(folder / "model.safetensors"), StorageError)


CHECKPOINT = TrainingState(np.zeros(5, np.float32), {"momentum": np.zeros(5)}, (runs._round(0, None, ""),))
ANSWERS = [_PastSum("a", 3, "", Result(np.zeros(3), 2, ("ann", "bob"), {}, 9, 9, {}))]
SECRET = bytes(32)


@fuzz
@given(data=st.data())
def test_checkpoint(data: st.DataObject) -> None:
    whole = b"".join(CHECKPOINT.encode(SECRET))
    with pytest.raises(DecodeError):
        TrainingState.decode(data.draw(inputs(whole).filter(lambda other: other != whole)), SECRET)


@fuzz
@given(data=st.data())
def test_answers(data: st.DataObject) -> None:
    whole = b"".join(_encoded_results(ANSWERS, SECRET))
    with pytest.raises(DecodeError):
        _decoded(data.draw(inputs(whole).filter(lambda other: other != whole)), SECRET)


@fuzz
@given(data=st.deferred(lambda: inputs(made(lambda path: np.save(path, np.arange(6.0).reshape(2, 3)), "file.npy"))))
def test_array(data: bytes) -> None:
    accepted(lambda: parse_array(data), DecodeError)


# Data


CSV = b"user,item,time,rating\nann,tea,2024-05-01,5\nbob,jam,17,0.5\nann,jam,2024-05-02T10:00:00+02:00,1\n"


@fuzz
@given(data=inputs(CSV))
def test_table(data: bytes, folder: Path) -> None:
    (folder / "t.csv").write_bytes(data)
    accepted(lambda: tables.load(folder / "t.csv", time="time", rating="rating"), UsageError)
    accepted(lambda: tables.items(folder / "t.csv"), UsageError)


def parquet(times: list[int], kind: Any) -> bytes:
    import pyarrow.parquet as pq

    columns = {"user": ["ann", "bob"], "item": ["tea", "jam"], "time": pa.array(times, pa.int64()).cast(kind)}
    return made(lambda path: pq.write_table(pa.table(columns), path))


KINDS = [*(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")), pa.date64()]
ENDS = [-(2**63), 2**63 - 1, 0, 253402300800, -62135596801, 253402300800 * 10**6, -62135596801 * 10**6]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("moment", ENDS)
def test_times_at_their_ends(kind: Any, moment: int, tmp_path: Path) -> None:
    """A line that is left out, and the others stay. Arrow writes some of these with another unit."""
    try:
        data = parquet([moment, 0], kind)
    except pa.ArrowInvalid:
        return
    (tmp_path / "t.parquet").write_bytes(data)
    loaded = tables.load(tmp_path / "t.parquet", time="time")
    assert loaded.bad.count <= 1
    assert {"bob"} <= set(loaded.interactions.user_ids)


def test_control_python_has_no_such_times() -> None:
    with pytest.raises((ValueError, OverflowError)):
        pa.array([2**63 - 1], pa.timestamp("us")).to_pylist()


def test_more_rows_than_bytes(tmp_path: Path) -> None:
    """One value repeated is a few bytes, however often: so is a file that would take hours."""
    import pyarrow.parquet as pq

    same = pa.table({name: pa.array(["x"] * 2_000_000).dictionary_encode() for name in ("user", "item")})
    pq.write_table(same, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 2_000_000 / 8
    with pytest.raises(UsageError, match="more rows than fit"):
        tables.load(tmp_path / "t.parquet")


@fuzz
@given(data=st.deferred(lambda: inputs(parquet([0, 1], pa.timestamp("us")))))
def test_parquet(data: bytes, folder: Path) -> None:
    (folder / "t.parquet").write_bytes(data)
    accepted(lambda: tables.load(folder / "t.parquet", time="time"), UsageError)


@fuzz
@given(
    ratings=inputs(b"userId,movieId,rating,timestamp\n1,50,5,881250949\n1,172,5,881250949\n7,50,?,1\n"),
    titles=inputs(b'movieId,title,genres\n50,"Star, a",x\n172,b,y\n'),
)
def test_movielens(ratings: bytes, titles: bytes, folder: Path) -> None:
    (folder / "ratings.csv").write_bytes(ratings)
    (folder / "movies.csv").write_bytes(titles)
    accepted(lambda: movielens.load(folder), UsageError)


ODD_TITLES = {
    "a field that is too long": b"50," + b"x" * (csv.field_size_limit() + 1),
    "a number of 5000 digits": b"9" * 5000 + b",title",
}


@pytest.mark.parametrize("what", ODD_TITLES)
def test_odd_titles(what: str, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_bytes(b"userId,movieId,rating,timestamp\n1,50,5,1\n")
    (tmp_path / "movies.csv").write_bytes(b"movieId,title,genres\n50,a,b\n" + ODD_TITLES[what] + b"\n60,c,d\n")
    loaded = movielens.load(tmp_path)
    assert (loaded.items.titles[loaded.items.ids.index("60")], loaded.bad_titles.count) == ("c", 1)
    with pytest.raises((csv.Error, ValueError)):  # the control
        int(next(csv.reader(io.StringIO(ODD_TITLES[what].decode())))[0])


def test_what_the_auditor_prints_is_one_line_that_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A release's name is of the audited party's choice. The control: it stands in the problem as it is."""
    book = scene.new(tmp_path / "l.db", guarantee=scene.EXAMPLE)
    book.charge(scene.step())
    book.close()
    kept, name = ledger_file.read(tmp_path / "l.db"), "x\x1b[1A\nverified" + "x" * 900

    def change(bodies: list[Any]) -> None:
        for body in bodies[1:]:
            body["release"] = name
        bodies[2]["phase"] = "reserve"

    (tmp_path / "l.jsonl").write_bytes(b"".join(exported(scene.forged(kept, change))))
    assert any(name in line for line in verify_ledger.problems((tmp_path / "l.jsonl").read_bytes(), None, None))
    assert verify_ledger.main([str(tmp_path / "l.jsonl")]) == 4
    printed = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() and len(line) < 600 for line in printed)
    assert "x\\u001b[1A\\u000averified" in "".join(printed)
    with pytest.raises(SystemExit) as left:
        verify_ledger.main([str(tmp_path / "none.jsonl")])
    assert left.value.code == 2
    assert "cannot read" in capsys.readouterr().err
