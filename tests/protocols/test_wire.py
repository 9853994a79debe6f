"""A frame whose vector was written first is the frame that is made of the message, and is not written to any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from protocols.plan import RoundPlan
from protocols.wire import Draft, Messages
from secagg.codec import blob, fixed, struct, u8
from secagg.errors import UsageError
from tests.vectors.make import plan_secagg

PLAN = plan_secagg()
VECTOR = bytes(range(200))


@dataclass(frozen=True)
class Said:
    first: bytes
    vector: bytes | memoryview
    after: bytes
    last: int


MESSAGES = Messages(
    9, {7: (Said, struct(Said, first=fixed(3), vector=blob(1 << 40), after=blob(100), last=u8)), 8: (int, u8)}
)
SAID = Said(b"abc", VECTOR, b"after it", 5)


def drafted(said: Said = SAID) -> Draft:
    draft = MESSAGES.draft(PLAN, lambda vector: replace(said, first=bytes(3), vector=vector), len(VECTOR))
    draft.vector[:] = VECTOR
    return draft


@pytest.mark.parametrize("after", [b"", b"after it"])
def test_a_frame_around_a_vector_is_the_frame_of_the_message(after: bytes) -> None:
    said = replace(SAID, after=after)
    draft = drafted(said)
    frame = MESSAGES.encode(PLAN, replace(said, vector=draft.vector), draft)
    assert type(frame) is bytes
    assert frame == MESSAGES.encode(PLAN, said)
    assert MESSAGES.decode(PLAN, frame) == said


def test_nobody_writes_to_a_frame_that_was_made() -> None:
    draft = drafted()
    part = np.frombuffer(draft.vector[:3], np.uint8)
    with pytest.raises(BufferError):
        MESSAGES.encode(PLAN, replace(SAID, vector=draft.vector), draft)
    assert part.flags.writeable  # it could be written to, had there been a frame

    vector = (draft := drafted()).vector
    frame = MESSAGES.encode(PLAN, replace(SAID, vector=vector), draft)
    with pytest.raises(ValueError, match="released"):
        vector[0] = 1
    assert frame == MESSAGES.encode(PLAN, SAID)


OTHERS: list[Callable[[Draft], tuple[RoundPlan, object]]] = [
    lambda _: (PLAN, replace(SAID, vector=VECTOR[::-1])),
    lambda draft: (PLAN, replace(SAID, vector=bytes(draft.vector))),
    lambda _: (PLAN, 5),
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_message_with_another_vector_is_encoded_as_it_is(other: Callable[[Draft], tuple[RoundPlan, object]]) -> None:
    draft = drafted()
    plan, message = other(draft)
    assert MESSAGES.encode(plan, message, draft) == MESSAGES.encode(plan, message)


@pytest.mark.parametrize("change", [{"after": b""}, {"after": b"longer than it was"}])
def test_another_size_around_a_vector_is_refused(change: dict[str, bytes]) -> None:
    draft = drafted()
    with pytest.raises(UsageError, match="around a vector"):
        MESSAGES.encode(PLAN, replace(SAID, vector=draft.vector, **change), draft)
