"""Bytes and JSON that are nearly right, for decoders, and the memory that a decoder takes."""

import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from secagg.errors import SecAggError

LONG = os.environ.get("SECAGG_HYPOTHESIS") == "long"
EXTREMES = st.sampled_from(
    [bytes(4), b"\xff" * 4, b"\xff" * 8, b"\x00\x98\x96\x80", b"\x7f\xff\xff\xff", b"\x80" + bytes(7)]
)


@st.composite
def mutations(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid encoding after a few cuts, insertions, overwrites and flips."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["flip", "overwrite", "extremes", "insert", "cut", "move"]))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "overwrite":
            piece = draw(st.binary(max_size=8))
            data[at : at + len(piece)] = piece
        elif kind == "extremes":
            piece = draw(EXTREMES)
            data[at : at + len(piece)] = piece
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=40))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        else:
            data[at:at] = data[draw(st.integers(0, len(data))) :][:64]
    return bytes(data)


NEST = json.loads("[" * 400 + "]" * 400)
ODD = [
    *(None, True, "", "text", "a\x00b", "\ud800", "\x1b[2J", "$_{", "<b>", "a\nb", "x" * 300, [], {}, [[]], {"": 0}),
    *(0, -1, 1.5, 2**63 - 1, 2**63, 10**400, 1e308, -1e308, float("nan"), float("inf"), 5e-324, "1e999999999"),
    *("1/0", "9" * 1001, NEST, {"a": NEST}, {"x" * 300: 1}, ["ledger.db"] * 3, "../../etc/passwd", "/etc/passwd"),
]


def parts(tree: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to all parts of a tree of JSON."""
    yield where
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, part in inner:
        yield from parts(part, (*where, name))


def exchanged(tree: Any, where: tuple[Any, ...], value: Any) -> Any:
    if not where:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[where[0]] = exchanged(tree[where[0]], where[1:], value)
    return copy


@st.composite
def trees(draw: st.DrawFn, valid: Any) -> Any:
    """A tree of JSON with one to three odd parts."""
    tree = valid
    for _ in range(draw(st.integers(1, 3))):
        tree = exchanged(tree, draw(st.sampled_from(list(parts(tree))[:500])), draw(st.sampled_from(ODD)))
    return tree


def accepted(work: Callable[[], Any], *declared: type[SecAggError]) -> Any:
    """What comes out, or None for a declared error in one line that can be printed."""
    try:
        return work()
    except declared as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 1000
        said.encode()
        return None


def inputs(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Mutations, mostly; random bytes; and a valid beginning with random bytes after it."""
    random = st.binary(max_size=300)
    mixed = st.builds(lambda start, cut, end: start[:cut] + end, st.sampled_from(valid), st.integers(0, 300), random)
    return st.one_of(st.sampled_from(valid).flatmap(mutations), random, mixed)


def peak_of(decode: Callable[[], object]) -> int:
    """Bytes allocated at most, for a value or an error."""
    tracemalloc.start()
    with suppress(SecAggError):
        decode()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
