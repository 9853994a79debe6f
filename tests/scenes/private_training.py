"""A federation under privacy, and what one of its steps charges."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from dp.events import Release, Unit
from dp.ledger import Ledger
from dp.training import Flat, Settings
from recsys.federated import ClientData, Federation, LocalPrivacy
from recsys.models.autoencoder import Autoencoder
from tests.scenes.recommender import federation

STEPS = 2
SETTINGS = Settings(Flat(1.0), Fraction(2), 1)
PRIVATE = LocalPrivacy(SETTINGS, share=0.5, steps=STEPS, rate=0.5)


def small() -> Autoencoder:
    return Autoencoder(2, recent=4)


def step_of(clients: ClientData) -> Release:
    return PRIVATE.event(clients.examples(clients.names, Unit.USER))


def private(clients: ClientData, ledger: Ledger, model: Autoencoder | None = None, **more: Any) -> Federation:
    more = {"measured": 0.0, **more}
    return federation(clients, model=model or small(), local_privacy=PRIVATE, ledger=ledger, **more)
