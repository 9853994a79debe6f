"""A whole run in a directory, which may be killed on the way."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from recsys.assembly import prepare
from recsys.config import Config
from recsys.federated import Federation
from recsys.other_runs import RunList
from recsys.run import train
from recsys.run_record import Run
from secagg.at_rest import AnyFolder, Folder
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, derive


def go(config: Config, folder: AnyFolder, state: Path | None = None, **more: object) -> Run:
    """Each directory with a list of runs of its own: what runs know of one another is in test_others.py."""
    place = Folder.of(folder).path
    run_list = RunList(state or place.with_name(f"{place.name}.state"))
    how: dict[str, Any] = {"keep_secrets": True, "machine": {"cores": 1}, **more}
    return train(prepare(config), folder, run_list=run_list, **how)


def key_of(folder: Path) -> SigningKey:
    """The key of a run that has not been deleted yet: it signs its record."""
    return SigningKey(derive((folder / "private" / "ledger.key").read_bytes(), labels.SIMULATED, b"ledger"))


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


class Killed(BaseException):
    """What comes after this never happens."""


def killed_in(done: Federation, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """End a round before anybody's vector is on disk, when all are, or when the sum is out."""

    def end(*_: Any, **__: Any) -> None:
        raise Killed

    places = {"before": "recsys.pending_sum.PendingSums.writing", "in the sum": "recsys.secure_aggregator.drive"}
    with monkeypatch.context() as patched:
        patched.setattr(places.get(place, "recsys.federated.Federation._keep"), end)
        with pytest.raises(Killed):
            done.advance()
