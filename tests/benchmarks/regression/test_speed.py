"""The case of speed measures what it says, on sums that are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.regression import speed, uploads
from benchmarks.rounds import update_of
from secagg.crypto.bits import plain
from secagg.errors import UsageError

pytest.importorskip("numba", reason="NOT TESTED: compiled loops need numba, pip install 'secagg[fast]'")

SMALL = speed.Config(parts="kernels", d=5000, masks=2, repeats=1)


def test_each_kernel_is_measured_beside_its_limit() -> None:
    measured = speed.run(SMALL, lambda _: None)
    assert set(measured.ratios) == {
        *("mask_vs_keystream", "encode_vs_words", "encode_float32_vs_words", "pack_vs_sha", "unpack_vs_sha"),
        *("pack_compiled_vs_numpy", "unpack_compiled_vs_numpy"),
    }
    assert all(value > 0 for value in (*measured.ratios.values(), *measured.figures.values()))


def test_one_upload_is_measured_beside_hash_and_addition() -> None:
    measured = speed.run(replace(SMALL, parts="upload"), lambda _: None)
    assert set(measured.ratios) == {"server_upload"}
    assert measured.figures["server_limit_s"] > measured.figures["server_hash_s"] > 0


@pytest.mark.long
def test_a_round_is_measured_beside_its_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a wrong sum is worth nothing."""
    config = replace(SMALL, parts="round", d=500, n=24, k=10, t=6)
    measured = speed.run(config, lambda _: None)
    assert set(measured.ratios) == {"server_round"}
    assert measured.figures["server_round_masks"] > 22
    monkeypatch.setattr(uploads, "update_of", lambda number, plan: update_of(number, plan) + (number == 1))
    with pytest.raises(RuntimeError, match="the sum is wrong"):
        speed.run(config, lambda _: None)


@pytest.mark.long
def test_removing_masks_is_measured_at_both_lengths() -> None:
    measured = speed.run(replace(SMALL, parts="unmask", d=500, n=120, k=10, t=6), lambda _: None)
    assert set(measured.ratios) == {"unmask_vs_keystream_500", "unmask_vs_keystream_50"}
    assert all(value > 0 for value in (*measured.ratios.values(), *measured.figures.values()))


@pytest.mark.long
def test_clients_are_measured_beside_their_masks() -> None:
    measured = speed.run(speed.Config(parts="clients", d=5000, masks=8, k=9, t=6, repeats=1), lambda _: None)
    assert set(measured.ratios) == {"client_k8", "client_k9", "oneshot_vs_k9", "upload_allocates", "durable_upload"}
    assert all(value > 0 for value in measured.ratios.values())


def test_different_sums_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "add", lambda data, bits, total: np.add(total, 1, out=total))
    with pytest.raises(AssertionError, match="different sums"):
        speed.run(SMALL, lambda _: None)


def test_parts_are_known_and_counts_positive() -> None:
    with pytest.raises(UsageError, match="parts are some of"):
        speed.Config(parts="kernels,unknown")
    with pytest.raises(UsageError, match="at least 1"):
        speed.Config(masks=0)
    with pytest.raises(UsageError, match="n more than k"):
        speed.Config(n=96)
