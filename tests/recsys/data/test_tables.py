"""The user's own tables: columns by name, ids as they are, and no line lost without a word."""

import csv
import io
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import tables
from recsys.data.items import Items
from recsys.data.loaded import BadRow
from secagg.errors import UsageError

pa = pytest.importorskip("pyarrow", reason="NOT TESTED: Parquet needs pyarrow, pip install 'secagg[recsys]'")
pq = pytest.importorskip("pyarrow.parquet")

MICRO = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def table(folder: Path, text: str, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def parquet(folder: Path, **columns: object) -> Path:
    path = folder / "events.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffstars;what;when;who\n5;007;20;ann\n1;7;10;ann\n2;7;10;Bob\n")
    loaded = tables.load(path, user="who", item="what", time="when", rating="stars", separator=";")
    events = loaded.interactions
    assert (events.user_ids, events.item_ids) == (("Bob", "ann"), ("007", "7"))  # 007 is not 7
    assert [history.tolist() for history in events.histories()] == [[1], [1, 0]]
    assert events.ratings.tolist() == [2, 1, 5]
    assert not loaded.bad.count


def test_without_times_the_order_of_the_file_is_the_order_of_time(tmp_path: Path) -> None:
    events = tables.load(table(tmp_path, "user,item\na,z\na,y\na,x\n")).interactions
    assert [events.item_ids[item] for item in events.history(0)] == ["z", "y", "x"]
    assert events.ratings.tolist() == [1, 1, 1]


TEXT = """user,item,time,rating
a,x,1,1
,x,2,1
a,"  ",3,1
a,y,soon,1
a,y,1.5,1
a,y,nan,1
a,y,2024-01-01,1
a,y,5,lots
a,y,5,nan
a,y,5,1e39
a,y,5

a,"y
z",5,1
a,"y"z,5,1
b\ufffd,x,5,1
a,y,5.0,2
"""
REASONS = [
    BadRow(3, "user is empty"),
    BadRow(4, "item is empty"),
    BadRow(5, "time 'soon' is neither a number nor a date"),
    BadRow(6, "time '1.5' is not a whole number"),
    BadRow(7, "time 'nan' is not a whole number"),
    BadRow(8, "time is a date in some of this user's lines and a number in others"),
    BadRow(9, "rating 'lots' is not a number"),
    BadRow(10, "rating 'nan' is not a number"),
    BadRow(11, "rating '1e39' is not a number"),
    BadRow(12, "3 fields, not 4"),
    BadRow(13, "an empty line"),
    BadRow(14, "item goes over several lines"),
    BadRow(16, "',' expected after '\"'"),
    BadRow(17, "user is not UTF-8"),
]


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    loaded = tables.load(table(tmp_path, TEXT), time="time", rating="rating")
    assert list(loaded.bad_rows) == REASONS
    assert loaded.interactions.times.tolist() == [1, 5]


def test_a_quotation_mark_does_not_swallow_lines_in_silence(tmp_path: Path) -> None:
    loaded = tables.load(table(tmp_path, 'user,item\na,x\na,"y\nb,x\nb,y\n'))
    assert loaded.bad_rows == (BadRow(3, "unexpected end of data (up to line 5)"),)
    loaded = tables.load(table(tmp_path, 'user,item\na,x\na,"y\nb,x\nb,"\nb,z\n'))
    assert loaded.bad_rows == (BadRow(3, "item goes over several lines"),)
    assert len(loaded.interactions) == 2


ids = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufffd"), min_size=1).filter(
    lambda x: x == x.strip()
)


@given(rows=st.lists(st.tuples(ids, ids), min_size=1, max_size=8, unique=True))
def test_any_ids_survive(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("user", "item"), *rows])
    path = tmp_path_factory.mktemp("ids") / "events.csv"
    path.write_bytes(buffer.getvalue().encode())
    loaded = tables.load(path)
    events = loaded.interactions
    assert not loaded.bad.count
    assert {(events.user_ids[u], events.item_ids[i]) for u, i in zip(events.users, events.items, strict=True)} == set(
        rows
    )


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01 12:30:00.25", datetime(2024, 5, 1, 12, 30, 0, 250_000, tzinfo=UTC)),
        ("2024-05-01T12:30:00Z", datetime(2024, 5, 1, 12, 30, tzinfo=UTC)),
        ("2024-05-01T12:30:00+02:00", datetime(2024, 5, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_dates_become_microseconds(tmp_path: Path, text: str, moment: datetime) -> None:
    loaded = tables.load(table(tmp_path, f"user,item,time\na,x,{text}\na,y,17\n"), time="time")
    assert loaded.interactions.times.tolist() == [(moment - EPOCH) // MICRO]
    assert loaded.bad_rows == (BadRow(3, "time is a date in some of this user's lines and a number in others"),)


def test_parquet_is_read_alike(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        user=pa.array(["a", "b", "a", None, "a"]).dictionary_encode(),
        item=pa.array([7, 7, 9, 9, None], pa.int64()),
        time=pa.array([2_000_000_001, 5, 1, 1, 1], pa.timestamp("ns", "Europe/Paris")),
        rating=pa.array([1.5, 2, 3, 4, 5], pa.float32()),
    )
    loaded = tables.load(path, time="time", rating="rating")
    events = loaded.interactions
    assert (events.user_ids, events.item_ids) == (("a", "b"), ("7", "9"))
    assert [history.tolist() for history in events.histories()] == [[1, 0], [0]]
    assert events.times.tolist() == [0, 2_000_000, 0]
    assert loaded.bad_rows == (BadRow(4, "user is empty"), BadRow(5, "item is empty"))


def test_parquet_ids_are_text_or_whole_numbers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"user '1\.5' is neither text nor a whole number"):
        tables.load(parquet(tmp_path, user=[1.5], item=[1]))
    with pytest.raises(UsageError, match="item 'True' is neither text nor a whole number"):
        tables.load(parquet(tmp_path, user=[1], item=[True]))
    loaded = tables.load(parquet(tmp_path, user=[1, 1], item=[1, 2], time=[None, 3]), time="time")
    assert loaded.bad_rows == (BadRow(1, "time is empty"),)


def test_numbers_of_users_and_items_do_not_tell_who_came_first(tmp_path: Path) -> None:
    lines = ["b,y", "a,x", "c,z", "a,y", "b,x"]
    for order in (lines, lines[::-1]):
        events = tables.load(table(tmp_path, "\n".join(["user,item", *order]) + "\n")).interactions
        assert (events.user_ids, events.item_ids) == (("a", "b", "c"), ("x", "y", "z"))
        assert [sorted(history.tolist()) for history in events.histories()] == [[0, 1], [0, 1], [2]]


def test_how_one_user_writes_times_does_not_matter_to_others(tmp_path: Path) -> None:
    others = "a,x,2024-05-01\na,y,2024-05-02\n"
    loaded = tables.load(table(tmp_path, f"user,item,time\nz,x,17\n{others}"), time="time")
    assert not loaded.bad.count
    assert loaded.interactions.history(0).tolist() == [0, 1]


def test_a_user_of_whom_no_line_is_good_stays(tmp_path: Path) -> None:
    """Otherwise the number of users would tell of it."""
    loaded = tables.load(table(tmp_path, "user,item\na,x\nb,\nc,q\n"), listed=Items.of(["x"]))
    assert (loaded.interactions.user_ids, len(loaded.interactions)) == (("a", "b", "c"), 1)


def test_with_a_catalogue_the_items_are_its_own(tmp_path: Path) -> None:
    path = table(tmp_path, "user,item\na,y\na,q\nb,x\nb,r\n")
    loaded = tables.load(path, listed=Items.of(["z", "y", "x"]))
    assert loaded.interactions.item_ids == ("z", "y", "x")
    assert [history.tolist() for history in loaded.interactions.histories()] == [[1], [2]]
    assert loaded.report()[1:] == [
        "2 events about an item that is not in the table of items left out: "
        "line 3: the item is not in the table of items; line 5: the item is not in the table of items"
    ]
    with pytest.raises(UsageError, match="holds no events: line 2: the item is not in the table of items"):
        tables.load(path, listed=Items.of(["z"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item\nx\ny\nx\n", "line 4: item x is in line 2 already"),
        ("item\n \n", "line 2: item is empty"),
        ("item,price\nx\n", "line 2: 1 fields, not 2"),
        ("item\n", "lists no items"),
        ("name\nx\n", "has no column item"),
    ],
)
def test_a_catalogue_is_clear_or_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tables.items(table(tmp_path, text))
    assert tables.items(table(tmp_path, "price,item\n3,y\n4,x\n")).ids == ("y", "x")
    assert tables.items(parquet(tmp_path, item=[7, 5])).ids == ("7", "5")


@pytest.mark.parametrize("name", ["events.csv", "events.parquet"])
def test_missing_files_and_columns_are_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UsageError, match=f"{name} cannot be read: No such file"):
        tables.load(path)
    table(tmp_path, "user,what,what\na,x,y\n")
    parquet(tmp_path, user=["a"], what=["x"])
    with pytest.raises(UsageError, match=f"{name} has no column item among: user, what"):
        tables.load(path)


def test_what_is_no_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than one column what"):
        tables.load(table(tmp_path, "user,what,what\na,x,y\n"), item="what")
    with pytest.raises(UsageError, match="has no column user among: none"):
        tables.load(table(tmp_path, ""))
    with pytest.raises(UsageError, match="holds no events"):
        tables.load(table(tmp_path, "user,item\n"))
    with pytest.raises(UsageError, match=r"events\.parquet cannot be read") as caught:
        tables.load(table(tmp_path, "user,item\n" * 9, "events.parquet"))
    assert "\n" not in str(caught.value)
    damaged = bytearray(parquet(tmp_path, user=["a"] * 99, item=list(range(99))).read_bytes())
    damaged[4:60] = bytes(56)
    (tmp_path / "events.parquet").write_bytes(damaged)
    with pytest.raises(UsageError, match=r"events\.parquet cannot be read"):
        tables.load(tmp_path / "events.parquet")


def test_a_folder_without_tables_is_no_table(tmp_path: Path) -> None:
    table(tmp_path, "user,item\na,x\n")
    with pytest.raises(UsageError, match=r"has no file called \*\.parquet, \*\.arrow, \*\.feather"):
        tables.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,silo\na,x\na,y\n", "line 3: user a is in x already"),
        ("user,silo\na,\n", "line 2: silo is empty"),
        ("user,silo\na\n", "line 2: 1 fields, not 2"),
    ],
)
def test_a_mapping_is_clear_or_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tables.mapping(table(tmp_path, text))
    assert tables.mapping(table(tmp_path, "user,silo\na,x\nb,x\na,x\n")) == {"a": "x", "b": "x"}
