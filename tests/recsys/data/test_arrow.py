"""Parquet and Arrow are read in batches, of which memory holds one at a time; what is damaged is refused in a line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.data import arrow, tables
from secagg.errors import UsageError

pa = pytest.importorskip("pyarrow", reason="NOT TESTED: Arrow needs pyarrow, pip install 'secagg[recsys]'")
pq = pytest.importorskip("pyarrow.parquet")

EVENTS = {"user": ["ann", "bob", "ann"], "item": ["tea", "jam", "jam"], "time": [1, 2, 3]}


def written(path: Path, columns: dict[str, Any], rows: int = 1 << 20, compression: str | None = None) -> Path:
    """An Arrow file with batches of so many rows."""
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize(("name", "compression"), [("e.arrow", None), ("e.feather", "lz4"), ("e.arrow", "zstd")])
def test_an_arrow_file_is_a_table_like_any_other(tmp_path: Path, name: str, compression: str | None) -> None:
    path = written(tmp_path / name, {**EVENTS, "more": [None] * 3}, rows=2, compression=compression)
    (tmp_path / "e.csv").write_text("user,item,time\nann,tea,1\nbob,jam,2\nann,jam,3\n")
    found, same = (tables.load(one, time="time").interactions for one in (path, tmp_path / "e.csv"))
    assert (found.user_ids, found.item_ids) == (same.user_ids, same.item_ids)
    assert [history.tolist() for history in found.histories()] == [history.tolist() for history in same.histories()]


def test_a_folder_is_read_in_the_order_of_its_files_names(tmp_path: Path) -> None:
    written(tmp_path / "2.arrow", {"user": ["a", None], "item": ["x", "y"]})
    pq.write_table(pa.table({"user": ["a"], "item": ["z"]}), tmp_path / "1.parquet")
    (tmp_path / "notes.txt").write_text("no table")
    loaded = tables.load(tmp_path)
    assert [loaded.interactions.item_ids[item] for item in loaded.interactions.history(0)] == ["z", "x"]
    assert [row.line for row in loaded.bad_rows] == [3]  # counted over all files


@pytest.mark.parametrize("skip", [0, 1, 3, 5, 6])
def test_rows_are_passed_over_without_a_look_at_their_batches(tmp_path: Path, skip: int) -> None:
    path = written(tmp_path / "e.arrow", {"n": list(range(6))}, rows=2)
    assert [cells for batch in arrow.rows(path, ["n"], skip=skip) for cells in batch] == [(n,) for n in range(skip, 6)]


@pytest.mark.parametrize("name", ["e.parquet", "e.arrow"])
def test_memory_holds_one_batch_and_not_the_file(tmp_path: Path, name: str) -> None:
    """100,000 events, and 60 MB of text beside them that nobody asks for: of all that Arrow holds a sixth."""
    count = 100_000
    columns = {
        "user": pa.array(np.char.add("user ", (np.arange(count) % 5000).astype(str))),
        "item": pa.array((np.arange(count) * 7) % 4001),
        "more": pa.array([f"{number:0600}" for number in range(count)]),
    }
    path = tmp_path / name
    if name == "e.parquet":
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    else:
        written(path, columns, rows=12_500)
    del columns
    assert path.stat().st_size > 60_000_000
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pool := pa.proxy_memory_pool(usual))
    try:
        assert sum(len(batch) for batch in arrow.rows(path, ["user", "item"])) == count
        assert pool.max_memory() < path.stat().st_size // 6
    finally:
        pa.set_memory_pool(usual)


def test_what_a_stranger_wrote_is_refused_in_a_line(tmp_path: Path) -> None:
    path = written(tmp_path / "e.arrow", EVENTS)
    whole = path.read_bytes()
    for data in (b"", whole[:-20], whole.replace(b"ARROW1", b"ARROW2"), whole.replace(b"user", b"us\xffr")):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"e\.arrow cannot be read") as caught:
            tables.load(path)
        assert "\n" not in str(caught.value)


def test_offsets_that_point_out_of_the_file_are_seen(tmp_path: Path) -> None:
    """Arrow reads texts where the file says that they are, unless it is told to look first: then Python would be dead
    here."""
    offsets = np.array([0, 3, 6, 1 << 30], np.int32)
    path = written(tmp_path / "e.arrow", {"user": ["ann", "bob", "eve"], "item": ["x", "y", "z"]})
    assert tables.load(path).interactions.user_count == 3
    right, wrong = np.array([0, 3, 6, 9], np.int32).tobytes(), offsets.tobytes()
    assert path.read_bytes().count(right) == 1
    path.write_bytes(path.read_bytes().replace(right, wrong))
    with pytest.raises(UsageError, match=r"e\.arrow cannot be read"):
        tables.load(path)


def test_rows_that_take_no_bytes_are_not_counted_out(tmp_path: Path) -> None:
    """A column of nothing has no bytes, however long it says it is."""
    path = written(tmp_path / "e.arrow", {"user": pa.nulls(1 << 30), "item": pa.nulls(1 << 30)}, rows=1 << 30)
    assert path.stat().st_size < 1000
    with pytest.raises(UsageError, match="more rows than fit into its bytes"):
        tables.load(path)
