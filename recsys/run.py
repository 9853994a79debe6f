"""A run: from a configuration to a model, a ledger and a record, in one directory.

Everything is checked before anything is written (``recsys.assembly``), and other runs on the same data are looked for
(``recsys.other_runs``). Then the secret and the ledgers are made. If anything is measured exactly, reference models are
trained and measured. Then come the rounds, with a checkpoint after each. A run that was killed goes on with the same
call, on this machine or another: the pending sum is finished with the vectors that went into it, and all later ones are
computed anew.

    config.json         what was asked for                 run.json        what came out (``recsys.run_record``)
    ledger.pub          the key of the ledgers             ledger.db       what was spent (and local.db: in local
    model.safetensors   the model in the end                               training, if the sums are noised, too)

All that can be handed on (``recsys.export`` packs it). What cannot is in ``private``, a directory for its owner alone:

    secret.key               all randomness of the parties
    checkpoint.safetensors   the model between two rounds, or the sums so far
    sum-N.sealed             what clients put into sum N, until it is out
    ledger.key               signs the ledgers
    name                     of the run in the account's list
    inputs                   by which other data are refused (``recsys.same_inputs``)
    users.csv                metrics for each user, if asked
    stream.db                the events of a stream and where they are (``recsys.stream.journal``)
    frozen.safetensors       a model that is measured beside the one that goes on

The checkpoint is authenticated under the secret (``secagg.tensors``): one that was altered, or is another run's, ends
the run. So does an older one, by the number of its sums, if the record or a pending sum has a higher one, or a ledger
was charged for the next. Where all of these are older, too, or gone, it is not noticed. What clients keep
from round to round (``recsys.kept_by_clients``) is in the checkpoint, sealed under that secret.

The secrets, the checkpoint and what clients put into sums are deleted when the run has ended, unless they are to be
kept. Ledgers are verified with their public key, so that needs none of it.

With a keyring all of it is sealed at rest (``secagg.at_rest``), but for ledger.pub, which is public.

Runs that share a ledger (``privacy.ledger``) have none of their own: beside shared.db lie the secret of whoever may
write it, shared.key, and its public key, shared.pub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from functools import lru_cache, partial
from typing import Any, cast

from protocols.engines.local import Threads
from recsys.aggregator import Aggregator
from recsys.assembly import Prepared
from recsys.config import Mode
from recsys.data.negatives import frozen
from recsys.data.split import Split
from recsys.federated import METRICS, Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.ranking import Evaluation, evaluate
from recsys.models.ease import Ease
from recsys.models.knn import ItemKnn
from recsys.models.popularity import ItemPop
from recsys.models.recommender import Recommender, SharedModel
from recsys.models.store import encode, save_in
from recsys.models.tuned_ease import tuned_ease
from recsys.other_runs import RunList
from recsys.participation import Draw
from recsys.personal_heads import evaluated
from recsys.requested_sums import LearnsFromSums, ResultsOnDisk
from recsys.run_record import MODEL, Quality, Round, Run
from recsys.run_start import CHECKPOINT, FROZEN, PRIVATE, STREAM, StartedRun, delete_secrets, existing_run, start
from recsys.same_inputs import INPUTS, check_inputs
from recsys.secure_aggregator import SecureAggregator
from recsys.sentences import (
    CENTRAL,
    EASE,
    FROZEN_MODEL,
    NEAREST,
    OWN,
    PLAIN,
    POPULAR,
    START,
    TUNED,
    USERS,
    WITHOUT_NOISE,
    measured_under,
    outside,
    spending,
)
from recsys.serving import ServedModel
from recsys.stream.feed import Feed
from recsys.stream.sums import StreamSums
from recsys.training_state import TrainingState
from secagg import tensors
from secagg.assumptions import fraction
from secagg.at_rest import AnyFolder, Folder
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.errors import BudgetError, StorageError, ThresholdError, UsageError

_tuned_ease = lru_cache(1)(tuned_ease)
"""Several runs of one process may be over the same split."""
NEGATIVES = 99
_MOST_ITEMS, _MOST_CELLS = 10_000, 10_000_000
"""With more items, or users times items, references of all data in one place are left out: they take minutes, or
gigabytes."""
DONE = "all rounds are done"
_ATTEMPTS = 5
"""After this many failed sums in a row the run ends with an error."""

Watch = Callable[[Run], None]
"""Is called with the record each time it has grown."""
Measured = Callable[..., Evaluation]
"""Measures something on a split, or among the negatives of each user in it."""
Tell = Callable[[str], None]
"""Is called with what is being done, so that somebody who waits sees that it goes on."""


def train(
    prepared: Prepared,
    folder: AnyFolder,
    *,
    machine: Mapping[str, Any],
    run_list: RunList,
    watch: Watch = lambda run: None,
    tell: Tell = lambda doing: None,
    keep_secrets: bool = False,
) -> Run:
    """Begin a run in ``folder``, or continue it. A run that has ended is left as it is.

    When the run has ended, its secrets are deleted, unless ``keep_secrets`` says otherwise.

    ``BudgetError``: other runs on the same data are known, or the budget that they share is spent.
    """
    folder = Folder.of(folder)
    private = folder.within(PRIVATE)
    with ExitStack() as held:
        before = existing_run(folder, prepared.config)
        if before is not None and before.ended:
            if (private / INPUTS).is_file() and not private.path.is_symlink():  # it is not handed on
                check_inputs(private, prepared)
            if not keep_secrets:  # they are there if they were kept, or if the run was killed at its end
                delete_secrets(folder)
            return before
        with run_list.locked() as runs:
            started = start(prepared, folder, before, runs, held)
        before = existing_run(folder, prepared.config)  # from here on nobody else writes it
        if before is not None:
            prepared = replace(prepared, deployment=prepared.deployment.begun(str(before.protocol.get("name"))))
        ended = _Running(prepared, folder, machine, watch, tell, started, before).run()
        if not keep_secrets:
            delete_secrets(folder)
        return ended


class _Running:
    def __init__(
        self,
        prepared: Prepared,
        folder: Folder,
        machine: Mapping[str, Any],
        watch: Watch,
        tell: Tell,
        started: StartedRun,
        before: Run | None,
    ) -> None:
        self._prepared, self._folder, self._watch, self._tell = prepared, folder, watch, tell
        self._private, self._secret, self._ledgers = started.private, started.secret, started.ledgers
        self._key = started.key
        self._record = _record(prepared, started, machine)
        if before is not None:
            self._record = replace(self._record, rounds=before.rounds, results=before.results)
        config = prepared.config
        negatives = config.measured_exactly and not config.streamed and prepared.split.train.item_count > 10 * NEGATIVES
        self._negatives = frozen(prepared.split, NEGATIVES, seed=prepared.config.seed) if negatives else None

    def run(self) -> Run:
        prepared = self._prepared
        self._say()
        if not prepared.config.streamed:
            self._measure_references(IdealAggregator(bytes(32)))
        aggregator = SecureAggregator(
            prepared.deployment,
            self._secret,
            network=prepared.config.network,
            ledger=self._ledgers.get(Mode.DISTRIBUTED),
            turns=prepared.turns(self._secret),
            buffers=prepared.buffers(self._secret),
            folder=self._private,
            seed=prepared.config.seed,
            engine=Threads(prepared.config.protocol.workers),
            tell=self._tell,
        )
        model, ended = prepared.model(), DONE
        measured: Measured = partial(evaluate, model)
        try:
            if prepared.config.streamed:
                ended = self._follow(cast(SharedModel, model), aggregator)
            elif prepared.in_rounds:
                federation = self._federation(cast(SharedModel, model), aggregator)
                measured = self._by_owner(model, federation)
                ended = self._train(federation, measured, aggregator)
            else:
                self._learn(cast(LearnsFromSums, model), aggregator)
        except BudgetError as error:
            if not (prepared.in_rounds and any(one.survivors for one in self._record.rounds)):
                raise
            ended = f"the budget is spent: {error}"
        served = ServedModel(model, prepared.split.train.item_ids)
        digest = save_in(self._folder, MODEL, encode(served, prepared.taken_as_public))
        self._say(results=(*self._record.results, *self._own(measured, model)), model=digest, ended=ended)
        return self._record

    def _federation(self, model: SharedModel, aggregator: Aggregator) -> Federation:
        """The training, as far as it has come."""
        federation = self._prepared.federation(model, aggregator, self._secret, self._ledgers.get(Mode.LOCAL))
        if self._private.exists(CHECKPOINT):
            kept = self._private.read(CHECKPOINT, private=True)
            federation.resume(TrainingState.decode(kept, self._secret))
        return federation

    def _train(self, federation: Federation, measured: Measured, aggregator: SecureAggregator) -> str:
        """Train in rounds, with a checkpoint before the first round and after each. Says why it ended."""
        self._check_reached(len(federation.state.rounds))
        self._keep(federation.state, aggregator)
        training = self._prepared.config.training
        while self._made(federation.state.rounds) < training.rounds:
            if federation.stalled:
                rounds = (
                    "a measured round" if training.patience == 1 else f"{training.patience} measured rounds in a row"
                )
                return f"stopped early: {rounds} brought no better NDCG@10"
            done = federation.advance()
            last_one = sum(one.survivors > 0 for one in federation.state.rounds) == training.rounds
            due = last_one or done.number % training.measured_every == 0
            self._done(federation, self._counted(done, self._exact(measured if due else None)), aggregator)
        return DONE

    def _follow(self, model: SharedModel, aggregator: SecureAggregator) -> str:
        """Train in rounds on what is new in a stream at their moments. Each begins with a model that is judged, if it
        is, by those events before it is trained on them."""
        prepared = self._prepared
        stream, names = prepared.config.stream, prepared.client_data.names
        if self._private.keys is not None:
            raise UsageError("the journal of a stream is not sealed at rest: begin this run without a key")
        path, item_ids = self._private / STREAM, prepared.split.train.item_ids
        with closing(Feed(prepared.config, path, names, item_ids, prepared.silos, self._tell)) as feed:
            federation = self._federation(model, StreamSums(aggregator, feed.journal, names, feed.schedule))
            self._check_reached(len(federation.state.rounds))
            feed.check_reached(len(federation.state.rounds))
            self._keep(federation.state, aggregator)
            while self._made(federation.state.rounds) < prepared.config.training.rounds:
                number = len(federation.state.rounds)
                coming = feed.gathered(number)
                due = number % prepared.config.training.measured_every == 0
                exact = self._judged(model, coming.ahead) if due else {}
                federation.on(coming.clients)
                done = federation.advance()
                if number + 1 == stream.frozen:
                    self._private.write(
                        FROZEN, *tensors.encode({}, {"vector": model.vector}, self._frozen_key), private=True
                    )
                self._done(federation, self._counted(done, exact), aggregator)
                feed.acknowledge()
        return DONE

    def _judged(self, model: SharedModel, ahead: Split | None) -> dict[str, float]:
        """How well the model, and the one that is frozen, foretell users' new events."""
        if ahead is None or not self._prepared.config.measured_exactly:
            return {}
        found = evaluate(model, ahead)
        exact = {metric: found.mean(metric) for metric in METRICS}
        if self._private.exists(FROZEN):
            _, arrays = tensors.decode(self._private.read(FROZEN, private=True), self._frozen_key)
            found = evaluate(model.with_vector(arrays["vector"]), ahead)
            exact |= {f"{metric}{FROZEN_MODEL}": found.mean(metric) for metric in METRICS}
        return exact

    @property
    def _frozen_key(self) -> bytes:
        return derive(self._secret, labels.STORED, b"frozen model")

    def _done(self, federation: Federation, done: Round, aggregator: SecureAggregator) -> None:
        """A round is over: it goes into the checkpoint and on record."""
        federation.state.rounds = (*federation.state.rounds[:-1], done)
        self._keep(federation.state, aggregator)
        last = federation.state.rounds[-_ATTEMPTS:]
        if len(last) == _ATTEMPTS and not any(one.survivors for one in last):
            raise ThresholdError(f"too many clients were lost, {_ATTEMPTS} times: {done.purpose}")

    def _made(self, rounds: Sequence[Round]) -> int:
        """How many of the configured rounds are done. One that failed is made again, but with turns."""
        if self._prepared.participation.draw is Draw.TURNS:
            return len(rounds)
        return sum(one.survivors > 0 for one in rounds)

    def _keep(self, state: TrainingState, aggregator: SecureAggregator) -> None:
        self._private.write(CHECKPOINT, *state.encode(self._secret), private=True)
        aggregator.delete_pending(len(state.rounds))
        if state.rounds:
            self._say(rounds=state.rounds)

    def _learn(self, model: LearnsFromSums, aggregator: SecureAggregator) -> None:
        """Make the model of a few sums. After a restart they are requested again, and answered as before."""
        prepared, results = self._prepared, ResultsOnDisk(aggregator, self._private, CHECKPOINT, self._secret)
        self._check_reached(len(results))

        def done(one: Round) -> None:
            if one.number >= len(self._record.rounds):  # else it is on record, with what had been spent by then
                self._say(rounds=(*self._record.rounds, self._counted(one, {})))

        sums = prepared.sums(results, done)
        model.learn(sums, prepared.split.train.item_count)
        exact = self._exact(partial(evaluate, model))
        self._say(rounds=(*self._record.rounds[:-1], replace(self._record.rounds[-1], exact=exact)))

    def _check_reached(self, sums: int) -> None:
        """Refuse to make a sum again that is on record: with vectors computed anew it would be another sum."""
        if sums < len(self._record.rounds):
            path = self._private / CHECKPOINT
            what = "is older than the record" if path.exists() else "is gone, and sums are on record"
            raise StorageError(f"{path} {what}: start a new run")

    # Measuring on all users' data, only where the configuration asks for it

    def _measure_references(self, aggregator: Aggregator) -> None:
        """The quality of the reference models that the run can be compared with, each on record as soon as it is known.
        None of them is private."""
        if self._prepared.config.measured_exactly:
            for name, made in self._references(aggregator):
                if name not in [one.name for one in self._record.results]:
                    self._say(results=(*self._record.results, made()))

    def _references(self, aggregator: Aggregator) -> Iterator[tuple[str, Callable[[], Quality]]]:
        """The name of each, and what makes and measures it."""
        prepared = self._prepared
        yield POPULAR, self._popular
        yield from self._linear()
        if not prepared.in_rounds:
            yield WITHOUT_NOISE, partial(self._learnt, aggregator)
            return
        note = "the same federated training"
        yield WITHOUT_NOISE, partial(self._trained, WITHOUT_NOISE, prepared, aggregator, note)
        if prepared.locally is not None:
            note = "another recipe: training.epochs, batch and rate in place of DP-SGD's clipped steps"
            yield PLAIN, partial(self._trained, PLAIN, prepared.without_privacy(), aggregator, note)
        elif prepared.distributed is not None and self._small:
            yield CENTRAL, self._central

    @property
    def _small(self) -> bool:
        """Whether a model of all data in one place takes seconds."""
        train = self._prepared.split.train
        return train.item_count <= _MOST_ITEMS and train.user_count * train.item_count <= _MOST_CELLS

    def _linear(self) -> Iterator[tuple[str, Callable[[], Quality]]]:
        """Models in closed form, of all data in one place, where that takes seconds."""
        split = self._prepared.split
        train = split.train
        if not self._small:
            return

        def fitted(name: str, model: Recommender, note: str) -> Quality:
            model.fit(train)
            return self._result(name, model, note=note)

        yield NEAREST, partial(fitted, NEAREST, ItemKnn(), "items that the same users took, from exact counts")
        yield EASE, partial(fitted, EASE, Ease(), "a linear model of all data in one place")
        if not split.interchangeable[split.valid.users].all():  # somebody chooses
            yield TUNED, self._tuned

    def _tuned(self) -> Quality:
        self._tell(f"{TUNED}: its settings are chosen by validation events")
        model = _tuned_ease(self._prepared.split)
        fades = f"fading over {model.reach:g} events" if model.reach else "without fading"
        note = f"the same, chosen by validation events: regularisation {model.regularisation:g}, {fades}"
        return self._result(TUNED, model, note=note)

    def _popular(self) -> Quality:
        model = ItemPop()
        model.fit(self._prepared.split.train)
        return self._result(POPULAR, model, note="the same list for everybody, from exact counts")

    def _central(self) -> Quality:
        self._tell(f"{CENTRAL}: the same model, of all data, without clipping and without noise")
        model = self._prepared.model()
        model.fit(self._prepared.split.train)
        note = "the same model by another recipe: Adam on all data in one place, no clipping, no noise"
        return self._result(CENTRAL, model, note=note)

    def _learnt(self, aggregator: Aggregator) -> Quality:
        prepared = self._prepared
        model = cast(LearnsFromSums, prepared.model())
        model.learn(prepared.without_privacy().sums(aggregator), prepared.split.train.item_count)
        return self._result(WITHOUT_NOISE, model, note="the same sums over users, without noise")

    def _trained(self, name: str, prepared: Prepared, aggregator: Aggregator, note: str) -> Quality:
        model = cast(SharedModel, prepared.model())
        federation = prepared.federation(model, aggregator, self._secret, noiseless=True)
        for done in range(rounds := prepared.config.training.rounds):
            if federation.stalled:
                break
            self._tell(f"{name}, {done} of {rounds} rounds are done")
            federation.advance()
        return self._quality(name, self._by_owner(model, federation), note=f"{note}; no noise, nobody lost")

    def _by_owner(self, model: Recommender, federation: Federation) -> Measured:
        """Measures each user by the model that its client has: that of all, or with the client's own head."""
        if not self._prepared.recipe.personal:
            return partial(evaluate, model)
        return lambda split, negatives=None: evaluated(federation.owned(), split, negatives)

    def _own(self, measured: Measured, model: Recommender) -> tuple[Quality, ...]:
        """The quality of the run's model. With personal heads each client is measured with its own, and what is handed
        on without any, too."""
        prepared = self._prepared
        if not prepared.config.measured_exactly:
            return ()
        if prepared.config.streamed:
            return self._over_time()
        found = measured(prepared.split)
        if prepared.config.evaluation.users:
            users = found.as_csv(prepared.split.train.user_ids)
            self._private.write(USERS, users, private=True)
        if not prepared.recipe.personal:
            return (self._quality(OWN, measured, found),)
        start = self._result(START, model, note="the same without anybody's head: what a new client starts with")
        return start, self._quality(OWN, measured, found, note="each client with its own head")

    def _over_time(self) -> tuple[Quality, ...]:
        """The mean quality of the rounds that were judged, from where a model was frozen on, if one was."""
        frozen = self._prepared.config.stream.frozen
        judged = [one.exact for one in self._record.rounds[frozen:] if one.exact]
        if not judged:
            return ()
        means = {name: sum(one[name] for one in judged) / len(judged) for name in judged[-1]}
        note = f"the mean over {len(judged)} sums, by the events that were new in each, before it was trained on them"
        if (still := f"{METRICS[1]}{FROZEN_MODEL}") in means:
            note += f"; as it was after {frozen} rounds its {METRICS[1]} would have been {means[still]:.4f}"
        return (Quality(OWN, {metric: means[metric] for metric in METRICS}, note),)

    def _result(self, name: str, model: Recommender, note: str = "") -> Quality:
        return self._quality(name, partial(evaluate, model), note=note)

    def _quality(self, name: str, measured: Measured, found: Evaluation | None = None, note: str = "") -> Quality:
        split = self._prepared.split
        found = found or measured(split)
        metrics = {metric: found.mean(metric) for metric in METRICS}
        if self._negatives is not None:
            among = measured(split, negatives=self._negatives)
            metrics |= {f"{metric} of {NEGATIVES + 1}": among.mean(metric) for metric in METRICS}
        return Quality(name, metrics, note)

    def _exact(self, measured: Measured | None) -> dict[str, float]:
        if measured is None or not self._prepared.config.measured_exactly:
            return {}
        found = measured(self._prepared.split)
        return {metric: found.mean(metric) for metric in METRICS}

    def _counted(self, done: Round, exact: dict[str, float]) -> Round:
        """The record of a round, with what the first ledger says was spent by then (a shared ledger: by all runs), and
        with ``exact`` quality, if that is measured."""
        if not self._ledgers:
            return replace(done, exact=exact)
        ledger = next(iter(self._ledgers.values()))
        spent, budget = ledger.epsilon, float(ledger.budget.epsilon)
        left, head = max(0.0, budget - spent), ledger.head.hex()
        return replace(done, exact=exact, epsilon=spent, epsilon_left=left, head=head)

    def _say(self, **news: Any) -> None:
        self._record = replace(self._record, **news)
        self._record.save(self._folder, self._key)
        self._watch(self._record)


def _users(prepared: Prepared) -> int:
    """How many users there are, or are declared."""
    config = prepared.config
    if config.streamed:
        return config.privacy.n_min or config.data.users
    return prepared.split.train.user_count if prepared.silos is None else prepared.silos.users


def _counts(prepared: Prepared) -> dict[str, object]:
    """Exact statistics of users' data, for a run that promises nothing."""
    split = prepared.split
    share = {"share of tests decided by a tie in time": split.tied_share} if split.tied_share else {}
    return {"training events": len(split.train), "notes": list(prepared.notes), **share}


def _record(prepared: Prepared, started: StartedRun, machine: Mapping[str, Any]) -> Run:
    config, split = prepared.config, prepared.split
    return Run(
        title=config.title,
        config=config.plain(),
        data={
            "source": config.data.source.value,
            "users": _users(prepared),
            **({} if prepared.silos is None and not config.streamed else {"declared": True}),
            "items": split.train.item_count,
            "clients": len(prepared.client_data.names),
            **({} if prepared.vectors is None else {"encoder": prepared.vectors.encoder}),
            **({"caution": prepared.caution} if prepared.caution else {}),
            **({} if config.private or config.streamed else _counts(prepared)),
        },
        protocol=agreed(prepared),
        mode=config.privacy.mode.value,
        measured_under=measured_under(prepared),
        public=prepared.taken_as_public,
        spendings=tuple(spending(prepared, mode, ledger) for mode, ledger in started.ledgers.items()),
        outside=outside(prepared),
        others=started.other_runs,
        machine=dict(machine),
        owner=started.key.public.hex(),
    )


def agreed(prepared: Prepared) -> dict[str, Any]:
    """What a record says of the protocol. Fractions that were asked for are not replaced by a parameter of that name,
    such as the number of corrupt members that the committee of ``oneshot`` bears. Where cohorts vary in size, no number
    of clients is that of all."""
    deployment, planned, noised = prepared.deployment, prepared.planned_clients, prepared.distributed is not None
    corrupt = deployment.corrupt_of(planned, noised=noised)
    asked: dict[str, Any] = {
        "name": deployment.protocol,
        "clients": planned,
        "min_contributors": deployment.least(planned),
        "adversary": deployment.adversary.value,
        "corrupt": deployment.corrupt if corrupt == fraction(deployment.corrupt) else str(corrupt),
        "dropout": deployment.dropout,
        **({"chosen": deployment.why} if deployment.why else {}),
    }
    if prepared.participation.draw is Draw.ARRIVALS:
        charged = prepared.participation.charged(len(prepared.client_data.names), prepared.config.training.rounds)
        asked |= {"most": charged, "staleness": prepared.config.training.staleness}
    if prepared.participation.draw is Draw.POISSON:
        del asked["clients"], asked["min_contributors"]
        asked["corrupt"] = deployment.corrupt
    chosen = asdict(cast(Any, deployment.parameters(planned, noised=noised)))
    return asked | {name: str(value) for name, value in chosen.items() if name not in asked}
