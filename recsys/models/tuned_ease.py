"""EASE as tuned by whoever has all data in one place: what a model is measured against that should be near the best.

Chosen by the users' validation events, and never by their tests: first how a history fades when it is scored (one of
``FADINGS``; ``recsys.models.ease``), then the regularisation, from ``START`` up or down the grid as long as NDCG@10
gets better. Users whose test and validation event are of one time do not choose: they are measured by both.

For users held out as a whole (``recsys.data.strong``) it is chosen by those of validation.

The weights are those of the training events alone, as they are for the models beside it.
"""

from __future__ import annotations

from collections.abc import Callable

from recsys.data.interactions import Interactions
from recsys.data.split import Split
from recsys.data.strong import StrongSplit
from recsys.metrics.ranking import measure
from recsys.metrics.strong import evaluate_newcomers
from recsys.models.ease import Cooccurrence, Ease
from secagg.errors import UsageError

REGULARISATIONS = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
START = 200.0
FADINGS = ((0.0, 0.0), (15.0, 0.2), (8.0, 0.15), (4.0, 0.1))
"""reach and floor; the first: nothing fades"""


def tuned_ease(split: Split, items: int = 0, fadings: tuple[tuple[float, float], ...] = FADINGS) -> Ease:
    """A fitted model. ``items`` bounds the memory, as in ``Ease``.

    >>> from recsys.data.split import leave_last_out
    >>> from recsys.data.synthetic import population
    >>> model = tuned_ease(leave_last_out(population(users=100, items=200, seed=1)))
    >>> model.regularisation in REGULARISATIONS, (model.reach, model.floor) in FADINGS
    (True, True)
    """
    by = split.valid.where(~split.interchangeable[split.valid.users])
    if not len(by):
        raise UsageError("there is no validation event to choose by")
    return _chosen(split.train, lambda model: measure(model, split.train, by).mean("NDCG@10"), items, fadings)


def tuned_by_newcomers(split: StrongSplit, items: int = 0) -> Ease:
    """The same for users whom training does not see: by the NDCG@100 of the validation users.

    >>> from recsys.data.strong import strong
    >>> from recsys.data.synthetic import population
    >>> model = tuned_by_newcomers(strong(population(users=100, items=200, seed=1), liked=0.0))
    >>> model.regularisation in REGULARISATIONS
    True
    """

    def gain(model: Ease) -> float:
        return evaluate_newcomers(model, split, on="valid", k=(100,)).mean("NDCG@100")

    return _chosen(split.train, gain, items, FADINGS)


def _chosen(
    train: Interactions, gain: Callable[[Ease], float], items: int, fadings: tuple[tuple[float, float], ...]
) -> Ease:
    taken = Cooccurrence.of(train, items)

    def fitted(regularisation: float) -> Ease:
        model = Ease(regularisation, items)
        model.solve(taken)
        return model

    first = fitted(START)
    best = max((first.fading(*each) for each in fadings), key=gain)
    most, start = gain(best), REGULARISATIONS.index(START)
    for way in (REGULARISATIONS[start - 1 :: -1], REGULARISATIONS[start + 1 :]):
        for regularisation in way:
            model = fitted(regularisation).fading(best.reach, best.floor)
            if (found := gain(model)) <= most:
                break
            best, most = model, found
        if best.regularisation != START:
            break
    return best
