"""Keys and a roster for a simulation: python identities.py COUNT FOLDER. Deployments use ``secagg keys new``."""

from __future__ import annotations

import sys
from pathlib import Path

from protocols.roster import Identity, Roster


def make(count: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    identities = [Identity.generate(f"client-{i}") for i in range(count)]
    for i, identity in enumerate(identities):
        identity.save(folder / f"{i}.key")
    Roster.of(identities).save(folder / "roster.toml")


if __name__ == "__main__":
    make(int(sys.argv[1]), Path(sys.argv[2]))
