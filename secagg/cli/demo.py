"""``secagg demo``: one round among clients of which some fall silent; what the server saw, and what it learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from protocols import registry
from protocols.pairwise.messages import Upload
from protocols.pairwise.phases import Phase
from protocols.pairwise.rules import parameters_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.simulate import Envelope, Faults, Simulation, local_clients, serve, simulate
from secagg.cli.output import Json, emit
from secagg.encoding import Encoding
from secagg.errors import UsageError
from secagg.prg import Prg, random_words

app = typer.Typer()

_SHOWN = 5
"""Coordinates printed of a vector."""


@app.command()
def demo(
    clients: Annotated[int, typer.Option(help="How many clients take part.")] = 40,
    length: Annotated[int, typer.Option(help="How many numbers each holds.")] = 10_000,
    protocol: Annotated[str, typer.Option(help="secagg or secagg+.")] = "secagg+",
    as_json: Json = False,
) -> None:
    """Add up vectors that nobody shows, while five clients fall silent, one in each phase."""
    if clients < 20 or length < 100:
        raise UsageError("the demo loses five clients on purpose and compares vectors: take 20 clients and 100 numbers")
    phases = [phase for phase in Phase if phase not in (Phase.DONE, Phase.FAILED)]
    least, lost = clients // 2, f"{len(phases)}/{clients}"
    roster, people = local_clients(clients, Policy(min_contributors=least, dropout=lost))
    encoding = Encoding(length, clip_l2=1.0, bits=16)
    plan = RoundPlan.propose(protocol, roster, encoding, min_contributors=least, dropout=lost)
    updates = {name: _update(number, length) for number, name in enumerate(roster.names)}
    silent = {roster.names[3 + 3 * i]: phase for i, phase in enumerate(phases)}

    uploads: dict[str, NDArray[np.int64]] = {}

    def look(envelope: Envelope) -> bytes:
        """The server's eyes: what a curious one would keep of every upload."""
        if envelope.phase == Phase.UPLOAD and envelope.sender in roster.names:
            message = registry.find(plan.protocol).messages.decode(plan, envelope.frame)
            if isinstance(message, Upload):
                uploads[envelope.sender] = plan.ring.centred(plan.ring.unpack(message.vector, encoding.coordinates))
        return envelope.frame

    simulation = simulate(serve(plan, roster), people, updates, faults=Faults(silent=silent, corrupted=look))
    answer = _answer(plan, updates, silent, simulation, uploads)
    emit(as_json, answer, _story(answer))


def _update(number: int, length: int) -> NDArray[np.float64]:
    """A wave of norm one half with a client's own noise on it: something that a leak would show."""
    wave = np.sin(np.arange(length) / 50 + number)
    noise = random_words(Prg(number.to_bytes(32, "big")), length) / 2.0**64 - 0.5
    vector = wave + noise
    scaled: NDArray[np.float64] = vector / np.linalg.norm(vector) / 2
    return scaled


def _answer(
    plan: RoundPlan,
    updates: dict[str, NDArray[np.float64]],
    silent: Mapping[str, Phase],
    simulation: Simulation,
    uploads: dict[str, NDArray[np.int64]],
) -> dict[str, Any]:
    outcome, parameters = simulation.outcome, parameters_of(plan)
    learnt = outcome.decode().vector
    plain = np.sum([updates[name] for name in outcome.survivors], axis=0)
    victim = outcome.survivors[0]
    return {
        "protocol": plan.protocol,
        "clients": plan.clients,
        "length": plan.encoding.length,
        "graph": parameters.graph.value,
        "degree": parameters.degree,
        "threshold": parameters.threshold,
        "ring_bits": plan.ring_bits,
        "silent": {name: phase.value for name, phase in silent.items()},
        "survivors": len(outcome.survivors),
        "bytes_up": dict(simulation.bytes_up),
        "bytes_down": dict(simulation.bytes_down),
        "victim": victim,
        "victim_update": _head(updates[victim]),
        "victim_seen": uploads[victim][:_SHOWN].tolist(),
        "largest_correlation": max(abs(float(np.corrcoef(uploads[n], updates[n])[0, 1])) for n in outcome.survivors),
        "sum_learnt": _head(learnt),
        "sum_plain": _head(plain),
        "largest_error": float(np.abs(learnt - plain).max()),
        "rounding_bound": len(outcome.survivors) / plan.encoding.scale,
    }


def _head(vector: NDArray[np.float64]) -> list[float]:
    return [round(value, 5) for value in vector[:_SHOWN].tolist()]


def _story(answer: dict[str, Any]) -> Group:
    traffic = Table(title="what was carried", title_justify="left")
    for column in ("phase", "fell silent", "bytes up", "bytes down"):
        traffic.add_column(column, justify="left" if column in ("phase", "fell silent") else "right")
    for name, phase in answer["silent"].items():
        up, down = answer["bytes_up"].get(phase, 0), answer["bytes_down"].get(phase, 0)
        traffic.add_row(phase, name, f"{up:,}", f"{down:,}")

    vectors = Table(title="first coordinates", title_justify="left")
    columns = {
        f"{answer['victim']} holds": "victim_update",
        "the server sees": "victim_seen",
        "the server learns": "sum_learnt",
        "the true sum": "sum_plain",
    }
    for column in columns:
        vectors.add_column(column, justify="right")
    for values in zip(*[answer[key] for key in columns.values()], strict=True):
        vectors.add_row(*[f"{value:,}" for value in values])

    return Group(
        f"{answer['protocol']}: {answer['clients']} clients, {answer['length']:,} numbers each\n"
        f"{answer['graph']} graph, {answer['degree']} neighbours, threshold {answer['threshold']}, "
        f"{answer['ring_bits']}-bit ring, {answer['survivors']} survivors\n",
        traffic,
        "",
        vectors,
        f"\nThe server learnt the sum, to within {answer['largest_error']:.1e}; "
        f"rounding allows {answer['rounding_bound']:.1e}.\n"
        f"An upload correlates with its update by {answer['largest_correlation']:.3f} at most; "
        f"chance allows {4 / answer['length'] ** 0.5:.3f}.",
    )
