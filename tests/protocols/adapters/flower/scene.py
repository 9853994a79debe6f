"""Real ClientApps, messages, contexts and strategies of Flower in one process; only the wires are made up.

``fake_flower.Node`` gives each message to a new process, as it were: whatever passes here survives a restart between
any two messages.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from dp.calibrate import user_level
from dp.events import Relation
from dp.filter import Budget, Kind
from dp.ledger import Ledger
from protocols import registry
from protocols.adapters.flower import Privacy, Secure
from protocols.adapters.form import Form
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from protocols.server import serve
from secagg.errors import PolicyError, UsageError
from tests.protocols.adapters.flower.fake_flower import (
    CLIP,
    POLICY,
    Fakegrid,
    Federation,
    Train,
    config,
    integer_training,
    record,
)

MODEL: dict[str, NDArray[Any]] = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(2.0),
    "n": np.array([3, 4]),
    "u": np.array([[100]], np.uint8),
    "nothing": np.empty((0, 4), np.float32),
}

TRAIN = integer_training(MODEL, 1)

RULES: dict[str, Any] = {"clip": CLIP, "min_contributors": 3, "corrupt": "0", "dropout": "0.4"}
"""Three of five are enough."""


def installed(name: str) -> Any:
    try:
        serve(*_any_plan(name))
    except ImportError:
        return pytest.param(name, marks=pytest.mark.skip(reason=f"NOT TESTED: {name} needs its extra"))
    except UsageError as error:
        return pytest.param(name, marks=pytest.mark.skip(reason=f"NOT TESTED: {error}"))
    return name


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the nodes' own logs say of the messages that they refused."""
    return [text for record in caplog.records if re.match(r"secagg: \w+Error: ", text := record.getMessage())]


def _any_plan(name: str) -> tuple[RoundPlan, Roster]:
    roster = Roster.of([Identity.generate(f"c{i}") for i in range(5)])
    form = Form.of(MODEL, clip=CLIP)
    return RoundPlan.propose(name, roster, form.encoding, min_contributors=3, corrupt="0", dropout="0.4"), roster


PROTOCOLS = [installed(name) for name in registry.names()]


def secure(fed: Federation, **changes: Any) -> Secure:
    strategy = changes.pop("strategy", None) or FedAvg(fraction_evaluate=0.0)
    return Secure(strategy, fed.roster, **(RULES | changes))


def one_round(server: Secure, grid: Fakegrid, model: Mapping[str, NDArray[Any]] = MODEL, number: int = 1) -> Any:
    grid.exchange = 0
    replies = grid.send_and_receive(server.configure_train(number, record(dict(model)), config(), grid))
    return server.aggregate_train(number, replies)


def changes(
    form: Form, train: Train = TRAIN, model: dict[str, NDArray[Any]] = MODEL, count: int = 5
) -> dict[str, NDArray[np.float64]]:
    """What each client's training comes to, worked out here."""
    return {f"client-{i}": form.change(model, *train(i, dict(model))) for i in range(count)}


def check_exact(server: Secure, survivors: set[str], weights: Mapping[str, int] | None = None) -> None:
    """The sum is that of the survivors, to the last bit."""
    outcome = server.outcome
    assert outcome is not None
    assert set(outcome.survivors) == survivors
    updates = changes(Form.of(MODEL, clip=CLIP))
    expected = sum((weights or {}).get(name, 1) * updates[name] for name in survivors)
    assert outcome.total[: len(expected)].tolist() == [int(value) for value in expected]  # type: ignore[arg-type]


ALL = {f"client-{i}" for i in range(5)}


def longer(*values: Any) -> Any:
    """What ``make test-long`` alone looks at."""
    return pytest.param(*values, marks=pytest.mark.long)


SECRET = 12345.678


class Panic(BaseException):
    """What Rust code raises into Python when it fails (pyo3): no ``Exception``."""


def raising(error: BaseException) -> Train:
    def train(partition: int, model: dict[str, NDArray[Any]]) -> Any:
        raise error

    return train


def with_all(value: float) -> Train:
    return lambda partition, model: ({name: np.full(array.shape, value) for name, array in model.items()}, {})


FAILURES: dict[str, Train] = {
    "an exception": raising(ValueError(f"bad value {SECRET}")),
    "an exception of ours": raising(PolicyError(f"bad value {SECRET}")),
    "an exit": raising(SystemExit(f"bad value {SECRET}")),
    "a panic of Rust code, which is no Exception": raising(Panic(f"bad value {SECRET}")),
    "NaN": with_all(np.nan),
    "infinite": with_all(-np.inf),
    "another shape": lambda partition, model: (model | {"w": np.full((9, 9), SECRET)}, {}),
    "another name": lambda partition, model: (model | {"x": np.full(2, SECRET)}, {}),
    "complex": lambda partition, model: (model | {"w": model["w"] * 1j}, {}),
    "no answer": lambda partition, model: 3,
}

PRIVATE_MODEL = {"w": np.zeros(300)}
PRIVATE_TRAIN = integer_training(PRIVATE_MODEL, 2, largest=1)


def budget(epsilon: int = 8) -> Budget:
    return Budget(Fraction(epsilon), Fraction(1, 1000), slack=Fraction(1, 10**5), kind=Kind.GDP)


def new_ledger(path: Path, identity: Identity, epsilon: int = 8) -> Ledger:
    guarantee = user_level(Relation.ZERO_OUT)
    return Ledger.create(path, identity.key, budget(epsilon), guarantee, run="test", elsewhere="evaluation")


def private(fed: Federation, folder: Path, *, rounds: int, **changes: Any) -> tuple[Secure, Ledger]:
    ledger = new_ledger(folder / "server.ledger", Identity.generate("server"))
    privacy = Privacy(epsilon=8, delta=1e-3, rounds=rounds)
    given = {"privacy": privacy, "ledger": ledger, "min_contributors": 4, "clip": 20.0, "dropout": "0.2"}
    return secure(fed, **(given | changes)), ledger


NOISY = replace(POLICY, noise_multiplier=0.4)
