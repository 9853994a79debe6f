"""``secagg demo``: the main job on made-up data: train privately, lose clients, account for every round, report."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.config import ClientKind, Config
from recsys.sentences import described
from secagg.cli.interrupts import interruptible
from secagg.cli.output import Json
from secagg.cli.train import KeepSecrets, again, carry_out

app = typer.Typer()


MADE_UP = {"beside": True}
"""Each demo is a run of its own on the same population, which has nobody to be protected."""

CONFIGS: dict[ClientKind, dict[str, Any]] = {
    ClientKind.SILOS: {
        "data": {"users": 4000, "item_count": 1000},
        "clients": {"kind": "silos", "count": 20},
        "model": {"name": "autoencoder", "settings": {"width": 8, "fading": 0.95}},
        "training": {"rounds": 15, "epochs": 3, "rate": 10.0, "clip": 50.0},
        "privacy": {"mode": "local", "epsilon": 8.0, "share": 1.0, "steps": 1, "clip": 0.1, "rate": 50.0, **MADE_UP},
        "protocol": {"dropout": "0.25"},
        "network": {"dropout": 0.05},
    },
    ClientKind.DEVICES: {
        "data": {"users": 2000, "item_count": 1000},
        "clients": {"kind": "devices"},
        "model": {"name": "private-ease"},
        "privacy": {"mode": "distributed", "epsilon": 8.0, **MADE_UP},
        "protocol": {"adversary": "curious"},
        "network": {"dropout": 0.03},
    },
}


@app.command()
def demo(
    clients: Annotated[ClientKind, typer.Option(help="Who the clients are.")] = ClientKind.SILOS,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, as in a configuration of train.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run (default: a new one in runs/).")] = None,
    keep_secrets: KeepSecrets = False,
    as_json: Json = False,
) -> None:
    """Train a recommender on made-up data, of which the server sees noised sums, and report what that cost."""
    config = Config.parse(CONFIGS[clients], settings or [])
    if config.title == Config().title:
        config = replace(config, title=described(config))
    folder = out or _fresh(f"demo-{clients}")
    with interruptible(again(["demo", f"--clients {clients}"], settings, folder, keep_secrets, as_json)):
        carry_out(config, folder, as_json, keep_secrets)


def _fresh(name: str) -> Path:
    return next(path for number in count(1) if not (path := Path("runs") / f"{name}-{number}").exists())
