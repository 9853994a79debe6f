"""The curve of Ed25519 (RFC 8032, section 5.1) in affine coordinates, slow and obvious."""

from __future__ import annotations

from functools import cache
from hashlib import sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int]
ZERO: Point = (0, 1)


def add(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    t = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def times(count: int, point: Point) -> Point:
    total = ZERO
    for bit in f"{count:b}":
        total = add(total, total)
        if bit == "1":
            total = add(total, point)
    return total


def with_y(y: int) -> Point | None:
    """A point of the curve with this y: -x^2 + y^2 = 1 + d x^2 y^2."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    for root in (x, x * pow(2, (P - 1) // 4, P) % P):
        if root * root % P == square:
            return root, y
    return None


def encoded(point: Point) -> bytes:
    x, y = point
    return (y + ((x & 1) << 255)).to_bytes(32, "little")


@cache
def small_order() -> set[Point]:
    """All points of order 1, 2, 4 and 8: what is left of any point when its part of order L is gone, and multiples."""
    found = {ZERO}
    for y in range(2, 1000):
        if len(found) < 8 and (point := with_y(y)) is not None:
            found |= {times(k, times(L, point)) for k in range(8)}
    return found


def encodings(points: set[Point]) -> set[bytes]:
    """All that a decoder without scruples takes for one of these: with y + p below 2^255, with a sign for x = 0."""
    values = {y + lap for _, y in points for lap in (0, P) if y + lap < 2**255}
    return {(y + (sign << 255)).to_bytes(32, "little") for y in values for sign in (0, 1)}


@cache
def base() -> Point:
    point = with_y(4 * pow(5, -1, P) % P)
    assert point is not None
    x, y = point
    return (P - x if x & 1 else x), y


def forged(public: bytes, message: bytes) -> bytes:
    """A signature under a point of small order, without any key: [s]B = R + [k]A where [k]A = 0."""
    s, r = 0, ZERO
    while True:
        s, r = s + 1, add(r, base())
        k = int.from_bytes(sha512(encoded(r) + public + message).digest(), "little") % L
        if k % 8 == 0:
            return encoded(r) + s.to_bytes(32, "little")


def scalar_of(secret: bytes) -> int:
    """a, of which the public key is a B (RFC 8032, section 5.1.5)."""
    value = int.from_bytes(sha512(secret).digest()[:32], "little")
    return value & ((1 << 254) - 8) | 1 << 254


def signed_by(scalar: int, public: bytes, r: int, point: bytes, message: bytes) -> bytes:
    """A signature whose R is written as ``point``, with S = r + k a: good, if that is r B and the key is a B."""
    k = challenge(point, public, message) % L
    return point + ((r + k * scalar) % L).to_bytes(32, "little")


def challenge(point: bytes, public: bytes, message: bytes) -> int:
    """k, not reduced."""
    return int.from_bytes(sha512(point + public + message).digest(), "little")


def decoded(data: bytes) -> Point | None:
    """The one point that is written so (RFC 8032, section 5.1.3)."""
    value = int.from_bytes(data, "little")
    y = value % (1 << 255)
    found = with_y(y) if y < P else None
    if found is None:
        return None
    x, _ = found
    point = ((P - x) % P if x & 1 != value >> 255 else x), y
    return point if encoded(point) == data else None


def remainder(public: bytes, signature: bytes, message: bytes, *, reduced: bool = True) -> Point | None:
    """S B - k A - R, if both are points: what must be zero, or of small order for whoever takes the cofactor."""
    a, r = decoded(public), decoded(signature[:32])
    if a is None or r is None:
        return None
    k = challenge(signature[:32], public, message)
    k_a, (x, y) = times(k % L if reduced else k, a), r
    left = times(int.from_bytes(signature[32:], "little"), base())
    return add(add(left, (P - k_a[0], k_a[1])), (P - x, y))


def is_good(public: bytes, signature: bytes, message: bytes) -> bool:
    """The rule of this library, word by word."""
    small = small_order()
    if decoded(public) in {None, *small} or decoded(signature[:32]) in {None, *small}:
        return False
    if int.from_bytes(signature[32:], "little") >= L:
        return False
    return remainder(public, signature, message) == ZERO
