"""``secagg demo``: the main job on made-up data: train privately, lose clients, account for every round, report.

Over silos that is done in two ways, one after the other, with one noise for all silos together inside the secure sums.
The first is DP-SGD: in each step every user's gradient is clipped and encoded by itself, and the server moves the model
by the noised sum. The second, private EASE, needs two sums and no steps. In the end both stand in one table, beside
models without privacy. Whoever sets another model or way of being private gets that one run.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from protocols.parameters import AUTO, rules_of
from recsys.config import ClientKind, Config
from recsys.sentences import described
from secagg.at_rest import Folder
from secagg.cli.interrupts import interruptible
from secagg.cli.keyring import keys_of
from secagg.cli.output import Json, emit, say
from secagg.cli.progress import beside_each_other
from secagg.cli.train import KeepSecrets, again, carry_out

app = typer.Typer()


MADE_UP = {"beside": True}
"""Each demo is a run of its own on the same population, which has nobody to be protected."""

CONFIGS: dict[ClientKind, dict[str, Any]] = {
    ClientKind.SILOS: {
        "data": {"users": 4000, "item_count": 1000},
        "clients": {"kind": "silos", "count": 20},
        "model": {"name": "autoencoder", "settings": {"width": 8, "fading": 0.95}},
        "training": {
            "rounds": 64,
            "rate": 1.0,
            "clip": 0.1,
            "server": "fedavgm",
            "server_rate": 20.0,
            "momentum": 0.9,
        },
        "privacy": {"mode": "distributed", "epsilon": 8.0, **MADE_UP},
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


SECOND: dict[str, Any] = {
    **{name: CONFIGS[ClientKind.SILOS][name] for name in ("data", "clients", "protocol", "network")},
    "model": {"name": "private-ease"},
    "privacy": {"mode": "distributed", "epsilon": 8.0, **MADE_UP},
}
"""The second run over the same silos."""

_ALONE = ("model.", "privacy.mode", "privacy.ledger", "privacy.budget")
"""Settings with which the first run is somebody's own, and there is no second."""
_OF_BOTH = (
    *("title", "seed", "data.", "clients.", "protocol.", "network.", "evaluation."),
    *("privacy.epsilon", "privacy.delta", "privacy.n_min", "privacy.data"),
)


@app.command()
def demo(
    clients: Annotated[ClientKind, typer.Option(help="Who the clients are.")] = ClientKind.SILOS,
    protocol: Annotated[str | None, typer.Option(help="Whose secure sums: see secagg protocols; or auto.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, as in a configuration of train.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run (default: a new one in runs/).")] = None,
    keep_secrets: KeepSecrets = False,
    as_json: Json = False,
) -> None:
    """Train a recommender on made-up data, of which the server sees noised sums, and report what that cost.

    Over silos there is a second run, with one noise for all of them together, in a directory beside the first one.
    """
    changes = [*_of_protocol(protocol), *(settings or [])]
    config = _titled(Config.parse(deepcopy(CONFIGS[clients]), changes))
    folder, later, keys = out or _fresh(f"demo-{clients}"), dict[Path, Config](), keys_of(None)
    if clients is ClientKind.SILOS and not any(change.strip().startswith(_ALONE) for change in changes):
        second = Config.parse(deepcopy(SECOND), [change for change in changes if change.strip().startswith(_OF_BOTH)])
        if second.users_in_silos:
            later = {_beside(folder): _titled(second, f", {second.model.name}")}
    from rich.console import Group

    from recsys.verdict import price

    with interruptible(again(["demo", f"--clients {clients}"], changes, folder, keep_secrets, as_json)):
        done = carry_out(config, Folder(folder, keys), as_json, keep_secrets, before=later)
        if not later:
            emit(as_json, done.figures(), done.shown())
            return
        if not as_json:
            emit(False, {}, done.shown())
            say("")
        ((second_folder, second),) = later.items()
        second_done = carry_out(second, Folder(second_folder, keys), as_json, keep_secrets)
        answer = {**done.figures(), "nothing_left_to_do": done.over and second_done.over}
        accounts = [done.account, second_done.account]
        answer |= {"second_run": second_done.figures(), "price": price(*accounts)}
        emit(as_json, answer, Group(second_done.shown(), beside_each_other(accounts)))


def _of_protocol(name: str | None) -> list[str]:
    """Settings for this protocol, against the strongest server that it holds against."""
    if name is None:
        return []
    if name == AUTO:
        return [f"protocol.name={AUTO}"]
    return [f"protocol.name={name}", f"protocol.adversary={rules_of(name).against}"]


def _titled(config: Config, more: str = "") -> Config:
    """By its title, or else by what it is about."""
    return replace(config, title=described(config) if config.title == Config().title else f"{config.title}{more}")


def _beside(folder: Path) -> Path:
    """Where the second run is."""
    named = folder if folder.name else folder.absolute()
    return named.with_name(f"{named.name}-{SECOND['model']['name']}")


def _fresh(name: str) -> Path:
    return next(path for number in count(1) if not (path := Path("runs") / f"{name}-{number}").exists())
