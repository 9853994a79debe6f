"""The formats that must not change unnoticed: ``formats.json`` has digests of their vectors under each one's number.

Whoever changes bytes on the wire, in ledgers or in journals raises the number in the code, then makes the vectors anew
(``python -m tests.vectors.make``), which adds the digests of the new number. Under a number that is pinned already they
are not replaced. More vectors of the same format can be added at any time.

Ledgers hold plans and journals hold frames, as they were encoded: their digests are pinned under their own number and
that of the wire.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import dp.ledger.entries
import dp.ledger.file
import protocols.journal
import protocols.wire
from secagg.crypto import labels
from tests.vectors.verify import COMMON, PROTOCOLS

FOLDER = Path(__file__).parent
FILE = FOLDER / "formats.json"

Digests: TypeAlias = dict[str, str]
"""What a vector is -> the SHA-256 of its bytes."""
Pins: TypeAlias = dict[str, dict[str, Digests]]
"""Format -> its numbers -> the digests."""


def _load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return content


def _labels(wanted: str) -> Iterator[tuple[str, bytes]]:
    """Those whose names begin with the format's; for the wire all others but those of runs."""
    for name, label in vars(labels).items():
        if isinstance(label, bytes):
            first = name.partition("_")[0].lower()
            if (first if first in ("ledger", "journal", "run") else "wire") == wanted:
                yield f"label: {name}", label


def _wire() -> Iterator[tuple[str, bytes]]:
    yield from _labels("wire")
    for name, (code, known, types) in PROTOCOLS.items():
        yield f"layout: {name}", json.dumps([code, COMMON, known, types]).encode()
    for plan in _load("plans.json")["plans"]:
        yield f"plan: {plan['name']}", bytes.fromhex(plan["encoding"])
    for group in _load("messages.json")["protocols"]:
        for frame in group["frames"]:
            yield f"message: {group['protocol']}, {frame['type']}", bytes.fromhex(frame["frame"])
    noise = _load("noise.json")
    for draw in noise["draws"]:
        yield f"noise: {draw['name']}", json.dumps([draw["drawn"], draw["excess"]]).encode()
    for path in sorted(FOLDER.glob("round-*.json")):
        frames = [frame.get("sha256") or sha256(bytes.fromhex(frame["frame"])).hexdigest() for frame in _frames(path)]
        yield f"round: {path.stem}", "".join(frames).encode()


def _frames(path: Path) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = _load(path.name)["frames"]
    return frames


def _ledger() -> Iterator[tuple[str, bytes]]:
    for ledger in _load("ledger.json")["ledgers"]:
        yield f"ledger: {ledger['name']}", "\n".join(ledger["lines"]).encode()
    yield "tables", "\n".join(dp.ledger.file._SCHEMA).encode()
    yield from _labels("ledger")


def _journal() -> Iterator[tuple[str, bytes]]:
    yield "records", json.dumps(_load("journal.json")["records"]).encode()
    yield "tables", protocols.journal._SCHEMA.encode()
    yield from _labels("journal")


_WIRE = f"wire {protocols.wire.VERSION}"
FORMATS: Mapping[str, tuple[str, Callable[[], Iterator[tuple[str, bytes]]]]] = {
    "wire": (_WIRE, _wire),
    "ledger": (f"ledger {dp.ledger.entries.SCHEMA}, {_WIRE}", _ledger),
    "journal": (f"journal {protocols.journal.VERSION}, {_WIRE}", _journal),
}
"""Format -> its numbers in the code, and its vectors."""


def measured() -> dict[str, tuple[str, Digests]]:
    """Format -> its numbers in the code and the digests of its vectors."""
    return {
        name: (numbers, {what: sha256(data).hexdigest() for what, data in vectors()})
        for name, (numbers, vectors) in FORMATS.items()
    }


def renewed(pins: Pins, found: Mapping[str, tuple[str, Digests]]) -> Pins:
    """The pins with what was found. ``ValueError`` if bytes have changed, and the number has not."""
    out = {name: dict(pinned) for name, pinned in pins.items()}
    for name, (numbers, digests) in found.items():
        pinned = out.setdefault(name, {})
        before = pinned.get(numbers, {})
        if changed := sorted(what for what in before if digests.get(what) != before[what]):
            raise ValueError(f"{numbers} is pinned and has changed, so the number must rise: {', '.join(changed)}")
        if pinned and numbers != (last := list(pinned)[-1]) and _parsed(numbers) <= _parsed(last):
            raise ValueError(f"{numbers} comes after {last}: numbers only rise")
        pinned[numbers] = digests
    return out


def _parsed(numbers: str) -> list[int]:
    return [int(part.split()[1]) for part in numbers.split(", ")]


def renew() -> None:
    pins: Pins = json.loads(FILE.read_text()) if FILE.exists() else {}
    FILE.write_text(json.dumps(renewed(pins, measured()), indent=1) + "\n")
