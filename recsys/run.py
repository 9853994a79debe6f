"""A run: from a configuration to a model, a ledger and a record, in one directory.

Everything is tried out before anything is written (``prepare``). Then the secret and the ledgers are made, rulers and
the twin without privacy are measured, and round follows round, each followed by a checkpoint. A run that was killed
goes on with the same call, on this machine or another. The sum in which it was is finished with the vectors with which
it was begun; what had not begun is computed then, as well as that machine computes.

    config.json   what was asked for               run.json         what came out, for people (``recsys.record``)
    secret.key    all randomness of the parties    ledger.db        what was spent (and local.db: in local training,
    ledger.pub    the key of the ledgers                            if the sums are noised, too)
    model.npz     the model in the end             checkpoint.npz   the model between two rounds, or the sums so far
    users.csv     metrics for each user            sum-N.sealed     what clients put into sum N, until it is out
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from dp.events import Guarantee, Unit
from dp.filter import Budget
from dp.ledger import Ledger
from protocols.engines.local import Threads
from recsys.config import Config, Mode
from recsys.data.negatives import frozen
from recsys.federated import METRICS, State
from recsys.metrics.ranking import Evaluation, evaluate
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Recommender, SharedModel
from recsys.models.store import Stored, save
from recsys.prepare import Prepared
from recsys.private import Answered, LearnsFromSums
from recsys.record import FILE, Result, Round, Run, Spending, write_whole
from recsys.secure import Adder, SecureAdder
from secagg import labels
from secagg.errors import BudgetError, StorageError, ThresholdError, UsageError
from secagg.keys import KEY_BYTES, SigningKey, derive

LEDGER, LOCAL_LEDGER, CHECKPOINT = "ledger.db", "local.db", "checkpoint.npz"
NEGATIVES = 99
_ATTEMPTS = 5
"""Sums given up one after another, until the run is."""

Watch = Callable[[Run], None]
"""Is told of the record each time it has grown."""


def train(
    prepared: Prepared, folder: Path, *, twin: Adder, machine: Mapping[str, Any], watch: Watch = lambda run: None
) -> Run:
    """Begin a run in ``folder``, or go on with it. ``twin`` adds up for the twin without privacy, in the clear."""
    before = _claim(folder, prepared.config)
    if before is not None and before.ended:
        return before
    with ExitStack() as held:
        return _Running(prepared, folder, machine, watch, held, before).run(twin)


class _Running:
    def __init__(
        self,
        prepared: Prepared,
        folder: Path,
        machine: Mapping[str, Any],
        watch: Watch,
        held: ExitStack,
        before: Run | None,
    ) -> None:
        self._prepared, self._folder, self._watch = prepared, folder, watch
        self._secret = _secret(folder)
        key = SigningKey(derive(self._secret, labels.SIMULATED, b"ledger"))
        write_whole(folder / "ledger.pub", f"{key.public.hex()}\n".encode())
        self._ledgers: dict[Mode, Ledger] = {}
        for mode, name, budget, guarantee in _budgets(prepared):
            self._ledgers[mode] = held.enter_context(
                _ledger(folder / name, key, budget, guarantee, prepared.config.title)
            )
        self._record = _record(prepared, machine)
        if before is not None:
            self._record = replace(self._record, rounds=before.rounds, results=before.results)
        negatives = prepared.split.train.item_count > 10 * NEGATIVES
        self._negatives = frozen(prepared.split, NEGATIVES, seed=prepared.config.seed) if negatives else None

    def run(self, twin: Adder) -> Run:
        prepared = self._prepared
        self._say(results=self._record.results or (self._rule("ItemPop", ItemPop()), self._twin(twin)))
        adder = SecureAdder(
            prepared.deployment,
            self._secret,
            network=prepared.config.network,
            ledger=self._ledgers.get(Mode.DISTRIBUTED),
            folder=self._folder,
            seed=prepared.config.seed,
            engine=Threads(prepared.config.protocol.workers),
        )
        model, ended = prepared.model(), "all rounds are done"
        try:
            if prepared.in_rounds:
                self._train(cast(SharedModel, model), adder)
            else:
                self._learn(cast(LearnsFromSums, model), adder)
        except BudgetError as error:
            if not (prepared.in_rounds and any(one.survivors for one in self._record.rounds)):
                raise
            ended = f"the budget is spent: {error}"
        save(cast(Stored, model), self._folder / "model.npz", prepared.split.train.item_ids)
        found = self._measured(model)
        found.write_csv(self._folder / "users.csv", prepared.split.train.user_ids)
        self._say(results=(*self._record.results, self._result("this run", model, found)), ended=ended)
        return self._record

    def _train(self, model: SharedModel, adder: SecureAdder) -> None:
        """Rounds, with a checkpoint before the first and after each."""
        federation = self._prepared.federation(model, adder, self._secret, self._ledgers.get(Mode.LOCAL))
        checkpoint = self._folder / CHECKPOINT
        if checkpoint.exists():
            federation.resume(State.decode(checkpoint.read_bytes()))
        self._check_reached(len(federation.state.rounds))
        self._keep(federation.state, adder)
        while sum(one.survivors > 0 for one in federation.state.rounds) < self._prepared.config.training.rounds:
            done = self._counted(federation.advance(), model)
            federation.state.rounds = (*federation.state.rounds[:-1], done)
            self._keep(federation.state, adder)
            last = federation.state.rounds[-_ATTEMPTS:]
            if len(last) == _ATTEMPTS and not any(one.survivors for one in last):
                raise ThresholdError(f"too many clients were lost, {_ATTEMPTS} times: {done.purpose}")

    def _keep(self, state: State, adder: SecureAdder) -> None:
        write_whole(self._folder / CHECKPOINT, state.encode())
        adder.retire(len(state.rounds))
        if state.rounds:
            self._say(rounds=state.rounds)

    def _learn(self, model: LearnsFromSums, adder: SecureAdder) -> None:
        """A few sums. They are asked for again after a restart, and answered as before."""
        prepared, answered = self._prepared, Answered(adder, self._folder / CHECKPOINT)
        self._check_reached(len(answered))

        def done(one: Round) -> None:
            if one.number >= len(self._record.rounds):  # else it is on record, with what had been spent by then
                self._say(rounds=(*self._record.rounds, self._counted(one, None)))

        sums = prepared.sums(answered, done)
        model.learn(sums, prepared.split.train.item_count)
        exact = self._exact(model)
        self._say(rounds=(*self._record.rounds[:-1], replace(self._record.rounds[-1], exact=exact)))

    def _check_reached(self, sums: int) -> None:
        """A sum that is on record is not made again: of vectors that were computed again it would be another one."""
        if sums < len(self._record.rounds):
            raise StorageError(f"{self._folder / CHECKPOINT} is gone, or older than the record: start a new run")

    # Measuring, by whoever sees everything

    def _twin(self, adder: Adder) -> Result:
        """The same without privacy, once."""
        prepared = self._prepared
        model = prepared.model()
        if prepared.in_rounds:
            federation = prepared.public().federation(cast(SharedModel, model), adder, self._secret)
            for _ in range(prepared.config.training.rounds):
                federation.advance()
            note = "the same federated training, without noise or masks"
        else:
            model.fit(prepared.split.train)
            note = "the same model from exact sums"
        return self._result("without privacy", model, note=note)

    def _rule(self, name: str, model: Recommender) -> Result:
        model.fit(self._prepared.split.train)
        return self._result(name, model, note="a ruler: the same list for everybody, from exact counts")

    def _result(self, name: str, model: Recommender, found: Evaluation | None = None, note: str = "") -> Result:
        found = found or self._measured(model)
        metrics = {metric: found.mean(metric) for metric in METRICS}
        if self._negatives is not None:
            among = evaluate(model, self._prepared.split, negatives=self._negatives)
            metrics |= {f"{metric} of {NEGATIVES + 1}": among.mean(metric) for metric in METRICS}
        return Result(name, metrics, note)

    def _measured(self, model: Recommender) -> Evaluation:
        return evaluate(model, self._prepared.split)

    def _exact(self, model: Recommender) -> dict[str, float]:
        found = self._measured(model)
        return {metric: found.mean(metric) for metric in METRICS}

    def _counted(self, done: Round, model: Recommender | None) -> Round:
        """With what has been spent, in the first of the ledgers, and how good the model is now."""
        exact = {} if model is None else self._exact(model)
        if not self._ledgers:
            return replace(done, exact=exact)
        ledger = next(iter(self._ledgers.values()))
        spent, budget = ledger.epsilon, float(ledger.budget.epsilon)
        return replace(done, exact=exact, epsilon=spent, epsilon_left=max(0.0, budget - spent), epsilon_outsiders=spent)

    def _say(self, **news: Any) -> None:
        self._record = replace(self._record, **news)
        self._record.save(self._folder)
        self._watch(self._record)


# Beginning


def _claim(folder: Path, config: Config) -> Run | None:
    """A new directory, or one in which this very run was begun; then its record, as far as it got."""
    path, wanted = folder / "config.json", json.dumps(config.plain(), indent=1).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = path.read_bytes() if path.exists() else None
        if there is None and any(file.name != f".{path.name}.draft" for file in folder.iterdir()):
            raise UsageError(f"{folder} is not empty, and holds no run")
    except OSError as error:
        raise UsageError(f"cannot use {folder}: {error.strerror}") from None
    if there is None:
        write_whole(path, wanted)
    elif there != wanted:
        raise UsageError(f"{folder} holds a run of another configuration: take a new directory")
    return Run.load(folder) if (folder / FILE).exists() else None


def _secret(folder: Path) -> bytes:
    """Made once, and read by its owner alone."""
    path = folder / "secret.key"
    if not path.exists():
        draft = path.with_name(".secret.key.draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise StorageError(f"{path} is damaged")
    return secret


def _budgets(prepared: Prepared) -> list[tuple[Mode, str, Budget, Guarantee]]:
    """The ledgers of a run: one of them is always called ledger.db, if there is any."""
    found, local_name = [], LEDGER
    if (distributed := prepared.distributed) is not None:
        found.append((Mode.DISTRIBUTED, LEDGER, distributed.budget, distributed.guarantee))
        local_name = LOCAL_LEDGER
    if (locally := prepared.locally) is not None:
        found.append((Mode.LOCAL, local_name, locally.budget, locally.guarantee))
    return found


@contextmanager
def _ledger(path: Path, key: SigningKey, budget: Budget, guarantee: Guarantee, title: str) -> Iterator[Ledger]:
    if path.exists():
        ledger = Ledger.open(path, key)
    elif any((path.parent / name).exists() for name in (FILE, CHECKPOINT)):
        raise StorageError(f"{path} is gone, and with it what was spent: start a new run")
    else:
        elsewhere = (
            "nothing: the rulers and the twin beside the run are outside of the guarantee, as is exact evaluation"
        )
        ledger = Ledger.create(path, key, budget, guarantee, run=title, elsewhere=elsewhere)
    try:
        yield ledger
    finally:
        ledger.close()


def _record(prepared: Prepared, machine: Mapping[str, Any]) -> Run:
    config, split, planned = prepared.config, prepared.split, prepared.planned
    deployment = prepared.deployment
    return Run(
        title=config.title,
        config=config.plain(),
        data={
            "source": config.data.source.value,
            "users": split.train.user_count,
            "items": split.train.item_count,
            "training events": len(split.train),
            "clients": len(prepared.fleet.names),
            "notes": list(prepared.notes),
        },
        protocol={
            "name": deployment.protocol,
            "clients": planned,
            "min_contributors": max(2, planned - deployment.missing(planned)),
            "adversary": deployment.adversary.value,
            "corrupt": deployment.corrupt,
            "dropout": deployment.dropout,
            **{k: str(v) for k, v in asdict(cast(Any, deployment.parameters(planned))).items()},
        },
        mode=config.privacy.mode.value,
        measured_under=_MEASURED[config.privacy.mode],
        spendings=tuple(_spending(prepared, *each) for each in _budgets(prepared)),
        machine=dict(machine),
    )


_MEASURED = {
    Mode.NONE: "exact, and known as a sum over clients only",
    Mode.LOCAL: "exact, and known as a sum over clients only: outside of the guarantee, and nothing is selected by it",
    Mode.DISTRIBUTED: "part of the noised sum, and charged with it",
    Mode.BOTH: "part of the noised sum, and charged with it (to the distributed budget)",
}


def _spending(prepared: Prepared, mode: Mode, name: str, budget: Budget, guarantee: Guarantee) -> Spending:
    unit = "user" if guarantee.unit is Unit.USER else "interaction"
    distributed = prepared.distributed if mode is Mode.DISTRIBUTED else None
    if distributed is not None:
        noise = distributed.found.noise
        words = (
            f"the sums of all rounds together are ({float(budget.epsilon):g}, {float(budget.delta):.3g})-private for "
            f"each {unit}, against the server and up to {noise.colluders} colluding clients, while at most "
            f"{noise.dropouts} of {prepared.planned} are missing from a sum"
        )
    else:
        words = (
            f"what each client sends in all rounds together is ({float(budget.epsilon):g}, {float(budget.delta):.3g})-"
            f"private for each {unit} of its own, against everybody else; the client sees its data"
        )
    return Spending(
        ledger=name,
        unit=guarantee.unit.value,
        relation=guarantee.relation.value,
        trust=guarantee.trust.value,
        epsilon=float(budget.epsilon),
        delta=float(budget.delta),
        colluders=0 if distributed is None else distributed.found.noise.colluders,
        words=words,
    )
