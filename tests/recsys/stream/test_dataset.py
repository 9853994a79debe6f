"""Recorded events in Parquet and Arrow files: row by row, from where the journal stopped, and from no other file."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from recsys.stream.dataset import Dataset
from recsys.stream.events import Position
from secagg.errors import StorageError, UsageError
from tests.scenes.streams import after, intake, read_all, taken

pa = pytest.importorskip("pyarrow", reason="NOT TESTED: Parquet needs pyarrow, pip install 'secagg[recsys]'")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "events"
    made.mkdir()
    moment = datetime(1970, 1, 2, tzinfo=UTC)
    pq.write_table(pa.table({"user": ["a", "b"], "item": ["i1", "i2"], "time": [moment] * 2}), made / "1.parquet")
    table = pa.table({"who": ["c", None, "d"], "item": ["i3", "i4", "i5"], "time": [86401, 86402, 86403]})
    table = table.rename_columns(["user", "item", "time"])
    with pa.OSFile(str(made / "2.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return made


def test_rows_are_events_and_what_is_none_is_counted(folder: Path, tmp_path: Path) -> None:
    with intake(tmp_path, partial(Dataset, folder)) as (one, journal):
        taken(one, 86500)
        assert journal.counts() == {"taken in": 4, "unreadable": 1}
        journal.begin(0, 86500)
        assert [(event.user, event.item, event.time) for event in journal.events(0)] == [
            ("a", 1, 86400), ("b", 2, 86400), ("c", 3, 86401), ("d", 5, 86403),
        ]  # fmt: skip


def test_every_place_can_be_gone_on_from(folder: Path) -> None:
    messages = read_all(Dataset(folder, {}), 2)
    assert len(messages) == 5
    for number in range(5):
        rest = read_all(Dataset(folder, after(messages[: number + 1])))
        assert [message.data for message in rest] == [message.data for message in messages[number + 1 :]]
    assert read_all(Dataset(folder, {}), 2) == messages
    assert Dataset(folder, {}).read(9, {"1.parquet"}) == []


def test_a_file_that_is_another_one_or_gone_is_an_error(folder: Path) -> None:
    place: dict[str, Position] = after(read_all(Dataset(folder, {})))
    pq.write_table(pa.table({"user": ["a"], "item": ["i1"], "time": [1]}), folder / "1.parquet")
    with pytest.raises(StorageError, match="is another one by now"):
        Dataset(folder, place)
    (folder / "1.parquet").unlink()
    with pytest.raises(StorageError, match="would be lost"):
        Dataset(folder, place)


def test_columns_are_named(folder: Path) -> None:
    with pytest.raises(UsageError, match="no column when"):
        read_all(Dataset(folder, {}, time="when"))
