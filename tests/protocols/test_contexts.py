"""Every key, seed, associated data and digest of a cohort is bound to all that it is for.

Whoever gets two parties to use one key in two rounds, cohorts, directions or for two purposes can hand on a message
where it was not meant. So each is computed once, and again with one thing changed: all the answers are different.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.ckks.cohort import Cohort as CkksCohort
from protocols.oneshot.committee import Committee
from protocols.oneshot.messages import Header, Member
from protocols.pairwise import client as pairwise_client
from protocols.pairwise.cohort import Cohort as PairwiseCohort
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.cohort import Cohort
from protocols.threshold_ckks.cohort import Cohort as ThresholdCohort
from protocols.threshold_ckks.messages import Advert
from secagg.crypto import labels
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError
from tests.scenes.pairwise import small

CLIENTS = 6
IDENTITIES = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(CLIENTS)]
ROSTER = Roster.of(IDENTITIES)
ONE, OTHER = b"1" * 32, b"2" * 32
FULL, PART = b"\x3f", b"\x1f"


def plan_of(protocol: str) -> RoundPlan:
    return RoundPlan.propose(
        protocol, ROSTER, Encoding.integers(7), min_contributors=4, corrupt=0, dropout=0, session=bytes(16)
    )


def pairwise(plan: RoundPlan, root: bytes) -> Any:
    return PairwiseCohort(plan, root, CLIENTS)


def ckks(plan: RoundPlan, root: bytes) -> Any:
    return CkksCohort(plan, root, CLIENTS)


def threshold(plan: RoundPlan, root: bytes) -> Any:
    return ThresholdCohort(plan, ROSTER, [Advert(i, root, bytes(32), bytes(64)) for i in range(CLIENTS)])


def oneshot(plan: RoundPlan, root: bytes) -> Any:
    return Committee(plan, [Member(i, root, bytes(64)) for i in range(CLIENTS)])


def header(key: bytes) -> Header:
    return Header(0, key, bytes(32), bytes(32), bytes(64))


def agreed_digest(cohort: Cohort, bitmap: bytes) -> bytes:
    return cohort.agreed(bitmap).digest


def agreed_uploads_digest(seats: Committee, contributed: bytes, bitmap: bytes) -> bytes:
    return seats.agreed(contributed, CLIENTS, bitmap).digest


Arguments = tuple[tuple[Any, Any], ...]
"""Of each argument the usual value and another one."""

POSITIONS: Arguments = ((1, 3), (2, 4))
BOUND: dict[str, tuple[str, Callable[[RoundPlan, bytes], Any], Callable[..., bytes], Arguments]] = {
    "pad": ("secagg", pairwise, PairwiseCohort.pad_key, ((ONE, OTHER), *POSITIONS)),
    "pair mask": ("secagg", pairwise, PairwiseCohort.pair_seed, ((ONE, OTHER), *POSITIONS)),
    "self mask": ("secagg", pairwise, PairwiseCohort.self_seed, ((ONE, OTHER), POSITIONS[0])),
    "survivors": ("secagg", pairwise, agreed_digest, ((FULL, PART),)),
    "ckks box": ("ckks", ckks, CkksCohort.box_key, ((ONE, OTHER), *POSITIONS)),
    "ckks to the server": (
        "ckks",
        ckks,
        CkksCohort.server_key,
        ((ONE, OTHER), POSITIONS[0], (labels.CKKS_KEY, labels.CKKS_UPLOAD)),
    ),
    "ckks survivors": ("ckks", ckks, agreed_digest, ((FULL, PART),)),
    "threshold box": ("threshold_ckks", threshold, ThresholdCohort.pad_key, ((ONE, OTHER), *POSITIONS)),
    "threshold joint key": ("threshold_ckks", threshold, ThresholdCohort.joint_digest, ((FULL, PART), (ONE, OTHER))),
    "threshold survivors": ("threshold_ckks", threshold, agreed_digest, ((FULL, PART),)),
    "threshold sum": (
        "threshold_ckks",
        threshold,
        ThresholdCohort.ciphertext_digest,
        ((ONE, OTHER), (FULL, PART), (b"c1", b"c2")),
    ),
    "threshold missing": ("threshold_ckks", threshold, ThresholdCohort.missing_digest, ((ONE, OTHER), (FULL, PART))),
    "one-shot box": ("oneshot", oneshot, Committee.box_key, ((ONE, OTHER), *POSITIONS)),
    "one-shot uploads": ("oneshot", oneshot, Committee.contributed, (([header(ONE)], [header(OTHER)]),)),
    "one-shot survivors": ("oneshot", oneshot, agreed_uploads_digest, ((ONE, OTHER), (FULL, PART))),
}
NOT_UNDER_THE_ROOT = {"one-shot survivors"}
"""Its first argument is a digest of the uploads, which is under the root."""


@pytest.mark.parametrize("name", BOUND)
def test_one_thing_changed_is_another_answer(name: str) -> None:
    protocol, cohort, compute, arguments = BOUND[name]
    plan = plan_of(protocol)
    plans = [plan, plan.next_round(), replace(plan, session=b"s" * 16)]
    roots = [ONE] if name in NOT_UNDER_THE_ROOT else [ONE, OTHER]
    scenes = [cohort(plan, root) for plan, root in product(plans, roots)]
    answers = [compute(scene, *chosen) for scene, chosen in product(scenes, product(*arguments))]
    assert len(set(answers)) == len(answers)


@pytest.mark.parametrize("name", [name for name in BOUND if POSITIONS[1] in BOUND[name][3] and name != "pair mask"])
def test_what_goes_one_way_does_not_come_back(name: str) -> None:
    protocol, cohort, compute, _ = BOUND[name]
    scene = cohort(plan_of(protocol), ONE)
    assert compute(scene, ONE, 1, 2) != compute(scene, ONE, 2, 1)


def test_no_two_purposes_share_an_answer() -> None:
    """All of one protocol from the same secret and the same place."""
    for protocol in ("secagg", "ckks", "threshold_ckks", "oneshot"):
        plan = plan_of(protocol)
        answers = [
            compute(cohort(plan, ONE), *[usual for usual, _ in arguments])
            for used_by, cohort, compute, arguments in BOUND.values()
            if used_by == protocol
        ]
        assert len(set(answers)) == len(answers)


def test_the_graph_hangs_on_plan_and_root() -> None:
    """Who knows, or chose, the neighbours in one cohort knows nothing of those in another."""
    n, roots = 40, [bytes([i]) * 32 for i in range(3)]
    plan = replace(plan_of("secagg"), protocol="secagg+", parameters=GraphParameters(Graph.RING, 2, 2))
    plan = replace(plan, clients=n, ring_bits=40)
    cohorts = [PairwiseCohort(one, root, n) for one, root in product([plan, plan.next_round()], roots)]
    drawn = [tuple(cohort.holders(u) for u in range(n)) for cohort in cohorts]
    assert len(set(drawn)) == len(drawn)


def test_the_makers_of_a_ckks_key_hang_on_plan_and_root() -> None:
    """Who could choose the lots would choose who holds the key."""
    plan, roots = plan_of("ckks"), [bytes([i]) * 32 for i in range(20)]
    one, other = ([CkksCohort(plan, root, CLIENTS).makers for root in roots] for plan in (plan, plan.next_round()))
    assert one != other
    assert len(set(one)) > 1


# What is bound before there is a cohort.


def test_a_roster_is_its_names_and_its_keys() -> None:
    """One other name, one other key, two keys exchanged: another roster."""
    keys = dict(zip(ROSTER.names, ROSTER.keys, strict=True))
    stranger = Identity.generate("stranger", Prg(b"s" * 32)).key.public
    digests = {Roster.build(keys).digest}
    for name, key in keys.items():
        others = {other: known for other, known in keys.items() if other != name}
        digests.add(Roster.build(others | {name: stranger}).digest)
        digests.add(Roster.build(others | {f"{name}x": key}).digest)
        digests.add(Roster.build(others).digest)
    first, second = ROSTER.names[:2]
    digests.add(Roster.build(keys | {first: keys[second], second: keys[first]}).digest)
    assert len(digests) == 1 + 3 * CLIENTS + 1


def test_each_round_is_rotated_in_its_own_way() -> None:
    plan = plan_of("secagg")
    plans = [plan, plan.next_round(), replace(plan, session=b"s" * 16)]
    assert len({plan._rotation_seed() for plan in plans}) == len(plans)


@pytest.mark.parametrize("protocol", ["secagg", "ckks", "threshold_ckks", "oneshot"])
def test_what_a_client_draws_is_for_one_purpose_in_one_round(protocol: str) -> None:
    """All of it comes from one secret: keys, noise and polynomials must not be one another's."""
    drawn = set()
    plan = plan_of(protocol)
    purposes, contexts = (b"mask key", b"seal key"), [*product((b"", b"a", b"b"), repeat=4), (), (b"a",), (b"a", b"b")]
    for one in (plan, plan.next_round()):
        policy = Policy(
            min_contributors=4, protocols={protocol}, adversary=rules_of(protocol).against, corrupt=0, dropout=0
        )
        current: Any = registry.find(protocol).client(
            one,
            ROSTER,
            registry.find(protocol).messages,
            IDENTITIES[0],
            policy,
            lambda: np.zeros(7, np.int64),
            bytes(32),
        )
        drawn |= {current._drawn(purpose, *context) for purpose, context in product(purposes, contexts)}
    assert len(drawn) == 2 * len(purposes) * len(contexts)


def test_an_upload_is_signed_for_one_place_in_one_cohort_and_one_vector() -> None:
    """What a header says, and where it says it: with any of that changed the signature is none."""
    evil = small("secagg", corrupt=())
    evil.advertise()
    evil.share()
    evil.upload()
    header, plan, root, size = evil.headers[0], evil.plan, evil.tree.root, evil.cohort.size
    pairwise_client.check_header(evil.cohort, evil.roster, 0, evil.t, header)
    fewer = bytes([header.holders[0] & 0xFE]) + header.holders[1:]
    for cohort, changed in (
        (PairwiseCohort(plan.next_round(), root, size), header),
        (PairwiseCohort(plan, ONE, size), header),
        (evil.cohort, replace(header, position=1)),
        (evil.cohort, replace(header, holders=fewer)),
        (evil.cohort, replace(header, vector_hash=ONE)),
    ):
        with pytest.raises(PeerError, match="bad signature"):
            pairwise_client.check_header(cohort, evil.roster, 0, evil.t, changed)
    with pytest.raises(PeerError, match="bad signature"):
        pairwise_client.check_header(evil.cohort, evil.roster, 1, evil.t, header)
