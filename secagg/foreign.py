"""Readers for what strangers may have written: files that a user names, JSON, TOML, and numpy's arrays.

Parsers trust what a file says of itself. A few bytes can announce an array of 2^40 numbers, one line of TOML can take a
parser hours, and nesting ends the interpreter's stack. Here sizes are compared with what is really there before
anything is allocated, so memory and time stay within a constant times the size of the file. All that is refused raises
``DecodeError``, in one line that quotes nothing.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cache
from math import isfinite, prod
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin, get_type_hints

from secagg.errors import DecodeError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEEPEST = 32
"""The most levels of lists and objects in JSON."""
LONGEST_KEY = 200
"""The most characters in the name of a field in JSON."""
MOST_PARTS = 32
"""The most parts of a dotted key in TOML: the time that its parser takes grows with their square."""
_DIGITS = 20

_DOTTED = re.compile(rf"""(?:(?:(?<![\w-])[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""")
_ARRAY = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<>|][biufcUS][0-9]{1,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,18}, ?)*[0-9]{0,18})\), \} *\n",
    re.DOTALL,
)
"""All that ``numpy.save`` writes before the numbers, for arrays of numbers and text."""


def named_file(path: Path, *, most: int) -> bytes:
    """A file that the user names, of at most ``most`` bytes. It may be a link or a pipe: the user chose it."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > most:
        raise UsageError(f"cannot read {path}: it is longer than {most} bytes")
    return data


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8: numbers finite, integers of 64 bits, at most ``DEEPEST`` levels, no half surrogate pair in text,
    and no name twice in an object: two readers would each believe another one.

    >>> parse_json(b'{"a": [1, 2.5, "x", null]}')
    {'a': [1, 2.5, 'x', None]}
    >>> parse_json(b'{"a": 1e999}')
    Traceback (most recent call last):
    secagg.errors.DecodeError: a number that is not finite
    """
    try:
        found = json.loads(
            data.decode(), parse_constant=_finite, parse_float=_finite, parse_int=_whole, object_pairs_hook=_once
        )
        _check_levels(found)
        json.dumps(found, ensure_ascii=False).encode()  # fails at half of a surrogate pair
    except (ValueError, RecursionError):
        raise DecodeError("not JSON in UTF-8") from None
    return found


def as_declared(hint: Any, value: Any, where: str = "it") -> Any:
    """A value of type ``hint`` (a dataclass, say) from its JSON; each part must have the type that it is declared with.

    Bytes are written in hexadecimal, fractions as ``str`` writes them, members of a ``StrEnum`` as their values.

    >>> as_declared(tuple[float, ...], [1, 2.5]), as_declared(str | None, None), as_declared(Fraction, "1/2")
    ((1, 2.5), None, Fraction(1, 2))
    >>> as_declared(Mapping[str, int], {"a": "1"})
    Traceback (most recent call last):
    secagg.errors.DecodeError: it has a str in the place of int
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or type(value) is hint or (hint is float and type(value) is int):
        return value
    if isinstance(hint, UnionType) and type(None) in inner:
        return None if value is None else as_declared(inner[0], value, where)
    if isinstance(value, str) and isinstance(hint, type):
        if hint is Fraction:
            return parse_rational(value)
        try:
            if hint is bytes and (data := bytes.fromhex(value)).hex() == value:
                return data
            if issubclass(hint, StrEnum):
                return hint(value)
        except (ValueError, UsageError):
            raise DecodeError(f"{where} is no {hint.__name__}") from None
    if is_dataclass(hint) and isinstance(value, dict):
        hints = _hints(cast(Any, hint))
        if unknown := value.keys() - hints.keys():
            raise DecodeError(f"there is no field {min(unknown)[:80]!r}")
        try:
            return cast(Any, hint)(**{name: as_declared(hints[name], part, name) for name, part in value.items()})
        except (TypeError, UsageError) as error:  # a field is missing, or refused by others
            raise DecodeError(str(error)) from None
    if origin is tuple and isinstance(value, list) and inner[1:] in ((Ellipsis,), inner[:1] * (len(value) - 1)):
        return tuple([as_declared(inner[0], part, where) for part in value])
    if origin is Mapping and isinstance(value, dict):
        return {name: as_declared(inner[1], part, where) for name, part in value.items()}
    raise DecodeError(f"{where} has a {type(value).__name__} in the place of {getattr(hint, '__name__', hint)}")


def parse_rational(text: str) -> Fraction:
    """What ``str`` makes of a non-negative rational, with no more digits than a few floats' exact values have.

    >>> parse_rational("201/2")
    Fraction(201, 2)
    """
    if not _RATIONAL.fullmatch(text) or str(value := Fraction(text)) != text:
        raise DecodeError("not a reduced fraction")
    return value


_RATIONAL = re.compile(r"[0-9]{1,1000}(/[1-9][0-9]{0,999})?")  # Fraction("1e999999999") would take all memory


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def parse_toml(data: bytes) -> dict[str, Any]:
    """A TOML file, of which no key has more than ``MOST_PARTS`` parts.

    >>> parse_toml(b"a.b = 1")
    {'a': {'b': 1}}
    """
    try:
        text = data.decode()
        if _DOTTED.search(text):
            raise DecodeError(f"a key of more than {MOST_PARTS} parts")
        return tomllib.loads(text)
    except UnicodeDecodeError:
        raise DecodeError("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DecodeError(str(error)) from None


def parse_array(data: bytes) -> NDArray[Any]:
    """A file of numpy's format .npy, and nothing before or after it; no Python objects.

    >>> import io, numpy as np
    >>> file = io.BytesIO()
    >>> np.save(file, np.arange(3))
    >>> parse_array(file.getvalue())
    array([0, 1, 2])
    """
    import numpy as np

    head = _ARRAY.match(data)
    if head is None or head.end() != 10 + int.from_bytes(head[1], "little"):
        raise DecodeError("not an array of numpy")
    shape = tuple(int(side) for side in head[4].split(b",") if side.strip())
    order: Literal["F", "C"] = "F" if head[3] == b"True" else "C"
    try:
        kind = np.dtype(head[2].decode())
        if prod(shape) * kind.itemsize != len(data) - head.end():
            raise DecodeError("an array of another size than is there")
        return np.frombuffer(data, kind, prod(shape), head.end()).reshape(shape, order=order).copy("K")
    except (TypeError, ValueError, OverflowError):  # a kind, or so many dimensions, as numpy does not have
        raise DecodeError("not an array of numpy") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise DecodeError("a name that stands twice in an object")
    return found


def _check_levels(value: object) -> None:
    level = [value]
    for _ in range(DEEPEST):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                if any(len(name) > LONGEST_KEY for name in one):
                    raise DecodeError(f"a name of more than {LONGEST_KEY} characters")
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not inner:
            return
        level = inner
    raise DecodeError(f"more than {DEEPEST} levels")


def _finite(text: str) -> float:
    if not isfinite(value := float(text)):
        raise DecodeError("a number that is not finite")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        raise DecodeError("a whole number of more than 64 bits")
    return value
