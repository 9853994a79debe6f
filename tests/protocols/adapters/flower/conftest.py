"""The time in which the server waits for replies."""

import pytest


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for replies takes no time."""
    pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")
    from protocols.adapters.flower import server
    from tests.protocols.adapters.flower.fake_flower import CLOCK

    CLOCK.slept.clear()
    monkeypatch.setattr(server, "monotonic", CLOCK.monotonic)
    monkeypatch.setattr(server, "sleep", CLOCK.sleep)
