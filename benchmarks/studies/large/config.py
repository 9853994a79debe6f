"""What ``secagg bench large`` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.studies.large.models import MODELS, OVER_TEXT, WITH_TEXTS
from benchmarks.studies.utility.recipes import RECIPES
from recsys.config import Population, Source
from secagg.errors import UsageError

PARTS = ("cold", "transfer", "adapters")


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = PARTS[0]
    data: str = "synthetic"
    path: str = ""
    """a folder with MovieLens"""
    users: int = 4000
    items: int = 1000
    data_seed: int = 1
    habits: str = "calibrated"
    """what the made-up population is like: calibrated or first"""
    moment: str = "2014-01-01"
    """the day on which training ends"""
    models: str = ",".join((*MODELS, "private-ease", *OVER_TEXT))
    """those of ``MODELS``; those that clients train, with noise in their sums and without; and, left out without an
    encoder, those over texts"""
    epsilons: str = "8,3"
    n_min: int = 0
    """a public lower bound of the number of users, for delta; 0: of the made-up population's, it is their number"""
    silos: int = 20
    encoder: str = ""
    """the directory of a text encoder; empty: where one is tuned, a tiny one with random weights"""
    tokens: int = 24
    """so many of a text are looked at, where it is tuned"""
    passes: int = 20
    """how often an encoder is trained on each user, before it is measured on other genres"""
    repeats: int = 3
    """of a round that is timed"""
    seeds: int = 3
    """of noise, of models, and of the order of events of one time"""

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= set(PARTS):
            raise UsageError(f"parts are some of {', '.join(PARTS)}")
        if self.data not in (Source.SYNTHETIC, Source.MOVIELENS) or (self.data == Source.MOVIELENS) != bool(self.path):
            raise UsageError("data is synthetic, or movielens with a path")
        if self.habits not in list(Population):
            raise UsageError("habits are calibrated or first")
        if not set(self.names) <= {*MODELS, *RECIPES, *OVER_TEXT} or len(set(self.names)) < len(self.names):
            raise UsageError(f"models are some of {', '.join((*MODELS, *RECIPES, *OVER_TEXT))}, each once")
        if not set(MODELS) & set(self.names):
            raise UsageError(f"there is something to compare with, one of {', '.join(MODELS)}")
        if self.data == Source.MOVIELENS and set(self.names) & {*RECIPES, WITH_TEXTS} and not self.n_min:
            raise UsageError("n_min is said: how many users there are is no public number")
        if min(self.tokens, self.passes, self.repeats) < 1:
            raise UsageError("tokens, passes and repeats are above 0")
        if self.seeds < 2 or self.silos < 2:
            raise UsageError("an interval takes at least 2 seeds, and a sum 2 silos")
        if any(not epsilon > 0 for epsilon in self.budgets) or len(set(self.budgets)) < len(self.budgets):
            raise UsageError("epsilons are above 0 and different, separated by commas")
        _ = self.ends

    @property
    def names(self) -> list[str]:
        return self.models.split(",")

    @property
    def budgets(self) -> list[float]:
        try:
            return [float(word) for word in self.epsilons.split(",")]
        except ValueError:
            raise UsageError("epsilons are numbers, separated by commas") from None

    @property
    def ends(self) -> int:
        """The moment, in seconds since 1970.

        >>> Config().ends
        1388534400
        """
        try:
            return int(datetime.fromisoformat(self.moment).replace(tzinfo=UTC).timestamp())
        except ValueError:
            raise UsageError(f"moment is a day such as 2014-01-01, not {self.moment[:40]!r}") from None
