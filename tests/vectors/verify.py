"""Verifies the vectors in this folder, without the library that made them: ``python tests/vectors/verify.py``.

It needs numpy and cryptography, and nothing else. Plans and frames are decoded by the tables below, which are those of
docs/wire.md; keys, masks, shares, signatures and sums are computed from the parties' seeds as that page says. For each
file one line is printed. Exit code 0: all is as it is written down; 1: something is not, and the last line says what.

What is not computed again: noise (noise.json), and rounds of threshold_ckks, of which the files have digests of frames.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray


class Wrong(Exception):
    """A vector is not what docs/wire.md says."""


def need(condition: object, what: str) -> None:
    if not condition:
        raise Wrong(what)


# 1. Layouts: of each structure its fields in order, with their types as docs/wire.md has them. Messages have numbers.

Known: TypeAlias = dict[str, dict[str, str]]
"""structure -> field -> type"""


def structures(text: str) -> Known:
    lines = [line.split(": ") for line in text.replace("\n    ", " ").split("\n") if line]
    return {name.split()[-1]: dict(field.split(" ", 1) for field in fields.split(", ")) for name, fields in lines}


def numbered(text: str) -> dict[int, str]:
    names = [line.split(": ")[0].split() for line in text.split("\n") if line and line[0].isdigit()]
    return {int(number): name for number, name in names}


COMMON = structures("""
Plan: protocol text 32, session bytes 16, round u32, roster bytes 32, model bytes 32, clients u32,
    min_contributors u32, ring_bits u8, encoding Encoding, noise maybe Noise, parameters Parameters, beacon blob 64,
    version maybe Version, ledger maybe Head
Version: number u32, signature bytes 64
Encoding: length u64, clip_l2 positive, bits u8, rotate bool, clip_inf positive, weight_bound u32, beta ratio,
    users u32, overlap u16, rounding name exact|nearest|stochastic, sampled ratio, sketch maybe Sketch,
    feedback bool
Sketch: kept u64, tables list 1024 Table, ranges list 1024 Range, order blob 32, turn u32
Table: start u64, rows u64, columns u64, rank u64
Range: start u64, stop u64
Noise: family name discrete-gaussian|skellam, variance ratio, dropouts u32, colluders u32, components u16
Head: owner bytes 32, ledger bytes 32, size u64, root bytes 32, signature bytes 64
Header: version u8, protocol u8, session bytes 16, round u32, type u8
Node: low u32, high u32, hash bytes 32
SignedBy: signer u32, signature bytes 64
""")


def exchange(points: int, commitments: int, dealt: str) -> str:
    """The exchange about shares: so many bytes of points in a box, and of commitments."""
    return f"""
Box: points bytes {points}, commitments bytes {commitments}
{dealt}Dealt: boxes list 10000000 Box, proof blob 160000000
Delivered: peer u32, points bytes {points}, commitments bytes {commitments}, challenge bytes 32, response bytes 16
4 Delivery: boxes list 10000000 Delivered
Complaint: peer u32, box bytes 32, signature bytes 64
5 Complaints: complaints list 10000000 Complaint
6 Accusations: complaints list 10000000 Complaint
Opened: peer u32, key bytes 32
7 Defence: opened list 10000000 Opened
"""


_PAIRWISE = f"""
Parameters: graph name complete|ring, degree u32, threshold u32, witnesses u32, quorum u32
1 Advert: client u32, mask_key bytes 32, seal_key bytes 32, commitment bytes 32, signature bytes 64
Neighbour: position u32, advert Advert
2 Introduction: root bytes 32, size u32, position u32, neighbours list 10000000 Neighbour, proof list 10000000 Node
{exchange(points=88, commitments=32, dealt="3 ")}
8 Verdict: dealers blob 1250000, opened list 10000000 Opened
UploadHeader: position u32, holders blob 1250000, vector_hash bytes 32, signature bytes 64
9 Upload: header UploadHeader, vector blob 2^37
10 Survivors: survivors blob 1250000, headers list 10000000 UploadHeader
11 ConsistencySignature: signature bytes 64
12 ConsistencySignatures: signatures list 10000000 SignedBy, others list 10000000 Node, proof list 10000000 Node
Revealed: peer u32, share bytes 36
13 Reveal: self_shares list 10000000 Revealed, key_shares list 10000000 Revealed, excess blob 32
"""

_ONESHOT = """
Parameters: members u32, corrupt u32, cost_model name standard|core-svp
Member: client u32, key bytes 32, signature bytes 64
1 Join: member maybe Member
2 Members: members list 1024 Member
UploadHeader: client u32, key bytes 32, vector_hash bytes 32, boxes_hash bytes 32, signature bytes 64
3 Upload: header UploadHeader, vector blob 2^40, boxes blob 2^27
Contribution: header UploadHeader, box blob 2^17
4 Delivery: contributions list 10000000 Contribution
5 Vote: signature blob 64, unopened list 10000000 u32
6 ConsistencySignatures: contributed bytes 32, survivors blob 1250000, signatures list 1024 SignedBy
7 Answer: share blob 2^17, excess blob 32
"""

_CKKS = """
Parameters: reveal name server|clients, makers u32
1 Advert: client u32, seal_key bytes 32, signature bytes 64
Introduced: position u32, advert Advert
2 Introduction: server_key bytes 32, root bytes 32, size u32, position u32, others list 4096 Introduced,
    proof list 4096 Node
KeyHeader: maker u32, public_hash bytes 32, sealed_hash bytes 32, signature bytes 64
MadeKey: header KeyHeader, public blob 2^18, sealed blob 2^18, boxes list 4096 bytes 60
3 Ready: made blob 2^20
4 KeyShown: header KeyHeader, public blob 2^18, sealed blob 2^18, box blob 60
Encrypted: signature bytes 64, chunks list 2^26 blob 2^17
5 Upload: encrypted blob 2^43
6 Survivors: survivors blob 512
7 ConsistencySignature: signature bytes 64
8 Aggregate: signatures list 4096 SignedBy, others list 4096 Node, proof list 4096 Node, chunks list 2^26 blob 2^17
9 Answer: total blob 2^37, excess blob 32
"""

_THRESHOLD = f"""
Parameters: threshold u32, cost_model name standard|core-svp
1 Advert: client u32, seal_key bytes 32, commitment bytes 32, signature bytes 64
2 Introduction: adverts list 1024 Advert
{exchange(points=52, commitments=16, dealt="")}
3 Part: key blob 2^20, dealt Dealt
8 JointKey: members blob 128, key blob 2^20, opened list 10000000 Opened
9 Upload: signature bytes 64, c0 blob 2^40+2^20, c1 blob 2^40+2^20
10 Survivors: survivors blob 128, ciphertext bytes 32
11 ConsistencySignature: signature bytes 64
12 Aggregate: signatures list 1024 SignedBy, c1 blob 2^40+2^20
13 Answer: partial blob 2^40+2^20, excess blob 32, signature bytes 64
14 Missing: ciphertext bytes 32, missing blob 128
15 Agreement: signature bytes 64
16 Agreements: signatures list 1024 SignedBy
Revealed: peer u32, share bytes 36
17 Recovery: shares list 1024 Revealed, signature bytes 64
"""

PROTOCOLS = {
    name: (code, structures(text), numbered(text))
    for name, code, text in (
        ("secagg", 1, _PAIRWISE),
        ("secagg+", 2, _PAIRWISE),
        ("ckks", 3, _CKKS),
        ("oneshot", 4, _ONESHOT),
        ("threshold_ckks", 5, _THRESHOLD),
    )
}
"""protocol -> its number in frames, its structures, and its messages by their numbers"""

VERSION = 4
CLIENTS, LENGTH = 10_000_000, 1 << 34
_NUMBERS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


def amount(text: str) -> int:
    """Of bytes or items: "1024", "2^10", "2^10+5"."""
    return sum(2 ** int(term[2:]) if term.startswith("2^") else int(term) for term in text.split("+"))


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        need(count <= len(self.data) - self.at, "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


def read(kind: str, data: Reader, known: Known) -> Any:
    """A value as the vectors have it in JSON: bytes in hexadecimal, a ratio as text."""
    head, _, rest = kind.partition(" ")
    if head in _NUMBERS:
        return data.integer(_NUMBERS[head])
    if head == "bool":
        need((value := data.integer(1)) <= 1, "not a boolean")
        return bool(value)
    if head == "positive":
        value = struct.unpack(">d", data.take(8))[0]
        need(math.isfinite(value) and value > 0, "not a positive number")
        return value
    if head == "ratio":
        above, below = data.integer(8), data.integer(8)
        need(below and math.gcd(above, below) == 1, "not a reduced fraction")
        return str(Fraction(above, below))
    if head == "bytes":
        return data.take(amount(rest)).hex()
    if head == "blob":
        size = data.integer(4 if amount(rest) < 1 << 32 else 8)
        need(size <= amount(rest), "too long")
        return data.take(size).hex()
    if head in ("text", "name"):
        size = data.integer(4)
        need(size <= (64 if head == "name" else amount(rest)), "too long")
        try:
            word = data.take(size).decode()
        except UnicodeDecodeError:
            raise Wrong("not UTF-8") from None
        need(head == "text" or word in rest.split("|"), "an unknown name")
        return word
    if head == "maybe":
        return read(rest, data, known) if read("bool", data, known) else None
    if head == "list":
        most, _, item = rest.partition(" ")
        count = data.integer(4)
        need(count <= min(amount(most), len(data.data) - data.at), "too many items")
        return [read(item, data, known) for _ in range(count)]
    layout = known.get(head) or COMMON[head]
    return {name: read(part, data, known) for name, part in layout.items()}


def write(kind: str, value: Any, known: Known) -> bytes:
    head, _, rest = kind.partition(" ")
    if head in _NUMBERS:
        return int(value).to_bytes(_NUMBERS[head], "big")
    if head == "bool":
        return bytes([value])
    if head == "positive":
        return struct.pack(">d", value)
    if head == "ratio":
        return b"".join(number.to_bytes(8, "big") for number in Fraction(value).as_integer_ratio())
    if head == "bytes":
        return bytes.fromhex(value)
    if head == "blob":
        raw: bytes = bytes.fromhex(value)
        return len(raw).to_bytes(4 if amount(rest) < 1 << 32 else 8, "big") + raw
    if head in ("text", "name"):
        word: bytes = value.encode()
        return len(word).to_bytes(4, "big") + word
    if head == "maybe":
        return b"\0" if value is None else b"\1" + write(rest, value, known)
    if head == "list":
        item = rest.partition(" ")[2]
        return len(value).to_bytes(4, "big") + b"".join(write(item, one, known) for one in value)
    layout = known.get(head) or COMMON[head]
    return b"".join(write(part, value[name], known) for name, part in layout.items())


class Plan:
    """A decoded plan: its ``fields``, as the vectors have them, its bytes and its digest."""

    def __init__(self, data: bytes) -> None:
        name = read("text 32", Reader(data), {})
        need(name in PROTOCOLS, "an unknown protocol")
        self.code, self.structures, self.types = PROTOCOLS[name]
        reader = Reader(data)
        self.fields: dict[str, Any] = read("Plan", reader, self.structures)
        need(reader.at == len(data), "trailing bytes")
        self.data, self.digest = data, digest(b"secagg/v1/plan", data)
        self.session, self.round = bytes.fromhex(self.fields["session"]), self.fields["round"]
        self.clients, self.bits = self.fields["clients"], self.fields["ring_bits"]
        encoding = self.fields["encoding"]
        self.sent = sketched(encoding["sketch"], encoding["length"])
        self.rotated = 1 << (self.sent - 1).bit_length() if encoding["rotate"] else self.sent
        self.coordinates = self.rotated + (encoding["weight_bound"] > 1)
        self.largest = max((1 << (encoding["bits"] - 1)) - 1, 1)
        self.scale = self.largest / encoding["clip_inf"]
        check_plan(self)

    def message(self, frame: bytes, name: str | None = None) -> tuple[str, Any]:
        """A frame of this plan's round as the name of its type and its fields; ``name``: it must be of this type."""
        reader = Reader(frame)
        header = read("Header", reader, {})
        expected = {"version": VERSION, "protocol": self.code, "session": self.session.hex(), "round": self.round}
        need(header.items() >= expected.items(), "a frame of another round, protocol or version")
        need(header["type"] in self.types, "an unknown message type")
        kind = self.types[header["type"]]
        need(name in (None, kind), f"{kind} in the place of {name}")
        fields = read(kind, reader, self.structures)
        need(reader.at == len(frame), "trailing bytes")
        need(self.body(kind, fields) == frame[23:], "another encoding than the canonical one")
        return kind, fields

    def body(self, kind: str, fields: Any) -> bytes:
        return write(kind, fields, self.structures)


def sketched(sketch: Any, length: int) -> int:
    """How many coordinates travel of a vector."""
    if sketch is None:
        return length
    kept, tables, ranges = sketch["kept"], sketch["tables"], [(one["start"], one["stop"]) for one in sketch["ranges"]]
    need((kept > 0) + (tables != []) + (ranges != []) == 1, "a sketch of no kind, or of two")
    need(all(one["rows"] and 1 <= one["rank"] <= one["columns"] for one in tables), "a table without rows, or its rank")
    size = "columns" if sketch["order"] else "rank"
    need(sum(one[size] * one["columns"] for one in tables) <= 1 << 24, "matrices that are too large")
    need(
        len(bytes.fromhex(sketch["order"])) in (0, 32) and (sketch["order"] or not sketch["turn"]), "turns of no order"
    )
    need(not (sketch["order"] and ranges), "ranges with turns")
    spans = ranges or [(one["start"], one["start"] + one["rows"] * one["columns"]) for one in tables]
    need(all(start < stop for start, stop in spans), "a range without coordinates")
    need(all(left[1] <= right[0] for left, right in pairwise(spans)), "ranges or tables out of order")
    need(max(kept, *[stop for _, stop in spans[-1:]], 1) <= length, "a sketch of longer vectors")
    if tables:
        return length - int(sum(one["rows"] * (one["columns"] - one["rank"]) for one in tables))
    return int(kept) + sum(stop - start for start, stop in ranges)


def lifted(plan: Plan, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """What travelled, as a vector of the full length."""
    sketch, length = plan.fields["encoding"]["sketch"], plan.fields["encoding"]["length"]
    if sketch is None:
        return vector
    turn, order = sketch["turn"], bytes.fromhex(sketch["order"])
    seed = order or digest(b"secagg/v1/rotation", plan.session, u32(plan.round))
    drawn, found = stream(digest(b"secagg/v1/sketch", seed)), np.zeros(length)
    once = order or plan.fields["encoding"]["feedback"]
    if sketch["ranges"]:
        at = 0
        for one in sketch["ranges"]:
            count = one["stop"] - one["start"]
            found[one["start"] : one["stop"]] = vector[at : at + count]
            at += count
    elif (kept := sketch["kept"]) and order:
        words = [int.from_bytes(drawn(8), "little") for _ in range(length)]
        permuted = sorted(range(length), key=words.__getitem__)
        found[sorted(permuted[(turn * kept + at) % length] for at in range(kept))] = vector
    elif kept:
        places: set[int] = set()
        while len(places) < min(kept, length - kept):
            word = int.from_bytes(drawn(8), "little") & ((1 << (length - 1).bit_length()) - 1)
            if word < length:
                places.add(word)
        if kept > length - kept:
            places = set(range(length)) - places
        found[sorted(places)] = vector * (1 if once else length / kept)
    else:
        at = of = 0
        for one in sketch["tables"]:
            start, (rows, columns, rank) = one["start"], (one[name] for name in ("rows", "columns", "rank"))
            width = columns if order else rank
            words = np.frombuffer(drawn(8 * columns * width), "<i8").reshape(columns, width)
            found[at:start] = vector[of : of + start - at]
            of += start - at
            matrix = np.linalg.qr(words + 0.5)[0][
                :, [(turn * rank + k) % columns for k in range(rank)] if order else ...
            ]
            product = vector[of : of + rows * rank].reshape(rows, rank) @ matrix.T
            at, of = start + rows * columns, of + rows * rank
            found[start:at] = product.reshape(-1) * (1 if once else columns / rank)
        found[at:] = vector[of:]
    return found


def noise_bound(plan: Plan) -> int:
    """What noise adds to a coordinate of the sum, but with probability 2^-40 for a whole vector."""
    noise = plan.fields["noise"]
    if noise is None:
        return 0
    total = float(plan.clients * Fraction(noise["variance"]) / (plan.clients - noise["dropouts"] - noise["colluders"]))
    u = math.log(2 * plan.coordinates) + 40 * math.log(2)
    if noise["family"] == "discrete-gaussian":
        return math.floor(math.sqrt(2 * total * u)) + 1
    return math.ceil(u / 3 + math.sqrt(u * u / 9 + 2 * total * u))


def check_plan(plan: Plan) -> None:
    """The rules of docs/wire.md about the fields of a plan."""
    fields, encoding, noise = plan.fields, plan.fields["encoding"], plan.fields["noise"]
    need(2 <= fields["min_contributors"] <= plan.clients <= CLIENTS, "clients or contributors")
    need(1 <= encoding["length"] <= LENGTH and 1 <= encoding["bits"] <= 32, "length or bits")
    need(all(1e-100 <= encoding[name] <= 1e100 for name in ("clip_l2", "clip_inf")), "a clip")
    need(1 <= encoding["weight_bound"] < 1 << 31 and Fraction(encoding["beta"]) <= Fraction(9, 10), "weights or beta")
    users, overlap, nearest = encoding["users"], encoding["overlap"], encoding["rounding"] == "nearest"
    need(users < 1 << 31 and 1 <= overlap <= (plan.clients if users else 1), "users or overlap")
    need(not users or encoding["weight_bound"] == 1, "weights of users")
    sampled = Fraction(encoding["sampled"])
    gaussian = noise is not None and noise["family"] == "discrete-gaussian"
    need(0 < sampled <= 1 and (sampled == 1 or (users and overlap == 1 and gaussian)), "sampled")
    steps = Fraction(plan.scale) * Fraction(encoding["clip_l2"])
    need(not nearest or (steps**2 >= 10_000 * plan.rotated and encoding["beta"] == "0"), "too coarse, or lots")
    drawn = encoding["rotate"] or encoding["beta"] != "0"
    drawn |= encoding["sketch"] is not None and encoding["sketch"]["tables"] != []
    need(encoding["rounding"] != "exact" or (steps >= 1 and not drawn), "too coarse, rotated, or drawn")
    lots = encoding["rounding"] == "stochastic" and encoding["beta"] == "0"
    need(encoding["bits"] > 1 or (noise is None and lots), "one bit, and no zero")
    loses = encoding["bits"] <= 8 if encoding["sketch"] is None else encoding["sketch"]["ranges"] == []
    kept = loses and encoding["rounding"] != "exact" and sampled == 1
    need(not encoding["feedback"] or kept, "feedback of nothing, or of a sample")
    need(fields["version"] is None or fields["version"]["number"], "a version without a number")
    if noise is not None:
        left, variance = plan.clients - noise["dropouts"] - noise["colluders"], Fraction(noise["variance"])
        need(variance > 0 and left > 0, "noise of nobody")
        need(plan.clients - noise["dropouts"] <= fields["min_contributors"], "more missing than the noise allows for")
        need(noise["components"] <= noise["dropouts"], "more components than dropouts")
        parts, a = noise["components"], noise["dropouts"]
        missing = [-(-j * a // parts) for j in range(parts + 1)] if parts else [a]
        levels = [variance / (left + a - one) for one in missing]
        drawn = [levels[0], *(more - less for less, more in pairwise(levels))]
        need(min(drawn) >= 8 if gaussian else drawn[0] >= Fraction(1, 1 << 20), "noise that would not count")
        need(variance / left <= 1 << 44, "noise that cannot be drawn")
    largest = plan.clients * max(users, 1) * encoding["weight_bound"] * plan.largest + noise_bound(plan)
    need(largest.bit_length() + 1 <= plan.bits <= 64, "a ring of another width")
    if (head := fields["ledger"]) is not None:
        need(1 <= head["size"] < 1 << 63, "a ledger of no size")
        need(head["size"] > 1 or head["root"] == head["ledger"], "a first entry of another ledger")
    if "graph" in fields["parameters"]:
        check_graph(plan)


def check_graph(plan: Plan) -> None:
    n, p = plan.clients, plan.fields["parameters"]
    if p["graph"] == "complete":
        need(p["degree"] == n - 1 and not p["witnesses"], "a complete graph")
    else:
        need(plan.fields["protocol"] == "secagg+", "secagg runs on the complete graph")
        need(2 <= p["degree"] <= n - 1 and p["degree"] % 2 == 0, "the degree")
    need(2 <= p["threshold"] <= (n if p["graph"] == "complete" else p["degree"]), "the threshold")
    need(min(p["witnesses"], 1) <= p["quorum"] <= p["witnesses"] <= n, "witnesses or quorum")


# 2. Hashes, keys, streams


def transcript(label: bytes, *parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in (label, *parts))


def digest(label: bytes, *parts: bytes) -> bytes:
    return sha256(transcript(label, *parts)).digest()


def derive(secret: bytes, label: bytes, *context: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=b"", info=transcript(label, *context)).derive(secret)


def stream(seed: bytes) -> Callable[[int], bytes]:
    """AES-256 in counter mode, from counter 0."""
    context = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return lambda count: context.update(bytes(count))


def agree(secret: bytes, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def agreement_key(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def signing_key(secret: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def check_signature(public: bytes, signature: str, label: bytes, *parts: bytes) -> None:
    need(good(public, bytes.fromhex(signature), transcript(label, *parts)), "a bad signature")


FIELD = 2**255 - 19
ORDER_8 = 0x5FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = {0, 1, FIELD - 1, ORDER_8, FIELD - ORDER_8}  # y of Ed25519's points of order 1, 2, 4 and 8


def good(public: bytes, signature: bytes, text: bytes) -> bool:
    """OpenSSL takes no cofactor, and no S that is not reduced; but it takes points of small order."""
    if not usable(public) or not usable(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def usable(point: bytes) -> bool:
    y = int.from_bytes(point, "little") % 2**255
    return y < FIELD and y not in SMALL_ORDER


def open_box(key: bytes, box: bytes, associated: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(box[:12], box[12:], associated)
    except (InvalidTag, ValueError):
        raise Wrong("a box that does not open") from None


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


# 3. Sets, vectors, trees


def bitmap(members: Iterable[int], universe: Sequence[int]) -> str:
    chosen = set(members)
    number = sum(1 << place for place, one in enumerate(universe) if one in chosen)
    return number.to_bytes((len(universe) + 7) // 8, "little").hex()


def unpack(data: bytes, count: int, bits: int) -> list[int]:
    need(len(data) == (count * bits + 7) // 8, "a vector of another size")
    number = int.from_bytes(data, "little")
    need(number >> (count * bits) == 0, "unused bits that are set")
    return [number >> (at * bits) & ((1 << bits) - 1) for at in range(count)]


def mask(seed: bytes, plan: Plan) -> list[int]:
    """The coordinates of a mask: words of the narrowest width that holds the ring, of which the ring's bits count."""
    width = next(width for width in (8, 16, 32, 64) if width >= plan.bits)
    words = np.frombuffer(stream(seed)(plan.coordinates * width // 8), f"<u{width // 8}")
    return [int(word) & ((1 << plan.bits) - 1) for word in words]


def centred(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def floats(plan: Plan, total: Sequence[int]) -> list[float]:
    """A vector of integers, scaled and rotated back."""
    vector = np.array(total[: plan.rotated], np.float64) / plan.scale
    if plan.fields["encoding"]["rotate"]:
        seed = digest(b"secagg/v1/rotation", plan.session, u32(plan.round))
        flips = np.unpackbits(np.frombuffer(stream(seed)(-(-plan.rotated // 8)), np.uint8), count=plan.rotated)
        half = 1
        while half < plan.rotated:
            pairs = vector.reshape(-1, 2, half)
            vector = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
            half *= 2
        vector = vector / math.sqrt(plan.rotated) * (1 - 2 * flips.astype(np.int64))
    found: list[float] = lifted(plan, vector[: plan.sent]).tolist()
    return found


def joined(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    children = b"".join(write("Node", node, {}) for node in (left, right))
    need(left["low"] <= left["high"] < right["low"] <= right["high"], "leaves out of order")
    return {
        "low": left["low"],
        "high": right["high"],
        "hash": sha256(b"secagg/v1/merkle/node" + children).hexdigest(),
    }


def tree(leaves: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        pairs = [joined(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        levels.append(pairs + level[len(level) - len(level) % 2 :])
    return levels


def root_of(levels: list[list[dict[str, Any]]]) -> bytes:
    size = len(levels[0]).to_bytes(8, "big")
    return sha256(b"secagg/v1/merkle/root" + size + write("Node", levels[-1][0], {})).digest()


def proof_of(levels: list[list[dict[str, Any]]], places: Iterable[int]) -> list[dict[str, Any]]:
    known, proof = set(places), []
    for level in levels[:-1]:
        proof += [level[at ^ 1] for at in sorted(known) if at ^ 1 not in known and at ^ 1 < len(level)]
        known = {at // 2 for at in known}
    return proof


# 4. Shares, over the field of 2^31 - 1 elements

PRIME = (1 << 31) - 1


def uniform(seed: bytes, count: int) -> list[int]:
    """Field elements: little-endian words of a stream, cut to 31 bits; those equal to the prime are drawn again."""
    draw = stream(seed)
    words = [int(word) & PRIME for word in np.frombuffer(draw(4 * count), "<u4")]
    while again := [at for at, word in enumerate(words) if word == PRIME]:
        for at, word in zip(again, np.frombuffer(draw(4 * len(again)), "<u4"), strict=True):
            words[at] = int(word) & PRIME
    return words


def elements(data: bytes) -> list[int]:
    words = [int(word) for word in np.frombuffer(data, "<u4")]
    need(all(word < PRIME for word in words), "a field element that is not reduced")
    return words


@cache
def lagrange(abscissas: tuple[int, ...], at: int) -> list[int]:
    weights = []
    for x in abscissas:
        above, below = 1, 1
        for other in abscissas:
            if other != x:
                above, below = above * (at - other) % PRIME, below * (x - other) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights


def interpolated(points: dict[int, int], at: int) -> int:
    """The value at ``at`` of the polynomial through these points: abscissa -> value."""
    weights = lagrange(tuple(points), at)
    return sum(weight * y for weight, y in zip(weights, points.values(), strict=True)) % PRIME


def rebuilt(shares: dict[int, bytes]) -> bytes:
    """The secret of 32 bytes from as many shares as the threshold says: abscissa -> share."""
    values = {x: elements(share) for x, share in shares.items()}
    limbs = [interpolated({x: row[limb] for x, row in values.items()}, 0) for limb in range(9)]
    secret = sum(limb << (29 * place) for place, limb in enumerate(limbs))
    need(all(limb < 1 << 29 for limb in limbs) and secret < 1 << 256, "shares that give no secret of 32 bytes")
    return secret.to_bytes(32, "little")


# 5. A round, as its file describes it


class Round:
    """What is common to all rounds: plan, roster, the parties' secrets, the frames by type, sender and receiver."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.vector, self.plan = vector, Plan(bytes.fromhex(vector["plan"]))
        self.members = vector["clients"]
        self.names = [member["name"] for member in self.members]
        need(self.names == sorted(set(self.names)), "a roster that is not sorted")
        self.keys = [signing_key(bytes.fromhex(member["identity"])) for member in self.members]
        parts = [part for name, key in zip(self.names, self.keys, strict=True) for part in (name.encode(), key)]
        need(digest(b"secagg/v1/roster", *parts).hex() == self.plan.fields["roster"], "the plan is for another roster")
        self.secrets = [stream(bytes.fromhex(member["rng"]))(32) for member in self.members]
        self.said: dict[tuple[str, str, str], Any] = {}
        self.checked = 0

    def drawn(self, number: int, purpose: bytes) -> bytes:
        return derive(self.secrets[number], b"secagg/v1/client/secret", purpose, self.plan.digest)

    def from_clients(self, kind: str) -> dict[str, Any]:
        """name -> what it said, in the order of the roster."""
        return {name: self.said[kind, name, "server"] for name in self.names if (kind, name, "server") in self.said}

    def verify(self) -> str:
        for entry in self.vector["frames"]:
            kind, fields = self.plan.message(bytes.fromhex(entry["frame"]), entry["type"])
            need(sorted((entry["from"] == "server", entry["to"] == "server")) == [False, True], "nobody and the server")
            need((kind, entry["from"], entry["to"]) not in self.said, "a message that was sent twice")
            self.said[kind, entry["from"], entry["to"]] = fields
        need(self.plan.fields["noise"] is None, "this verifier draws no noise")
        self.prepare()
        for (kind, sender, receiver), fields in self.said.items():
            self.check(kind, sender, receiver, fields)
        for entry in self.vector["frames"]:
            for tampered in entry.get("bounces", ()):
                self.refuse(entry, bytes.fromhex(tampered["frame"]), tampered["what"])
        self.check_sum(self.total())
        return f"{len(self.vector['frames'])} frames, {self.checked} keys, signatures, shares and masks"

    def refuse(self, entry: dict[str, Any], frame: bytes, what: str) -> None:
        try:
            _, fields = self.plan.message(frame, entry["type"])
            self.check(entry["type"], entry["from"], entry["to"], fields)
        except Wrong:
            return
        raise Wrong(f"{entry['type']} with {what} is as good as the true one")

    def check(self, kind: str, sender: str, receiver: str, fields: Any) -> None:
        """Whether this is what that party says at this point; it changes nothing."""
        client = self.names.index(receiver if sender == "server" else sender)
        try:
            getattr(self, f"check_{kind.lower()}")(client, fields)
        except Wrong as error:
            raise Wrong(f"{kind} from {sender} to {receiver}: {error}") from None

    def signed(self, client: int, signature: str, label: bytes, *parts: bytes) -> None:
        check_signature(self.keys[client], signature, label, *parts)
        self.checked += 1

    def same(self, found: object, expected: object, what: str) -> None:
        need(found == expected, f"{what} is another")
        self.checked += 1

    def prepare(self) -> None:
        """Compute what the checks compare with."""

    def total(self) -> list[int]:
        raise NotImplementedError

    def check_sum(self, total: list[int]) -> None:
        """The total is what the file says, and the weighted sum of the survivors' updates up to rounding."""
        vector, plan = self.vector, self.plan
        self.same(total, vector["total"], "the total")
        weighted = plan.fields["encoding"]["weight_bound"] > 1
        alive = [member for member in self.members if member["name"] in vector["survivors"]]
        need([member["name"] for member in alive] == vector["survivors"], "survivors who are not in the roster")
        need(weighted or all(member["weight"] == 1 for member in self.members), "weights where there are none")
        weight = sum(member["weight"] for member in alive)
        need(vector["weight"] == weight and (not weighted or total[-1] == weight), "another weight")
        slack = 0 if plan.scale == 1 else 3 * weight / plan.scale
        shown = floats(plan, total)
        need(np.allclose(shown, vector["sum"], rtol=0, atol=1e-9) and len(shown) == len(vector["sum"]), "another sum")
        for place, value in enumerate(vector["sum"]):
            expected = sum((member["weight"] if weighted else 1) * member["update"][place] for member in alive)
            need(abs(value - expected) <= slack, "not the sum of the updates")


class PairwiseRound(Round):
    """secagg and secagg+. Clients are positions in the cohort; u is one, v a holder of its shares."""

    def prepare(self) -> None:
        plan, p = self.plan, self.plan.fields["parameters"]
        self.t = p["threshold"]
        self.adverts = self.from_clients("Advert")
        self.cohort = [self.names.index(name) for name in self.adverts]  # position -> number
        self.size = len(self.cohort)
        self.leaves = []
        for number, advert in zip(self.cohort, self.adverts.values(), strict=True):
            hashed = sha256(b"secagg/v1/merkle/leaf" + plan.body("Advert", advert)).hexdigest()
            self.leaves.append({"low": number, "high": number, "hash": hashed})
        self.levels = tree(self.leaves)
        self.root = root_of(self.levels)
        self.holders = self.neighbourhoods(p)
        self.mask_secrets = [self.drawn(number, b"mask key") for number in self.cohort]
        self.seal_secrets = [self.drawn(number, b"seal key") for number in self.cohort]
        self.self_secrets = [self.drawn(number, b"self mask") for number in self.cohort]
        self.dealt = {self.place(name): said for name, said in self.from_clients("Dealt").items()}
        self.points = {(u, v): self.opened(u, v, self.box(u, v)) for u in self.dealt for v in self.others(u)}
        self.complaints = {
            (self.place(name), said["peer"]): said
            for name, message in self.from_clients("Complaints").items()
            for said in message["complaints"]
        }  # (holder, dealer)
        complained = {self.place(name) for name in self.from_clients("Complaints")}
        defended = {self.place(name) for name in self.from_clients("Defence")}
        accused = {dealer for _, dealer in self.complaints}
        self.kept = {u for u in self.dealt if u in complained and (u not in accused or u in defended)}
        self.uploads = {self.place(name): said for name, said in self.from_clients("Upload").items()}
        self.bitmap = bitmap(self.uploads, range(self.size))
        self.agreed = digest(b"secagg/v1/pairwise/survivors", plan.digest, self.root, bytes.fromhex(self.bitmap))
        alive = [self.names[self.cohort[u]] for u in self.uploads]
        self.same(alive, self.vector["survivors"], "the survivors")
        self.same(self.agreed.hex(), self.vector["survivors_digest"], "the survivors' digest")

    def neighbourhoods(self, p: dict[str, Any]) -> list[list[int]]:
        n, reach = self.size, p["degree"] // 2
        seed = digest(b"secagg/v1/graph", self.plan.digest, self.root)
        lots = np.frombuffer(stream(seed)(8 * n), "<u8")
        self.order = np.argsort(lots, kind="stable").tolist()
        if p["graph"] == "complete":
            return [list(range(n))] * n
        if 2 * reach >= n - 1:
            return [[v for v in range(n) if v != u] for u in range(n)]
        steps = [step for step in range(-reach, reach + 1) if step]
        return [sorted(self.order[(self.order.index(u) + step) % n] for step in steps) for u in range(n)]

    def witnesses(self) -> set[int]:
        count = min(self.plan.fields["parameters"]["witnesses"], self.size)
        return {self.order[at * self.size // count] for at in range(count)}

    def place(self, name: str) -> int:
        return self.cohort.index(self.names.index(name))

    def others(self, u: int) -> list[int]:
        return [v for v in self.holders[u] if v != u]

    def bound(self, *places: int) -> tuple[bytes, ...]:
        return (self.plan.digest, self.root, *map(u32, places))

    def advert(self, u: int) -> dict[str, Any]:
        return self.adverts[self.names[self.cohort[u]]]  # type: ignore[no-any-return]

    # Dealing

    def pad_key(self, dealer: int, holder: int) -> bytes:
        agreed = agree(self.seal_secrets[dealer], bytes.fromhex(self.advert(holder)["seal_key"]))
        return derive(agreed, b"secagg/v1/pairwise/share-key", *self.bound(dealer, holder))

    def box(self, dealer: int, holder: int) -> dict[str, Any]:
        boxes = self.dealt[dealer]["boxes"]
        need(len(boxes) == len(self.others(dealer)), "boxes for others than the holders")
        found: dict[str, Any] = boxes[self.others(dealer).index(holder)]
        return found

    def opened(self, dealer: int, holder: int, box: dict[str, Any]) -> bytes:
        """The points in a box, without the pad."""
        pad = uniform(self.pad_key(dealer, holder), 22)
        padded = elements(bytes.fromhex(box["points"]))
        return np.array([(a - b) % PRIME for a, b in zip(padded, pad, strict=True)], "<u4").tobytes()

    def commitment(self, dealer: int, holder: int, secret: int, share: bytes) -> bytes:
        bound = transcript(b"secagg/v1/dealing/commitment", *self.bound(dealer, holder))
        return sha256(bound + bytes([secret]) + share).digest()[:16]

    def challenge(self, dealer: int, dealt: dict[str, Any]) -> bytes:
        boxes = [bytes.fromhex(box["points"] + box["commitments"]) for box in dealt["boxes"]]
        return digest(b"secagg/v1/dealing/challenge", *self.bound(dealer), *boxes)

    def responses(self, proof: bytes, x: int) -> list[int]:
        """The values of the proof's four polynomials at x."""
        need(len(proof) == 16 * self.t, "a proof of another size")
        coefficients = elements(proof)
        return [sum(coefficients[4 * k + j] * pow(x, k, PRIME) for k in range(self.t)) % PRIME for j in range(4)]

    def delivered(self, dealer: int, holder: int) -> dict[str, Any]:
        dealt = self.dealt[dealer]
        response = np.array(self.responses(bytes.fromhex(dealt["proof"]), holder + 1), "<u4").tobytes()
        return {
            "peer": dealer,
            **self.box(dealer, holder),
            "challenge": self.challenge(dealer, dealt).hex(),
            "response": response.hex(),
        }

    def box_hash(self, dealer: int, holder: int) -> bytes:
        box = self.delivered(dealer, holder)
        parts = [bytes.fromhex(box[name]) for name in ("points", "commitments", "challenge", "response")]
        return digest(b"secagg/v1/dealing/box", *self.bound(dealer, holder), *parts)

    def share(self, dealer: int, holder: int, secret: int) -> bytes:
        """A share, also the one that a dealer keeps for itself."""
        if dealer != holder:
            return self.points[dealer, holder][36 * secret : 36 * secret + 36]
        known = {v + 1: elements(self.share(dealer, v, secret)) for v in self.others(dealer)[: self.t]}
        values = [interpolated({x: row[limb] for x, row in known.items()}, holder + 1) for limb in range(9)]
        return np.array(values, "<u4").tobytes()

    # Messages

    def check_advert(self, client: int, said: dict[str, Any]) -> None:
        u = self.cohort.index(client)
        self.same(said["client"], client, "the client")
        self.same(said["mask_key"], agreement_key(self.mask_secrets[u]).hex(), "the mask key")
        self.same(said["seal_key"], agreement_key(self.seal_secrets[u]).hex(), "the seal key")
        committed = digest(b"secagg/v1/pairwise/self-commitment", self.self_secrets[u])
        self.same(said["commitment"], committed.hex(), "the commitment")
        keys = [bytes.fromhex(said[name]) for name in ("mask_key", "seal_key", "commitment")]
        self.signed(client, said["signature"], b"secagg/v1/pairwise/advert", self.plan.digest, u32(client), *keys)

    def check_introduction(self, client: int, said: dict[str, Any]) -> None:
        u = self.cohort.index(client)
        expected = {
            "root": self.root.hex(),
            "size": self.size,
            "position": u,
            "neighbours": [{"position": v, "advert": self.advert(v)} for v in self.others(u)],
            "proof": proof_of(self.levels, [u, *self.others(u)]),
        }
        self.same(said, expected, "the cohort")

    def check_dealt(self, client: int, said: dict[str, Any]) -> None:
        u = self.cohort.index(client)
        need(len(said["boxes"]) == len(self.others(u)), "boxes for others than the holders")
        rho = uniform(self.challenge(u, said), 18 * 4)
        proof = bytes.fromhex(said["proof"])
        for v, box in zip(self.others(u), said["boxes"], strict=True):
            points = self.opened(u, v, box)
            committed = [self.commitment(u, v, secret, points[36 * secret :][:36]) for secret in (0, 1)]
            self.same(box["commitments"], b"".join(committed).hex(), "a commitment")
            values = elements(points)
            shown = [
                (values[18 + j] + sum(values[limb] * rho[4 * limb + j] for limb in range(18))) % PRIME for j in range(4)
            ]
            self.same(self.responses(proof, v + 1), shown, "the proof's value")
        for secret, expected in enumerate((self.mask_secrets[u], self.self_secrets[u])):
            for start in range(len(self.others(u)) - self.t + 1):
                chosen = self.others(u)[start : start + self.t]
                found = rebuilt({v + 1: self.share(u, v, secret) for v in chosen})
                self.same(found, expected, "a secret made of shares")

    def check_delivery(self, client: int, said: dict[str, Any]) -> None:
        v = self.cohort.index(client)
        expected = [self.delivered(u, v) for u in sorted(self.dealt) if u in self.others(v)]
        self.same(said["boxes"], expected, "a box")

    def check_complaints(self, client: int, said: dict[str, Any]) -> None:
        v = self.cohort.index(client)
        for one in said["complaints"]:
            need(one["peer"] in self.others(v) and one["peer"] in self.dealt, "a complaint about a stranger")
            self.same(one["box"], self.box_hash(one["peer"], v).hex(), "the box complained about")
            bound = self.bound(one["peer"], v)
            self.signed(client, one["signature"], b"secagg/v1/dealing/complaint", *bound, bytes.fromhex(one["box"]))

    def check_accusations(self, client: int, said: dict[str, Any]) -> None:
        u = self.cohort.index(client)
        about = {holder: one for (holder, dealer), one in sorted(self.complaints.items()) if dealer == u}
        self.same(said["complaints"], [{**one, "peer": holder} for holder, one in about.items()], "the complaints")

    def check_defence(self, client: int, said: dict[str, Any]) -> None:
        u = self.cohort.index(client)
        asked = sorted(holder for holder, dealer in self.complaints if dealer == u)
        self.same(said["opened"], [{"peer": v, "key": self.pad_key(u, v).hex()} for v in asked], "the keys")

    def check_verdict(self, client: int, said: dict[str, Any]) -> None:
        v = self.cohort.index(client)
        shown = sorted(dealer for holder, dealer in self.complaints if holder == v and dealer in self.kept)
        expected = {
            "dealers": bitmap(self.kept, self.holders[v]),
            "opened": [{"peer": u, "key": self.pad_key(u, v).hex()} for u in shown],
        }
        self.same(said, expected, "the verdict")

    def masked_with(self, u: int) -> list[int]:
        return [v for v in self.others(u) if v in self.kept]

    def pair_seed(self, secret: bytes, u: int, v: int) -> bytes:
        agreed = agree(secret, bytes.fromhex(self.advert(v)["mask_key"]))
        return derive(agreed, b"secagg/v1/pairwise/pair-mask", *self.bound(min(u, v), max(u, v)))

    def self_seed(self, secret: bytes, u: int) -> bytes:
        return derive(secret, b"secagg/v1/pairwise/self-mask", *self.bound(u))

    def vector_of(self, u: int) -> list[int]:
        return unpack(bytes.fromhex(self.uploads[u]["vector"]), self.plan.coordinates, self.plan.bits)

    def check_header(self, u: int, header: dict[str, Any]) -> None:
        need(header["position"] == u, "an upload of somebody else")
        self.same(header["holders"], bitmap(self.kept, self.holders[u]), "whom it masked with")
        signed = (*self.bound(u), bytes.fromhex(header["holders"]), bytes.fromhex(header["vector_hash"]))
        self.signed(self.cohort[u], header["signature"], b"secagg/v1/pairwise/upload", *signed)

    def check_upload(self, client: int, said: dict[str, Any]) -> None:
        u, plan = self.cohort.index(client), self.plan
        vector = bytes.fromhex(said["vector"])
        self.check_header(u, said["header"])
        self.same(said["header"]["vector_hash"], digest(b"secagg/v1/pairwise/vector", vector).hex(), "the vector")
        values = unpack(vector, plan.coordinates, plan.bits)
        self.take_off(values, self.self_seed(self.self_secrets[u], u), 1)
        for v in self.masked_with(u):
            self.take_off(values, self.pair_seed(self.mask_secrets[u], u, v), 1 if u < v else -1)
        member = self.members[client]
        own = [centred(value, plan.bits) for value in values]
        weighted = plan.fields["encoding"]["weight_bound"] > 1
        weight = member["weight"] if weighted else 1
        need(not weighted or own[-1] == weight, "another weight")
        slack = 0 if plan.scale == 1 else 3 * weight / plan.scale
        shown = zip(floats(plan, own), member["update"], strict=True)
        need(all(abs(value - weight * x) <= slack for value, x in shown), "a vector that is not the client's")

    def take_off(self, values: list[int], seed: bytes, sign: int) -> None:
        for at, word in enumerate(mask(seed, self.plan)):
            values[at] -= sign * word
        self.checked += 1

    def check_survivors(self, client: int, said: dict[str, Any]) -> None:
        u = self.cohort.index(client)
        alive = [v for v in self.masked_with(u) if v in self.uploads]
        expected = {"survivors": self.bitmap, "headers": [self.uploads[v]["header"] for v in alive]}
        self.same(said, expected, "the survivors")

    def check_consistencysignature(self, client: int, said: dict[str, Any]) -> None:
        need(self.cohort.index(client) in self.uploads, "a signature of a dropout")
        self.signed(client, said["signature"], b"secagg/v1/pairwise/survivors", self.agreed)

    def check_consistencysignatures(self, client: int, said: dict[str, Any]) -> None:
        u, p = self.cohort.index(client), self.plan.fields["parameters"]
        signers = [one["signer"] for one in said["signatures"]]
        need(signers == sorted(set(signers)) and set(signers) <= self.uploads.keys(), "signers out of order")
        need(len(set(signers) & set(self.holders[u])) >= self.t, "fewer neighbours than the threshold have signed")
        need(not p["quorum"] or len(set(signers) & self.witnesses()) >= p["quorum"], "no quorum of witnesses")
        need(len(signers) >= self.plan.fields["min_contributors"], "fewer have signed than must contribute")
        strangers = [v for v in signers if v not in (u, *self.holders[u])]
        self.same(said["others"], [self.leaves[v] for v in strangers], "the strangers")
        self.same(said["proof"], proof_of(self.levels, strangers), "the proof")
        for one in said["signatures"]:
            client_number = self.cohort[one["signer"]]
            self.signed(client_number, one["signature"], b"secagg/v1/pairwise/survivors", self.agreed)

    def check_reveal(self, client: int, said: dict[str, Any]) -> None:
        v = self.cohort.index(client)
        held = sorted({*self.masked_with(v), *([v] if v in self.holders[v] else [])})
        for name, secret, peers in (
            ("self_shares", 1, [u for u in held if u in self.uploads]),
            ("key_shares", 0, [u for u in held if u not in self.uploads]),
        ):
            expected = [{"peer": u, "share": self.share(u, v, secret).hex()} for u in peers]
            self.same(said[name], expected, "a share")
        need(not said["excess"], "a seed of noise that no plan asks for")

    # The sum, from what the server was sent

    def total(self) -> list[int]:
        reveals = self.from_clients("Reveal")
        shares: dict[int, dict[int, bytes]] = {}
        for name, said in reveals.items():
            for one in (*said["self_shares"], *said["key_shares"]):
                shares.setdefault(one["peer"], {})[self.place(name) + 1] = bytes.fromhex(one["share"])
        secrets = {u: rebuilt(dict(list(held.items())[: self.t])) for u, held in shares.items()}
        values = [sum(column) for column in zip(*map(self.vector_of, self.uploads), strict=True)]
        for u in self.uploads:
            self.take_off(values, self.self_seed(secrets[u], u), 1)
        for w in sorted(self.kept - self.uploads.keys()):
            need(agreement_key(secrets[w]).hex() == self.advert(w)["mask_key"], "shares of another mask key")
            for u in (u for u in self.uploads if w in self.masked_with(u)):
                self.take_off(values, self.pair_seed(secrets[w], w, u), 1 if u < w else -1)
        return [centred(value, self.plan.bits) for value in values]


# 6. Lattices, for oneshot: polynomials modulo X^N + 1 and a product of primes

WIDEST = {
    "standard": {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438},
    "core-svp": {1024: 24, 2048: 46, 4096: 90, 8192: 178, 16384: 355},
}
VARIANCE = Fraction(1024, 25)


def tail(count: int, n: int, variance: Fraction) -> int:
    left = 2.0**-40 - n * count * 2.0**-128
    return math.ceil(math.sqrt(2 * float(variance) * math.log(2 * count / left)) * (1 + 2.0**-40)) + 1


def is_prime(number: int) -> bool:
    """The test of Miller and Rabin, which is exact below 2^31 with these bases."""
    twos = ((number - 1) & -(number - 1)).bit_length() - 1
    for base in (2, 3, 5, 7):
        power = pow(base, (number - 1) >> twos, number)
        if power != 1 and all(pow(power, 1 << k, number) != number - 1 for k in range(twos)):
            return False
    return True


@cache
def moduli(degree: int, bits: int) -> tuple[int, ...]:
    """The largest primes that are 1 modulo 2N, their bit lengths as equal as can be and ``bits`` together."""
    count = -(-bits // 31)
    length, longer = divmod(bits, count)
    found: list[int] = []
    for size, wanted in ((length, count - longer), (length + 1, longer)):
        highest, here = ((1 << size) - 2) // (2 * degree) * 2 * degree + 1, list[int]()
        for number in range(highest, 1 << (size - 1), -2 * degree):
            if len(here) == wanted:
                break
            if is_prime(number):
                here.append(number)
        found += here
    return tuple(sorted(found)) if len(found) == count else ()


def sharing_of(degree: int, n: int, parameters: dict[str, Any]) -> dict[str, int]:
    """How a secret of N coefficients is shared: digits to a base, several to an element, elements to a polynomial."""
    quorum = (parameters["members"] + parameters["corrupt"]) // 2 + 1
    private, bound = max(parameters["corrupt"], 1), tail(degree, n, n * VARIANCE)
    base, digits, packing = 2 * bound + 1, 1, quorum - private
    while base ** (digits + 1) <= PRIME >> 1:
        digits += 1
    polynomials = -(-degree // (digits * packing))
    return {"bound": bound, "digits": digits, "packing": packing, "polynomials": polynomials, "quorum": quorum}


def lattice_of(plan: Plan) -> dict[str, Any]:
    """Ring and layout, which follow from the plan: the smallest N with which upload and shares take at most a tenth
    more than with the best; for each N the number of values in a coefficient with which uploads are smallest."""
    parameters, n, length = plan.fields["parameters"], plan.clients, plan.coordinates
    encoding = plan.fields["encoding"]
    largest = n * max(encoding["users"], 1) * encoding["weight_bound"] * plan.largest + noise_bound(plan)
    width, found = largest.bit_length() + 1, []
    for degree, widest in WIDEST[parameters["cost_model"]].items():
        layouts = []
        for values in range(1, widest // width + 1):
            count = -(-length // values)
            most = tail(count, n, n * VARIANCE)
            limit = (2 * most + 1) << (values * width)
            for bits in range(limit.bit_length(), widest + 1):
                primes = moduli(degree, bits)
                q = math.prod(primes)
                if q >= limit and count * math.log2(Fraction(limit, q)) <= -40:
                    size = sum((count * one.bit_length() + 7) // 8 for one in primes)
                    layouts.append(
                        (size, {"degree": degree, "primes": primes, "width": width, "values": values, "tail": most})
                    )
                    break
        if layouts:
            size, layout = min(layouts, key=lambda one: one[0])
            found.append((size + parameters["members"] * 4 * sharing_of(degree, n, parameters)["polynomials"], layout))
    need(found, "no ring has room")
    best = min(size for size, _ in found)
    return next(layout for size, layout in found if size <= Fraction(11, 10) * best)


@cache
def transform(degree: int, q: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The matrix of evaluations at the roots of X^N + 1, in their order on the wire, and its inverse."""
    candidates = (pow(base, (q - 1) // (2 * degree), q) for base in range(2, q))
    psi = next(root for root in candidates if pow(root, degree, q) == q - 1)
    bits = degree.bit_length() - 1
    rows = 1 << bits // 2
    order = [int(f"{at:0{bits}b}"[::-1], 2) for at in range(degree)]
    exponents = np.array([2 * one + 1 for one in order]).reshape(degree // rows, rows).T.reshape(-1)
    powers = np.array([pow(psi, k, q) for k in range(2 * degree)], np.uint64)
    places = np.outer(exponents, np.arange(degree)) % (2 * degree)
    return powers[places], powers[(-places.T) % (2 * degree)]


def times(matrix: np.ndarray[Any, Any], vector: np.ndarray[Any, Any], q: int) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (matrix * vector.astype(np.uint64) % np.uint64(q)).sum(axis=1) % np.uint64(q)
    return found


def public_polynomials(seed: bytes, degree: int, q: int, blocks: int) -> np.ndarray[Any, Any]:
    """Uniform polynomials modulo q, as evaluations: words of a stream, cut to q's bits, those below q count."""
    draw = stream(derive(seed, b"secagg/v1/lattice/uniform", u32(degree), u32(q)))
    found = np.zeros(0, np.uint64)
    while len(found) < degree * blocks:
        words = np.frombuffer(draw(4 * degree), "<u4") & np.uint32((1 << q.bit_length()) - 1)
        found = np.concatenate([found, words[words < q].astype(np.uint64)])
    return found[: degree * blocks].reshape(blocks, degree)


class OneshotRound(Round):
    """oneshot. Clients are numbers in the roster."""

    def prepare(self) -> None:
        plan = self.plan
        need(plan.fields["parameters"]["members"] == plan.clients, "this verifier draws no lots")
        self.lattice, self.size = lattice_of(plan), len(self.names)
        self.sharing = sharing_of(self.lattice["degree"], plan.clients, plan.fields["parameters"])
        self.count = -(-plan.coordinates // self.lattice["values"])
        self.blocks = -(-self.count // self.lattice["degree"])
        self.seats = [self.names.index(name) for name in self.from_clients("Join")]
        self.seat_secrets = {u: self.drawn(u, b"seat key") for u in self.seats}
        joins = [said["member"] for said in self.from_clients("Join").values()]
        parts = [plan.body("Member", member) for member in joins if member]
        self.root = digest(b"secagg/v1/oneshot/committee", plan.digest, *parts)
        self.uploads = {self.names.index(name): said for name, said in self.from_clients("Upload").items()}
        headers = [plan.body("UploadHeader", said["header"]) for said in self.uploads.values()]
        self.contributed = digest(b"secagg/v1/oneshot/upload", plan.digest, self.root, *headers)
        self.bitmap = bitmap(self.uploads, range(self.size))
        self.agreed = digest(b"secagg/v1/pairwise/survivors", plan.digest, self.contributed, bytes.fromhex(self.bitmap))
        self.same([self.names[u] for u in self.uploads], self.vector["survivors"], "the survivors")
        self.same(self.agreed.hex(), self.vector["survivors_digest"], "the survivors' digest")

    def bound(self, *clients: int) -> tuple[bytes, ...]:
        return (self.plan.digest, self.root, *map(u32, clients))

    def check_join(self, client: int, said: dict[str, Any]) -> None:
        need(said["member"] is not None and said["member"]["client"] == client, "no membership of this client")
        self.same(said["member"]["key"], agreement_key(self.seat_secrets[client]).hex(), "the key")
        key = bytes.fromhex(said["member"]["key"])
        label = b"secagg/v1/oneshot/seat"
        self.signed(client, said["member"]["signature"], label, self.plan.digest, u32(client), key)

    def check_members(self, client: int, said: dict[str, Any]) -> None:
        self.same(said["members"], [one["member"] for one in self.from_clients("Join").values()], "the committee")

    def box(self, sender: int, receiver: int, boxes: bytes) -> bytes:
        size = 4 * self.sharing["polynomials"] + 28
        need(len(boxes) == size * len(self.seats), "boxes for others than the members")
        return boxes[size * self.seats.index(receiver) :][:size]

    def share(self, sender: int, receiver: int, header: dict[str, Any], boxes: bytes) -> list[int]:
        agreed = agree(self.seat_secrets[receiver], bytes.fromhex(header["key"]))
        key = derive(agreed, b"secagg/v1/oneshot/box", *self.bound(sender, receiver))
        associated = transcript(b"secagg/v1/oneshot/box", *self.bound(sender, receiver))
        self.checked += 1
        return elements(open_box(key, self.box(sender, receiver, boxes), associated))

    def check_upload(self, client: int, said: dict[str, Any]) -> None:
        header, vector, boxes = said["header"], bytes.fromhex(said["vector"]), bytes.fromhex(said["boxes"])
        need(header["client"] == client, "an upload of somebody else")
        self.same(header["vector_hash"], digest(b"secagg/v1/oneshot/vector", vector).hex(), "the vector")
        self.same(header["boxes_hash"], digest(b"secagg/v1/oneshot/box", boxes).hex(), "the boxes")
        signed = [bytes.fromhex(header[name]) for name in ("key", "vector_hash", "boxes_hash")]
        self.signed(client, header["signature"], b"secagg/v1/oneshot/upload", *self.bound(client), *signed)
        shares = {member: self.share(client, member, header, boxes) for member in self.seats}
        own = self.unmasked(self.residues(vector), self.secret(shares))
        need(own == [int(x) for x in self.members[client]["update"]], "a vector that is not the client's")

    def secret(self, shares: dict[int, list[int]]) -> list[int]:
        """The coefficients of a secret, or of a sum of them, from these shares: those beyond the quorum must fit."""
        s = self.sharing
        holders = {member: self.seats.index(member) + 1 for member in shares}
        first, surplus = list(shares)[: s["quorum"]], list(shares)[s["quorum"] :]
        need(len(first) == s["quorum"], "fewer shares than a quorum")
        rows = []
        for target in [-1 - at for at in range(s["packing"])] + [holders[member] for member in surplus]:
            rows.append(
                [
                    interpolated({holders[member]: shares[member][at] for member in first}, target)
                    for at in range(s["polynomials"])
                ]
            )
        for member, row in zip(surplus, rows[s["packing"] :], strict=True):
            need(row == shares[member], "a share that is off the polynomial")
        base, bound = 2 * s["bound"] + 1, s["bound"]
        middle = bound * sum(base**j for j in range(s["digits"]))
        digits: list[list[int]] = [[] for _ in range(s["digits"])]
        for element in (element for row in rows[: s["packing"]] for element in row):
            rest = (element + middle) % PRIME
            need(rest < base ** s["digits"], "a sum of shares is out of range")
            for place in digits:
                rest, digit = divmod(rest, base)
                place.append(digit - bound)
        return [digit for place in digits for digit in place][: self.lattice["degree"]]

    def residues(self, vector: bytes) -> list[np.ndarray[Any, Any]]:
        found, rest = [], vector
        for q in self.lattice["primes"]:
            size = (self.count * q.bit_length() + 7) // 8
            words = unpack(rest[:size], self.count, q.bit_length())
            need(all(word < q for word in words), "a residue that is not reduced")
            found.append(np.array(words, np.int64))
            rest = rest[size:]
        need(not rest, "a vector of another size")
        return found

    def unmasked(self, residues: list[np.ndarray[Any, Any]], secret: list[int]) -> list[int]:
        """The values in a masked vector, or in a sum: coefficients minus a s, errors cut off."""
        degree, primes = self.lattice["degree"], self.lattice["primes"]
        seed = digest(b"secagg/v1/oneshot/public", self.plan.digest)
        open_residues = []
        for q, row in zip(primes, residues, strict=True):
            there, back = transform(degree, q)
            evaluated = times(there, np.array([x % q for x in secret]), q)
            product = [
                times(back, one * evaluated % np.uint64(q), q) * np.uint64(pow(degree, -1, q)) % np.uint64(q)
                for one in public_polynomials(seed, degree, q, self.blocks)
            ]
            open_residues.append((row - np.concatenate(product)[: self.count].astype(np.int64)) % q)
        return self.decoded(open_residues)

    def decoded(self, residues: list[np.ndarray[Any, Any]]) -> list[int]:
        width, values, primes = self.lattice["width"], self.lattice["values"], self.lattice["primes"]
        q = math.prod(primes)
        middles = sum(1 << (width * (j + 1) - 1) for j in range(values))
        shift = (self.lattice["tail"] << (values * width)) + middles
        columns: list[list[int]] = [[] for _ in range(values)]
        for at in range(self.count):
            number = sum(
                int(row[at]) * (q // one) * pow(q // one, -1, one) for row, one in zip(residues, primes, strict=True)
            )
            number = (number + shift) % q
            need(number < (2 * self.lattice["tail"] + 1) << (values * width), "a coefficient is out of range")
            for j, column in enumerate(columns):
                column.append((number >> (j * width) & ((1 << width) - 1)) - (1 << (width - 1)))
        return [value for column in columns for value in column][: self.plan.coordinates]

    def check_delivery(self, client: int, said: dict[str, Any]) -> None:
        expected = [
            {"header": one["header"], "box": self.box(u, client, bytes.fromhex(one["boxes"])).hex()}
            for u, one in self.uploads.items()
        ]
        self.same(said["contributions"], expected, "a contribution")

    def check_vote(self, client: int, said: dict[str, Any]) -> None:
        need(not said["unopened"], "a complaint about shares that open")
        self.signed(client, said["signature"], b"secagg/v1/pairwise/survivors", self.agreed)

    def check_consistencysignatures(self, client: int, said: dict[str, Any]) -> None:
        self.same(said["contributed"], self.contributed.hex(), "what was added up")
        self.same(said["survivors"], self.bitmap, "the survivors")
        signers = [one["signer"] for one in said["signatures"]]
        need(signers == sorted(set(signers)) and set(signers) <= set(self.seats), "signers out of order")
        need(len(signers) >= self.sharing["quorum"], "fewer than a quorum")
        for one in said["signatures"]:
            self.signed(one["signer"], one["signature"], b"secagg/v1/pairwise/survivors", self.agreed)

    def check_answer(self, client: int, said: dict[str, Any]) -> None:
        shares = [self.share(u, client, one["header"], bytes.fromhex(one["boxes"])) for u, one in self.uploads.items()]
        total = [sum(column) % PRIME for column in zip(*shares, strict=True)]
        self.same(said["share"], np.array(total, "<u4").tobytes().hex(), "the share of the sum")
        need(not said["excess"], "a seed of noise that no plan asks for")

    def total(self) -> list[int]:
        shares = {
            self.names.index(name): elements(bytes.fromhex(said["share"]))
            for name, said in self.from_clients("Answer").items()
        }
        vectors = [self.residues(bytes.fromhex(said["vector"])) for said in self.uploads.values()]
        summed = [
            np.sum(rows, axis=0) % q for q, rows in zip(self.lattice["primes"], zip(*vectors, strict=True), strict=True)
        ]
        return self.unmasked(summed, self.secret(shares))


# 7. Files


def verify_plans(content: dict[str, Any], folder: Path) -> str:
    for vector in content["plans"]:
        data = bytes.fromhex(vector["encoding"])
        plan = Plan(data)
        need(plan.fields == vector["fields"], f"{vector['name']}: other fields")
        need(plan.digest.hex() == vector["digest"], f"{vector['name']}: another digest")
        need(write("Plan", plan.fields, plan.structures) == data, f"{vector['name']}: another encoding")
    for vector in content["undecodable"]:
        refused(Plan, bytes.fromhex(vector["encoding"]), vector["what"])
    return f"{len(content['plans'])} plans, {len(content['undecodable'])} that are none"


def refused(read_it: Callable[[bytes], object], data: bytes, what: str) -> None:
    try:
        read_it(data)
    except Wrong:
        return
    raise Wrong(f"{what}: it is decoded")


def verify_messages(content: dict[str, Any], folder: Path) -> str:
    good = bad = 0
    for group in content["protocols"]:
        plan = Plan(bytes.fromhex(group["plan"]))
        need(plan.fields["protocol"] == group["protocol"], "another protocol")
        types = {frame["number"]: frame["type"] for frame in group["frames"]}
        need(types == plan.types and len(types) == len(group["frames"]), "not one frame of each type")
        for vector in group["frames"]:
            _, fields = plan.message(bytes.fromhex(vector["frame"]), vector["type"])
            need(fields == vector["fields"], f"{group['protocol']}, {vector['type']}: other fields")
            good += 1
        for vector in group["undecodable"]:
            what = f"{group['protocol']}, {vector['type']}, {vector['what']}"
            refused(plan.message, bytes.fromhex(vector["frame"]), what)
            bad += 1
    return f"{good} frames, {bad} that are none"


def verify_round(content: dict[str, Any], folder: Path) -> str:
    protocol = read("text 32", Reader(bytes.fromhex(content["plan"])), {})
    return (OneshotRound if protocol == "oneshot" else PairwiseRound)(content).verify()


def verify_threshold(content: dict[str, Any], folder: Path) -> str:
    found = Round(content)
    found.check_sum(content["total"])
    return f"the sum; of {len(content['frames'])} frames there are digests only"


def verify_journal(content: dict[str, Any], folder: Path) -> str:
    """A client's journal: its chain, and its records, which are what it was told and answered in round-secagg.json."""
    vector = json.loads((folder / "round-secagg.json").read_text())
    plan = Plan(bytes.fromhex(vector["plan"]))
    me = next((one for one in vector["clients"] if one["identity"] == content["identity"]), None)
    if me is None:
        raise Wrong("the journal of nobody in that round")
    key = derive(bytes.fromhex(me["identity"]), b"secagg/v1/journal/key")
    roster = bytes.fromhex(plan.fields["roster"])
    heard = [frame["frame"] for frame in vector["frames"] if frame["to"] == me["name"]]
    said = [frame["frame"] for frame in vector["frames"] if frame["from"] == me["name"]]
    expected = list(zip([plan.data.hex(), *heard], said, strict=True))
    need(len(content["records"]) == len(expected), "records of other steps")
    head = bytes(32)
    for step, (record, (request, reply)) in enumerate(zip(content["records"], expected, strict=True)):
        need((record["round"], record["step"]) == (plan.round, step), "another step")
        need(record["session"] == digest(b"secagg/v1/journal/session", roster, plan.session).hex(), "another session")
        need(record["deployment"] == digest(b"secagg/v1/journal/deployment", b"", roster).hex(), "another deployment")
        places = u32(plan.round) + u32(step)
        parts = [bytes.fromhex(record[name]) for name in ("deployment", "session")]
        sealed = bytes.fromhex(record["record"])
        head = digest(b"secagg/v1/journal/record", head, *parts, places, sha256(sealed).digest())
        need(head.hex() == record["link"], "another link")
        associated = transcript(b"secagg/v1/journal/record", plan.session, u32(plan.round), u32(step))
        opened = Reader(open_box(key, sealed, associated))
        fields = [read(kind, opened, {}) for kind in (f"blob {1 << 40}", f"blob {1 << 40}", "blob 32", "blob 32")]
        need(opened.at == len(opened.data), "trailing bytes")
        need(fields[:2] == [request, reply] and not fields[3], "a record of something else")
    return f"{len(expected)} records"


VERIFIERS: dict[str, Callable[[dict[str, Any], Path], str]] = {
    "plans.json": verify_plans,
    "messages.json": verify_messages,
    "round-secagg.json": verify_round,
    "round-secagg-plus.json": verify_round,
    "round-oneshot.json": verify_round,
    "round-threshold-ckks.json": verify_threshold,
    "journal.json": verify_journal,
}


def verify(name: str, content: dict[str, Any], folder: Path) -> str:
    """What was verified of a file, in words; ``Wrong`` if something is not as docs/wire.md says."""
    try:
        return VERIFIERS[name](content, folder)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise Wrong(f"not of the form of such a file ({type(error).__name__}: {error})") from None


def main(arguments: Sequence[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    for name in VERIFIERS:
        try:
            print(f"{name}: {verify(name, json.loads((folder / name).read_text()), folder)}")
        except OSError as error:
            print(f"{name} cannot be read: {error.strerror}", file=sys.stderr)
            return 1
        except (Wrong, json.JSONDecodeError) as error:
            print(f"{name} is wrong: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
