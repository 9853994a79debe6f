"""``secagg params``: what the formula of secagg.params gives, what a round will use, and what to write to have it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from math import floor
from typing import Annotated, Any

import typer

from protocols.parameters import ENFORCED_UP_TO, check_adversary, rules_of
from protocols.policy import Policy
from secagg.assumptions import Adversary, CostModel, fraction
from secagg.cli.output import Json, emit
from secagg.crypto.graph import GraphParameters
from secagg.params import GRINDING_BITS, choose, choose_for_round

app = typer.Typer()

FEARED: dict[str, Any] = {field.name: field.default for field in fields(Policy)}
"""Where nothing else is said: what a client's policy fears then."""
SECURITY, CORRECTNESS = 40, 20
"""Bits, where nothing else is said: here, in plans and in policies."""


@app.command()
def params(
    clients: Annotated[int, typer.Option(help="Clients in a round.")],
    dropout: Annotated[str, typer.Option(help="Fraction that may go silent: 0.05, or 1/20.")] = FEARED["dropout"],
    corrupt: Annotated[str, typer.Option(help="Fraction that may collude with the server.")] = FEARED["corrupt"],
    adversary: Annotated[
        Adversary, typer.Option(help="Does the server look (curious), or also lie (active)?")
    ] = FEARED["adversary"],
    security: Annotated[int, typer.Option(help="A round leaks with chance at most 2^-security.")] = SECURITY,
    correctness: Annotated[int, typer.Option(help="A round aborts with chance at most 2^-correctness.")] = CORRECTNESS,
    protocol: Annotated[str, typer.Option(help="Whose parameters: see secagg protocols.")] = "secagg+",
    cost_model: Annotated[CostModel, typer.Option(help="How lattices are counted.")] = CostModel.CORE_SVP,
    as_json: Json = False,
) -> None:
    """What a cohort needs: neighbours and threshold (Bell et al. 2020), or another protocol's parameters.

    For secagg+ the formula is shown for the security given. A round against an active server uses more, because
    corrupt clients can try many adverts until the graph, a hash of them, suits them. What to write to have these
    parameters, in Python or in a recommender's configuration, stands below them.
    """
    gone, bad = fraction(dropout), fraction(corrupt)
    drawn = False
    check_adversary(protocol, adversary)
    if protocol != "secagg+":
        chosen = rules_of(protocol).choose(clients, bad, gone, adversary, security, correctness, cost_model)
        properties = [name for name, kind in vars(type(chosen)).items() if isinstance(kind, property)]
        found = asdict(chosen) | {name: getattr(chosen, name) for name in properties}  # type: ignore[call-overload]
        answer = {"protocol": protocol, **found}
        lines = [f"{name.replace('_', ' ')} {value}" for name, value in found.items()]
        drawn, threshold = found.get("members", clients) < clients, found.get("threshold", clients)
    else:
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
        lines = [
            f"formula ({security} bits): {_words(formula)}",
            f"round ({security + grinding} bits): {_words(used)}",
            *([f"  and {used.quorum} of {used.witnesses} witnesses"] if used.witnesses else []),
        ]
        threshold = used.threshold
    assumed = {"corrupt": corrupt, "dropout": dropout, "adversary": adversary.value}
    staying, enforced = clients - floor(gone * clients), clients if clients <= ENFORCED_UP_TO else threshold
    terms = {"min_contributors": max(min(staying, enforced), 2), **assumed}
    policy = terms | ({} if security == SECURITY else {"security": security})
    propose = policy | ({} if correctness == CORRECTNESS else {"correctness": correctness})
    if cost_model is not CostModel.CORE_SVP:
        propose["cost_model"] = cost_model.value
    by_default = security == SECURITY and correctness == CORRECTNESS
    toml = {"name": protocol, **assumed} if by_default else {}
    answer |= {"propose": propose, "policy": policy, "toml": toml}
    emit(as_json, answer, "\n".join([*lines, "", *_use(protocol, propose, policy, toml, drawn)]))


def _use(
    protocol: str,
    propose: Mapping[str, object],
    policy: Mapping[str, object],
    toml: Mapping[str, object],
    drawn: bool,
) -> Iterator[str]:
    """What to write where. Nobody types in a degree or a threshold: they follow from what is assumed."""
    beacon = ["    beacon=beacon,  # random bytes that all have from elsewhere"] if drawn else []
    yield "Server and clients compute this themselves, each from what it assumes. A sum"
    yield f"is of at least min_contributors; more than {propose['min_contributors']} cannot be demanded here."
    yield ""
    yield "plan = RoundPlan.propose("
    yield f"    {json.dumps(protocol)}, roster, encoding,"
    yield from [*_assigned(propose), *beacon]
    yield ")"
    yield "policy = Policy("
    yield from [f"    protocols={{{json.dumps(protocol)}}},", *_assigned(policy), *beacon]
    yield ")"
    yield ""
    if toml:
        yield "or, for a recommender (secagg train):"
        yield ""
        yield "[protocol]"
        yield from (f"{name} = {json.dumps(value)}" for name, value in toml.items())
    else:
        yield f"A recommender (secagg train) always has {SECURITY} bits of security and {CORRECTNESS} of correctness."


def _assigned(values: Mapping[str, object]) -> list[str]:
    return [f"    {name}={json.dumps(value)}," for name, value in values.items()]


def _plain(chosen: GraphParameters) -> dict[str, str | int]:
    return asdict(chosen) | {"graph": chosen.graph.value}


def _words(chosen: GraphParameters) -> str:
    return f"{chosen.graph} graph, {chosen.degree} neighbours, threshold {chosen.threshold}"
