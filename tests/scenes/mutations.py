"""Bytes that are nearly right, for decoders, and the memory that a decoder takes."""

import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

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
