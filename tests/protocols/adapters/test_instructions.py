"""What clients are told has one encoding for each value, and another for each other."""

import struct
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.adapters.instructions import canonical_bytes
from secagg.errors import UsageError

words = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def same(some: Any, other: Any) -> bool:
    """Whether two values are one, types and signs of zero included."""
    if type(some) is not type(other):
        return False
    if isinstance(some, float):
        return struct.pack(">d", some) == struct.pack(">d", other)
    if isinstance(some, list):
        return len(some) == len(other) and all(map(same, some, other))
    if isinstance(some, dict):
        return some.keys() == other.keys() and all(same(some[key], other[key]) for key in some)
    return bool(some == other)


@given(words, words)
def test_two_values_have_one_encoding_only_if_they_are_one(some: Any, other: Any) -> None:
    assert (canonical_bytes(some) == canonical_bytes(other)) == same(some, other)


@pytest.mark.parametrize(
    ("some", "other"),
    [
        (1, 1.0), (1, True), (0, False), (0.0, -0.0), ("1", b"1"), (1, [1]), (1, -1), (None, {}), ([], {}), ("", b""),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}), ({"a": {"b": 1}}, {"a": 1, "b": {}}), (["ab", "c"], ["a", "bc"]),
        ([1, [2]], [[1], 2]), (float("nan"), float("inf")),
    ],
)  # fmt: skip
def test_what_is_nearly_the_same_is_encoded_otherwise(some: Any, other: Any) -> None:
    assert canonical_bytes(some) != canonical_bytes(other)
    assert canonical_bytes({"x": some}) != canonical_bytes({"x": other})


def test_the_order_of_names_does_not_count_and_that_of_a_list_does() -> None:
    assert canonical_bytes({"a": 1, "b": [1, 2]}) == canonical_bytes({"b": [1, 2], "a": 1})
    assert canonical_bytes([1, 2]) != canonical_bytes([2, 1])
    assert canonical_bytes(float("nan")) == canonical_bytes(float("nan"))
    for what in (object(), {1, 2}, np.ones(2)):
        with pytest.raises(UsageError, match="cannot hold"):
            canonical_bytes({"x": what})  # type: ignore[dict-item]


@pytest.mark.parametrize("told", [IntEnum("Rate", ["ONE"]).ONE, np.float64(1), np.str_("1"), np.bool_(True)], ids=repr)
def test_what_clients_are_told_is_of_plain_types(told: Any) -> None:
    """A training may read a subclass as something else than the number that it equals."""
    with pytest.raises(UsageError, match="what clients are told cannot hold a"):
        canonical_bytes({"rate": [told]})
