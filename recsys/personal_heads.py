"""Personal heads: layers of a model that stay at the client which trains them (Arivazhagan et al. 2019, "Federated
Learning with Personalization Layers").

A model's vector has coordinates that are shared and coordinates that are personal (``SharedModel.layers`` has their
names). A round trains [shared | own head] at each client, as one vector by one optimiser, and then:

    what travels  The change of the shared coordinates, and nothing else. That is the vector whose length is in the
                  plan, which is clipped, noised, charged and masked. A head is in no message, and in nothing that is
                  handed on. The server never moves the personal coordinates of its own vector: they stay what the
                  public seed made them, which is what everybody starts from who has no head yet.
    what is kept  The head (``recsys.kept_by_clients``): a client goes on with its head from the last sum that it was
                  in. What it trained for a sum that failed, or left it out, is lost on both sides.

Who is protected by noise is protected with heads, too:

    a client is one user  A device's head follows from its own data and from models that everybody may see. So no other
                          device's vector depends on it, and what this one sends is clipped as before.
    users in silos        With noise in the sum one user may move no other user's vector, and a silo's head would carry
                          each of its users into the vectors of all others. So that is refused.
    local privacy         The steps of DP-SGD are over the whole vector: a user's gradient is clipped with the head's
                          numbers in it, and these get the same noise. So a head is as private as what is sent, and what
                          follows from it later costs nothing more. It is only not sent.

With SCAFFOLD the control variate has the shared coordinates only, and corrects these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.split import Split
from recsys.metrics.ranking import Evaluation, Scorer, evaluate
from recsys.models.recommender import SharedModel
from secagg.errors import UsageError

HEAD = "personal head"
"""The kind of what each client keeps (``recsys.kept_by_clients``)."""
_OVER_ALL = "novelty"


def personal(model: SharedModel, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which coordinates of the model's vector are personal: those of the layers with these names, or below them."""
    return coordinates_of(model, names, "training.personal")


def coordinates_of(model: SharedModel, names: Sequence[str], key: str) -> NDArray[np.bool_]:
    """Which coordinates of the model's vector are in the layers that ``key`` names, of which some are left out."""
    layers = getattr(model, "layers", {})
    if names and not layers:
        raise UsageError(f"{key} is for models with named layers, and {type(model).__name__} has none")
    for name in names:
        if not any(_within(layer, name) for layer in layers):
            raise UsageError(f"{key}: there is no layer {name[:80]!r}; there are {', '.join(layers)}")
    if not layers:
        return np.zeros(len(model.vector), np.bool_)
    stay = [any(_within(layer, name) for name in names) for layer in layers]
    if all(stay):
        raise UsageError(f"{key} names all layers: nothing would be left to learn together")
    return np.repeat(stay, list(layers.values()))


def _within(layer: str, name: str) -> bool:
    return f"{layer}.".startswith(f"{name}.")


def evaluated(
    owned: Iterable[tuple[Scorer, NDArray[np.int64]]], split: Split, negatives: NDArray[np.int32] | None = None
) -> Evaluation:
    """What ``evaluate`` measures for each user, here by the model that these users have. What is about the lists of
    everybody (coverage, novelty) is left out."""
    found = list[tuple[NDArray[np.int64], Evaluation]]()
    for model, users in owned:
        parts = (part.of_users(users) for part in (split.train, split.valid, split.test))
        tied = None if split.tied is None else split.tied[users]
        some = None if negatives is None else negatives[users]
        found.append((users, evaluate(model, Split(*parts, tied=tied), negatives=some)))
    numbers = np.concatenate([users[one.users] for users, one in found])
    order = np.argsort(numbers)
    names = [name for name in found[0][1].values if not name.startswith(_OVER_ALL)]
    values = {name: np.concatenate([one.values[name] for _, one in found])[order] for name in names}
    return Evaluation(numbers[order], values, {}, sum(one.skipped for _, one in found))
