"""Events about items with titles, as files, and the configuration of a small run over them."""

from __future__ import annotations

from pathlib import Path

from recsys.config import Config
from tests.scenes.encoders import encoder
from tests.scenes.recommender import config
from tests.scenes.tables import csv

_TITLES = ("Alien", "Big", "Heat", "Ran", "Up", "the Alien", "the Big Alien", "a b", "b a", "item", "the item", "War a")


def items_csv(path: Path, *, silent: int = -1) -> str:
    """The items of ``tests.scenes.tables.csv`` and three that nobody took; of one of them nothing may be said."""
    lines = [f"i{item},{'' if item == silent else f'{_TITLES[item % 12]} (19{item + 70})'}" for item in range(18)]
    path.write_text("\n".join(["item,title", *lines]) + "\n")
    return str(path)


def small_run(folder: Path, *changes: str) -> Config:
    """Over text, without privacy, on the files that this writes; the encoder is in ``folder / "encoder"``."""
    if not (folder / "events.csv").exists():
        csv(folder / "events.csv")
        items_csv(folder / "items.csv")
        encoder(folder / "encoder")
    return config(
        "data.source=table",
        f"data.path={folder / 'events.csv'}",
        f"data.items={folder / 'items.csv'}",
        "data.time=time",
        "clients.count=6",
        "protocol.dropout=0.3",
        "model.name=two-tower",
        f"model.encoder={folder / 'encoder'}",
        "model.settings={width = 4, recent = 5, negatives = 4, coordinates = 4}",
        *changes,
    )
