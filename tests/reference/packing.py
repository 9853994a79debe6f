"""Bit packing by the definition: value i stands at bit i * bits of one large little-endian integer."""

from collections.abc import Sequence


def pack(values: Sequence[int], bits: int) -> bytes:
    number = sum((value % (1 << bits)) << (i * bits) for i, value in enumerate(values))
    return number.to_bytes((len(values) * bits + 7) // 8, "little")


def unpack(data: bytes, length: int, bits: int) -> list[int]:
    number = int.from_bytes(data, "little")
    return [(number >> (i * bits)) % (1 << bits) for i in range(length)]
