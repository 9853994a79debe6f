"""What a stranger wrote says on a terminal what it looks like."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import UsageError
from secagg.names import check_name
from secagg.printable import printable

HIDDEN = {
    "ESC": "\x1b[2J",
    "bell": "\x07",
    "delete": "\x7f",
    "C1, an ESC sequence in one byte": "\x9b2J",
    "line break": "\n",
    "carriage return": "\r",
    "next line": "\x85",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "override": "\u202e",
    "isolate": "\u2066",
    "mark": "\u200f",
    "zero width": "\u200b",
    "joiner": "\u200d",
    "byte order mark": "\ufeff",
    "soft hyphen": "\xad",
    "no-break space": "\xa0",
    "filler that is a letter": "\u3164",
    "blank Braille": "\u2800",
    "variation selector": "\ufe0f",
    "tag": "\U000e0041",
    "selector beyond the plane": "\U000e0100",
    "lone surrogate": "\ud800",
    "private": "\ue000",
    "unassigned": "\u0378",
    "zero": "\0",
    "tab": "\t",
}


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=list(HIDDEN))
def test_what_is_not_seen_is_written_out_and_is_in_no_name(hidden: str) -> None:
    shown = printable(f"a{hidden}b")
    assert shown.startswith(("a\\u", "a\\U"))
    assert hidden[0] not in shown
    with pytest.raises(UsageError, match="printable characters") as caught:
        check_name("a title", f"a{hidden}b")
    assert hidden[0] not in str(caught.value)


@pytest.mark.parametrize("text", ["MovieLens 100K, ε = 2", "naïve", "e\u0301tude", "数据", "नमस्ते", "§ 3: “x”"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text == check_name("a title", text)


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_it_is_one_line_that_any_terminal_can_show(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(one)[0] == "C" or unicodedata.category(one) in ("Zl", "Zp") for one in shown)
    assert shown.encode().decode() == shown
    assert printable(shown) == shown


def test_a_name_may_be_as_long_as_is_said() -> None:
    assert check_name("a title", "x" * 200) == "x" * 200
    assert check_name("a title", "xy", most=2) == "xy"


@pytest.mark.parametrize("text", ["", "x" * 201])
def test_a_name_is_neither_empty_nor_long(text: str) -> None:
    with pytest.raises(UsageError, match="1 to 200 printable"):
        check_name("a title", text)
