"""Neighbourhoods: symmetric, k-regular, in a random order that the seed alone decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.crypto.graph import Graph, GraphParameters, Neighbourhoods
from secagg.crypto.prg import Prg
from secagg.errors import UsageError

seeds = st.binary(min_size=32, max_size=32)


def ring(degree: int, size: int, seed: bytes = bytes(32)) -> Neighbourhoods:
    return Neighbourhoods(GraphParameters(Graph.RING, degree, 2), size, seed)


@given(half=st.integers(1, 12), size=st.integers(2, 60), seed=seeds)
def test_a_ring_is_symmetric_and_regular_and_nobody_is_its_own_neighbour(half: int, size: int, seed: bytes) -> None:
    graph = ring(2 * half, size, seed)
    of = [graph.of(i) for i in range(size)]
    for i, neighbours in enumerate(of):
        assert list(neighbours) == sorted(set(neighbours) - {i})
        assert len(neighbours) == min(2 * half, size - 1)
        assert all(i in of[j] for j in neighbours)


@given(half=st.integers(1, 5), size=st.integers(12, 60), seed=seeds)
def test_a_ring_is_the_definition_on_the_permutation(half: int, size: int, seed: bytes) -> None:
    """Sort the positions by a random 64-bit word each; i and j are joined when at most k/2 places apart."""
    words = np.frombuffer(Prg(seed)(8 * size), "<u8").tolist()
    order = sorted(range(size), key=lambda i: words[i])
    place = {position: at for at, position in enumerate(order)}
    graph = ring(2 * half, size, seed)
    for i in range(size):
        gap = {j: (place[i] - place[j]) % size for j in range(size) if j != i}
        assert graph.of(i) == tuple(sorted(j for j, g in gap.items() if min(g, size - g) <= half))


@given(one=seeds, other=seeds)
def test_the_seed_decides_the_order(one: bytes, other: bytes) -> None:
    neighbours = [[ring(4, 100, seed).of(i) for i in range(100)] for seed in (one, one, other)]
    assert neighbours[0] == neighbours[1]
    assert (neighbours[0] == neighbours[2]) == (one == other)


@pytest.mark.parametrize("size", range(2, 9))
def test_a_small_cohort_closes_on_itself(size: int) -> None:
    """A ring of degree 8 over nine clients or fewer joins everybody, nobody twice."""
    assert all(ring(8, size).of(i) == tuple(j for j in range(size) if j != i) for i in range(size))


@pytest.mark.long
def test_every_pair_is_joined_equally_often() -> None:
    """Over 3000 seeds each of 28 pairs of 8 is joined with chance 4/7; |z| > 6.3 for one of them: below 1e-8."""
    trials, chance = 3000, 4 / 7
    counts = np.zeros((8, 8))
    for trial in range(trials):
        graph = ring(4, 8, trial.to_bytes(32, "big"))
        for i in range(8):
            counts[i, list(graph.of(i))] += 1
    off = counts[~np.eye(8, dtype=bool)]
    assert (np.abs(off - trials * chance) < 6.3 * np.sqrt(trials * chance * (1 - chance))).all()


@pytest.mark.parametrize("size", [2, 3, 5, 10])
def test_the_complete_graph_includes_oneself(size: int) -> None:
    """Bonawitz et al. 2017: a client holds a share of its own secrets."""
    graph = Neighbourhoods(GraphParameters(Graph.COMPLETE, 9, 2), size, bytes(32))
    assert all(graph.of(i) == tuple(range(size)) for i in range(size))


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_one_client_is_no_graph(size: int) -> None:
    with pytest.raises(UsageError, match="two clients"):
        ring(4, size)
