"""``secagg params``: what the formula of secagg.params gives, and what a round will use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from protocols.parameters import rules_of
from secagg.assumptions import Adversary, CostModel, fraction
from secagg.cli.output import Json, emit, facts
from secagg.crypto.graph import GraphParameters
from secagg.params import GRINDING_BITS, choose, choose_for_round

app = typer.Typer()


@app.command()
def params(
    clients: Annotated[int, typer.Option(help="Clients in a round.")],
    dropout: Annotated[str, typer.Option(help="Fraction that may go silent: 0.05, or 1/20.")],
    corrupt: Annotated[str, typer.Option(help="Fraction that may collude with the server.")],
    adversary: Annotated[Adversary, typer.Option(help="Does the server look (curious), or also lie (active)?")],
    security: Annotated[int, typer.Option(help="A round leaks with chance at most 2^-security.")] = 40,
    correctness: Annotated[int, typer.Option(help="A round aborts with chance at most 2^-correctness.")] = 20,
    protocol: Annotated[str, typer.Option(help="Whose parameters: see secagg protocols.")] = "secagg+",
    cost_model: Annotated[CostModel, typer.Option(help="How lattices are counted.")] = CostModel.CORE_SVP,
    as_json: Json = False,
) -> None:
    """What a cohort needs: neighbours and threshold (Bell et al. 2020), or another protocol's parameters.

    For secagg+ the formula is shown for the security given. A round against an active server uses more, because
    corrupt clients can try many adverts until the graph, a hash of them, suits them.
    """
    gone, bad = fraction(dropout), fraction(corrupt)
    if protocol != "secagg+":
        chosen = rules_of(protocol).choose(clients, bad, gone, adversary, security, correctness, cost_model)
        properties = [name for name, kind in vars(type(chosen)).items() if isinstance(kind, property)]
        found = asdict(chosen) | {name: getattr(chosen, name) for name in properties}  # type: ignore[call-overload]
        emit(as_json, {"protocol": protocol, **found}, facts(found))
        return
    grinding = GRINDING_BITS if adversary is Adversary.ACTIVE else 0
    formula = choose(clients, bad, gone, adversary, security, correctness)
    used = choose_for_round(clients, bad, gone, adversary, security, correctness)
    answer = {
        **_plain(formula),
        "clients": clients,
        "dropout": float(gone),
        "corrupt": float(bad),
        "adversary": adversary.value,
        "security": security,
        "correctness": correctness,
        "round": {**_plain(used), "security": security + grinding},
    }
    human = f"formula ({security} bits): {_words(formula)}\nround ({security + grinding} bits): {_words(used)}"
    emit(as_json, answer, human)


def _plain(chosen: GraphParameters) -> dict[str, str | int]:
    return asdict(chosen) | {"graph": chosen.graph.value}


def _words(chosen: GraphParameters) -> str:
    witnesses = f", {chosen.quorum} of {chosen.witnesses} witnesses" if chosen.witnesses else ""
    return f"{chosen.graph} graph, {chosen.degree} neighbours, threshold {chosen.threshold}{witnesses}"
