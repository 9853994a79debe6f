"""What the protocols' costs share: what messages weigh, and what everybody does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log2
from typing import Any

from protocols.costs.roles import GONE, Role, Step
from protocols.costs.units import UnitCosts
from protocols.wire import HEADER_BYTES
from secagg.codec import Codec, u32
from secagg.crypto.dealing import width
from secagg.crypto.keys import SIGNATURE_BYTES
from secagg.crypto.shamir import SHARE_BYTES

SIGNED = u32.least + SIGNATURE_BYTES
REVEALED = u32.least + SHARE_BYTES
CLIENT = 1800
"""Bytes that a server keeps of a client: an advert, its leaf, two inner nodes, a header, entries in dictionaries."""


def weighing(types: Mapping[int, tuple[type, Codec[Any]]]) -> Callable[..., float]:
    """For the messages of a protocol: how many bytes a frame has, with nothing in its variable parts but these."""
    least = {kind: codec.least for kind, codec in types.values()}

    def frame_of(kind: type, *variable: float) -> float:
        return HEADER_BYTES + least[kind] + sum(variable)

    return frame_of


def bitmap_of(size: int) -> int:
    return -(-size // 8)


def carried(units: UnitCosts, down: float, up: float) -> float:
    """A client hears a frame and answers: both go into its journal, sealed, and what it heard is hashed twice.

    What it heard is copied on the way: into the message and the record.
    """
    return 2 * units.frame + units.seal * (down + up) + (2 * units.hash + 2 * units.copy) * down


def heard(units: UnitCosts, up: float) -> float:
    """The server takes a frame in, which is read where it lies; its ends are hashed, to know it again."""
    return units.frame + units.hash * min(up, 1 << 17)


def ordered(units: UnitCosts, n: int) -> float:
    return units.order * n * max(log2(n), 1)


def dealt(units: UnitCosts, threshold: int, holders: int, secrets: int) -> float:
    return threshold * (units.deal_step + units.deal * holders * width(secrets))


def silenced(role: Role, upload: str, silent: int, left: int) -> Role:
    """What such a client costs if it is gone when its upload is due: it was still sent what it does not answer."""
    at = [step.phase for step in role.steps].index(upload)
    last = Step(upload, role.steps[at].down, 0, 0)
    return Role(GONE, role.count * silent / left, (*role.steps[:at], last))


def begun(units: UnitCosts, d: int) -> float:
    """A client's first message."""
    return units.start + units.encode * d
