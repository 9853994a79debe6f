"""What ``secagg bench bytes`` can be told. Settings of one part begin with its name."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.errors import UsageError

PARTS = ("sparse", "training")


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = ",".join(PARTS)
    sparse_items: str = "100000,1000000"
    """the rows of catalogues; ratios without a number in their name are those of the last one"""
    sparse_width: int = 64
    sparse_users: int = 1000
    """each of them a client"""
    sparse_touches: int = 100
    """of each user, in different rows, and the cap on what counts"""
    sparse_zipf: float = 1.0
    """row number r is touched as often as r to the power of minus this"""
    sparse_least: int = 5
    """users that a row takes to come out"""
    sparse_dense: int = 20
    """clients of the dense sum that is timed; seconds for ``sparse_users`` are extrapolated"""
    sparse_epsilon: float = 8.0
    """of one pair of sums with noise, of which bytes and released rows are computed and no round is run; 0: none"""
    training_models: str = "autoencoder,mf"
    training_users: int = 1000
    training_items: int = 1000
    training_path: str = ""
    """a folder with MovieLens, instead of made-up populations"""
    training_silos: int = 20
    training_seeds: int = 3
    training_rounds: int = 80
    training_epsilon: float = 0.0
    """of the autoencoder with noise in the sums, which takes longest; 0: none"""
    training_out: str = "runs/bytes"

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= set(PARTS):
            raise UsageError(f"parts are some of {', '.join(PARTS)}")
        if min(self.sparse_width, self.sparse_touches) < 1 or self.sparse_users < 20:
            raise UsageError("a row has a number, a user a touch, and a sparse sum 20 users or more")
        if not 3 <= self.sparse_dense < self.sparse_users:
            raise UsageError("the dense sum that is timed has 3 clients or more, and fewer than the sparse ones")
        if any(rows < 10 * self.sparse_touches for rows in self.catalogues):
            raise UsageError("a catalogue has ten times as many rows as a user touches, or more")
        if self.sparse_least < 2 or not self.sparse_zipf > 0 or self.sparse_epsilon < 0:
            raise UsageError("sparse_least is 2 or more, sparse_zipf above 0, and sparse_epsilon not below it")

        if self.training_seeds < 2 or self.training_rounds < 1 or self.training_epsilon < 0:
            raise UsageError("an interval takes 2 seeds; there is a round, and an epsilon is not below 0")
        if not set(self.trained) <= {"autoencoder", "mf"}:
            raise UsageError("training_models are some of autoencoder, mf")

    @property
    def trained(self) -> list[str]:
        return self.training_models.split(",")

    @property
    def catalogues(self) -> list[int]:
        try:
            return [int(float(word)) for word in self.sparse_items.split(",")]
        except ValueError:
            raise UsageError("sparse_items are numbers of rows, separated by commas") from None
