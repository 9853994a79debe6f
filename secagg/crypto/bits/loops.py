"""Packing in compiled loops of one pass. ``secagg.crypto.bits`` says what each function does.

A word begins in byte p // 8 at bit p % 8, for p = i m, and 64 bits from there on are read, or written, at once: numba
has no such access to bytes, so there are two instructions for it here. They look at no bounds. Loops that use them end
where nine bytes are left from there on; the words that remain, at most ten, go byte by byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from secagg.compiled import njit

_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_REACH = 9  # bytes from the one in which a word of 64 bits begins to that in which it ends
_SINGLE = 57  # bits that are within 64 bits from the beginning of any byte


def _reading(context: Any, data: Any, at: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature, arguments), align=1)

    return types.uint64(data, types.intp), generate


def _writing(context: Any, data: Any, at: Any, value: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(context, builder, signature, arguments), align=1)
        return context.get_dummy_value()

    return types.void(data, types.intp, types.uint64), generate


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    first = builder.bitcast(array.data, _BYTE.as_pointer())
    return builder.bitcast(builder.gep(first, [arguments[1]]), _WORD.as_pointer())


_read: Any = intrinsic(_reading)
"""64 bits of an array of bytes, from a place on."""
_write: Any = intrinsic(_writing)
"""64 bits into an array of bytes, from a place on."""

_READ = "Array({}, 1, 'C', readonly=True)".format
_WIDTHS = ("u2", "u4", "u8")


@njit(*[f"void({_READ(width)}, i8, u1[::1])" for width in _WIDTHS], cache=True, nogil=True)
def pack(words: NDArray[Any], bits: int, out: NDArray[np.uint8]) -> None:
    whole = np.uint64(bits)
    mask, last = (np.uint64(1) << whole) - np.uint64(1), np.uint64(0)
    done, safe = 0, max((8 * (out.size - _REACH) + 7) // bits, 0)  # words that begin nine bytes before the end
    if 2 * bits < 64:  # two words at once
        both = np.uint64(2 * bits)
        for i in range(safe >> 1):
            p = 2 * i * bits
            word = np.uint64(words[2 * i]) & mask | (np.uint64(words[2 * i + 1]) & mask) << whole
            shift = np.uint64(p & 7)
            _write(out, p >> 3, word << shift | last >> (both - shift))
            last = word
        done = safe >> 1 << 1
        last >>= whole
    else:
        for i in range(safe):
            p = i * bits
            word = np.uint64(words[i]) & mask
            shift = np.uint64(p & 7)
            _write(out, p >> 3, word << shift | last >> (whole - shift))  # what it had no room for, the next one writes
            last = word
        done = safe
    at, have = done * bits >> 3, np.uint64(done * bits & 7)
    held = last >> (whole - have)  # less than eight bits
    for i in range(done, words.size):
        word, left = np.uint64(words[i]) & mask, whole
        while have + left >= np.uint64(8):
            out[at] = np.uint8((held | word << have) & np.uint64(255))
            word >>= np.uint64(8) - have
            left -= np.uint64(8) - have
            held, have = np.uint64(0), np.uint64(0)
            at += 1
        held |= word << have
        have += left
    if have > np.uint64(0):
        out[at] = np.uint8(held)


@njit(*[f"void({_READ('u1')}, i8, {width}[::1])" for width in _WIDTHS], cache=True, nogil=True)
def add(data: NDArray[np.uint8], bits: int, total: NDArray[Any]) -> None:
    whole = np.uint64(bits)
    mask = (np.uint64(1) << whole) - np.uint64(1)
    done = safe = max((8 * (data.size - _REACH) + 7) // bits, 0)
    if 2 * bits <= _SINGLE:
        done = safe >> 1 << 1
        for i in range(safe >> 1):
            p = 2 * i * bits
            two = _read(data, p >> 3) >> np.uint64(p & 7)
            total[2 * i] += two & mask
            total[2 * i + 1] += two >> whole & mask
    elif bits <= _SINGLE:
        for i in range(safe):
            p = i * bits
            total[i] += _read(data, p >> 3) >> np.uint64(p & 7) & mask
    else:
        for i in range(safe):
            p = i * bits
            at, shift = p >> 3, np.uint64(p & 7)
            rest = np.uint64(data[at + 8]) << np.uint64(1) << (np.uint64(63) - shift)
            total[i] += (_read(data, at) >> shift | rest) & mask
    for i in range(done, total.size):
        first, end = i * bits, (i + 1) * bits
        value = np.uint64(data[first >> 3]) >> np.uint64(first & 7)
        for at in range((first >> 3) + 1, (end + 7) >> 3):
            value |= np.uint64(data[at]) << np.uint64(8 * at - first)
        total[i] += value & mask
