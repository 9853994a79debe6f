"""Protocols as the documentation shows them: a table of them all, and of each its two machines as Mermaid diagrams."""

from __future__ import annotations

from protocols.registry import Protocol, find, names
from protocols.rounds.client import ClientRound
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.rounds.steps import Step


def table() -> str:
    """Of each protocol the paper, whom it holds against, what the server learns and what it costs, as Markdown.

    >>> print(table().splitlines()[0])
    | protocol | paper | holds against | the server learns | cost |
    """
    head = ("protocol", "paper", "holds against", "the server learns", "cost")
    rows = [(f"`{p.name}`", p.paper, p.threat_model, p.server_learns, p.cost) for p in map(find, names())]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


def mermaid(protocol: Protocol) -> str:
    """The client's diagram, then the server's.

    An arrow says which message is heard, which method checks it, and which one answers.

    >>> from protocols.registry import find
    >>> print(mermaid(find("secagg")).splitlines()[2])
        [*] --> client_share
    """
    return f"{_client(protocol.client)}\n\n{_server(protocol.server)}"


def _client(machine: type[ClientRound]) -> str:
    arrows = []
    for phase, step in machine.steps.items():
        arrows.append(_heard("client", phase, step))
        if step.optional:
            arrows.append(_heard("client", phase, machine.steps[step.then]))
    return _diagram("client", next(iter(machine.steps)), arrows, [Phase.DONE])


def _server(machine: type[ServerRound]) -> str:
    arrows = []
    for phase, step in machine.steps.items():
        arrows.append(
            _arrow(
                "server",
                phase,
                step.then,
                f"{step.hears.__name__} of each: {step.check.__name__}, then {step.reply.__name__}",
            )
        )
        if step.then in machine.steps and (skipped := machine.steps[step.then]).optional:
            arrows.append(_arrow("server", phase, skipped.then, "the same, if nobody is to be asked"))
        arrows.append(_arrow("server", phase, Phase.FAILED, "too few, or cheated"))
    return _diagram("server", next(iter(machine.steps)), arrows, [Phase.DONE, Phase.FAILED])


def _heard(role: str, before: Phase, step: Step) -> str:
    return _arrow(role, before, step.then, f"{step.hears.__name__}: {step.check.__name__}, then {step.reply.__name__}")


def _diagram(role: str, first: Phase, arrows: list[str], ends: list[Phase]) -> str:
    lines = ["stateDiagram-v2", f"[*] --> {role}_{first}", *arrows, *[f"{role}_{end} --> [*]" for end in ends]]
    return "\n".join(["```mermaid", lines[0], *[f"    {line}" for line in lines[1:]], "```"])


def _arrow(role: str, before: Phase, after: Phase, label: str) -> str:
    return f"{role}_{before} --> {role}_{after}: {label}"
