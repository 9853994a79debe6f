"""Who holds whose events: one user on each device, or users divided among silos.

Every user is with exactly one client, whole. So a client's leaving takes all of its users along, and what is promised
for a user holds whichever client that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from secagg.errors import UsageError

_TASTES = 8
_DRAWS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Clients by name, and the numbers of their users.

    >>> Partition(("east", "west"), (np.array([0, 2]), np.array([1]))).sizes
    (2, 1)
    """

    names: tuple[str, ...]
    members: tuple[NDArray[np.int64], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.members) or len(set(self.names)) != len(self.names):
            raise UsageError("each client has a name of its own, and members")
        if not all(len(users) for users in self.members):
            raise UsageError("a client without users")
        everybody = np.sort(np.concatenate([np.empty(0, np.int64), *self.members]))
        if not np.array_equal(everybody, np.arange(len(everybody))):
            raise UsageError("every user is with exactly one client")
        for users in self.members:
            users.flags.writeable = False

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(users) for users in self.members)


def devices(train: Interactions) -> Partition:
    """One user for each client, called by the user's id."""
    return Partition(tuple(train.user_ids), tuple(np.arange(train.user_count).reshape(-1, 1)))


def silos(
    train: Interactions,
    count: int,
    how: Literal["even", "dirichlet"] = "even",
    *,
    alpha: float = 0.5,
    seed: int = 0,
    least: int = 1,
) -> Partition:
    """Users divided among ``count`` silos of at least ``least`` users.

    "even": at random, in silos of the same size, give or take one. "dirichlet": by taste, as Hsu et al. 2019,
    "Measuring the Effects of Non-Identical Data Distribution", do by label. The users of one taste (``tastes``) go to
    the silos in proportions drawn from Dirichlet(alpha), one draw for each taste. With a small alpha a silo has users
    of few tastes, and silos differ in size; with a large one it is like "even".

    >>> events = Interactions.of(users=range(10), items=[0, 1] * 5)
    >>> silos(events, 3).sizes
    (4, 3, 3)
    """
    users = train.user_count
    if not 1 <= count * least <= users or least < 1:
        raise UsageError(f"{users} users cannot be divided among {count} silos of at least {least}")
    rng = np.random.default_rng(seed)
    names = tuple(f"silo-{number}" for number in range(count))
    if how == "even":
        return Partition(names, tuple(np.sort(part) for part in np.array_split(rng.permutation(users), count)))
    if how != "dirichlet":
        raise UsageError(f"silos are made 'even' or 'dirichlet', not {how!r}")
    if not alpha > 0:
        raise UsageError("alpha is above 0")
    groups = tastes(train, seed)
    for _ in range(_DRAWS):
        home = np.empty(users, np.int64)
        for taste in np.unique(groups):
            ours = np.flatnonzero(groups == taste)
            home[ours] = rng.choice(count, size=len(ours), p=rng.dirichlet(np.full(count, alpha)))
        members = tuple(np.flatnonzero(home == number) for number in range(count))
        if min(len(part) for part in members) >= least:
            return Partition(names, members)
    raise UsageError(
        f"no silo is to have fewer than {least} of {users} users, but with alpha {alpha} some always have: "
        "use fewer silos or a larger alpha"
    )


def natural(train: Interactions, silo_of: Mapping[str, str]) -> Partition:
    """As a file says (``recsys.data.tables.mapping``): user id -> name of the silo.

    >>> events = Interactions.of(users=[0, 1, 2], items=[0, 0, 0], user_ids=["ann", "bob", "eve"])
    >>> natural(events, {"ann": "north", "bob": "south", "eve": "north"}).names
    ('north', 'south')
    """
    homeless = [user for user in train.user_ids if user not in silo_of]
    if homeless:
        raise UsageError(f"{len(homeless)} users are in no silo, such as {homeless[0]}")
    homes = [silo_of[user] for user in train.user_ids]
    names, home = np.unique(np.array(homes, object), return_inverse=True)
    return Partition(tuple(names), tuple(np.flatnonzero(home == number) for number in range(len(names))))


def tastes(train: Interactions, seed: int = 0) -> NDArray[np.int64]:
    """A number for each user: in which of the 8 main directions he or she is furthest from the average user, and to
    which side.

    The directions are the leading right singular vectors of the matrix of users (rows of norm 1) and items.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    shape = (train.user_count, train.item_count)
    directions = min(_TASTES, *(length - 1 for length in shape))
    if directions < 1:
        return np.zeros(train.user_count, np.int64)
    sizes = np.diff(train.starts)
    weights = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
    matrix = csr_matrix((weights, train.items, train.starts), shape=shape)
    start = np.random.default_rng(seed).standard_normal(min(shape))
    _, _, right = svds(matrix, k=directions, v0=start)
    along: NDArray[np.float64] = matrix @ right.T
    along -= along.mean(axis=0)
    furthest = np.abs(along).argmax(axis=1)
    upwards = along[np.arange(len(along)), furthest] > 0
    groups: NDArray[np.int64] = 2 * furthest + upwards
    return groups
