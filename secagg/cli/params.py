"""``secagg params``: what the formula of secagg.params gives, what a round will use, and what to write to have it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import asdict, fields
from math import floor
from typing import Annotated, Any

import typer

from protocols.choice import Choice
from protocols.parameters import ALLOWED, AUTO, ENFORCED_UP_TO, check_adversary, listed, rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from secagg.assumptions import Adversary, CostModel, fraction
from secagg.cli import comparison
from secagg.cli.output import Json, emit
from secagg.crypto.graph import GraphParameters
from secagg.encoding import Encoding
from secagg.params import GRINDING_BITS, choose, choose_for_round

app = typer.Typer()

FEARED: dict[str, Any] = {field.name: field.default for field in fields(Policy)}
"""Where nothing else is said: what a client's policy fears then."""
SECURITY, CORRECTNESS = 40, 20
"""Bits, where nothing else is said: here, in plans and in policies."""

LENGTH = 1_000_000
"""Numbers in a vector, where nothing else is said."""


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
    protocol: Annotated[
        str, typer.Option(help="Whose parameters: see secagg protocols. With auto those of the cheapest.")
    ] = "secagg+",
    allowed: Annotated[
        str, typer.Option(help="Of which auto takes the cheapest: those that clients take part in.")
    ] = ",".join(sorted(ALLOWED)),
    length: Annotated[int, typer.Option(help="Numbers in a client's vector, for the comparison.")] = LENGTH,
    cost_model: Annotated[CostModel, typer.Option(help="How lattices are counted.")] = CostModel.CORE_SVP,
    as_json: Json = False,
) -> None:
    """What a cohort needs: neighbours and threshold (Bell et al. 2020), or another protocol's parameters.

    For secagg+ the formula is shown for the security given. A round against an active server uses more, because
    corrupt clients can try many adverts until the graph, a hash of them, suits them. What to write to have these
    parameters, in Python or in a recommender's configuration, stands below them.

    The protocols are compared by what a round of vectors of that length is predicted to take, and what "auto" would
    take of them is marked.
    """
    gone, bad = fraction(dropout), fraction(corrupt)
    feared = (clients, bad, gone, adversary, security, correctness)
    assumed = {"corrupt": corrupt, "dropout": dropout, "adversary": adversary.value}
    bits = {} if security == SECURITY else {"security": security}
    more = {} if correctness == CORRECTNESS else {"correctness": correctness}
    counted = {} if cost_model is CostModel.CORE_SVP else {"cost_model": cost_model.value}

    def least(threshold: int) -> int:
        """The most contributors that can be demanded: those who stay, as far as that can be enforced."""
        enforced = clients if clients <= ENFORCED_UP_TO else threshold
        return max(min(clients - floor(gone * clients), enforced), 2)

    def compared(allowed: Set[str], contributors: int) -> Choice:
        """With a beacon, as a deployment has one if its protocol draws lots."""
        propose: dict[str, Any] = {"min_contributors": contributors, **assumed, **bits, **more, **counted}
        return RoundPlan.compare(clients, Encoding.integers(length), **propose, beacon=bytes(1), allowed=allowed)

    named, those = protocol, listed(allowed)
    if named == AUTO:
        enforced = clients if clients <= ENFORCED_UP_TO else choose_for_round(*feared).threshold
        protocol = compared(those, least(enforced)).protocol
    check_adversary(protocol, adversary)
    drawn = False
    if protocol != "secagg+":
        chosen = rules_of(protocol).choose(*feared, cost_model)
        properties = [name for name, kind in vars(type(chosen)).items() if isinstance(kind, property)]
        found = asdict(chosen) | {name: getattr(chosen, name) for name in properties}  # type: ignore[call-overload]
        answer = {"protocol": protocol, **found}
        shown = [f"{name.replace('_', ' ')} {value}" for name, value in found.items()]
        drawn, threshold = found.get("members", clients) < clients, found.get("threshold", clients)
    else:
        grinding = GRINDING_BITS if adversary is Adversary.ACTIVE else 0
        formula, used = choose(*feared), choose_for_round(*feared)
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
        shown = [
            f"formula ({security} bits): {_words(formula)}",
            f"round ({security + grinding} bits): {_words(used)}",
            *([f"  and {used.quorum} of {used.witnesses} witnesses"] if used.witnesses else []),
        ]
        threshold = used.threshold
    choice = compared(those if named == AUTO else those | {protocol}, least(threshold))
    policy: dict[str, object] = {"min_contributors": least(threshold), **assumed, **bits}
    propose = policy | more | counted
    names = {"allowed": allowed} if named == AUTO and those != ALLOWED else {}
    toml = {} if bits or more else {"name": named, **names, **assumed}
    answer |= {"propose": propose, "policy": policy, "toml": toml, "comparison": comparison.figures(choice)}
    title = [f"{protocol}, which auto takes:", ""] if named == AUTO else []
    used_as = _use(named, those, propose, policy, toml, drawn)
    emit(as_json, answer, "\n".join([*title, *shown, "", *comparison.lines(choice, length), "", *used_as]))


def _use(
    protocol: str,
    allowed: Set[str],
    propose: Mapping[str, object],
    policy: Mapping[str, object],
    toml: Mapping[str, object],
    drawn: bool,
) -> Iterator[str]:
    """What to write where. Nobody types in a degree or a threshold: they follow from what is assumed."""

    def braced(names: Iterable[str]) -> str:
        return f"{{{', '.join(map(json.dumps, names))}}}"

    names = braced(sorted(allowed))
    beacon = ["    beacon=beacon,  # random bytes that all have from elsewhere"] if drawn else []
    yield "Server and clients compute this themselves, each from what it assumes. A sum"
    yield f"is of at least min_contributors; more than {propose['min_contributors']} cannot be demanded here."
    yield ""
    yield "plan = RoundPlan.propose("
    yield f"    {json.dumps(protocol)}, roster, encoding,"
    if protocol == AUTO and allowed != ALLOWED:
        yield f"    allowed={names},"
    yield from [*_assigned(propose), *beacon]
    yield ")"
    yield "policy = Policy("
    if protocol != AUTO or allowed != ALLOWED:  # which is what a policy allows that says nothing else
        yield f"    protocols={names if protocol == AUTO else braced([protocol])},"
    yield from [*_assigned(policy), *beacon]
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
