"""How protocols compare for a round, in lines of up to 80 columns, and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from protocols.choice import CLIENT_LINK, SERVER_LINK, Candidate, Choice
from protocols.costs.measured import MACHINE
from secagg.cli.output import WIDTH
from secagg.printable import in_bytes, in_seconds


def figures(choice: Choice) -> dict[str, object]:
    """For programs: the name of what "auto" takes, why, and each protocol's seconds and bytes."""
    protocols = [_figures(one) for one in choice.candidates]
    return {"auto": choice.protocol, "why": choice.why, "machine": MACHINE, "protocols": protocols}


def _figures(one: Candidate) -> dict[str, object]:
    if not one.seconds:
        return {"protocol": one.protocol, "why_not": one.why_not}
    return {
        "protocol": one.protocol,
        "seconds": one.seconds,
        "client_seconds": one.client_s,
        "server_seconds": one.server_s,
        "client_bytes": one.client_bytes,
        "server_bytes": one.server_bytes,
        "why_not": one.why_not,
    }


def lines(choice: Choice, length: int) -> Iterator[str]:
    """For people. What "auto" takes has a star.

    >>> choice = Choice((Candidate("secagg", 0.5, 3.0, 2e6, 5e7), Candidate("oneshot", why_not="it rains")))
    >>> for line in list(lines(choice, 10**6))[2:]:
    ...     print(line)
      protocol           round  a client's work, bytes   the server's work, bytes
    * secagg             4.1 s          500 ms, 2.0 MB             3.0 s, 50.0 MB
    not oneshot: it rains
    """
    yield from wrap(
        f"A round of {length:,} numbers, by prediction: the client that does most, the server on one core, their "
        f"bytes at {CLIENT_LINK * 8 // 10**6:,} and {SERVER_LINK * 8 // 10**6:,} Mbit/s.",
        WIDTH,
    )
    yield f"  {'protocol':<14}{'round':>10}  {_CLIENT:>22}  {_SERVER:>25}"
    for one in choice.candidates:
        if one.seconds:
            client = f"{in_seconds(one.client_s)}, {in_bytes(one.client_bytes)}"
            server = f"{in_seconds(one.server_s)}, {in_bytes(one.server_bytes)}"
            star = "*" if one == choice.best else " "
            yield f"{star} {one.protocol:<14}{in_seconds(one.seconds):>10}  {client:>22}  {server:>25}"
    for one in choice.candidates:
        if one.why_not:
            yield from wrap(f"not {one.protocol}: {one.why_not}", WIDTH, subsequent_indent="  ")


_CLIENT, _SERVER = "a client's work, bytes", "the server's work, bytes"
