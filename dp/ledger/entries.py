"""Entries of the ledger in their one canonical form: JSON with sorted keys, integers and exact rationals.

The facts that a release follows from are written down whole, what follows from them too: a reader builds every entry
again from its facts and compares byte by byte. ``FIELDS`` says for each field on whose word it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any, TypeAlias, cast

from dp.events import Event, Everyone, Guarantee, Release, Selection, Trust, by_coins, from_record, to_record
from dp.filter import Kind, PrivacyCost
from dp.secure_sum import SecureSum, check_text
from dp.windows import LATEST
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.errors import BudgetError, DecodeError, UsageError
from secagg.foreign import as_declared

SCHEMA = 5
"""The version of the entries' fields."""
_DIGITS = 400
"""The most digits of a number. The largest float has 309, costs are multiples of 10^-12, and steps add up."""
ACCOUNTANTS = {Kind.GDP: "gdp/1", Kind.RENYI: "rdp/2", Kind.SCHEDULE: "pld/1"}
"""The version of each kind's accountant, which changes with a formula or the list of orders."""


class Mark(StrEnum):
    """On whose word a field of an entry stands."""

    RECOMPUTED = "recomputed"
    SIGNED = "signed by clients"
    ASSERTED = "asserted"


FIELDS: Mapping[str, Mark] = {
    name: mark
    for mark, names in {
        Mark.RECOMPUTED: """
            number previous schema accountant orders units limits samples_limit release time cost samples total
            total_samples epsilon_before epsilon_after plan_digest survivors_digest missing honest variance_each
            variance_components components_removed variance_held sampling seen_by""",
        Mark.SIGNED: """
            sum plan session round roster planned noise family variance dropouts colluders components dimension clip_l2
            scale rotated beta l2_squared l1 weight_bound users overlap rounding sampled ring_bits signers survivors
            cohort bitmap signatures key signature members""",
        Mark.ASSERTED: """
            phase run elsewhere data turns arrivals names keys beacon size window length kept start every unit relation
            trust holder epsilon delta slack kind order owner reason steps event count name""",
    }.items()
    for name in names.split()
}
"""On whose word a field stands once its release is committed; docs/ledger.md says what each field is."""


@dataclass(frozen=True, slots=True)
class Steps:
    """``count`` equal releases by one party, as in local training, for which ``samples`` integers are drawn in all."""

    release: str
    event: Event
    count: int = 1
    samples: int = 0
    time: int | None = None
    """The second of the release, where the budget is for windows (``dp.windows``), and nowhere else."""

    def __post_init__(self) -> None:
        check_text(self.release)
        if self.time is not None and not 0 <= self.time <= LATEST:
            raise UsageError(f"a time is 0 to {LATEST} whole seconds")
        if not isinstance(self.event, Release | Selection):
            raise UsageError("steps are of a release, or of a selection among releases")


Chargeable: TypeAlias = SecureSum | Steps
"""What can be reserved and committed in a ledger."""


def worst(what: Chargeable) -> Chargeable:
    """The facts that are reserved for a release."""
    return what.worst() if isinstance(what, SecureSum) else what


def unsigned(what: Chargeable) -> Chargeable:
    """The facts without the signatures, of which different sets may be collected, and without the names, which not
    every ledger has."""
    return replace(what, signatures=(), members=()) if isinstance(what, SecureSum) else what


def name_of(what: Chargeable) -> str:
    """The name of a release in the ledger."""
    return what.plan_digest.hex() if isinstance(what, SecureSum) else what.release


def cost_of(what: Chargeable, guarantee: Guarantee, kind: Kind, failing: Fraction = Fraction(0)) -> PrivacyCost:
    """The cost of a release to a budget of that kind, with ``failing`` as delta less its slack (for a schedule). It is
    refused under another guarantee, or if it has less noise than planned."""
    if isinstance(what, Steps):
        if what.event.guarantee != guarantee:
            raise UsageError(f"a release under {what.event.guarantee} is not charged to a budget under {guarantee}")
        return PrivacyCost.of(what.event, what.count, what.samples, kind, failing)
    if kind is Kind.SCHEDULE:
        raise UsageError("a schedule is of one party's steps: a secure sum is charged to a budget of another kind")
    if guarantee.trust is not Trust.DISTRIBUTED:
        raise UsageError("the noise in a secure sum is distributed: so is the trust")
    if (missing := what.planned - what.survivors) > what.noise.dropouts:
        raise BudgetError(f"{missing} clients are missing, the noise allows for {what.noise.dropouts}")
    return PrivacyCost.of(what.release(guarantee), 1, what.noise.samples(what.planned, what.dimension), kind)


def check_planned(what: Chargeable, guarantee: Guarantee) -> None:
    """Refuse to reserve a sum whose digest is not that of its plan, or of which another holds the units."""
    if isinstance(what, SecureSum):
        what.check_holder(guarantee)
        if what.plan_digest != digest(labels.PLAN, what.plan):
            raise UsageError("the digest is not that of the plan")


def check_agreed(what: Chargeable) -> None:
    """Refuse to commit a sum whose survivors have not signed who they are."""
    if isinstance(what, SecureSum):
        if len(what.cohort) != 32 or int.from_bytes(what.bitmap, "big").bit_count() != what.survivors:
            raise UsageError("a sum is committed with its cohort and the bitmap of its survivors")
        if len({signed.key for signed in what.signatures}) < len(what.signatures):
            raise UsageError("a sum is committed with its survivors' signatures, one each")
        if len(what.signatures) < what.signers:
            raise UsageError(
                f"{len(what.signatures)} signed the survivors, nothing comes out for fewer than {what.signers}"
            )


def survivors_digest(what: SecureSum) -> bytes:
    """What the survivors signed, whatever the protocol."""
    return digest(labels.SURVIVORS, what.plan_digest, what.cohort, what.bitmap)


# Facts as JSON


def facts(what: Chargeable) -> dict[str, Any]:
    """The part of an entry that is about the release itself."""
    if isinstance(what, Steps):
        release = what.event.release if isinstance(what.event, Selection) else what.event
        sampling = release.sampling
        return {
            "steps": {
                "event": to_record(what.event),
                "count": what.count,
                "sampling": type(sampling).__name__,
                "seen_by": "everybody" if isinstance(sampling, Everyone) else "nobody",
            }
        }
    noise, n, missing = what.noise, what.planned, what.planned - what.survivors
    derived = {
        "missing": missing,
        "honest": what.survivors - noise.colluders,
        "survivors_digest": survivors_digest(what),
        "variance_each": noise.kept_variance(n),
        "variance_components": [str(noise.component_variance(n, level + 1)) for level in range(noise.components)],
        "components_removed": noise.components - noise.removal_level(missing),
        "variance_held": noise.honest_variance(n, what.survivors),
        "sampling": type(by_coins(what.sampled)).__name__,
        "seen_by": "silo" if what.sampled < 1 else "server",
    }
    return {"sum": plain(what) | {name: plain(value) for name, value in derived.items()}}


def from_facts(body: Mapping[str, Any]) -> Chargeable:
    """Inverse of ``facts``. It ignores what is derived: the reader compares the whole entry afterwards."""
    if "steps" in body:
        steps = body["steps"]
        count, samples = as_declared(int, steps["count"]), as_declared(int, body["samples"])
        time = as_declared(int | None, body["time"])
        return Steps(as_declared(str, body["release"]), from_record(steps["event"]), count, samples, time)
    return cast(SecureSum, picked(SecureSum, body["sum"]))


def plain(value: Any) -> Any:
    """A value as JSON: bytes in hexadecimal, rationals as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value


def picked(kind: Any, body: Mapping[str, Any]) -> Any:
    """A dataclass from an object that has its fields, and may have others."""
    return as_declared(kind, {field.name: body[field.name] for field in fields(kind)})


# Bodies


def canonical(body: Mapping[str, Any]) -> bytes:
    """The canonical bytes of an entry, which are hashed."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse(data: bytes) -> dict[str, Any]:
    """Inverse of ``canonical``; bytes that are not canonical are refused."""
    try:
        body = json.loads(data, parse_float=_no_float, parse_constant=_no_float, parse_int=_whole)
        if not isinstance(body, dict) or canonical(body) != data:
            raise DecodeError("not a canonical JSON object")
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or beyond the parser's limits
        raise DecodeError("not a canonical JSON object") from None
    return body


def _no_float(text: str) -> Any:
    raise DecodeError("a ledger has no floats")


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise DecodeError(f"a number of {len(text)} digits")
    return int(text)
