"""The model's answers as Markdown tables: what was checked, flat rounds, trees of cohorts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

from benchmarks import markdown
from benchmarks.studies.scale.deployments import Deployment, cost, parameters_in_words
from benchmarks.studies.scale.trees import tree
from protocols.costs.units import UnitCosts
from secagg.errors import UsageError
from secagg.printable import in_bytes, in_seconds

LARGEST_UPLOAD = 1 << 31
"""Vectors beyond 2 GiB are not carried end to end: everything below 'beyond' is arithmetic."""

ABSURD_SECONDS, ABSURD_MEMORY = 1e7, float(1 << 40)
"""A server that computes for months, or needs a tebibyte of memory."""

FEWEST = 50
"""No sum is over fewer clients than this, or than half of them."""

_DROP = Fraction(1, 10)

_bytes = partial(in_bytes, short=True)
"""Columns are narrow."""


def checked_table(points: Iterable[tuple[str, Mapping[str, float], Mapping[str, float]]]) -> str:
    """What real rounds took, and predicted over measured."""
    rows = []
    for name, measured, ratios in points:
        client_ms, server_s = 1000 * measured[f"{name}_client_s"], measured[f"{name}_server_s"]
        sent = f"{_bytes(measured[f'{name}_client_bytes_up'])}, {_bytes(measured[f'{name}_client_bytes_down'])}"
        found = [ratios.get(f"{name}_predicted_{what}") for what in ("up", "down", "client", "server", "memory")]
        cells = [f"{ratio:.{3 if i < 2 else 2}f}" if ratio else "" for i, ratio in enumerate(found)]
        mib = f"{measured[f'{name}_server_mib']:.0f} MiB"
        rows.append([name.replace("_", " "), sent, f"{client_ms:.0f} ms", f"{server_s:.2f} s", mib, *cells])
    titles = ["real round", "a client's bytes up, down", "client", "server", "memory"]
    return _table("Measured, and predicted over measured", [*titles, "up", "down", "client", "server", "memory"], rows)


def flat_table(protocols: Sequence[str], clients: Sequence[int], d: int, units: UnitCosts) -> str:
    """One round of all of them; ``clients`` ascend. From where on it cannot be, the reason."""
    rows = []
    for protocol in protocols:
        for n in clients:
            rows.append([protocol, *_flat_row(protocol, n, d, units)])
            if len(rows[-1]) == _REASON:
                break
    return _table(f"Flat rounds, d = {_power(d)}, 16-bit values", _FLAT, rows)


_REASON = 3
"""How many cells a row has that says why not: the protocol, from how many clients on, the reason."""

_FLAT = ["protocol", "n", "parameters", "up", "down", "client", "heaviest client", "server", "with 10% gone"]
_FLAT += ["memory", "network"]


def _flat_row(protocol: str, n: int, d: int, units: UnitCosts) -> list[str]:
    """All cells, or only from where on and why not."""
    deployment = Deployment(n, d, minimum=min(FEWEST, n // 2))
    try:
        quiet = cost(protocol, deployment, units)
        dropped = cost(protocol, Deployment(n, d, gone=_DROP, minimum=deployment.minimum), units)
    except UsageError as error:
        return [f"{_power(n)} and more", f"not possible: {error}"]
    if dropped.server_s > ABSURD_SECONDS or dropped.server_memory > ABSURD_MEMORY:
        asked = f"server {in_seconds(dropped.server_s)}, {_bytes(dropped.server_memory)} of memory"
        return [f"{_power(n)} and more", f"absurd as one round on one machine: {asked}"]
    client, heaviest = quiet.client, quiet.heaviest
    most = "" if heaviest is client else f"{in_seconds(heaviest.seconds)}, {_bytes(heaviest.down)} down"
    beyond = " beyond" if client.up > LARGEST_UPLOAD else ""
    return [
        _power(n),
        parameters_in_words(deployment.plan(protocol)),
        _bytes(client.up) + beyond,
        _bytes(client.down),
        in_seconds(client.seconds),
        most,
        in_seconds(quiet.server_s),
        in_seconds(dropped.server_s),
        _bytes(dropped.server_memory),
        _bytes(quiet.up + quiet.down),
    ]


WIDTHS = (16, 8)
"""Bits of a value: a tree has the first of these with which no level's sum is too wide for the next one's encoding."""


def tree_table(protocols: Sequence[str], n: int, d: int, sizes: Sequence[int], units: UnitCosts) -> str:
    """What a cohort size costs and buys; the flat round, where there is one, in the first row."""
    rows = []
    for protocol in protocols:
        for size in (n, *(size for size in sizes if size < n)):
            for bits in WIDTHS:
                row = _tree_row(protocol, Deployment(n, d, bits), size, units)
                if len(row) > 1:
                    break
            rows.append([protocol, "flat" if size == n else str(size), *row])
    titles = ["protocol", "cohort", "levels", "values", "parameters", "rings", "up", "down", "client", "aggregator"]
    titles += ["with 10% gone", "memory", "all servers' core time", "noise"]
    return _table(f"Trees over {_power(n)} clients, d = {_power(d)}", titles, rows)


def _tree_row(protocol: str, deployment: Deployment, size: int, units: UnitCosts) -> list[str]:
    quietly = replace(deployment, minimum=min(FEWEST, size // 2))
    try:
        quiet = tree(protocol, quietly, size, units)
        dropped = tree(protocol, replace(quietly, gone=_DROP), size, units)
    except UsageError as error:
        return [f"not possible: {error}"]
    below = quiet.levels[0]
    if dropped.aggregator_s > ABSURD_SECONDS or below.cost.server_memory > ABSURD_MEMORY:
        return [f"absurd: server {in_seconds(dropped.aggregator_s)}"]
    client = below.cost.client
    return [
        " + ".join(str(level.cohorts) for level in quiet.levels),
        f"{below.deployment.bits} bits",
        parameters_in_words(below.deployment.plan(protocol)),
        ", ".join(str(level.deployment.plan(protocol).ring_bits) for level in quiet.levels),
        _bytes(client.up),
        _bytes(client.down),
        in_seconds(client.seconds),
        in_seconds(quiet.aggregator_s),
        in_seconds(dropped.aggregator_s),
        _bytes(dropped.levels[0].cost.server_memory),
        in_seconds(dropped.servers_s),
        f"{quiet.noise:.3g}",
    ]


def _table(title: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return f"**{title}**\n\n{markdown.table(titles, rows)}"


def _power(count: int) -> str:
    """
    >>> _power(10**6), _power(300)
    ('10^6', '300')
    """
    zeros = len(str(count)) - 1
    return f"10^{zeros}" if zeros > 2 and count == 10**zeros else str(count)
