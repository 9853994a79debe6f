"""What of their updates clients have not sent yet: each goes on from it, and sends another part of it in each round.

With ``upload.kept`` or ``upload.rank`` a round's sketch (``secagg.sketches``) lets a part of an update travel, another
part in each round, in turn. What has not travelled is kept (``recsys.kept_by_clients``): a client

    begins    with the round's model plus what it has not sent, and trains from there
    sends     the sketch of how far it is from the round's model then
    keeps     what the sketch has left out of that

So nothing is learnt twice and nothing is lost: with 20 parts, each coordinate is averaged every 20th round, and in
between each client goes on with its own. To train from the round's model instead, and to add what was kept to the
change, is error feedback as it is known for single gradients (Stich, Cordonnier and Jaggi 2018, "Sparsified SGD with
Memory"); but a client that does not see in its model what it has not sent learns it again in each round, and sends it
all at once: with local steps that diverges (docs/few_bytes.md).

What is kept is what the sketch has left out, and no more. What the clip cut off is lost, else one very long change
would fill a client's sums for good. So is what rounding by lot added or took: that has a mean of zero, and with very
few bits it is so much longer than the vector that what is kept would grow without bound.

**Who is protected.** In a sum there are parts of earlier updates, and who has nothing left to send adds nothing of that
kind. So a server that lies can keep one client out of a sum, and ask for the same part once more: what then comes, but
for changes since, is that client's alone. Without noise such training is therefore for a curious server only
(``protocol.adversary``); under local privacy what is left is private before it is sent.

Whatever a client has kept, what it sends is clipped afterwards. So noise and charge of a sum hold for it in each round,
whatever happened in the rounds before. What is kept follows from the client's own data and public models: with users of
a silo as the unit of privacy it would carry each of them into the vectors of all others, and so they keep nothing:
there a part is drawn anew in each round, and what comes back is multiplied to make up for the rest.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.models.recommender import SharedModel
from recsys.participation import beacon
from recsys.personal_heads import coordinates_of
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.encoding import Encoding
from secagg.errors import UsageError
from secagg.sketches import Linear, LowRank, RandomK, Ranges, Sketch, Table

if TYPE_CHECKING:
    from recsys.config import Config

UNSENT = "unsent"
"""The kind of what each client keeps (``recsys.kept_by_clients``)."""
_LARGEST = 8
"""A coordinate of few bits is at most so many times the root mean square of a vector that is as long as the clip."""


def sketch_of(config: Config, model: SharedModel, travels: NDArray[np.bool_], length: int) -> Sketch | None:
    """What of an update of ``length`` numbers a round lets travel, by the configuration. It begins with the coordinates
    of the model's vector that ``travels`` names."""
    upload, private = config.upload, config.users_in_silos
    order = b"" if private else digest(labels.SIMULATED, b"order of uploads", beacon(config.seed))
    if upload.kept < 1:
        return RandomK(max(1, round(upload.kept * length)), order)
    if upload.rank:
        tables = tuple(_tables(model, travels, upload.rank))
        if not tables:
            raise UsageError(
                f"upload.rank = {upload.rank}: {config.model.name} has no table of more columns, and as many rows"
            )
        return LowRank(tables, order)
    if upload.frozen:
        frozen = coordinates_of(model, upload.frozen, "upload.frozen")[travels]
        ends = np.flatnonzero(np.diff(np.concatenate([[True], frozen, np.zeros(length - len(frozen), bool), [True]])))
        return Ranges(tuple((start, stop) for start, stop in pairwise(ends.tolist()))[::2])
    return None


def of_few_bits(encoding: Encoding) -> Encoding:
    """The same with a grid for coordinates that are not much larger than the root mean square."""
    return replace(encoding, clip_inf=encoding.clip_l2 * min(1.0, _LARGEST / sqrt(encoding.coordinates)))


def _tables(model: SharedModel, travels: NDArray[np.bool_], rank: int) -> list[Table]:
    """The model's tables in the vector that travels. Of a matrix of fewer rows than columns, or no more columns than
    the rank, a sketch would save nothing that counts."""
    before = np.concatenate([[0], np.cumsum(travels)]).tolist()
    found, at = [], 0
    for rows, columns in getattr(model, "shapes", ()):
        start, at = at, at + rows * columns
        if rank < columns <= rows and before[at] - before[start] == rows * columns:
            found.append(Table(before[start], rows, columns, rank))
    return found


def keeps_unsent(encoding: Encoding) -> bool:
    """Whether clients keep what has not travelled."""
    return bool(getattr(encoding.sketch, "order", b""))


def at_round(encoding: Encoding, number: int) -> Encoding:
    """The encoding of the round of this number: whose turn it is, where parts take turns."""
    match encoding.sketch:
        case RandomK(order=order) | LowRank(order=order) if order:
            return replace(encoding, sketch=replace(encoding.sketch, turn=number))
    return encoding


def linear_of(encoding: Encoding) -> Linear | None:
    """What lets a part travel in a round whose encoding this is, where clients keep the rest."""
    return encoding.sketch.at(encoding.length, b"") if encoding.sketch is not None and keeps_unsent(encoding) else None


def left_of(linear: Linear, change: NDArray[np.float64]) -> NDArray[np.float32]:
    """What of a change has not travelled."""
    left: NDArray[np.float32] = (change - linear.lift(linear.apply(change), unbiased=False)).astype(np.float32)
    return left
