"""What a server tells those who train, besides the arrays of the model, as bytes that can be hashed into a plan.

A train function may read a configuration, the number of the round, the name of the run. Clients that were told
different things must not be summed up (``form``), so there is one encoding for each value, and another for each other.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from secagg.codec import u64
from secagg.errors import UsageError

Instructions: TypeAlias = "bool | int | float | str | bytes | Sequence[Instructions] | Mapping[str, Any] | None"

_PLAIN_TYPES = frozenset({type(None), bool, int, float, str, bytes, list, tuple})


def canonical_bytes(value: Instructions) -> bytes:
    """One encoding for each value: a letter for its type, a length, its contents.

    The order of a mapping does not count (whoever trains must not see it either), that of a sequence does. NaN is equal
    to itself, bit by bit; 1, 1.0 and True are three different values.

    >>> canonical_bytes({"rate": 0.5, "steps": 3}) == canonical_bytes({"steps": 3, "rate": 0.5})
    True
    >>> len({canonical_bytes(value) for value in (1, 1.0, True, "1", b"1", [1], (1,), None, 0.0, -0.0, [], {}, "")})
    13
    """
    # A training may read an instance of a subclass as something else than the value that it equals.
    if type(value) not in _PLAIN_TYPES and not isinstance(value, Mapping):
        raise UsageError(f"what clients are told cannot hold a {type(value).__name__}")
    match value:
        case None:
            kind, body = b"N", b""
        case bool():
            kind, body = b"B", bytes([value])
        case int():
            kind, body = b"I", f"{value:x}".encode()
        case float():
            kind, body = b"F", struct.pack(">d", value)
        case str():
            kind, body = b"S", value.encode("utf-8", "surrogatepass")
        case bytes():
            kind, body = b"Y", bytes(value)
        case Mapping():
            items = sorted((canonical_bytes(key), canonical_bytes(item)) for key, item in value.items())
            kind, body = b"M", b"".join(key + item for key, item in items)
        case _:
            kind, body = b"T" if isinstance(value, tuple) else b"L", b"".join(canonical_bytes(item) for item in value)
    return kind + u64.encode(len(body)) + body
