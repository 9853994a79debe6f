"""The public table of items: what is read of it, in every form, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import films, tables
from recsys.data.items import Items
from recsys.data.loaded import BadRow
from secagg.errors import UsageError

TABLE = (
    "id,title,genres,year,price\n5,Alien (1979),Sci-Fi|Horror,,3\n3,Big,Comedy| |Comedy,1988,4\n4,It (1990),,2017,1\n"
)


def read(folder: Path, text: str, name: str = "goods.csv", item: str = "id") -> Items:
    (folder / name).write_text(text, "utf-8")
    return tables.items(folder / name, item=item)


def test_columns_that_describe_items_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, TABLE)
    assert found.ids == ("5", "3", "4")
    assert found.titles == ("Alien", "Big", "It")
    assert found.genres == (("Horror", "Sci-Fi"), ("Comedy",), ())
    assert found.years == (1979, 1988, 2017)  # the column goes before the title
    assert found.described


def test_a_table_without_them_lists_items(tmp_path: Path) -> None:
    found = read(tmp_path, "price,id\n3,y\n4,x\n")
    assert (found, found.described) == (Items.of(["y", "x"]), False)


def test_a_longer_text_is_read_and_described_by_it_alone_an_item_has_no_features(tmp_path: Path) -> None:
    found = read(tmp_path, "id,text\n1, A house flies away. \n2,\n")
    assert (found.texts, found.described) == (("A house flies away.", ""), False)
    assert Items.of(["1", "2"], texts=[" A house flies away. ", ""], years=[9999, 0]).texts == found.texts


def test_parquet_says_the_same(tmp_path: Path) -> None:
    columns = {
        "genres": ["Sci-Fi|Horror", "Comedy", None],
        "id": [5, 3, 4],
        "year": pa.array([None, 1988, 2017], pa.int16()),
        "title": ["Alien (1979)", "Big", "It (1990)"],
    }
    pq.write_table(pa.table(columns), tmp_path / "goods.parquet")
    assert tables.items(tmp_path / "goods.parquet", item="id") == read(tmp_path, TABLE)


@pytest.mark.parametrize("column", ["title", "genres", "year", "text"])
@pytest.mark.parametrize(
    "cells",
    [
        pa.array([b"\xff", b"tea"]).view(pa.string()),
        pa.array([b"\xff", b"tea"]),
        pa.array([["tea"], ["jam"]]),
        pa.array([True, False]),
        pa.array([float("nan"), 1.5]),
        pa.array([1 << 62, 1], pa.timestamp("us")),
    ],
    ids=["not UTF-8", "bytes", "lists", "truth values", "floats", "times that Python does not know"],
)
def test_what_is_no_text_describes_nothing(column: str, cells: pa.Array, tmp_path: Path) -> None:
    """Else an encoder would read how Python writes it."""
    pq.write_table(pa.table({"id": ["1", "2"], column: cells}), tmp_path / "goods.parquet")
    with pytest.raises(UsageError, match=f"line 1: {column} .* is neither text nor a whole number"):
        tables.items(tmp_path / "goods.parquet", item="id")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,year\na,1999\nb,199O\n", "line 3: year '199O' is not a year"),
        ("id,year\na,12345\n", "line 2: year '12345' is not a year"),
        ("id,year\na,-3\n", "line 2: year '-3' is not a year"),
        ("id,year\na,\uff11\uff19\uff19\uff19\n", "line 2: year .* is not a year"),
        ('id\n"a\rb"\n', "line 2: item goes over several lines"),
        ("id,year\n", "goods.csv lists no items"),
        ("id,title,title\na,x,y\n", "more than one column title"),
    ],
)
def test_a_table_is_clear_or_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Items.of([]),
        lambda: Items.of(["a", "a"]),
        lambda: Items.of(["a", "b"], titles=["x"]),
        lambda: Items.of(["a", "b"], genres=["x"]),
        lambda: Items.of(["a", "b"], years=[1]),
        lambda: Items.of(["a", "b"], texts=["x"]),
        lambda: Items.of(["a"], years=[-1]),
        lambda: Items.of(["a"], years=[10_000]),
    ],
)
def test_columns_that_do_not_fit_are_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]


def test_words_of_titles_are_small_and_once() -> None:
    assert Items.of(["1"], ["Star Wars: Episode IV - A New Hope, Star (1977)"]).words(0) == (
        *("a", "episode", "hope", "iv", "new", "star", "wars"),
    )


@given(st.text(max_size=30))
def test_any_title_is_a_title(title: str) -> None:
    found = Items.of(["1"], [title])
    assert 0 <= found.years[0] <= 9999
    assert all(word == word.lower() for word in found.words(0))


def test_a_list_of_films_is_known_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "u.item").write_bytes("2|Caf\xe9 (1994)|x||y|0|0|0|0|0|1\nx\n".encode("latin-1"))
    found, bad = films.read(tmp_path / "u.item")
    assert found == Items.of(["2"], ["Café (1994)"], ["Comedy"])
    assert bad.rows == (BadRow(2, "u.item has no item and title here"),)
    with pytest.raises(UsageError, match="is not called as MovieLens calls"):
        films.read(tmp_path / "films.csv")
    with pytest.raises(UsageError, match=r"movies\.csv cannot be read"):
        films.read(tmp_path / "movies.csv")


def test_a_list_of_films_that_names_none_is_none(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n")
    assert films.read(tmp_path / "movies.csv")[0] is None
