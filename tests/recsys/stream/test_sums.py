"""The journal moves with the sums of a stream, whatever becomes of them."""

from pathlib import Path

import numpy as np
import pytest

from recsys.aggregator import Request
from recsys.deployment import Deployment
from recsys.network import Network
from recsys.secure_aggregator import SecureAggregator
from recsys.stream.events import Position
from recsys.stream.journal import Taken
from recsys.stream.sums import Schedule, StreamSums
from secagg.encoding import Encoding
from secagg.errors import ThresholdError, UsageError
from tests.scenes.streams import journal

NAMES = tuple(f"client-{number}" for number in range(5))


def sums(network: Network) -> SecureAggregator:
    return SecureAggregator(Deployment("secagg", corrupt="0", dropout="0.2"), bytes(32), network=network)


def test_who_is_in_a_sum_is_done_and_after_one_that_failed_all_wait(tmp_path: Path) -> None:
    request = Request(0, "a test", NAMES, Encoding.integers(1))
    with journal(tmp_path) as kept:
        kept.take_in([Taken("ann", 1, 100, 3, "a", Position(0))], {"a": Position(1)}, {})
        of_nobody = StreamSums(sums(Network(dropout=0.99)), kept, NAMES, Schedule(200, 10))
        with pytest.raises(ThresholdError):
            of_nobody.aggregate(request, lambda name: np.ones(1))
        assert (kept.sums(), kept.acknowledged()["a"].offset) == ((1, False), 0)
        of_all = StreamSums(sums(Network()), kept, NAMES, Schedule(200, 10))
        of_all.aggregate(Request(1, "a test", NAMES, Encoding.integers(1)), lambda name: np.ones(1))
        assert (kept.sums(), kept.acknowledged()["a"].offset) == ((2, False), 1)


@pytest.mark.parametrize("wrong", [(-1, 60), (0, 0)])
def test_what_is_no_schedule_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        Schedule(*wrong)
