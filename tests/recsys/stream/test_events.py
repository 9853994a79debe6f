"""An event is read strictly: whatever else a stranger writes is refused in a line, which quotes none of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.stream.events import LONGEST, Event, parse
from secagg.errors import DecodeError

GOOD = {"user": "ann", "item": 7, "time": 60}


def test_ids_are_texts_or_whole_numbers() -> None:
    assert parse(json.dumps(GOOD).encode()) == Event("ann", "7", 60)
    assert parse(json.dumps(GOOD | {"user": " \u00e5 "}).encode()) == Event("\u00e5", "7", 60)


@pytest.mark.parametrize(
    "changed",
    [
        {"user": ""}, {"user": None}, {"user": True}, {"user": 1.5}, {"user": ["a"]}, {"user": "a\nb"},
        {"user": "a" * 201}, {"item": "  "}, {"item": "\ufffd"}, {"time": "60"}, {"time": 60.0}, {"time": -1},
        {"time": True}, {"time": None}, {"time": 1 << 40}, {"time": 10**30}, {"more": 1},
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        parse(json.dumps(GOOD | changed).encode())


@pytest.mark.parametrize("missing", GOOD)
def test_no_field_may_be_missing(missing: str) -> None:
    with pytest.raises(DecodeError, match="user, item and time"):
        parse(json.dumps({name: value for name, value in GOOD.items() if name != missing}).encode())


def test_a_line_has_a_longest() -> None:
    padded = json.dumps(GOOD).encode().ljust(LONGEST)
    assert parse(padded).user == "ann"
    with pytest.raises(DecodeError, match="more than"):
        parse(padded + b" ")


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | st.just(b"[" * 4000))
def test_bytes_are_an_event_or_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parse(data)
