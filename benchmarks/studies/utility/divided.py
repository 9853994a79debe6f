"""The data of a grid, divided in one of two ways; each says what models learn from, and how they are measured.

weak     each user's last event is the test, the one before it the validation, the others are learnt from
strong   users are held out as a whole (``recsys.data.strong``); where data have ratings, those of 4 and more count
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

import numpy as np

from recsys.config import Data, Source
from recsys.data.interactions import Interactions
from recsys.data.negatives import frozen
from recsys.data.split import Split
from recsys.data.strong import LIKED, StrongSplit, strong
from recsys.metrics.ranking import Evaluation, Scorer, evaluate
from recsys.metrics.strong import evaluate_newcomers
from recsys.models.ease import Ease
from recsys.models.tuned_ease import tuned_by_newcomers, tuned_ease
from recsys.sources import data_of

NEGATIVES, NEGATIVES_SEED = 99, 0
WEAK = ("NDCG@10", "HR@10")
AMONG = tuple(f"{name} of {NEGATIVES + 1}" for name in WEAK)
"""The same metrics, against negatives that were drawn once and for all."""
STRONG = ("NDCG@100", "capped Recall@20", "capped Recall@50")


class Divided(Protocol):
    """Data with a part to learn from, and a way to measure what was learnt."""

    @property
    def training(self) -> Split:
        """What models learn from, as a split."""

    @property
    def tied(self) -> float:
        """The share of tests that a tie in time decides."""

    @property
    def users(self) -> int:
        """How many there are to measure, or to leave out of it."""

    def tuned(self, items: int) -> Ease:
        """EASE with settings chosen by what is there for validation."""

    def scored(self, model: Scorer) -> tuple[Evaluation, dict[str, float]]:
        """User by user, and the means; the first is what models are compared by."""

    def mark(self) -> str:
        """Which data this is, whatever it is called and wherever it lies."""


@dataclass(frozen=True, slots=True)
class Weak:
    split: Split

    @property
    def training(self) -> Split:
        return self.split

    @property
    def tied(self) -> float:
        return self.split.tied_share

    @property
    def users(self) -> int:
        return self.split.train.user_count

    def tuned(self, items: int) -> Ease:
        return tuned_ease(self.split, items)

    def scored(self, model: Scorer) -> tuple[Evaluation, dict[str, float]]:
        """With all items ranked, and against negatives."""
        full = evaluate(model, self.split)
        among = evaluate(model, self.split, negatives=_negatives(self.split))
        metrics = {name: full.mean(name) for name in WEAK}
        return full, metrics | {long: among.mean(name) for long, name in zip(AMONG, WEAK, strict=True)}

    def mark(self) -> str:
        return _mark(self.split.train, self.split.valid, self.split.test)


@dataclass(frozen=True, slots=True)
class Strong:
    split: StrongSplit

    @property
    def training(self) -> Split:
        return self.split.training

    @property
    def tied(self) -> float:
        return 0.0

    @property
    def users(self) -> int:
        return self.split.test.history.user_count

    def tuned(self, items: int) -> Ease:
        return tuned_by_newcomers(self.split, items)

    def scored(self, model: Scorer) -> tuple[Evaluation, dict[str, float]]:
        found = evaluate_newcomers(model, self.split)
        return found, {name: found.mean(name) for name in STRONG}

    def mark(self) -> str:
        groups = (self.split.valid.history, self.split.valid.targets, self.split.test.history, self.split.test.targets)
        return _mark(self.split.train, *groups)


@lru_cache(1)
def divided(data: Data, strongly: bool) -> Divided:
    """The data of a configuration."""
    split, *_ = data_of(data)
    if not strongly:
        return Weak(split)
    return Strong(strong(_together(split), liked=0.0 if data.source is Source.SYNTHETIC else LIKED))


@lru_cache(1)
def _negatives(split: Split) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return frozen(split, NEGATIVES, NEGATIVES_SEED)


def _together(split: Split) -> Interactions:
    """All events, before they were divided."""
    parts = (split.train, split.valid, split.test)
    users, items, times, ratings = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items", "times", "ratings")
    )
    return Interactions.of(users, items, times, ratings, user_ids=split.train.user_ids, item_ids=split.train.item_ids)


def _mark(*parts: Interactions) -> str:
    found = sha256()
    for part in parts:
        for array in (part.starts, part.items):
            found.update(array.tobytes())
    return found.hexdigest()
