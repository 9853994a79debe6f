"""What a run is to do: one TOML file, read strictly.

Unknown keys, wrong types and what cannot work are refused before anything is written. ``examples/`` has files to start
from. What each key and each of its values means stands under it here, and nowhere else: ``secagg config`` and
docs/configuration.md are made from that (``recsys.documented``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any, get_type_hints

from protocols.parameters import ALLOWED
from recsys.network import Network
from recsys.optimisers import Rule
from recsys.participation import Draw
from secagg.assumptions import Adversary
from secagg.errors import DecodeError, UsageError
from secagg.foreign import named_file, parse_toml
from secagg.names import check_name

KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list of texts",
}
"""What values are, in words."""

_DEEPEST, _LONGEST = 20, 100
_MOST_BYTES = 1 << 20
_RENAMED = {"data.catalogue": "data.items"}
_NUMBERS_AS_TEXT = ("protocol.corrupt", "protocol.dropout", "data.valid_from", "data.test_from")

FEWEST = 100
"""The smallest number of units that delta may be made from, where it is said to be public."""


class Source(StrEnum):
    SYNTHETIC = "synthetic"
    """the synthetic population of this package, which needs no file"""
    MOVIELENS = "movielens"
    """a folder with one of MovieLens' data sets, unpacked"""
    TABLE = "table"
    """one CSV, Parquet or Arrow file, or a folder of files of Parquet or Arrow, which are read in batches"""
    SPLIT = "split"
    """three such files: train, valid and test"""
    STREAM = "stream"
    """events as they happen: see the section stream"""


class StreamKind(StrEnum):
    MADE_UP = "made-up"
    """users of ``data.users`` with items of ``data.item_count``, whose tastes change once; it needs no file"""
    FILE = "file"
    """a file of lines of JSON to which others append, and which may be rotated"""
    KAFKA = "kafka"
    """a topic of Kafka (extra ``[stream]``)"""
    DATASET = "dataset"
    """recorded events in Parquet or Arrow, a file or a folder, in the columns that ``data`` names"""


class Clock(StrEnum):
    WALL = "wall"
    """the moment of a sum is waited for"""
    RECORDED = "recorded"
    """the stream was recorded, and is read up to the moment of the next sum without waiting"""


class Population(StrEnum):
    """The habits of the synthetic population (``recsys.data.synthetic``)."""

    CALIBRATED = "calibrated"
    """as fitted to published facts of data sets of several sizes"""
    FIRST = "first"
    """as fitted to MovieLens latest-small alone, as earlier commits had it"""


class HoldOut(StrEnum):
    LAST = "last"
    """each user's last event for test, the one before for valid"""
    RATIO = "ratio"
    """each user's last tenth for test, the tenth before for valid"""
    TIME = "time"
    """the last tenth of all events for test, the tenth before for valid; or by moments: what is from ``data.test_from``
    on for test, what is between ``data.valid_from`` and that for valid"""


class ClientKind(StrEnum):
    DEVICES = "devices"
    """each user is a client"""
    SILOS = "silos"
    """a client holds many users"""


class Spread(StrEnum):
    EVEN = "even"
    """silos of equal size, users at random"""
    DIRICHLET = "dirichlet"
    """users of like taste in the same silos, and silos of unequal size"""
    COLUMN = "column"
    """as the table ``clients.file`` says"""


class Exact(StrEnum):
    """Whether the model, and references beside it, are measured on all users' test events, outside of any guarantee."""

    AUTO = "auto"
    """yes, unless noise in the sums protects real users from whoever runs this (mode distributed or both)"""
    ALWAYS = "true"
    """yes"""
    NEVER = "false"
    """no"""


class Mode(StrEnum):
    NONE = "none"
    """no noise: sums are secure, and exact"""
    LOCAL = "local"
    """each client's training is private for each of its users (DP-SGD)"""
    DISTRIBUTED = "distributed"
    """all clients together add noise inside the sums"""
    BOTH = "both"
    """local and distributed, on two budgets"""


@dataclass(frozen=True, slots=True)
class Data:
    source: Source = Source.SYNTHETIC
    """where the events come from"""
    path: str = ""
    """the folder of MovieLens, or the table"""
    download: str = ""
    """the name of a MovieLens data set, such as ml-latest-small, that is fetched into ``path`` if it is not there"""
    train: str = ""
    """the table to train on, for source split"""
    valid: str = ""
    """the table of events to choose settings by, for source split; empty: none"""
    test: str = ""
    """the table of events to be judged by, for source split"""
    user: str = "user"
    """the column of a table that names the user"""
    item: str = "item"
    """the column of a table that names the item"""
    time: str = ""
    """the column of a table that says when; empty: lines are in the order of time"""
    rating: str = ""
    """the column of a table with a number for how much; empty: all events count the same"""
    items: str = ""
    """a public table of all items, in the column that ``data.item`` names, with what is known of them in columns title,
    genres (separated by "|"), year and text (for text encoders), if it has these; or MovieLens' list of films. Without
    it the list of items comes from users' events, except for MovieLens, where it is the data set's list of films if
    that is there"""
    users: int = 2000
    """the users of the synthetic population"""
    item_count: int = 1000
    """the items of the synthetic population"""
    habits: Population = Population.CALIBRATED
    """what the synthetic population is like"""
    held_out: HoldOut = HoldOut.LAST
    """which events are held out of training, to measure by"""
    valid_from: str = ""
    """for held_out time: the moment from which on events are for valid, as in the data: a whole number, or a date in
    quotes. With privacy on it is needed"""
    test_from: str = ""
    """for held_out time: the moment from which on events are for test"""
    order: int = 0
    """the seed from which the order of a user's events of one time is drawn; 0: as they stand in the file"""
    seed: int = 1
    """of the synthetic population"""


@dataclass(frozen=True, slots=True)
class Clients:
    kind: ClientKind = ClientKind.SILOS
    """who the clients are"""
    count: int = 20
    """the number of silos"""
    spread: Spread = Spread.EVEN
    """how users are spread over silos"""
    alpha: float = 1.0
    """for spread dirichlet: the smaller, the more silos differ"""
    file: str = ""
    """for spread column: a table with columns user and silo"""
    most: int = 0
    """for mode distributed over silos: the most users that a silo may have; one with more refuses. 0: the even share
    where the made-up population is spread evenly, else four times that (``privacy.n_min`` over the number of silos)"""
    overlap: int = 1
    """for mode distributed over silos: up to how many silos may hold data of one person. Nobody can check it, and more
    than one takes so many times the noise"""


@dataclass(frozen=True, slots=True)
class Model:
    name: str = "autoencoder"
    """autoencoder, mf, neumf, sasrec, two-tower or tuned-encoder, which move one vector in each round; or private-ease
    or private-mf, which are made of two sums"""
    encoder: str = ""
    """a directory with a text encoder, for what the table of items says of each (``data.items``). two-tower and
    tuned-encoder, which need it, and sasrec then know items by their texts and not by a row for each; private-ease
    takes texts that are alike for a hint that items are"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """a section with arguments of the model's constructor"""


@dataclass(frozen=True, slots=True)
class Training:
    rounds: int = 15
    """how often clients train and their updates are summed; with turns, sums that fail are among these"""
    draw: Draw = Draw.EVERYONE
    """who takes part in a round"""
    size: int = 0
    """the size of a cohort that is drawn, or its mean; with arrivals, how many clients are in a sum"""
    over: float = 1.0
    """for draw fixed and turns: so many times ``size`` clients are called, and a round goes on with the first ``size``
    that have trained (``network.training``). All others count as dropped out, in noise as well, so ``protocol.dropout``
    has to allow for them"""
    most: int = 0
    """for draw arrivals: in how many sums a client is at the most; 0: in twice as many as all are in on average. Its
    budget is for so many"""
    staleness: int = 16
    """for draw arrivals: an update that was trained from a version of the model so many versions old, and no older one,
    goes into a sum. It is divided by the root of one more than that"""
    concurrent: int = 0
    """for draw arrivals: how many clients train at a time; 0: all"""
    epochs: int = 1
    """passes of a client over its data in a round; not of local training with privacy, see ``privacy.steps``"""
    batch: int = 16
    """users in a step of such a pass"""
    rate: float = 0.1
    """the size of such a step"""
    proximal: float = 0.0
    """FedProx's pull towards the model that a round began with (not with local DP-SGD)"""
    scaffold: bool = False
    """SCAFFOLD's control variates: each client corrects its steps by how its gradient differs from everybody's, and
    sends a vector twice as long. For clients whose data differ, and take several steps a round. In mode none it needs
    ``protocol.adversary = "curious"`` (docs/recommender.md)"""
    personal: tuple[str, ...] = ()
    """names of the model's layers that each client keeps to itself, its personal head: they are trained, and in nothing
    that is sent. Not for mode distributed over silos (docs/adapters.md)"""
    server: Rule = Rule.FEDAVG
    """what the server does with the mean update"""
    server_rate: float = 1.0
    """the server's step size"""
    momentum: float = 0.9
    """the server's momentum, for all rules but fedavg"""
    decay: float = 0.0
    """the server's weight decay: so many times the model are taken from the mean update, before the rule"""
    clip: float = 1.0
    """the largest norm of a client's update"""
    weight_bound: int = 1
    """a silo counts as often as it has users, up to this bound"""
    sampled: float = 1.0
    """for mode distributed over silos: with which probability each user is in a round, by a coin that only its silo
    sees. It saves work; the noise in the mean update is least with everybody in every round"""
    measured: float = 0.05
    """the share of the squared norm that measured values take up; with 0 clients send none. With local privacy they
    never send any, since measured values are exact and carry no noise"""
    measured_every: int = 5
    """clients measure in the first round and in each so many later; in all others the whole norm is for the change"""
    patience: int = 0
    """end after so many measured rounds in a row without a better NDCG@10; 0: never. It looks at nothing else"""


@dataclass(frozen=True, slots=True)
class Upload:
    """What of an update travels (docs/few_bytes.md)."""

    kept: float = 1.0
    """the share of its numbers, another part of them in each round, in turn. Each client trains from the round's model
    plus what it has not sent yet. Needs ``training.measured = 0``, and in mode none ``protocol.adversary = "curious"``;
    not with ``training.scaffold``, or draw turns. In mode distributed over silos nothing is kept: there a part is drawn
    anew in each round, and multiplied to make up for the rest"""
    rank: int = 0
    """products of the model's tables with so many columns of an orthonormal basis travel instead of tables of more
    columns, in turn as with ``kept``, and what is in no table travels whole; 0: the tables do"""
    bits: int = 0
    """of a number, without noise in the sums: 1 to 24, where 0 stands for 24. Numbers beyond eight times the root mean
    square of an update as long as ``training.clip`` are cut to that. What travels are as many bits as a sum over all
    clients takes. Needs ``training.measured = 0``"""
    frozen: tuple[str, ...] = ()
    """names of the model's layers that do not travel, and so stay what they are; alone, without ``kept`` or ``rank``"""

    @property
    def partly(self) -> bool:
        """Whether a part of an update travels in a round, and another one in the next."""
        return self.kept < 1 or self.rank > 0


@dataclass(frozen=True, slots=True)
class Stream:
    """For ``data.source = "stream"`` (docs/streams.md). A round is a sum, and has its moment."""

    kind: StreamKind = StreamKind.MADE_UP
    """where the events come from"""
    path: str = ""
    """the file, or the data set"""
    servers: str = ""
    """the addresses of Kafka's brokers, with commas"""
    topic: str = ""
    """the topic"""
    group: str = "secagg"
    """the group to which offsets are committed, for whoever watches it"""
    clock: Clock = Clock.RECORDED
    """by which time passes"""
    begin: int = 0
    """the moment of the first sum, in seconds since 1970"""
    every: int = 3600
    """seconds of event time from one sum to the next"""
    window: int = 86400
    """with privacy on: the unit are all events of one person within so many seconds"""
    replay: int = 86400
    """after so many seconds an event is in no sum any more; until then it is new in one, and replayed in others"""
    cap: int = 50
    """so many of a person's events of these seconds count, the newest"""
    ahead: int = 86400
    """an event that says a moment so many seconds in the future is one of now, one further ahead is refused; a recorded
    stream has no longer pause"""
    room: int = 1000000
    """while so many events are kept, of all people together, nothing is read; a run with privacy ends then"""
    events: float = 1000.0
    """events of the made-up stream between two sums, on average"""
    change: int = 0
    """the moment at which its tastes change, in seconds since 1970; 0: never"""
    frozen: int = 0
    """a copy of the model stays as it is after so many rounds, and is measured beside the one that goes on; 0: none"""


@dataclass(frozen=True, slots=True)
class Privacy:
    mode: Mode = Mode.LOCAL
    """who adds noise"""
    epsilon: float = 8.0
    """the epsilon of the whole run; in mode both, of each of its two guarantees"""
    delta: float = 0.0
    """at most one over the number of units; 0 stands for a hundredth of that"""
    n_min: int = 0
    """the public number of units, or a public lower bound of it. With 0 their number itself is public, but in mode
    distributed over silos, where only the made-up population is public"""
    clip: float = 1.0
    """the largest norm of one user's gradient in local training; on devices, of one interaction's gradient"""
    share: float = 0.2
    """the share of a client's users (on devices: of its interactions) in a batch of local training, on average"""
    steps: int = 5
    """the number of steps of local training in a round"""
    rate: float = 0.5
    """the step size of local training"""
    data: str = ""
    """a name for the users that the data are about, if what they are called does not say it (``recsys.other_runs``)"""
    ledger: str = ""
    """a file that several runs on the same data share: ``epsilon`` is this run's part of its budget"""
    budget: float = 0.0
    """the epsilon of that ledger, for all its runs together, given by the run that makes it. 0 stands for what the
    ledger has, or for ``epsilon``"""
    beside: bool = False
    """begin although other runs on the same data are known, with budgets of their own: what they cost adds up"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    exact: Exact = Exact.AUTO
    """whether the model and references beside it are measured on all users' test events, outside of any guarantee"""
    users: bool = False
    """write users.csv: each user's id, and the exact rank of its held-out item. With the model and the rest of a
    history it says which item that was"""


@dataclass(frozen=True, slots=True)
class Protocol:
    name: str = "secagg+"
    """the protocol of the secure sums: see ``secagg protocols``. ``auto`` stands for the one of ``allowed`` with which
    a sum is predicted to take the fewest seconds, which the run then has to its end"""
    allowed: str = ",".join(sorted(ALLOWED))
    """the protocols that clients take part in, of which ``auto`` takes one, separated by commas"""
    adversary: Adversary = Adversary.ACTIVE
    """what the server may do"""
    corrupt: str = "0.05"
    """the fraction of clients that may collude with the server"""
    dropout: str = "0.1"
    """the fraction of clients that may drop out of a sum; with more a round can fail"""
    workers: int = 2
    """threads that clients' answers and a server's work are spread over"""


@dataclass(frozen=True, slots=True)
class Config:
    title: str = "a run"
    """what the run is called"""
    seed: int = 0
    """of what is random and no secret: how users are spread, where the model begins, who drops out"""
    data: Data = field(default_factory=Data)
    clients: Clients = field(default_factory=Clients)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    upload: Upload = field(default_factory=Upload)
    stream: Stream = field(default_factory=Stream)
    privacy: Privacy = field(default_factory=Privacy)
    evaluation: Evaluation = field(default_factory=Evaluation)
    protocol: Protocol = field(default_factory=Protocol)
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        training, privacy = self.training, self.privacy
        check_name("title", self.title)
        if training.rounds < 1 or training.epochs < 1 or training.batch < 1 or training.measured_every < 1:
            raise UsageError("training.rounds, epochs, batch and measured_every are at least 1")
        if training.patience < 0 or (training.patience and (self.locally or not training.measured)):
            raise UsageError("training.patience is not below zero, and looks at what clients measure, if they do")
        if not (training.rate > 0 and training.clip > 0 and privacy.rate > 0 and privacy.clip > 0):
            raise UsageError("training.rate, training.clip, privacy.rate and privacy.clip are above zero")
        if not (privacy.epsilon > 0 and 0 <= privacy.delta < 1 and privacy.n_min >= 0):
            raise UsageError("privacy.epsilon is above zero, delta from 0 to below 1, n_min not below zero")
        if 0 < privacy.n_min < FEWEST:
            raise UsageError(
                f"privacy.n_min is at least {FEWEST}: delta is made from it, and is the probability with which the "
                "guarantee may fail altogether"
            )
        if self.private and self.data.held_out is HoldOut.TIME and not self.data.test_from:
            raise UsageError(
                "with privacy on, data.held_out = time needs data.valid_from and data.test_from: a moment that follows "
                "from all users' events would let one user move what is held out of others"
            )
        if self.data.items and self.made_up:
            raise UsageError("data.items is for files: the made-up population has data.item_count items")
        if self.model.encoder and self.made_up:
            raise UsageError("model.encoder is for items with texts, which those of the made-up population have not")
        if bool(self.data.valid_from) != bool(self.data.test_from):
            raise UsageError("data.valid_from and data.test_from go together")
        if self.data.test_from and self.data.held_out is not HoldOut.TIME:
            raise UsageError("data.valid_from and data.test_from are for data.held_out = time")
        if self.locally and training.measured not in (0.0, Training().measured):
            raise UsageError(
                f"training.measured is of no use with privacy.mode = {privacy.mode}: what clients measure would leave "
                "them without noise of their own, so they do not send it"
            )
        if not 0 < privacy.share <= 1 or privacy.steps < 1:
            raise UsageError("privacy.share is above 0 and at most 1, and there is at least one step")
        if training.proximal < 0 or self.protocol.workers < 1:
            raise UsageError("training.proximal is not below zero, and protocol.workers at least 1")
        if training.proximal and self.locally:
            raise UsageError(f"training.proximal is of no use with privacy.mode = {privacy.mode}: DP-SGD pulls nowhere")
        if self.data.order and (
            self.data.source is Source.SPLIT or (self.data.source is Source.TABLE and not self.data.time)
        ):
            raise UsageError("data.order is for events with times, of which the run decides what is held out")
        if not all(0 <= seed < 1 << 32 for seed in (self.seed, self.data.seed, self.data.order)):
            raise UsageError("seeds are from 0 to below 2^32")
        if training.weight_bound > 1 and privacy.mode in (Mode.DISTRIBUTED, Mode.BOTH):
            raise UsageError("training.weight_bound is 1 with noise in the sum: every client counts once")
        if training.scaffold and self.users_in_silos:
            raise UsageError(
                "training.scaffold is not for privacy.mode = distributed over silos: there each user moves the model "
                "alone, no silo drifts, and what a silo kept of its users would be in no user's clip"
            )
        if training.scaffold and not self.private and self.protocol.adversary is not Adversary.CURIOUS:
            raise UsageError(
                "training.scaffold needs noise, or protocol.adversary = curious: a server that lies can keep one "
                "client out of a sum, and ask again from the same model: then only that client's control variate moves"
            )
        if training.personal and self.users_in_silos:
            raise UsageError(
                "training.personal is not for privacy.mode = distributed over silos: there each user moves the model "
                "alone, and a head of its silo would carry it into the vectors of all others"
            )
        self._check_upload()
        self._check_stream()
        if not (self.clients.most >= 0 and self.clients.overlap >= 1):
            raise UsageError("clients.most is not below zero, and clients.overlap at least 1")
        if self.clients.overlap > 1 and self.private and not self.users_in_silos:
            raise UsageError("clients.overlap is for privacy.mode = distributed over silos")
        if not 0 < training.sampled <= 1:
            raise UsageError("training.sampled is above 0 and at most 1")
        if training.sampled < 1 and not (self.users_in_silos and self.clients.overlap == 1):
            raise UsageError("training.sampled is for privacy.mode = distributed over silos, each user in one of them")
        if self.users_in_silos and not self.privacy.n_min and not self.made_up:
            raise UsageError(
                "privacy.mode = distributed over silos needs privacy.n_min, the public number of users or a lower "
                "bound of it: how many users there are stays in the silos"
            )
        if self.clients.kind is ClientKind.SILOS and self.clients.count < 2:
            raise UsageError("clients.count is at least 2: a sum of one silo is that silo's update")
        if self.locally and self.clients.kind is ClientKind.DEVICES and self.model.name != "mf":
            raise UsageError("on devices only mf can be trained locally under privacy (its unit is one interaction)")
        if privacy.ledger and privacy.mode not in (Mode.LOCAL, Mode.DISTRIBUTED):
            raise UsageError("privacy.ledger is for one guarantee: with privacy.mode local or distributed")
        if privacy.budget and not (privacy.ledger and privacy.budget >= privacy.epsilon):
            raise UsageError("privacy.budget is that of privacy.ledger, and not below this run's part, privacy.epsilon")
        self._check_arrivals()
        if training.draw is Draw.TURNS:
            if privacy.mode not in (Mode.NONE, Mode.DISTRIBUTED):
                raise UsageError("training.draw = turns is for privacy.mode = distributed, or none")
            if privacy.ledger or self.clients.overlap > 1:
                raise UsageError(
                    "training.draw = turns charges each client for its turns, in a ledger of its own (no "
                    "privacy.ledger), and no user is in two clients (no clients.overlap)"
                )
            if training.sampled < 1:
                raise UsageError("training.draw = turns counts mu^2, which a sample has none of: training.sampled is 1")
        if self.evaluation.users and not self.measured_exactly:
            raise UsageError("evaluation.users needs evaluation.exact = true")

    def _check_arrivals(self) -> None:
        training, privacy = self.training, self.privacy
        if training.over > 1 and not self.network.training:
            raise UsageError("training.over is for clients that take time to train: set network.training")
        if training.draw is not Draw.ARRIVALS:
            if (training.most, training.staleness, training.concurrent) != (0, Training().staleness, 0):
                raise UsageError("training.most, staleness and concurrent are for training.draw = arrivals")
            return
        if not self.network.training or self.network.wait:
            raise UsageError(
                "training.draw = arrivals is for clients that take time to train (network.training), and waits for "
                "nobody (no network.wait)"
            )
        if training.staleness < 0 or not (training.concurrent == 0 or training.concurrent >= training.size):
            raise UsageError("training.staleness is not below zero, and training.concurrent not below training.size")
        if privacy.mode not in (Mode.NONE, Mode.DISTRIBUTED):
            raise UsageError("training.draw = arrivals is for privacy.mode = distributed, or none")
        if privacy.ledger or self.clients.overlap > 1 or training.sampled < 1:
            raise UsageError(
                "training.draw = arrivals charges each client for its sums, in a ledger of its own (no privacy.ledger) "
                "and by mu^2, which a sample has none of (training.sampled = 1), and no user is in two clients"
            )
        if training.measured:
            raise UsageError(
                "training.draw = arrivals needs training.measured = 0: clients would measure models of several versions"
            )
        if training.scaffold or training.personal or self.upload.partly:
            raise UsageError(
                "training.draw = arrivals is not for training.scaffold, training.personal, upload.kept or upload.rank: "
                "what a client keeps from round to round belongs to one version of the model"
            )

    def _check_upload(self) -> None:
        upload, training = self.upload, self.training
        if not 0 < upload.kept <= 1 or upload.rank < 0 or not 0 <= upload.bits <= 24:
            raise UsageError("upload.kept is above 0 and at most 1, rank not below zero, bits from 0 to 24")
        if (upload.kept < 1) + (upload.rank > 0) + bool(upload.frozen) > 1:
            raise UsageError("upload has one of kept, rank and frozen: an update is sketched in one way")
        if upload.bits and self.privacy.mode in (Mode.DISTRIBUTED, Mode.BOTH):
            raise UsageError("upload.bits is for sums without noise: with noise the finest grid is taken that fits")
        if (upload.kept < 1 or upload.bits) and training.measured and not self.locally:
            raise UsageError(
                "upload.kept and upload.bits need training.measured = 0: what clients measure would be sketched and "
                "rounded as updates are, and mean nothing"
            )
        if (upload.partly or upload.frozen) and training.scaffold:
            raise UsageError(
                "training.scaffold is not for upload.kept, rank or frozen: a control variate is the mean of all that a "
                "client has sent, and here a part is sent"
            )
        if upload.partly and not self.private and self.protocol.adversary is not Adversary.CURIOUS:
            raise UsageError(
                "upload.kept and upload.rank need noise, or protocol.adversary = curious: a server that lies can keep "
                "one client out of a sum, and ask once more for what then only that client has not sent"
            )
        if upload.partly and training.draw is Draw.TURNS:
            raise UsageError(
                "upload.kept and upload.rank are not for training.draw = turns: whose turn comes every so many rounds "
                "would come with the same parts again and again"
            )

    def _check_stream(self) -> None:
        stream, training = self.stream, self.training
        if not self.streamed:
            if stream != Stream():
                raise UsageError("the section stream is for data.source = stream")
            return
        if min(stream.every, stream.window, stream.replay, stream.cap, stream.room) < 1 or not stream.events > 0:
            raise UsageError("stream.every, window, replay, cap, room and events are above zero")
        if min(stream.begin, stream.ahead, stream.change, stream.frozen) < 0:
            raise UsageError("stream.begin, ahead, change and frozen are not below zero")
        needed = {StreamKind.FILE: ("path",), StreamKind.DATASET: ("path",), StreamKind.KAFKA: ("servers", "topic")}
        for name in needed.get(stream.kind, ()):
            if not getattr(stream, name):
                raise UsageError(f"stream.kind = {stream.kind} needs stream.{name}")
        if stream.kind is StreamKind.MADE_UP and stream.clock is Clock.WALL:
            raise UsageError("the made-up stream is read as one that was recorded: stream.clock is recorded")
        if not (self.made_up or stream.begin):
            raise UsageError("a stream needs stream.begin, the moment of its first sum in seconds since 1970")
        if not self.made_up and not (self.data.items and self.privacy.n_min):
            raise UsageError(
                "a stream needs data.items, the table of the items there are, and privacy.n_min, the public number of "
                "people or a lower bound of it: neither may follow from events"
            )
        if self.clients.kind is not ClientKind.SILOS or self.clients.spread is not Spread.EVEN:
            raise UsageError("a stream's clients are silos, in which people are by a hash (clients.spread = even)")
        if self.locally or self.privacy.ledger or self.clients.overlap > 1:
            raise UsageError(
                "a stream is for privacy.mode distributed or none, with a ledger of its own, each person in one silo"
            )
        if training.draw is not Draw.EVERYONE or training.sampled < 1:
            raise UsageError("in each sum of a stream is everyone: training.draw is everyone, and sampled 1")
        if training.scaffold or training.personal or self.upload.partly:
            raise UsageError(
                "what clients keep from sum to sum follows from events without an end: training.scaffold and personal, "
                "upload.kept and rank are not for streams"
            )
        if training.measured not in (0.0, Training().measured) or training.patience:
            raise UsageError("with a stream clients measure nothing: training.measured is 0, and patience, too")
        if stream.frozen and not self.measured_exactly:
            raise UsageError("stream.frozen is measured exactly, beside the model: evaluation.exact = true")

    @property
    def measured_exactly(self) -> bool:
        """Whether anything is computed from exact data of all users."""
        if self.evaluation.exact is not Exact.AUTO:
            return self.evaluation.exact is Exact.ALWAYS
        return self.made_up or self.privacy.mode in (Mode.NONE, Mode.LOCAL)

    @property
    def streamed(self) -> bool:
        """Whether the data are a stream."""
        return self.data.source is Source.STREAM

    @property
    def made_up(self) -> bool:
        """Whether the data are nobody's."""
        return self.data.source is Source.SYNTHETIC or (self.streamed and self.stream.kind is StreamKind.MADE_UP)

    @property
    def private(self) -> bool:
        """Whether the run makes any guarantee."""
        return self.privacy.mode is not Mode.NONE

    @property
    def locally(self) -> bool:
        """Whether what leaves a client is private by its own noise."""
        return self.privacy.mode in (Mode.LOCAL, Mode.BOTH)

    @property
    def users_in_silos(self) -> bool:
        """Whether the unit of privacy is one user among those of a silo."""
        return self.clients.kind is ClientKind.SILOS and self.privacy.mode is Mode.DISTRIBUTED

    @classmethod
    def load(cls, path: str | Path, changes: Sequence[str] = ()) -> Config:
        """From a file, with ``section.key=value`` on top."""
        try:
            table = parse_toml(named_file(Path(path), most=_MOST_BYTES))
        except DecodeError as error:
            raise UsageError(f"{path} is not a TOML file: {error}") from None
        return cls.parse(table, changes)

    @classmethod
    def parse(cls, table: dict[str, Any], changes: Sequence[str] = ()) -> Config:
        """
        >>> Config.parse({"training": {"rounds": 3}}, ["privacy.mode=none"]).training.rounds
        3
        >>> Config.parse({"training": {"runds": 3}})
        Traceback (most recent call last):
        secagg.errors.UsageError: unknown key training.runds: there are rounds, draw, size, ...
        """
        for change in changes:
            _change(table, change)
        _check(table, "", 0)
        config: Config = _parsed(cls, table, "")
        return config

    def plain(self) -> dict[str, Any]:
        """The configuration as JSON and TOML have it."""
        return asdict(self, dict_factory=_with_lists)


def _with_lists(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs}


def _change(table: dict[str, Any], change: str) -> None:
    key, separator, value = change.partition("=")
    if not separator:
        raise UsageError(f"{shown(change)} is not section.key=value")
    *sections, name = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UsageError(f"unknown key {_name(key)}")
    try:
        table[name] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[name] = value  # a word without quotes
    except (ValueError, RecursionError):  # beyond the parser's limits
        raise UsageError(f"{_name(key)} cannot be {shown(value)}") from None


def _check(value: object, where: str, depth: int) -> None:
    """Refuse what TOML knows and a run cannot keep: it is written down as JSON, and shown in one line."""
    if depth > _DEEPEST:
        raise UsageError(f"{_name(where)} has more than {_DEEPEST} levels")
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            _check(part, f"{where}.{name}".removeprefix("."), depth + 1)
    elif isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            _wrong(where, "text in UTF-8", value)
    elif isinstance(value, float):
        if not isfinite(value):
            _wrong(where, "a finite number", value)
    elif not isinstance(value, int):
        _wrong(where, "text, a number, true or false", value)
    elif not -(1 << 63) <= value < 1 << 63:
        _wrong(where, "a number of 64 bits", value)


def _parsed(kind: type[Any], table: object, where: str) -> Any:
    if not isinstance(table, dict):
        raise UsageError(f"{where.rstrip('.')} is a section")
    known = {one.name: one for one in fields(kind)}
    for key in table:
        if key not in known:
            if where + key in _RENAMED:
                raise UsageError(f"{where + key} is called {_RENAMED[where + key]} now")
            names = ", ".join(list(known)[:6]) + (", ..." if len(known) > 6 else "")
            raise UsageError(f"unknown key {_name(where + key)}: there are {names} (secagg config prints all)")
        if where + key == "data.items" and type(table[key]) is int:
            raise UsageError("data.items names a table of items now: how many are made up is data.item_count")
    hints = get_type_hints(kind)
    return kind(**{key: _value(hints[key], value, f"{where}{key}") for key, value in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _parsed(hint, value, f"{where}.")  # type: ignore[arg-type]
    if hint == Mapping[str, Any]:
        return dict(value) if isinstance(value, dict) else _wrong(where, "a section", value)
    if hint is Exact and type(value) is bool:
        return Exact(str(value).lower())
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if value not in [one.value for one in hint]:
            _wrong(where, " or ".join(one.value for one in hint), value)
        return hint(value)
    if hint == tuple[str, ...] and isinstance(value, list) and all(type(one) is str for one in value):
        return tuple(value)
    if hint is str and where in _NUMBERS_AS_TEXT and type(value) in (int, float):
        return str(value)
    if hint is float and type(value) is int:
        value = float(value)
    return value if type(value) is hint else _wrong(where, KINDS[hint.__name__], value)


def _wrong(where: str, wanted: str, value: object) -> Any:
    raise UsageError(f"{_name(where)} is {wanted}, not {shown(value)}")


def _name(key: str) -> str:
    return key if key.isprintable() and len(key) <= _LONGEST else shown(key)


def shown(value: object) -> str:
    """A value in a line, cut off where it is too long for one."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
