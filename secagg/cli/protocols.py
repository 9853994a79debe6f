"""``secagg protocols``: what can be run, against whom it holds, and what it costs."""

from __future__ import annotations

import typer
from rich.console import Group, RenderableType

from protocols import registry
from protocols.parameters import rules_of
from secagg.cli.output import Json, emit, facts

app = typer.Typer()


@app.command()
def protocols(as_json: Json = False) -> None:
    """The registered protocols, with their threat models, what the server learns, and their cost."""
    found = [registry.find(name) for name in registry.names()]
    rows = [
        {
            "name": protocol.name,
            "paper": protocol.paper,
            "adversary": rules_of(protocol.name).against.value,
            "threat_model": protocol.threat_model,
            "server_learns": protocol.server_learns,
            "cost": protocol.cost,
        }
        for protocol in found
    ]
    blocks: list[RenderableType] = []
    for row in rows:
        blocks += [facts(row), ""]
    emit(as_json, {"protocols": rows}, Group(*blocks[:-1]))
