"""One message of each type of each protocol, with recognisable bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from protocols.ckks import messages as ckks
from protocols.oneshot import messages as oneshot
from protocols.pairwise import messages as pairwise
from protocols.rounds import dealing
from protocols.rounds.dealing import COMMITMENT_BYTES
from protocols.rounds.survivors import ConsistencySignature, SignedBy
from protocols.threshold_ckks import messages as threshold
from secagg.crypto.dealing import ELEMENT_BYTES, RESPONSE_BYTES, width
from secagg.crypto.merkle import Node


def filled(letter: str, size: int) -> bytes:
    return letter.encode() * size


NODE = Node(4, 5, filled("p", 32))
SIGNED = (SignedBy(0, filled("C", 64)), SignedBy(2, filled("D", 64)))


def _exchange(secrets: int) -> list[object]:
    points, commitments = filled("b", ELEMENT_BYTES * width(secrets)), filled("k", secrets * COMMITMENT_BYTES)
    delivered = dealing.Delivered(0, points, commitments, filled("q", 32), filled("z", RESPONSE_BYTES))
    said = dealing.Complaint(3, filled("x", 32), filled("S", 64))
    return [
        dealing.Dealt((dealing.Box(points, commitments), dealing.Box(points[::-1], commitments)), filled("Z", 32)),
        dealing.Delivery((delivered,)),
        dealing.Complaints((said,)),
        dealing.Accusations((replace(said, peer=1), said)),
        dealing.Defence((dealing.Opened(3, filled("o", 32)),)),
    ]


def of_pairwise() -> list[object]:
    advert = pairwise.Advert(3, filled("m", 32), filled("s", 32), filled("c", 32), filled("A", 64))
    header = pairwise.UploadHeader(2, b"\x0b", filled("h", 32), filled("U", 64))
    share = pairwise.Revealed(1, filled("r", 36))
    return [
        advert,
        pairwise.Introduction(filled("R", 32), 4, 2, (pairwise.Neighbour(1, advert),), (NODE,)),
        *_exchange(pairwise.SECRETS),
        pairwise.Verdict(b"\x0e", (dealing.Opened(1, filled("o", 32)),)),
        pairwise.Upload(header, filled("v", 14)),
        pairwise.Survivors(b"\x0d", (header,)),
        ConsistencySignature(filled("C", 64)),
        pairwise.ConsistencySignatures(SIGNED, (Node(6, 6, filled("o", 32)),), (NODE, replace(NODE, low=8, high=9))),
        pairwise.Reveal((share,), (replace(share, peer=2), replace(share, peer=3)), filled("n", 32)),
    ]


def of_oneshot() -> list[object]:
    member = oneshot.Member(1, filled("k", 32), filled("M", 64))
    header = oneshot.Header(2, filled("k", 32), filled("h", 32), filled("b", 32), filled("U", 64))
    return [
        oneshot.Join(member),
        oneshot.Members((member, replace(member, client=3))),
        oneshot.Upload(header, filled("v", 14), filled("B", 21)),
        oneshot.Delivery((oneshot.Contribution(header, filled("B", 7)),)),
        oneshot.Vote(b"", (1, 3)),
        oneshot.ConsistencySignatures(filled("c", 32), b"\x0d", SIGNED),
        oneshot.Answer(filled("s", 8), filled("n", 32)),
    ]


def of_ckks() -> list[object]:
    advert = ckks.Advert(3, filled("s", 32), filled("A", 64))
    header = ckks.KeyHeader(1, filled("p", 32), filled("q", 32), filled("K", 64))
    return [
        advert,
        ckks.Introduction(filled("e", 32), filled("R", 32), 4, 2, (ckks.Introduced(1, advert),), (NODE,)),
        ckks.Ready(filled("m", 9)),
        ckks.KeyShown(header, filled("P", 5), filled("Q", 6), filled("B", ckks.BOX_BYTES)),
        ckks.Upload(filled("u", 10)),
        ckks.Survivors(b"\x0d"),
        ConsistencySignature(filled("C", 64)),
        ckks.Aggregate(SIGNED, (Node(6, 6, filled("o", 32)),), (NODE,), (filled("x", 3), filled("y", 4))),
        ckks.Answer(filled("t", 8), filled("n", 32)),
    ]


def of_threshold_ckks() -> list[object]:
    advert = threshold.Advert(3, filled("s", 32), filled("c", 32), filled("A", 64))
    dealt, *others = _exchange(threshold.SECRETS)
    assert isinstance(dealt, dealing.Dealt)
    share = threshold.Revealed(1, filled("r", 36))
    return [
        advert,
        threshold.Introduction((advert, replace(advert, client=4))),
        threshold.Part(filled("K", 11), dealt),
        *others,
        threshold.JointKey(b"\x0e", filled("J", 11), (dealing.Opened(1, filled("o", 32)),)),
        threshold.Upload(filled("U", 64), filled("0", 7), filled("1", 7)),
        threshold.Survivors(b"\x0d", filled("h", 32)),
        ConsistencySignature(filled("C", 64)),
        threshold.Aggregate(SIGNED, filled("1", 7)),
        threshold.Answer(filled("p", 7), filled("n", 32), filled("S", 64)),
        threshold.Missing(filled("h", 32), b"\x02"),
        threshold.Agreement(filled("G", 64)),
        threshold.Agreements(SIGNED),
        threshold.Recovery((share, replace(share, peer=2)), filled("S", 64)),
    ]


SAMPLES: Mapping[str, Callable[[], list[object]]] = {
    "secagg+": of_pairwise,
    "oneshot": of_oneshot,
    "ckks": of_ckks,
    "threshold_ckks": of_threshold_ckks,
}
"""The messages of ``secagg`` are those of ``secagg+``."""

FIRST_LENGTHS: Mapping[str, Mapping[str, int]] = {
    "secagg+": {
        "Introduction": 40, "Dealt": 0, "Delivery": 0, "Complaints": 0, "Accusations": 0, "Defence": 0, "Verdict": 0,
        "Upload": 4, "Survivors": 0, "ConsistencySignatures": 0, "Reveal": 0,
    },
    "oneshot": {
        "Members": 0, "Upload": 164, "Delivery": 0, "Vote": 0, "ConsistencySignatures": 32, "Answer": 0,
    },
    "ckks": {
        "Introduction": 72, "Ready": 0, "KeyShown": 132, "Survivors": 0, "Aggregate": 0,
    },
    "threshold_ckks": {
        "Introduction": 0, "Part": 0, "Delivery": 0, "Complaints": 0, "Accusations": 0, "Defence": 0, "JointKey": 0,
        "Survivors": 0, "Agreements": 0, "Recovery": 0,
    },
}  # fmt: skip
"""Where in a message's body the first length stands that is announced in 32 bits."""
