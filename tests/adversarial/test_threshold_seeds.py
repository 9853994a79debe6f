"""Threshold CKKS: a holder that lies about the seed of a client that has fallen silent."""

from __future__ import annotations

from typing import Any

import pytest

from protocols.threshold_ckks.client import ThresholdClient
from protocols.threshold_ckks.phases import Phase
from protocols.threshold_ckks.server import ThresholdServer
from secagg.errors import PeerError
from tests.adversarial.attack import share_of_another
from tests.adversarial.test_threshold import Scene

SILENT = "client-5"


def test_a_wrong_share_of_a_seed_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is rebuilt is compared with what the silent client had committed to; else the sum would not decrypt."""
    honest = ThresholdClient._recover

    def recover(self: Any) -> Any:
        if self._u != 0 or not self._missing:
            return honest(self)
        (missing,) = self._missing
        share = self._held[missing]
        self._held = {**self._held, missing: share_of_another(list(range(self._t)), 0, share)}
        try:
            return honest(self)
        finally:
            self._held = {**self._held, missing: share}

    monkeypatch.setattr(ThresholdClient, "_recover", recover)

    def total() -> tuple[list[int], list[int]]:
        scene = Scene()
        result = scene.run(**{SILENT: Phase.DECRYPT})
        return result.outcome.total.tolist(), scene.sum()

    got, expected = total()
    assert got == expected
    monkeypatch.setattr(ThresholdServer, "_is_seed_of", lambda *_: True)
    with pytest.raises(PeerError):
        total()


def test_the_silent_are_in_the_sum() -> None:
    """The scene of the test above, without a liar."""
    scene = Scene()
    assert scene.run(**{SILENT: Phase.DECRYPT}).outcome.total.tolist() == scene.sum()
