"""Everything a run needs, before anything is written: budgets that are just enough, and one-line refusals."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from dp.events import Relation, Trust, Unit
from dp.ledger import Ledger
from protocols.parameters import ALLOWED
from protocols.roster import Identity, Roster
from recsys import assembly as prepare_module
from recsys.aggregator import Request
from recsys.assembly import Prepared, prepare
from recsys.budgets import DistributedNoise, LocalNoise, delta_of
from recsys.config import Config, Mode, Privacy
from recsys.deployment import Deployment
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.autoencoder import Autoencoder
from recsys.run import agreed
from recsys.run_start import budgets
from recsys.secure_aggregator import SecureAggregator
from secagg.encoding import Encoding
from secagg.errors import BudgetError, StorageError, UsageError
from tests.controls import switch_off
from tests.scenes.recommender import KEY, SECRET, config


def ready(*changes: str) -> Prepared:
    return prepare(config(*changes))


def opened(folder: Path, found: DistributedNoise | LocalNoise) -> Ledger:
    return Ledger.create(folder / "ledger.db", KEY, found.budget, found.guarantee, run="test", elsewhere="nothing")


# Budgets


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
@pytest.mark.parametrize("rounds", [1, 3, 20])
def test_distributed_noise_is_enough_for_all_rounds_and_not_for_one_more(
    epsilon: float, rounds: int, tmp_path: Path
) -> None:
    """Of the worst case, and nearly all of the budget is used."""
    prepared = ready("privacy.mode=distributed", f"privacy.epsilon={epsilon}", f"training.rounds={rounds}")
    assert prepared.distributed is not None
    ledger = opened(tmp_path, prepared.distributed)
    sums = planned_sums(prepared, rounds + 1)
    for one in sums[:rounds]:
        ledger.reserve(one)
    assert 0.995 * epsilon < ledger.epsilon <= epsilon
    with pytest.raises(BudgetError):
        ledger.reserve(sums[rounds])
    ledger.close()
    assert prepared.distributed.guarantee.trust is Trust.DISTRIBUTED
    assert prepared.distributed.guarantee.relation is Relation.ZERO_OUT


def planned_sums(prepared: Prepared, count: int):  # type: ignore[no-untyped-def]
    """What the server would reserve for each round."""
    aggregator = SecureAggregator(prepared.deployment, SECRET)
    names = prepared.client_data.names
    roster = Roster.of([Identity.generate(name) for name in names])
    noise = prepared.noise(len(names))
    requests = [Request(number, "training", names, prepared.encoding, noise) for number in range(count)]
    return [aggregator._plan(request, roster).secure_sum(len(names)) for request in requests]


UNEQUAL = ("clients.spread=dirichlet", "clients.alpha=0.3", "clients.count=4")


@pytest.mark.parametrize(("rounds", "changes"), [(1, ()), (20, ()), (3, UNEQUAL)])
@pytest.mark.thinned(3)
def test_local_noise_is_enough_for_all_rounds_and_not_for_one_more(
    rounds: int, changes: tuple[str, ...], tmp_path: Path
) -> None:
    prepared = ready("privacy.mode=local", "privacy.epsilon=4.0", f"training.rounds={rounds}", *changes)
    assert prepared.locally is not None
    ledger = opened(tmp_path, prepared.locally)
    federation = prepared.federation(Autoencoder(2, recent=10), IdealAggregator(SECRET), SECRET, ledger)
    names = prepared.client_data.names
    for number in range(rounds):
        with federation._charged(number, names):
            pass
    assert 0.99 * 4 < ledger.epsilon <= 4
    with pytest.raises(BudgetError), federation._charged(rounds, names):
        pass
    ledger.close()
    assert prepared.locally.guarantee.unit is Unit.USER
    assert prepared.locally.guarantee.trust is Trust.LOCAL


@pytest.mark.long
def test_both_kinds_have_a_budget_each() -> None:
    found = budgets(ready("privacy.mode=both"))
    assert [(mode, name) for mode, name, _, _ in found] == [
        (Mode.DISTRIBUTED, "ledger.db"),
        (Mode.LOCAL, "local.db"),
    ]
    assert [guarantee.trust for *_, guarantee in found] == [Trust.DISTRIBUTED, Trust.LOCAL]
    assert all(budget.epsilon == 8 for _, _, budget, _ in found)
    for mode in ("local", "distributed"):
        assert [name for _, name, _, _ in budgets(ready(f"privacy.mode={mode}"))] == ["ledger.db"]
    assert budgets(ready()) == []


def test_the_non_private_baseline_is_otherwise_the_same() -> None:
    prepared = ready("privacy.mode=both")
    baseline = prepared.without_privacy()
    assert (baseline.distributed, baseline.locally) == (None, None)
    assert baseline.encoding.bits == 24
    assert (baseline.client_data, baseline.recipe, baseline.participation) == (
        prepared.client_data,
        prepared.recipe,
        prepared.participation,
    )


@pytest.mark.parametrize("size", [2, 20, 55])
def test_a_cohort_of_any_size_has_its_noise_and_costs_no_more(size: int) -> None:
    """Poisson samples are smaller and larger than planned."""
    prepared = ready(
        "clients.kind=devices", "privacy.mode=distributed", "training.draw=poisson", f"training.size={size}"
    )
    assert prepared.distributed is not None
    found = prepared.distributed.found
    for clients in range(2, len(prepared.client_data.names) + 1):
        noise = prepared.noise(clients)
        missing = int(Fraction(1, 10) * clients)
        assert (noise.dropouts, noise.colluders) == (missing, max(1, ceil(Fraction(1, 20) * clients)))
        assert noise.honest_variance(clients, clients - missing) >= found.noise.variance
        assert noise.drawable(clients)


@pytest.mark.parametrize("users", [2, 100, 610, 1001, 2000, 20_000, 999_999, 10**6])
def test_delta_is_a_hundredth_of_one_over_users(users: int) -> None:
    """Three digits, rounded down."""
    exact, delta = Fraction(1, 100 * users), delta_of(Privacy(), users)
    assert Fraction(99, 100) * exact < delta <= exact
    assert len(str(int(Decimal(delta.numerator) / delta.denominator / Decimal(10) ** -12)).rstrip("0")) <= 3


def test_delta_as_asked_for_and_from_a_public_number() -> None:
    assert delta_of(Privacy(delta=1e-5), 610) == Fraction(1, 10**5)
    assert delta_of(Privacy(n_min=500), 610) == delta_of(Privacy(), 500) > delta_of(Privacy(), 610)
    assert delta_of(Privacy(n_min=500, delta=1e-5), 610) == Fraction(1, 10**5)


def test_more_than_one_unit_in_n_is_no_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mechanism that publishes somebody at random, the delta is 1/n: just that much is let through."""
    assert delta_of(Privacy(delta=0.01), 100) == Fraction(1, 100)
    refused = (
        (Privacy(delta=0.0101), 100),
        (Privacy(delta=0.005, n_min=300), 100),
        (Privacy(delta=0.005, n_min=100), 300),  # a small number that is public makes it no better
        (Privacy(n_min=100), 10_001),
    )
    for privacy, units in refused:
        with pytest.raises(UsageError, match="would be as private"):
            delta_of(privacy, units)
    switch_off(monkeypatch, prepare_module, "delta_of", "delta > Fraction(1, most)")
    assert prepare_module.delta_of(Privacy(delta=0.4), 100) == Fraction(2, 5)


# Clients and data


def test_devices_hold_a_user_each_and_silos_all_of_them_together() -> None:
    devices, silos = ready("clients.kind=devices"), ready("clients.count=7")
    assert len(devices.client_data.names) == 60
    assert all(len(users) == 1 for users in devices.client_data.members)
    assert len(silos.client_data.names) == 7
    for prepared in (devices, silos):
        assert sorted(np.concatenate(prepared.client_data.members).tolist()) == list(range(60))
        assert prepared.client_data.names == tuple(sorted(prepared.client_data.names))
    assert devices.client_data.held_out is devices.split.valid


def test_what_is_tested_on_is_on_no_client() -> None:
    prepared = ready()
    assert prepared.client_data.train is prepared.split.train
    for user in range(60):
        assert set(prepared.client_data.train.history(user)).isdisjoint(prepared.split.test.history(user))
        assert set(prepared.client_data.held_out.history(user)).isdisjoint(prepared.split.test.history(user))


def test_the_seeds_decide() -> None:
    def members(*changes: str) -> list[list[int]]:
        return [users.tolist() for users in ready(*changes).client_data.members]

    assert members() == members() != members("seed=1")
    assert ready().split.train.items.tolist() == ready("seed=1").split.train.items.tolist()
    assert ready().split.train.items.tolist() != ready("data.seed=2").split.train.items.tolist()


def test_on_devices_mf_is_trained_on_interactions() -> None:
    """Their number is the device's: a batch has a fifth of them."""
    prepared = ready("clients.kind=devices", "privacy.mode=local", "model.name=mf", "model.settings={}")
    assert prepared.locally is not None
    assert prepared.locally.guarantee.unit is Unit.EXAMPLE
    examples = prepared.client_data.examples(prepared.client_data.names, Unit.EXAMPLE)
    assert sum(examples) == len(prepared.split.train)
    assert prepared.locally.budget.delta == delta_of(Privacy(), len(prepared.split.train))


def test_a_model_of_sums_has_no_rounds() -> None:
    prepared = ready("clients.kind=devices", "privacy.mode=distributed", "model.name=private-ease", "model.settings={}")
    assert not prepared.in_rounds
    assert prepared.distributed is not None
    assert prepared.distributed.budget.epsilon == 8
    assert prepared.distributed.found.epsilon <= 8


# Refusals

WRONG = [
    (["model.name=magic"], "unknown model 'magic'; there are autoencoder"),
    (["model.settings.depth=3"], "model.settings of autoencoder are .*depth"),
    (["model.settings.width=0"], "width"),
    (["model.settings.width=1.5"], "model.settings of autoencoder: width is of a wrong type"),
    (["model.settings.recent=2.5"], "recent is of a wrong type"),
    (["model.settings.recent=true"], "recent is of a wrong type"),
    (["model.settings.fading=x"], "fading is of a wrong type"),
    (["protocol.name=magic"], "unknown protocol 'magic'; there are .*, and auto"),
    (["protocol.dropout=0.45", "protocol.corrupt=0.3"], "infeasible"),
    (["protocol.dropout=1.5"], "below 1"),
    (["training.server_rate=-1"], "above zero"),
    (["training.momentum=1"], "below 1"),
    (["training.measured=1"], "share of the norm"),
    (["training.weight_bound=0"], "weight_bound"),
    (["training.draw=fixed"], "at least two"),
    (["training.draw=fixed", "training.size=7"], "cannot be drawn from 6"),
    (["clients.count=61"], "cannot be divided"),
    (["clients.kind=devices", "data.users=1"], "hides nobody"),
    (["clients.spread=dirichlet", "clients.alpha=0"], "alpha"),
    (["data.item_count=5"], "items"),
    (["data.source=movielens", "data.path=/nowhere"], "not a folder of MovieLens"),
    (["data.source=table", "data.path=/nowhere.csv"], "nowhere"),
    (["privacy.mode=distributed", "privacy.epsilon=501"], "at most 500"),
    (["privacy.mode=distributed", "privacy.delta=1e-300"], "is at least 1e-100"),
    (["privacy.mode=local", "privacy.epsilon=1e-9", "privacy.delta=1e-12"], "no noise makes this private"),
    (["privacy.mode=local", "privacy.delta=0.017"], "more than one over the number of units, 60"),
    (["privacy.mode=distributed", "privacy.delta=0.011", "privacy.n_min=100"], "number of units, 100: publishing"),
    (["data.items=/nowhere.csv", "data.source=table", "data.path=/nowhere.csv"], "nowhere"),
    (["data.held_out=time", "data.valid_from=soon", "data.test_from=5"], "data.valid_from: time 'soon' is neither"),
    (["privacy.mode=local", "privacy.clip=1e300"], "clipping bound"),
    (["model.name=private-ease", "model.settings={}", "privacy.mode=local"], "has no local training"),
    (["model.name=private-ease", "model.settings={}", "training.draw=fixed", "training.size=3"], "over all clients"),
]


@pytest.mark.parametrize(
    ("changes", "reason"), WRONG, ids=lambda each: " ".join(each) if isinstance(each, list) else ""
)
def test_what_cannot_be_done_is_refused_in_one_line(changes: list[str], reason: str) -> None:
    with pytest.raises((UsageError, BudgetError), match=reason) as refused:
        ready(*changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ("data.source=table", "needs data.path"),
        ("data.source=movielens", "needs data.path"),
        ("data.source=split", "needs data.train"),
        ("clients.spread=column", "needs clients.file"),
    ],
)
def test_files_that_are_not_named_are_missed(change: str, missed: str) -> None:
    with pytest.raises(UsageError, match=missed):
        ready(change)


def test_the_default_configuration_can_be_prepared() -> None:
    assert prepare(Config()).locally is not None


# A protocol that is chosen


def test_auto_is_a_protocol_before_anything_is_summed_up() -> None:
    """By default one of those that a policy allows by default; without auto nothing is chosen, and nothing said."""
    prepared = ready("protocol.name=auto", "privacy.mode=none")
    assert prepared.deployment.protocol in ALLOWED
    assert prepared.deployment.why.startswith(f"auto takes {prepared.deployment.protocol}, ")
    assert agreed(prepared)["name"] == prepared.deployment.protocol
    assert agreed(prepared)["chosen"] == prepared.deployment.why
    named = ready(f"protocol.name={prepared.deployment.protocol}", "privacy.mode=none")
    assert named.deployment.why == ""
    assert {**agreed(named), "chosen": prepared.deployment.why} == agreed(prepared)


def test_auto_takes_of_what_is_allowed() -> None:
    pytest.importorskip("numba", reason="NOT TESTED: oneshot needs numba")
    assert ready("protocol.name=auto", "protocol.allowed=oneshot").deployment.protocol == "oneshot"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["protocol.allowed=sekagg"], "unknown protocol"),
        (["protocol.allowed="], "unknown protocol"),
        (["protocol.allowed=auto"], "auto is no protocol"),
        (["protocol.allowed=secagg,ckks"], "holds only against a server that is curious"),
        (["protocol.corrupt=0.4", "protocol.dropout=0.4", "privacy.mode=none"], "auto finds no protocol"),
    ],
)
def test_what_auto_cannot_take_is_refused(changes: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ready("protocol.name=auto", *changes)


def test_what_was_chosen_is_kept_by_a_run_that_goes_on() -> None:
    """Another release may choose otherwise; a record cannot bring in what was never allowed."""
    chosen = Deployment("auto").chosen(20, Encoding.integers(100), None)
    (other,) = ALLOWED - {chosen.protocol}
    assert chosen.begun(chosen.protocol) is chosen
    assert chosen.begun(other).protocol == other
    assert chosen.begun(other).why == f"{other} was chosen when the run began"
    with pytest.raises(StorageError, match="which is not among"):
        chosen.begun("oneshot")
    assert Deployment("secagg").begun("secagg+").protocol == "secagg"
