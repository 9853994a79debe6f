"""Loading MovieLens: every layout, every bad line by its number, and the fast way is the slow way."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import movielens
from recsys.data.interactions import Interactions
from recsys.data.items import Items
from recsys.data.loaded import KEPT_ROWS, BadRow, LeftOut
from secagg.errors import UsageError

HEADER = "userId,movieId,rating,timestamp\n"
FLAGS = "|".join("1" if place in (8, 17) else "0" for place in range(19))
LAYOUTS = [
    (
        *("ratings.csv", ",", HEADER, "movies.csv"),
        'movieId,title,genres\n7,"Two, Three (1999)",War|Drama\n30,Café (2001),(no genres listed)\n',
    ),
    ("ratings.dat", "::", "", "movies.dat", "7::Two, Three (1999)::Drama|War\n30::Café (2001)::\n"),
    ("u.data", "\t", "", "u.item", f"7|Two, Three (1999)|01-Jan-1999||http://x|{FLAGS}\n30|Café (2001)||||0\n"),
]
EVENTS = [(2, 30, 4.5, 100), (1, 7, 3, 90), (2, 7, 1, 50), (2, 900, 5, 100)]


def write(folder: Path, text: str, name: str = "ratings.csv") -> Path:
    (folder / name).write_bytes(text.encode("latin-1"))
    return folder


def as_events(interactions: Interactions) -> list[tuple[str, str, int]]:
    users = [interactions.user_ids[user] for user in interactions.users]
    items = [interactions.item_ids[item] for item in interactions.items]
    return list(zip(users, items, interactions.times.tolist(), strict=True))


@pytest.mark.parametrize(("ratings", "separator", "header", "titles_name", "titles"), LAYOUTS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_every_layout(
    tmp_path: Path, ratings: str, separator: str, header: str, titles_name: str, titles: str, end: str, last: bool
) -> None:
    lines = [separator.join(map(str, event)) for event in EVENTS]
    text = header.replace("\n", end) + end.join(lines) + (end if last else "")
    write(tmp_path, text, ratings)
    (tmp_path / titles_name).write_bytes(titles.encode("utf-8" if header else "latin-1"))
    loaded = movielens.load(tmp_path)
    assert not loaded.bad.count
    assert not loaded.repeated.count
    assert loaded.items == Items.of(["7", "30"], ["Two, Three (1999)", "Café (2001)"], ["Drama|War", ""])
    # By user, then time, then the order of the file; the film 900 is not in the list of titles.
    assert loaded.interactions.item_ids == ("7", "30")
    assert as_events(loaded.interactions) == [("1", "7", 90), ("2", "7", 50), ("2", "30", 100)]
    assert loaded.interactions.ratings.tolist() == [3.0, 1.0, 4.5]
    assert loaded.unlisted == LeftOut(1, (BadRow(4 + bool(header), "the item is not in the table of items"),))
    (tmp_path / titles_name).unlink()
    loaded = movielens.load(tmp_path)
    assert loaded.interactions.item_ids == ("7", "30", "900")
    assert as_events(loaded.interactions) == [("1", "7", 90), ("2", "7", 50), ("2", "30", 100), ("2", "900", 100)]
    assert loaded.items is None
    listed = movielens.load(tmp_path, listed=Items.of(["900", "8", "7"]))
    assert listed.interactions.item_ids == ("900", "8", "7")
    assert as_events(listed.interactions) == [("1", "7", 90), ("2", "7", 50), ("2", "900", 100)]


BAD = {
    "1,2,3": "3 fields, not 4",
    "1,2,3,4,5": "5 fields, not 4",
    "": "an empty line",
    "x,2,3,4": "user 'x' is not a number",
    "1.5,2,3,4": "user '1.5' is not a whole number",
    "1,,3,4": "item '' is not a number",
    "1,2,nan,4": "rating 'nan' is not a number",
    "1,2,inf,4": "rating 'inf' is not a number",
    "1,2,3,4.5": "time '4.5' is not a whole number",
    "1,2,3,1e300": "time '1e300' is not a whole number",
    "1,2,3,4#5": "time '4#5' is not a number",
    '"1",2,3,4': "user '\"1\"' is not a number",
}


@pytest.mark.parametrize("piece_bytes", [1, 7, 50, 1 << 24])
def test_bad_lines_are_named_wherever_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(movielens, "_PIECE_BYTES", piece_bytes)
    lines, expected = [], []
    for number, (line, reason) in enumerate(BAD.items()):
        lines += [f"1,{number},3,{number}", line]
        expected.append(BadRow(1 + len(lines), reason))  # the header is line 1
    loaded = movielens.load(write(tmp_path, HEADER + "\n".join(lines) + "\n"))
    assert list(loaded.bad_rows) == expected
    assert loaded.bad.count == len(BAD)
    assert as_events(loaded.interactions) == [("1", str(number), number) for number in range(len(BAD))]
    assert any(f"{len(BAD)} bad rows left out: line 3: 3 fields, not 4" in line for line in loaded.report())


LINES = st.text(alphabet="0123456789.,;:\t #e+-_xn\r\"'\xa0", max_size=12) | st.from_regex(
    r"[0-9]{1,3},[0-9]{1,3},[0-5](\.5)?,[0-9]{1,3}", fullmatch=True
)


@given(lines=st.lists(LINES, min_size=1, max_size=5), separator=st.sampled_from([b",", b"::", b"\t"]))
def test_the_fast_way_is_the_slow_way(lines: list[str], separator: bytes) -> None:
    text = "\n".join(lines).encode("latin-1").replace(b",", separator)
    if not text:
        return
    fast, fast_bad = movielens._parse(text, 5, separator)
    slow, slow_bad = movielens._parse_slowly(text, 5, separator)
    assert fast_bad == slow_bad
    for name in ("users", "items", "ratings", "times", "lines"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))


def test_the_list_of_films_of_10m_is_in_another_encoding_than_that_of_1m(tmp_path: Path) -> None:
    write(tmp_path, "1::2::3::4\n1::3::3.5::5\n", "ratings.dat")
    titles = "2::Café (1994)::Drama\n3::Année (1961)::\n"
    for encoding in ("utf-8", "latin-1"):
        (tmp_path / "movies.dat").write_bytes(titles.encode(encoding))
        found = movielens.load(tmp_path).items
        assert found is not None
        assert (found.titles, found.years) == (("Café", "Année"), (1994, 1961))


def test_who_rated_only_films_that_are_not_listed_is_a_user_all_the_same(tmp_path: Path) -> None:
    """Otherwise the number of users would tell of it."""
    write(tmp_path, HEADER + "1,5,3,1\n2,99,4,1\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n5,A,X\n6,B,X\n")
    events = movielens.load(tmp_path).interactions
    assert (events.user_ids, events.item_ids, as_events(events)) == (("1", "2"), ("5", "6"), [("1", "5", 1)])


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(HEADER + "1,2,3,4\n", "utf-8-sig")
    assert len(movielens.load(tmp_path).interactions) == 1


def test_a_comma_is_no_separator_where_colons_are(tmp_path: Path) -> None:
    loaded = movielens.load(write(tmp_path, "1::2::3::4\n1,3::3::4\n", "ratings.dat"))
    assert loaded.bad_rows == (BadRow(2, "3 fields, not 4"),)


def test_of_repeated_events_the_first_by_time_stays(tmp_path: Path) -> None:
    """Otherwise an item of the training part could be held out again."""
    text = HEADER + "1,5,3,50\n1,6,3,60\n1,5,4,40\n2,5,1,1\n1,5,5,70\n1,6,1,60\nbad\n"
    loaded = movielens.load(write(tmp_path, text))
    assert as_events(loaded.interactions) == [("1", "5", 40), ("1", "6", 60), ("2", "5", 1)]
    assert loaded.interactions.ratings.tolist() == [4, 3, 1]
    assert [row.line for row in loaded.repeated.rows] == [2, 6, 7]
    assert loaded.bad_rows == (BadRow(8, "1 fields, not 4"),)


def test_all_bad_lines_are_counted_and_the_first_thousands_numbered(tmp_path: Path) -> None:
    loaded = movielens.load(write(tmp_path, HEADER + "?\n" * (KEPT_ROWS + 10) + "1,2,3,4\n"))
    assert loaded.bad.count == KEPT_ROWS + 10
    assert [row.line for row in loaded.bad_rows] == list(range(2, KEPT_ROWS + 2))
    assert len(loaded.report()[1]) < 400


def test_bad_titles_are_reported(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "1,2,3,4\n")
    write(tmp_path, "movieId,title,genres\n2,Two,X\nx,Three,Y\n", "movies.csv")
    loaded = movielens.load(tmp_path)
    assert loaded.items == Items.of(["2"], ["Two"], ["X"])
    assert loaded.bad_titles.rows == (BadRow(3, "movies.csv has no item and title here"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not start with the header userId,movieId,rating,timestamp"),
        ("user,item\n1,2\n", "does not start with the header"),
        (HEADER, "holds no events"),
        (HEADER + "?\n", "holds no events: line 2: 1 fields, not 4"),
    ],
)
def test_a_file_without_events_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        movielens.load(write(tmp_path, text))
    assert str(tmp_path / "ratings.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_which_layout_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none of ratings\.csv, ratings\.dat, u\.data"):
        movielens.load(tmp_path)
    with pytest.raises(UsageError, match="is not a folder of MovieLens"):
        movielens.load(tmp_path / "missing")
    write(write(tmp_path, "1\t2\t3\t4\n", "u.data"), HEADER)
    with pytest.raises(UsageError, match=r"more than one of ratings\.csv, u\.data"):
        movielens.load(tmp_path)


def test_an_unreadable_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "ratings.csv"))

    write(tmp_path, HEADER)
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(UsageError, match=r"ratings\.csv cannot be read: Permission denied"):
        movielens.load(tmp_path)


def test_latest_small() -> None:
    folder = os.environ.get("SECAGG_MOVIELENS")
    if not folder:
        pytest.skip("NOT TESTED on real data: set SECAGG_MOVIELENS to a folder with ml-latest-small's ratings.csv")
    loaded = movielens.load(folder)
    events = loaded.interactions
    assert (len(events), events.user_count, events.item_count) == (100_836, 610, 9_742)
    assert np.count_nonzero(events.popularity()) == 9_724  # the others were tagged only
    assert loaded.items is not None
    assert not loaded.unlisted.count
    assert not loaded.bad.count
    assert not loaded.repeated.count
    assert (loaded.items.titles[0], loaded.items.years[0]) == ("Toy Story", 1995)
