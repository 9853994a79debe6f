"""Frames: version, protocol, session, round, message type, body. One codec for everything that is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secagg.codec import Codec, Reader, fixed, struct, u8, u32
from secagg.errors import DecodeError, StrayError

if TYPE_CHECKING:
    from protocols.plan import RoundPlan

VERSION = 4
"""The format of frames and of the plans that they are about."""

HEADER_BYTES = 1 + 1 + 16 + 4 + 1


class Messages:
    """The message types of one protocol, each with its number on the wire and its codec."""

    def __init__(self, code: int, types: Mapping[int, tuple[type, Codec[Any]]]) -> None:
        self._code = code
        self._by_number = dict(types)
        self._numbers = {kind: number for number, (kind, _) in types.items()}
        self.types = tuple(self._numbers)

    def encode(self, plan: RoundPlan, message: object) -> bytes:
        number = self._numbers[type(message)]
        out = bytearray()
        _HEADER.write(out, _Header(VERSION, self._code, plan.session, plan.round, number))
        self._by_number[number][1].write(out, message)
        return bytes(out)

    def decode(self, plan: RoundPlan, frame: bytes) -> object:
        """The message in a frame of this round; anything else is not for us.

        A frame of another round or version blames nobody: an honest party's may come late, or have been made before an
        update.
        """
        reader = Reader(frame)
        header = _HEADER.read(reader)
        if header.version != VERSION:
            raise StrayError(f"version {header.version} is not {VERSION}")
        if header.protocol != self._code:
            raise DecodeError("a frame of another protocol")
        if (header.session, header.round) != (plan.session, plan.round):
            raise StrayError("a frame of another session or round")
        if header.number not in self._by_number:
            raise DecodeError(f"unknown message type {header.number}")
        return self._by_number[header.number][1].decode(reader.take(reader.left))


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    protocol: int
    session: bytes
    round: int
    number: int


_HEADER = struct(_Header, version=u8, protocol=u8, session=fixed(16), round=u32, number=u8)
