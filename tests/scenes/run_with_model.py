"""A run's directory with a model that is on its record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys.models.store import save
from recsys.run_record import Run
from recsys.serving import ServedModel
from tests.scenes.runs import KEY
from tests.scenes.stored_models import ITEMS


def recorded(place: Path, model: Any) -> None:
    """Put a trained model of ``ITEMS`` into the directory of a run that has ended."""
    digest = save(ServedModel(model, ITEMS), place / "model.safetensors")
    replace(Run.load(place), model=digest, public=("what there is to buy",)).save(place, KEY)
