"""The figures of ``secagg bench peers`` for people, made from its JSON: tables in Markdown, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import ceil, floor, log10
from typing import Any

from benchmarks.markdown import table
from benchmarks.studies.peers.side_by_side import DEGREE, GRAPHS

SIDES = {"ours": "ours", "flower": "Flower"}
"""What figures call the two sides, and what people do."""

_COLOURS = {"ours": "tab:blue", "flower": "tab:orange"}
_ON_RING = {"ours": DEGREE, "flower": GRAPHS["k21"] - 1}
_STYLES = {"complete": "-", "k21": "--"}


def page(found: Mapping[str, Any]) -> str:
    """All tables; ``found`` is what is in peers.json."""
    machine = found["machine"]
    versions = "".join(f", {name} {version}" for name, version in found["peers"].items())
    parts = [
        f"# Beside other systems\n\nCommit {found['commit']}{versions}; {machine['processor']}, "
        f"{machine['cores']} cores, Python {machine['python']}.\n"
    ]
    if found["cells"]:
        parts += [_SECONDS, _seconds(found), _TRAFFIC, _traffic(found)]
    if found["uploads"]:
        parts += [_UPLOADS, _uploads(found["uploads"])]
    if found["attacks"]:
        parts += [_ATTACKS, _attacks(found["attacks"])]
    return "\n".join(parts)


_SECONDS = """## Whole rounds: seconds

All clients and the server of one round, as on one machine, and how many times faster ours is. "Side by side": the same
for one client and the server. "Signatures": the part of our seconds in which signatures are verified. Flower's seconds
are without turning messages into bytes and back ("Flower bytes"), ours with it. "Load" of the machine: before ours,
Flower's and ours again, and at the end.
"""

_TRAFFIC = """## Whole rounds: bytes and memory

Of a client that stays: bytes up in the whole round over the number of parameters; kilobytes down, without the model.
Memory is the peak beyond what the process had. All clients live in one process; ours hold their vectors in it from the
start of the round, Flower's clients make theirs when it is asked for.
"""

_UPLOADS = """## What an upload costs a client

From 16-bit integers to bytes; keys are agreed on. NVFlare's kits have one CKKS key for all clients.
"""

_ATTACKS = """## Attacks

What happened when they were run on Flower's SecAgg+ and on ours.
"""


def _seconds(found: Mapping[str, Any]) -> str:
    figures, ratios = found["figures"], found["ratios"]
    titles = [*_PLACE, *(f"{who} {part}" for who in SIDES.values() for part in ("clients", "server", "round"))]
    rows = []
    for one in found["cells"]:
        name = one["name"]
        seconds = [
            f"{figures[f'{name}_{who}_{part}_s']:.2f}" for who in SIDES for part in ("clients", "server", "round")
        ]
        rows.append(
            [
                *_place(one["cell"]),
                *seconds,
                f"**{ratios[f'round_speedup_{name}']:.1f}**",
                f"{ratios[f'side_by_side_speedup_{name}']:.1f}",
                f"{ratios[f'signatures_share_{name}']:.0%}",
                f"{figures[f'{name}_flower_serialising_s']:.2f}",
                " ".join(f"{load:.1f}" for load in one["load"]),
            ]
        )
    return table([*titles, "times faster", "side by side", "signatures", "Flower bytes", "load"], rows)


def _traffic(found: Mapping[str, Any]) -> str:
    kinds = {
        "upload_bytes_per_parameter": ("up, bytes a parameter", 1.0, ".2f"),
        "bytes_down": ("down, kB", 1e3, ".1f"),
        "server_mib": ("server, MiB", 1.0, ".0f"),
        "clients_mib": ("clients, MiB", 1.0, ".0f"),
    }
    titles = [*_PLACE, *(f"{title}: {who}" for title, _, _ in kinds.values() for who in SIDES.values())]
    rows = []
    for one in found["cells"]:
        values = [
            format(found["figures"][f"{one['name']}_{who}_{kind}"] / unit, digits)
            for kind, (_, unit, digits) in kinds.items()
            for who in SIDES
        ]
        rows.append([*_place(one["cell"]), *values])
    return table(titles, rows)


_PLACE = ("graph", "n", "d", "silent")


def _place(cell: Mapping[str, Any]) -> list[str]:
    return [cell["graph"], str(cell["n"]), f"{cell['d']:,}", str(cell["silent"])]


def _uploads(uploads: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            one["name"],
            f"{one['seconds']:.4f}",
            f"{one['bytes_per_coordinate']:.2f}",
            f"{one['versus_nvflare']:.3f}",
        ]
        for one in uploads
    ]
    return table(["upload", "seconds", "bytes a coordinate", "seconds over NVFlare's"], rows)


def _attacks(attacks: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{row['attack']}: {row['what']}",
            row["needs"],
            _verdict(row["there_works"]),
            row["there"],
            _verdict(row["here_works"]),
            row["here"],
        ]
        for row in attacks
    ]
    return table(["attack", "needs", "there", "what happens there", "here", "what happens here"], rows)


def _verdict(works: bool) -> str:
    return "works" if works else "fails"


def plot(found: Mapping[str, Any]) -> bytes:
    """A PNG: seconds of whole rounds by clients, one panel for each length; rounds from which nobody is missing."""
    from matplotlib.figure import Figure

    cells = [one for one in found["cells"] if one["cell"]["silent"] == 0] or found["cells"]
    lengths = sorted({one["cell"]["d"] for one in cells})
    figure = Figure(figsize=(1.5 + 4 * len(lengths), 4.5), layout="constrained")
    panels = figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, length in zip(panels, lengths, strict=True):
        here = [one for one in cells if one["cell"]["d"] == length]
        for who, title in SIDES.items():
            for graph in dict.fromkeys(one["cell"]["graph"] for one in here):
                points = sorted(
                    (one["cell"]["n"], found["figures"][f"{one['name']}_{who}_round_s"])
                    for one in here
                    if one["cell"]["graph"] == graph
                )
                axes.plot(*zip(*points, strict=True), color=_COLOURS[who], linestyle=_STYLES[graph], marker="o")
                axes.lines[-1].set_label(f"{title}, {'all' if graph == 'complete' else _ON_RING[who]} neighbours")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        sizes = sorted({one["cell"]["n"] for one in here})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
        axes.set_title(f"{length:,} parameters")
        axes.set_xlabel("clients")
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(10 ** floor(log10(low)), 10 ** ceil(log10(high)))
    panels[0].set_ylabel("seconds of a round: all clients and the server")
    panels[0].legend(fontsize="small")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()
