"""Named arrays of numbers and a header in JSON, in one file of the format safetensors: for models and checkpoints.

    length of the head (8 bytes, little-endian) | head, filled up with spaces to a multiple of 8 | the arrays' numbers

    {"__metadata__": {"mac": 64 hex digits, "header": JSON as text},          "mac" where there is a key, and else not
     NAME: {"dtype": "F32", "shape": [...], "data_offsets": [start, end]}, ...}

Any reader of safetensors reads such a file. Here only this one encoding of it is read: what was read is encoded again,
and the heads must be equal. So there are no gaps, no overlap, no name twice, no unknown field and no other order, and
no array is longer than what is there. Numbers are floats of 16, 32 or 64 bits, integers of 32 or 64, bytes and truth
values, little-endian. Other kinds, and bfloat16, which numpy does not have, are neither read nor written.

**Authenticated** is a file with a key: "mac" is the HMAC-SHA256 of the whole file with zeros in its place. It is
compared, in constant time, before anything else of the file is looked at: its place does not depend on the file. A key
is for one purpose and one owner (``derive`` with ``labels.STORED``), so no other file of the same owner has its MAC;
but an older file that was written for the same purpose has a right one.

The library safetensors is not asked. It hands out the metadata of a file that it opens by its name, and not of bytes
that were authenticated before; it writes metadata in an order that changes, and arrays that are not in C order wrongly
(0.8.0); and it reads names that stand there twice. Tests have it read what is written here.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, UsageError
from secagg.foreign import parse_json

MOST_HEAD = 100_000_000
"""The most bytes of a head: that library reads no longer ones."""
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}
_MOST_SIDES = 32
"""The most dimensions of an array: the product of many more would take a time that grows with their square."""
_WIDEST_EMPTY = 1 << 20
"""The most rows or columns of an array without a number: there is nothing that they could be compared with."""
_METADATA, _MAC, _HEADER = "__metadata__", "mac", "header"
_BEFORE_MAC = f'{{"{_METADATA}":{{"{_MAC}":"'.encode()
_MAC_PLACE = slice(8 + len(_BEFORE_MAC), 8 + len(_BEFORE_MAC) + 2 * sha256().digest_size)
_NO_MAC = b"0" * (2 * sha256().digest_size)

Pieces = list[bytes | memoryview]


def encode(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], key: bytes | None = None) -> Pieces:
    """The file, in pieces: arrays that are contiguous are not copied. With ``key`` it is authenticated.

    >>> file = b"".join(encode({"version": 1}, {"a": np.arange(3)}, key=bytes(32)))
    >>> decode(file, key=bytes(32))
    ({'version': 1}, {'a': array([0, 1, 2])})
    >>> decode(file, key=bytes(31) + b"1")
    Traceback (most recent call last):
    secagg.errors.DecodeError: it was altered, or is another one
    """
    plain = {name: _plain(array) for name, array in arrays.items()}
    shapes = {name: (_NAMES[array.dtype], array.shape) for name, array in plain.items()}
    head = _head(header, shapes, None if key is None else _NO_MAC)
    pieces: Pieces = [head, *(_bytes(plain[name]) for name in _order(shapes))]
    if key is not None:
        pieces[0] = head[: _MAC_PLACE.start] + _mac(key, pieces) + head[_MAC_PLACE.stop :]
    return pieces


def decode(data: bytes, key: bytes | None = None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the arrays, which are read-only and share the memory of ``data``. With ``key``, nothing is read
    but what was authenticated with it; without, nothing that was authenticated."""
    if key is not None:
        view = memoryview(data)
        pieces = view[: _MAC_PLACE.start], _NO_MAC, view[_MAC_PLACE.stop :]
        if not hmac.compare_digest(data[_MAC_PLACE], _mac(key, pieces)):
            raise DecodeError("it was altered, or is another one")
    start = 8 + int.from_bytes(data[:8], "little")
    if start > 8 + MOST_HEAD:
        raise DecodeError("not a file of tensors")
    arrays = dict[str, NDArray[Any]]()
    try:
        parts = parse_json(data[8:start])
        metadata = parts.pop(_METADATA)
        header = dict(parse_json(metadata[_HEADER].encode()))
        shapes = {name: (part["dtype"], tuple(part["shape"])) for name, part in parts.items()}
        if data[:start] != _head(header, shapes, None if key is None else data[_MAC_PLACE]):
            raise DecodeError("tensors are written in another way here")
        for name in _order(shapes):
            kind, shape = shapes[name]
            arrays[name] = np.frombuffer(data, _KINDS[kind], prod(shape), start).reshape(shape)  # no longer than data
            start += arrays[name].nbytes
    except (UsageError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise DecodeError("not a file of tensors") from None
    if start != len(data) or any((array.view(np.uint8) > 1).any() for array in arrays.values() if array.dtype == bool):
        raise DecodeError("something else than the tensors is there")
    return header, arrays


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array in C order and little-endian: the same one, if it is."""
    if (kind := array.dtype.newbyteorder("<")) not in _NAMES:
        raise UsageError(f"an array of {array.dtype} is none of those that are kept: {', '.join(_KINDS)}")
    return np.asarray(array, kind, order="C")


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _order(shapes: Mapping[str, tuple[str, Sequence[int]]]) -> list[str]:
    """The order of the arrays in a file: the widest numbers first, so that all are aligned."""
    return sorted(shapes, key=lambda name: (-np.dtype(_KINDS[shapes[name][0]]).itemsize, name))


def _head(header: Mapping[str, Any], shapes: Mapping[str, tuple[str, Sequence[int]]], mac: bytes | None) -> bytes:
    """All that stands before the numbers."""
    metadata = {} if mac is None else {_MAC: mac.decode()}
    metadata[_HEADER] = json.dumps(header, allow_nan=False)
    head, end = dict[str, object]({_METADATA: metadata}), 0
    for name in _order(shapes):
        kind, shape = shapes[name]
        if name == _METADATA or len(shape) > _MOST_SIDES or min(shape, default=0) < 0:
            raise UsageError("no such tensor is kept")
        if 0 in shape and max(shape) > _WIDEST_EMPTY:
            raise UsageError(f"an array without a number has no side beyond {_WIDEST_EMPTY}")
        start, end = end, end + prod(shape) * np.dtype(_KINDS[kind]).itemsize
        head[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEAD:
        raise UsageError(f"a header of more than {MOST_HEAD} bytes is not kept")
    return len(text).to_bytes(8, "little") + text


def _mac(key: bytes, pieces: Iterable[bytes | memoryview]) -> bytes:
    mac = hmac.new(key, digestmod=sha256)
    for piece in pieces:
        mac.update(piece)
    return mac.hexdigest().encode()
