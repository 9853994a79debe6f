"""What "auto" takes: the cheapest by prediction of what every client with the same fears accepts, and nothing else.

The invariant: a plan that "auto" makes is accepted by a client that allows what was said to be allowed, fears what the
plan was asked for and demands its minimum. Nothing that travels says "auto".
"""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
from dataclasses import asdict, replace
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.studies.scale.constants import source_of
from dp.noise import Family, NoiseSpec
from protocols import choice as choosing
from protocols import parameters, registry
from protocols.choice import TIE, Candidate, Choice
from protocols.costs import measured
from protocols.oneshot.committee import sortition
from protocols.parameters import ALLOWED, PACKAGES, rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from protocols.server import serve
from protocols.simulation.network import local_clients, simulate
from protocols.tree import Terms
from secagg import extras
from secagg.assumptions import Adversary, colluders
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PolicyError, UsageError

pytest.importorskip("numba", reason="NOT TESTED: oneshot needs numba")

ROOT = Path(__file__).parents[2]
ALL = frozenset({"secagg", "secagg+", "oneshot"})
BEACON = bytes(range(32))
KEYS = {f"client-{i:05}": Prg(bytes(32), start=32 * i)(32) for i in range(6000)}


def roster_of(clients: int) -> Roster:
    return Roster.build(dict(list(KEYS.items())[:clients]))


def asked(**changes: Any) -> dict[str, Any]:
    return {"min_contributors": 2, "beacon": BEACON, "allowed": ALL, **changes}


def accept(plan: RoundPlan, roster: Roster, terms: dict[str, Any]) -> None:
    """What a client does with a plan before it says a word, if it fears what was asked for."""
    policy = Policy(
        min_contributors=plan.min_contributors,
        protocols=terms.get("allowed", ALLOWED),
        corrupt=terms.get("corrupt", "0.05"),
        dropout=terms.get("dropout", "0.1"),
        adversary=terms.get("adversary", Adversary.ACTIVE),
        beacon=terms.get("beacon", b""),
    )
    policy.check(plan, roster)
    registry.find(plan.protocol).check_policy(plan, policy)


def begun(plan: RoundPlan, roster: Roster, terms: dict[str, Any]) -> None:
    """The same, and lots are drawn, if they are."""
    accept(plan, roster, terms)
    if plan.protocol == "oneshot":
        sortition(plan, roster)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[int, int, dict[str, Any]]:
    """(clients of the roster, length, what is asked for)"""
    n = draw(st.sampled_from([2, 3, 4, 7, 20, 60, 128, 129, 150, 300, 5000]))
    more = draw(st.sampled_from([0, 0, 5]))
    corrupt, dropout = (draw(st.sampled_from(["0", "0.02", "0.05", "0.1", "0.2", "1/3"])) for _ in range(2))
    minimum = max(2, floor(draw(st.sampled_from([0.01, 0.3, 0.6, 0.8])) * n))
    terms = asked(
        clients=n,
        min_contributors=min(minimum, n),
        corrupt=corrupt,
        dropout=dropout,
        adversary=draw(st.sampled_from(list(Adversary))),
        beacon=draw(st.sampled_from([b"", BEACON])),
        allowed=draw(st.sampled_from([ALLOWED, ALL, frozenset({"oneshot"}), frozenset({"secagg+", "oneshot"})])),
    )
    if draw(st.booleans()) and n < 5000:
        missing, bad = min(floor(Fraction(dropout) * n), n - terms["min_contributors"]), colluders(corrupt, n)
        if missing + bad < n:
            terms["noise"] = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(400), missing, bad, min(missing, 2))
            terms["min_contributors"] = n - missing
    return n + more, draw(st.sampled_from([1, 1000, 10**6])), terms


def proposed(roster: Roster, encoding: Encoding, terms: dict[str, Any]) -> tuple[RoundPlan | None, str]:
    """The plan, or why there is none."""
    try:
        return RoundPlan.propose("auto", roster, encoding, **terms), ""
    except UsageError as error:
        return None, str(error)


@settings(deadline=None, max_examples=50)
@given(rounds())
def test_clients_accept_whatever_is_taken(case: tuple[int, int, dict[str, Any]]) -> None:
    size, length, terms = case
    roster = roster_of(size)
    plan, why = proposed(roster, Encoding.integers(length), terms)
    if plan is None:
        assert all(f"{name}: " in why for name in terms["allowed"])
        return
    assert plan.protocol in terms["allowed"]
    begun(plan, roster, terms)


CASES: list[tuple[int, int, dict[str, Any], str]] = [
    (200, 200, {"beacon": b"", "allowed": {"oneshot"}, "min_contributors": 150}, "beacon"),
    (205, 200, {"allowed": {"oneshot"}, "min_contributors": 150}, "a roster of its own"),
    (1000, 1000, {"allowed": {"oneshot"}, "min_contributors": 40}, "50 are feared corrupt"),
    (5000, 5000, {"allowed": {"secagg+"}, "min_contributors": 3000}, "can be enforced"),
]


@pytest.mark.parametrize(("size", "clients", "changes", "reason"), CASES)
def test_a_plan_that_clients_would_refuse_is_not_made(
    size: int, clients: int, changes: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without that check it is made, and no client takes part (of another roster than was drawn from: its
    members cannot be drawn)."""
    roster, terms, encoding = roster_of(size), asked(clients=clients, **changes), Encoding.integers(100)
    with pytest.raises(UsageError, match=reason):
        RoundPlan.propose("auto", roster, encoding, **terms)
    (name,) = terms["allowed"]
    rules = replace(rules_of(name), accept=lambda *_: None)
    monkeypatch.setattr(choosing, "rules_of", lambda protocol: rules if protocol == name else rules_of(protocol))
    plan = RoundPlan.propose("auto", roster, encoding, **terms)
    with pytest.raises(PolicyError):
        begun(plan, roster, terms)


def test_a_client_with_a_policy_of_its_own_decides() -> None:
    """Whatever a server says is allowed: what a policy does not name is refused, and nothing on the wire is "auto"."""
    roster = roster_of(150)
    plan = RoundPlan.propose("auto", roster, Encoding.integers(1000), **asked(min_contributors=100))
    assert plan.protocol == "oneshot"
    with pytest.raises(PolicyError, match="not among those allowed"):
        Policy(min_contributors=100, beacon=BEACON).check(plan, roster)
    named = RoundPlan.propose(
        plan.protocol, roster, Encoding.integers(1000), min_contributors=100, beacon=BEACON, session=plan.session
    )
    assert plan.encode() == named.encode()


def test_by_default_nothing_is_taken_that_a_policy_refuses_by_default() -> None:
    roster = roster_of(150)
    plan = RoundPlan.propose("auto", roster, Encoding.integers(1000), min_contributors=100, beacon=BEACON)
    assert plan.protocol == "secagg+"
    Policy(min_contributors=100).check(plan, roster)
    assert Policy(min_contributors=100).protocols == ALLOWED


@pytest.mark.parametrize("allowed", [{"ckks"}, {"threshold_ckks"}, {"ckks", "threshold_ckks"}])
def test_a_server_that_may_lie_gets_no_protocol_that_does_not_hold_against_it(allowed: set[str]) -> None:
    with pytest.raises(UsageError, match="holds only against a server that is curious"):
        RoundPlan.compare(20, Encoding.integers(100), **asked(allowed=allowed))


def test_against_a_curious_one_it_can_be_taken() -> None:
    found = RoundPlan.compare(20, Encoding.integers(100), **asked(allowed={"threshold_ckks"}, adversary="curious"))
    assert found.protocol == "threshold_ckks"


# Which one


def of(**seconds: float) -> Choice:
    return Choice(tuple(Candidate(name, server_s=value) for name, value in seconds.items()))


def test_the_fewest_seconds_are_taken_and_a_tie_is_the_older_ones() -> None:
    assert of(old=2.0, new=1.0).protocol == "new"
    assert of(old=1.0, new=2.0).protocol == "old"
    assert of(old=1.0, new=1.0).protocol == "old"
    assert of(old=1.0, new=1 / TIE + 1e-6).protocol == "old"
    assert of(old=1.0, new=1 / TIE - 1e-6).protocol == "new"
    assert of(old=1.0, middle=0.99, new=0.98).protocol == "new"


def test_ties_of_equal_parameters_go_to_the_complete_graph() -> None:
    """With three clients the ring is the complete graph: the same under two names."""
    found = RoundPlan.compare(3, Encoding.integers(100), **asked(allowed=ALLOWED))
    first, second, _ = found.candidates
    assert first.server_s == second.server_s  # and a name that is a byte longer
    assert found.protocol == "secagg"


def test_seconds_are_those_of_the_whole_round() -> None:
    one = Candidate("any", 1.0, 2.0, client_bytes=choosing.CLIENT_LINK * 4, server_bytes=choosing.SERVER_LINK * 8)
    assert one.seconds == 15


def test_what_is_worse_cannot_win_by_being_refused() -> None:
    fast = Candidate("fast", server_s=0.1, why_not="it is Monday")
    assert Choice((Candidate("slow", server_s=9.0), fast)).protocol == "slow"
    with pytest.raises(UsageError, match=r"auto finds no protocol\. fast: it is Monday"):
        Choice((fast,))


def test_the_same_question_has_the_same_answer() -> None:
    first = RoundPlan.compare(300, Encoding.integers(5000), **asked(min_contributors=200))
    choosing.module_of("secagg+", "costs").signers_shown.cache_clear()
    again = RoundPlan.compare(300, Encoding.integers(5000), **asked(min_contributors=200, allowed=sorted(ALL)))
    assert first == again


def test_dropouts_are_counted() -> None:
    """They cost whoever removes masks, and nobody else; so many that the minimum is left."""
    quiet, gone, few = (
        {
            one.protocol: one.server_s
            for one in RoundPlan.compare(
                400, Encoding.integers(10**6), **asked(dropout=dropout, min_contributors=least)
            ).candidates
        }
        for dropout, least in (("0", 300), ("0.2", 300), ("0.2", 400))
    )
    assert gone["secagg+"] > 2 * quiet["secagg+"]
    assert gone["oneshot"] < 1.2 * quiet["oneshot"]
    assert few["secagg+"] < gone["secagg+"]


def test_why_is_one_line_that_names_all() -> None:
    told: list[str] = []
    plan = RoundPlan.propose(
        "auto", roster_of(200), Encoding.integers(100), **asked(min_contributors=100, allowed=ALLOWED), tell=told.append
    )
    (line,) = told
    assert line.startswith(f"auto takes {plan.protocol}, ")
    assert "; secagg " in line
    assert "not oneshot (not among those that are allowed), " in line
    assert "\n" not in line


def test_why_is_in_the_log_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="protocols.plan"):
        RoundPlan.propose("auto", roster_of(20), Encoding.integers(100), min_contributors=10)
    (record,) = caplog.records
    assert record.getMessage().startswith("auto takes ")


def test_a_round_is_what_it_was_proposed_as() -> None:
    policy = Policy(min_contributors=12, protocols=ALL, beacon=BEACON)
    roster, clients = local_clients(16, policy, Prg(bytes(32)))
    plan = RoundPlan.propose("auto", roster, Encoding.integers(5), **asked(min_contributors=12))
    done = simulate(serve(plan, roster), clients, {name: np.ones(5) for name in clients}.get)
    assert done.outcome.decode().vector.tolist() == [16.0] * 5


# What is refused


@pytest.mark.parametrize("allowed", [{"secagg", "sekagg"}, {"auto"}, set(), "secagg", None])
def test_what_is_allowed_are_names_of_protocols(allowed: Any) -> None:
    with pytest.raises(UsageError, match=r"unknown protocol|auto is no protocol|a set of names"):
        RoundPlan.compare(20, Encoding.integers(100), **asked(allowed=allowed))


SIZES = """
import sys
from protocols.parameters import PACKAGES
from protocols.plan import RoundPlan
from protocols.roster import Roster
from secagg.__main__ import main
from secagg.encoding import Encoding
roster = Roster.build({f"client-{i}": bytes([i]) * 32 for i in range(1, 21)})
asked = {"adversary": "curious", "min_contributors": 10, "beacon": bytes(32), "allowed": frozenset(PACKAGES)}
RoundPlan.propose("auto", roster, Encoding.integers(100), **asked)
sys.argv = ["secagg", "params", "--clients=100", "--adversary=curious", f"--allowed={','.join(PACKAGES)}", "--json"]
sys.argv += ["--protocol=auto"]
try:
    main()
finally:
    print(*({"numba", "scipy", "tenseal", "torch"} & set(sys.modules)), file=sys.stderr)
"""


def test_what_a_round_takes_is_predicted_without_what_computes_it() -> None:
    done = subprocess.run([sys.executable, "-c", SIZES], cwd=ROOT, capture_output=True, text=True, check=True)
    predicted = {one["protocol"] for one in json.loads(done.stdout)["comparison"]["protocols"] if one["seconds"]}
    assert predicted >= {"secagg", "secagg+", "oneshot", "threshold_ckks"}
    assert done.stderr.split() == []


def test_a_refusal_says_of_each_why() -> None:
    with pytest.raises(UsageError) as caught:
        RoundPlan.compare(20, Encoding.integers(100), **asked(corrupt="0.4", dropout="0.4"))
    assert all(f"{name}: infeasible" in str(caught.value) for name in ALL)


def test_nothing_but_a_proposal_is_called_auto() -> None:
    plan = RoundPlan.propose("secagg", roster_of(20), Encoding.integers(5), min_contributors=10)
    with pytest.raises(UsageError, match="auto is no protocol"):
        replace(plan, protocol="auto")
    with pytest.raises(UsageError, match="auto is no protocol"):
        Policy(min_contributors=2, protocols={"auto"})
    with pytest.raises(UsageError, match="terms name a protocol"):
        Terms(10, "auto")
    written = plan.encode()
    with pytest.raises(DecodeError, match="auto is no protocol"):
        RoundPlan.decode(renamed(written))


def renamed(plan: bytes) -> bytes:
    """The same bytes about the protocol "auto"."""
    at = plan.index(b"secagg")
    length = int.from_bytes(plan[:at], "big")
    assert length == len("secagg")
    return len("auto").to_bytes(at, "big") + b"auto" + plan[at + length :]


def test_without_its_extra_a_protocol_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    found = RoundPlan.compare(150, Encoding.integers(1000), **asked(min_contributors=100))
    assert found.protocol == "secagg+"
    (refused,) = (one for one in found.candidates if one.why_not)
    assert (refused.protocol, refused.seconds) == ("oneshot", 0)
    assert "needs the extra [lattice]" in refused.why_not


def test_a_protocol_from_elsewhere_of_which_no_cost_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples" / "protocol"))
    monkeypatch.setitem(PACKAGES, "all-or-nothing", "all_or_nothing")
    for name in [one for one in sys.modules if one.split(".")[0] == "all_or_nothing"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        found = RoundPlan.compare(20, Encoding.integers(100), **asked(allowed=ALLOWED | {"all-or-nothing"}))
    finally:
        rules_of.cache_clear()
    refused = found.candidates[-1]
    assert (refused.protocol, refused.seconds) == ("all-or-nothing", 0)
    assert found.protocol in ALLOWED


# The constants


def test_every_unit_cost_is_measured() -> None:
    assert all(value > 0 for value in asdict(measured.COSTS).values())


def test_the_constants_are_as_the_command_writes_them() -> None:
    assert inspect.getsource(measured) == source_of(measured.COSTS, measured.MACHINE)


def test_every_protocol_says_what_it_costs() -> None:
    for name in registry.names():
        assert name in parameters.module_of(name, "costs").COSTS
