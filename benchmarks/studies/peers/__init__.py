"""Whole rounds beside Flower's own SecAgg+; the work of an upload beside NVFlare's CKKS; attacks on both.

*rounds*   a cell (``cells``) is a number of clients, a length, a graph and dropouts. Ours (SecAgg, SecAgg+) and
           Flower's code (``flower``) sum up the same vectors in turn: ours, Flower's, ours. A round's seconds
           are those of all its clients and its server, as on one machine; beside it stand those of one client and the
           server, as if clients worked side by side.
*ckks*     what an upload costs a client (``uploads``): with NVFlare's CKKS parameters, and with our protocols.
*attacks*  ``attacks``: what happens there, what happens here.

Both clip to the same range and mask modulo 2^32: Flower rounds to 22 bits, we to as many as so many clients leave
room for. ``k21`` is Flower's ``num_shares=21``, 20 neighbours and oneself, and 22 neighbours here (of 20, too few are
left in some rounds with a tenth gone). The threshold is two thirds of Flower's shares on both sides.

With ``out``, finished cells are in its cells.json, and the same call on the same commit goes on after any stop.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.case import Measured, Say, commit
from benchmarks.studies.peers import uploads
from benchmarks.studies.peers.side_by_side import DEGREE, GRAPHS, Cell, Kept, Outcome, measure
from benchmarks.studies.peers.uploads import Upload
from secagg.errors import UsageError
from secagg.extras import installed, need
from secagg.files import write_file
from secagg.machine import machine

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when flwr is imported, which only parts of this package do

if TYPE_CHECKING:
    from benchmarks.studies.peers.attacks import Row

MOST = 1000
"""With more clients than 2^32 / 2^22 Flower's sum wraps."""

_PARTS = {"rounds", "ckks", "attacks"}


Number = TypeVar("Number", int, float)


def _numbers(text: str, kind: Callable[[str], Number]) -> list[Number]:
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        raise UsageError("n, d and drop are numbers, separated by commas") from None


@dataclass(frozen=True, slots=True)
class Config:
    n: str = "10,32,100"
    d: str = "100000,1000000"
    graphs: str = ",".join(GRAPHS)
    drop: str = "0,0.1"
    """Fractions of the clients that fall silent once they have shared their keys."""
    parts: str = "rounds,ckks,attacks"
    repeats: int = 5
    """How often the uploads of part ckks are timed."""
    out: str = ""
    """A folder for results; without one nothing is kept or written."""

    def __post_init__(self) -> None:
        if not set(self.graphs.split(",")) <= GRAPHS.keys() or not set(self.parts.split(",")) <= _PARTS:
            raise UsageError(f"graphs are some of {', '.join(GRAPHS)}, parts some of {', '.join(sorted(_PARTS))}")
        if not 4 <= min(self.sizes) <= max(self.sizes) <= MOST or min(*self.lengths, self.repeats) < 1:
            raise UsageError(f"n is between 4 and {MOST}, d and repeats are at least 1")
        if any(not 0 <= drop <= 0.2 for drop in self.drops):
            raise UsageError("drop is between 0 and 0.2: two thirds of each client's neighbours have to stay")
        if not self.cells:
            raise UsageError(f"k21 takes more than {DEGREE} clients")

    @property
    def sizes(self) -> list[int]:
        return _numbers(self.n, int)

    @property
    def lengths(self) -> list[int]:
        return _numbers(self.d, int)

    @property
    def drops(self) -> list[float]:
        return _numbers(self.drop, float)

    @property
    def cells(self) -> list[Cell]:
        """Small ones first. Where everybody is a neighbour anyway, there is only the complete graph."""
        return [
            Cell(graph, n, d, round(drop * n))
            for n in sorted(self.sizes)
            for d in sorted(self.lengths)
            for graph in self.graphs.split(",")
            if graph == "complete" or n > DEGREE
            for drop in self.drops
        ]


DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    parts = set(config.parts.split(","))
    if parts & {"rounds", "attacks"}:
        need("peers", "the comparison with Flower")
    folder = Path(config.out) if config.out else None
    cells = _rounds(config, folder, say) if "rounds" in parts else []
    uploads = _uploads(config, say) if "ckks" in parts else []
    attacks = _attacks(say) if "attacks" in parts else []
    measured = _measured(cells, uploads, attacks)
    if folder is not None:
        found = {
            "config": asdict(config), "machine": machine(), "commit": commit(), "peers": _versions(),
            "figures": measured.figures, "ratios": measured.ratios,
            "cells": [asdict(cell) for cell in cells],
            "uploads": [asdict(upload) for upload in uploads],
            "attacks": [asdict(row) for row in attacks],
        }  # fmt: skip
        _write(folder, found, say)
    return measured


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("flwr", "tenseal") if installed(name)}


def _write(folder: Path, found: Mapping[str, Any], say: Say) -> None:
    from benchmarks.studies.peers.page import page, plot

    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "peers.json", json.dumps(found, indent=1, allow_nan=False).encode(), private=False)
    write_file(folder / "peers.md", page(found).encode(), private=False)
    if found["cells"]:
        write_file(folder / "peers.png", plot(found), private=False)
    say(f"peers.json and peers.md are in {folder}")


def _rounds(config: Config, folder: Path | None, say: Say) -> list[Outcome]:
    code = commit()
    kept = Kept(folder)
    found = []
    for cell in config.cells:
        key = sha256(json.dumps([asdict(cell), code, _versions()], sort_keys=True).encode()).hexdigest()[:32]
        if key not in kept.found:
            outcome = measure(cell, key, code, say)
            kept.add(outcome)
        found.append(kept.found[key])
        say(f"{cell.name}: {kept.found[key].speedup:.1f} times Flower's speed")
    return found


def _uploads(config: Config, say: Say) -> list[Upload]:
    return uploads.measure(max(config.sizes), max(config.lengths), config.repeats, say)


def _attacks(say: Say) -> list[Row]:
    from benchmarks.studies.peers.attacks import table

    return list(table(say))


# All of it as numbers.


def _measured(cells: list[Outcome], uploads: list[Upload], attacks: list[Row]) -> Measured:
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for one in cells:
        _measured_cell(one, figures, ratios)
    for upload in uploads:
        figures[f"upload_{upload.name}_s"] = upload.seconds
        figures[f"upload_{upload.name}_bytes_per_coordinate"] = upload.bytes_per_coordinate
        ratios[f"upload_{upload.name}_vs_nvflare"] = upload.versus_nvflare
    for row in attacks:
        figures[f"attack_{row.attack}_there"] = float(row.there_works)
        figures[f"attack_{row.attack}_here"] = float(row.here_works)
    return Measured(figures, ratios)


NAMED = {"complete_n100_d100000_silent0": "round_speedup_complete", "k21_n100_d1000000_silent0": "round_speedup_k21"}
"""Ratios that have a target, and their cells: 60 and 10 times Flower's speed."""


def _measured_cell(one: Outcome, figures: dict[str, float], ratios: dict[str, float]) -> None:
    cell, staying = one.cell, one.cell.n - one.cell.silent
    for who, sides in (("ours", one.ours), ("flower", (one.flower,))):
        place = f"{one.name}_{who}"
        for name in ("clients_s", "server_s", "serialising_s", "bytes_up", "bytes_down", "server_mib", "clients_mib"):
            figures[f"{place}_{name}"] = mean(getattr(side, name) for side in sides)
        figures[f"{place}_round_s"] = mean(side.round_s for side in sides)
        figures[f"{place}_one_client_and_server_s"] = mean(side.clients_s / staying + side.server_s for side in sides)
        figures[f"{place}_upload_bytes_per_parameter"] = mean(side.bytes_up for side in sides) / cell.d
    for name, kind in (("round_s", "round_speedup"), ("one_client_and_server_s", "side_by_side_speedup")):
        ratio = figures[f"{one.name}_flower_{name}"] / figures[f"{one.name}_ours_{name}"]
        ratios[f"{kind}_{one.name}"] = ratio
        if kind == "round_speedup" and one.name in NAMED:
            ratios[NAMED[one.name]] = ratio
    ratios[f"signatures_share_{one.name}"] = mean(side.checks * side.check_s / side.round_s for side in one.ours)
