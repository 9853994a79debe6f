"""Adapters: what is frozen is the same for everybody, and what is summed is exact where that is promised."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: adapters need torch, pip install 'secagg[train]'")

import torch
from torch import nn

from recsys.models.neural import assign_vector, vector_of
from recsys.text.adapters import Adapted, Adapter, drawn, write_adapter
from secagg.errors import StorageError

KINDS = pytest.mark.parametrize("kind", list(Adapter))


def adapted(kind: Adapter, seed: int = 5) -> Adapted:
    torch.manual_seed(0)
    made = Adapted(nn.Linear(6, 4), 6, 4, kind, rank=2, alpha=3.0)
    drawn([made], seed)
    return made


def change(made: Adapted) -> np.ndarray:
    """D of W + s D, as inputs see it."""
    with torch.no_grad():
        moved = made(torch.eye(6)) - made.base(torch.eye(6))  # type: ignore[misc]
    return moved.double().numpy().T * 2 / 3


@KINDS
def test_it_begins_without_a_change(kind: Adapter) -> None:
    assert not change(adapted(kind)).any()


@KINDS
def test_the_change_on_paper(kind: Adapter) -> None:
    made = adapted(kind)
    assign_vector(made, np.random.default_rng(1).normal(size=len(vector_of(made))).astype(np.float32))
    down, up = (one.double().numpy() for one in made.factors)
    assert (down.shape, up.shape) == ((2, 6), (4, 2))
    np.testing.assert_allclose(change(made), up @ down, rtol=1e-4, atol=1e-5)
    assert np.linalg.matrix_rank(up @ down) == 2


def error_of_the_mean(kind: Adapter) -> float:
    """How far the change of the clients' mean vector is from the mean of the clients' changes."""
    made, rng = adapted(kind), np.random.default_rng(2)
    vectors = [rng.normal(size=len(vector_of(made))).astype(np.float32) for _ in range(5)]
    changes = []
    for vector in [*vectors, np.mean(vectors, axis=0, dtype=np.float32)]:
        assign_vector(made, vector)
        changes.append(change(made))
    *each, of_the_mean = changes
    return float(np.abs(np.mean(each, axis=0) - of_the_mean).max())


@pytest.mark.parametrize("kind", [Adapter.FFA_LORA, Adapter.FED_SB])
def test_the_mean_of_vectors_is_the_mean_of_changes(kind: Adapter) -> None:
    assert error_of_the_mean(kind) < 1e-5
    assert not kind.caution


def test_control_that_of_lora_is_not_and_it_says_so() -> None:
    assert error_of_the_mean(Adapter.LORA) > 0.1
    assert "not the mean of the clients' changes" in Adapter.LORA.caution


@KINDS
def test_what_is_frozen_is_no_part_of_the_vector(kind: Adapter) -> None:
    made = adapted(kind)
    assert len(vector_of(made)) == {Adapter.FFA_LORA: 4 * 2, Adapter.FED_SB: 2 * 2, Adapter.LORA: 2 * 6 + 4 * 2}[kind]


def test_everybody_draws_the_same() -> None:
    """To the last bit, on every machine: the numbers are scaled integers of the library's own generator."""
    first, again, other = adapted(Adapter.FED_SB), adapted(Adapter.FED_SB), adapted(Adapter.FED_SB, seed=6)
    bits = [one.down.detach().numpy().tobytes() + one.up.detach().numpy().tobytes() for one in (first, again, other)]
    assert bits[0] == bits[1] != bits[2]
    assert sha256(bits[0]).hexdigest().startswith("b73dd8a1cb83a7f6")
    two = [adapted(Adapter.FFA_LORA), adapted(Adapter.FFA_LORA)]
    drawn(two, 5)
    assert not torch.equal(two[0].down, two[1].down)


def test_frozen_vectors_have_a_norm_of_about_one() -> None:
    made = Adapted(None, 300, 200, Adapter.FED_SB, rank=8, alpha=1.0)
    drawn([made], 1)
    assert made.down.norm(dim=1).detach().numpy() == pytest.approx(np.ones(8), abs=0.15)
    assert made.up.norm(dim=0).detach().numpy() == pytest.approx(np.ones(8), abs=0.15)


def test_there_is_a_file_where_adapters_are_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot use .*file: File exists"):
        write_adapter(tmp_path / "file", {"a": Adapted(None, 3, 2, Adapter.LORA, 1, 1.0)})
