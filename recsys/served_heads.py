"""The model of one client of a run that has ended, with the personal head that this client kept.

The file of the model has nobody's head (``recsys.personal_heads``). Heads are their clients' secrets, and are deleted
with the run's other secrets, unless it was told to keep these (``secagg train --keep-secrets``). In a simulated run
whoever has them has those of all clients; elsewhere each client has its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from recsys.config import Config
from recsys.kept_by_clients import KeptByClients
from recsys.models.recommender import SharedModel
from recsys.models.store import load_in
from recsys.personal_heads import HEAD, personal
from recsys.run_record import MODEL, Run
from recsys.run_start import CHECKPOINT, PRIVATE, SECRET
from recsys.serving import ServedModel
from recsys.training_state import TrainingState
from secagg.at_rest import AnyFolder, Folder
from secagg.errors import UsageError


def load_own(folder: AnyFolder, client: str) -> ServedModel:
    """The trained model of the run in ``folder`` with the head of this client, which a run names by number:
    "client-07", say."""
    folder = Folder.of(folder)
    private = folder.within(PRIVATE)
    run = Run.load(folder)
    run.check_kept(folder)
    names, served = Config.parse(dict(run.config)).training.personal, load_in(folder, MODEL)
    if not names:
        raise UsageError(f"the run in {folder} has no personal layers: its model is {MODEL}")
    try:
        secret = private.read(SECRET, private=True)
        state = TrainingState.decode(private.read(CHECKPOINT, private=True), secret)
    except FileNotFoundError:
        raise UsageError(f"the heads of {folder} were deleted with its secrets, or are not here") from None
    kept = KeptByClients(secret)
    kept.open(len(state.rounds), state.sealed)
    if client not in kept.of(HEAD):
        raise UsageError(f"no client {client[:80]!r} of this run has a head: who is new starts with {MODEL}")
    model, head = cast(SharedModel, served.model), kept.of(HEAD)[client]
    vector, places = model.vector, personal(model, names)
    if np.count_nonzero(places) != len(head):
        raise UsageError(f"the heads of {folder} are of other layers than its record says")
    vector[places] = head
    return replace(served, model=model.with_vector(vector))
