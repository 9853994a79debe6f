"""A client for its whole life: it checks each plan, journals before it speaks, and keeps a privacy budget."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from protocols import registry
from protocols.journal import Beside, Journal, Kept, MemoryJournal
from protocols.newest import Newest
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.residuals import UNIT, Left, Residuals
from protocols.roster import SERVER, Identity, Roster
from protocols.rounds.client import ClientRound
from protocols.rounds.phases import Phase
from protocols.rounds.steps import Charge
from protocols.seen_heads import SeenHeads
from secagg.codec import blob, struct, u32
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, derive, digest, transcript
from secagg.crypto.prg import Prg, Rng
from secagg.crypto.seal import open_box, seal
from secagg.encoding import NamedVectors, Residual, UserVectors
from secagg.errors import (
    DecodeError,
    PeerError,
    PolicyError,
    UsageError,
)
from secagg.extras import installed, need
from secagg.rounding import Integers

if TYPE_CHECKING:
    from dp.ledger import Ledger
    from dp.ledger.heads import SignedHead


class Client:
    """One identity, round after round. With a ``ledger`` it keeps a privacy budget and refuses plans beyond it.

    ``check`` raises if this client must refuse a plan: call it before the data are touched. ``start`` takes a plan and
    this client's update and returns the first frame; ``receive`` takes a server frame and returns the answer. With a
    durable journal a restarted client calls ``start`` again with the same plan, or ``resume``, and goes on where it
    was: what it said before, it says again byte for byte.

    ``deployment`` is this client's own name, never a server's, for what its sessions belong to: who begins a round
    gives up all others of the same deployment, whatever their sessions, and their secrets are destroyed. Without a name
    it is the deployment whose signature the policy asks for, whatever its roster; without that, each roster is one.
    Sessions that are to live side by side need different names.

    A ledger is charged once for a plan, so it must not be asked twice: it wants a journal that is as durable as itself.
    A plan that the ledger knows and the journal does not is refused, since nobody can tell that what would be said now
    is what was said then. The journal remembers the ledger's head, so an older ledger, another one or none is refused,
    too.

    With ``policy.signed_by`` rosters and models are signed versions (``secagg.signed_versions``), and the journal
    remembers the newest that was accepted: after it none that is older is. So it is durable then, too.

    A client does one thing at a time, whatever threads hand it: what it may say depends on all that it has said. Who
    calls while another call lasts, waits. It does so in one process: a fork of it says nothing.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        *,
        policy: Policy,
        journal: Journal | None = None,
        ledger: Ledger | None = None,
        deployment: str = "",
        rng: Rng = os.urandom,
    ) -> None:
        if roster.keys[roster.number(identity.name)] != identity.key.public:
            raise UsageError(f"the roster has another key for {identity.name}")
        self.identity, self.roster, self.policy = identity, roster, policy
        self._journal: Journal = MemoryJournal() if journal is None else journal
        self._ledger = ledger
        signatory = policy.signatory
        if not deployment and signatory is not None:
            deployment = str(signatory)
        self._deployment = digest(labels.JOURNAL_DEPLOYMENT, deployment.encode(), b"" if deployment else roster.digest)
        self._journal_key = derive(identity.key.secret, labels.JOURNAL_KEY)
        self._newest = None if signatory is None else Newest(signatory, self._journal, self._journal_key, rng)
        self._residuals = Residuals(self._journal, self._deployment, self._journal_key, rng)
        self._left: Left | None = None
        self._heads = SeenHeads(self._journal, self._deployment, self._journal_key, rng)
        self._rng = rng
        self._round: ClientRound | None = None
        self._answered: list[bytes] = []  # digests of the requests, one for each journaled step
        self._unsafe = False
        self._lock, self._process = Lock(), os.getpid()
        self._remembered = b""  # the ledger's head, as the journal has it
        if ledger is not None and not self._journal.durable:
            raise UsageError(
                "a client with a ledger needs a journal that is as durable: pass journal=SqliteJournal(path)"
            )
        if signatory is not None and not self._journal.durable:
            raise UsageError(
                "a client that goes back to no older version needs a journal that outlives it: pass "
                "journal=SqliteJournal(path)"
            )
        if ledger is not None and ledger.shared:  # between its look and its reservation another could reserve the same
            raise UsageError("a client's ledger is written by one process at a time: open it without shared=True")

    @property
    def current(self) -> ClientRound | None:
        """This client's side of the round that is under way, or was last."""
        return self._round

    @property
    def phase(self) -> Phase | None:
        return None if self._round is None else self._round.phase

    @property
    def done(self) -> bool:
        """Whether this client has said all it has to say in the current round."""
        return self._round is not None and self._round.done

    def check(self, plan: RoundPlan) -> bool:
        """Raise unless this client may take part in the round: by policy, protocol, ledger and journal.

        Whoever trains for a plan asks first. A refusal after the data were looked at would tell something about them.
        True if this client has begun the round already: then do not train again, but ``resume``. How often a training
        is asked for would steer it, if it remembers anything, and is in no plan.
        """
        with self._one_at_a_time():
            return bool(self._accepted(plan))

    @property
    def ledger_head(self) -> SignedHead | None:
        """The latest head of the server's ledger that this client has seen, where its policy demands heads: with that
        of a refused plan it is evidence, and a witness takes it (``secagg ledger witness``)."""
        with self._one_at_a_time():
            return self._heads.latest(self.policy.ledger_owner)

    def start(self, plan: RoundPlan, update: ArrayLike | UserVectors | None, weight: int = 1) -> bytes:
        """Join a round, or resume it: the first frame, or the last one that was sent before a restart.

        ``update`` is None if there is nothing to contribute, say because training failed: then zeros go into the sum,
        and nobody sees a difference. An update that is not finite, or of another length, raises ``UsageError``. Do not
        stay out of the round for it, which would tell something about the data: start with None instead. A weight that
        the plan does not allow counts as the nearest one that it does.

        Where the plan's clients are silos, ``update`` is one vector for each user of this one, without weights. More
        than the plan's ``users`` raise ``UsageError`` before any is read; one that is not finite, or of another length,
        counts as zeros.

        Where the plan has feedback, what was left of earlier updates (``residual``) is added to this one, and what is
        left now is kept when it is uploaded. A silo's vectors are ``NamedVectors`` then.
        """
        with self._one_at_a_time():
            records = self._accepted(plan)
            secret = records[0].secret if records else self._rng(KEY_BYTES)
            rounding = Prg(derive(secret, labels.CLIENT_SECRET, b"rounding"))
            left = self._left_for(plan, update)
            values = plan.encode_update(update, weight, rounding, None if left is None else left.residuals)
            return self._entered(plan, records, lambda: values, secret, left)

    def residual(self, plan: RoundPlan, user: str = "") -> Residual:
        """What ``start`` will add to the update for this plan, or to that of one user of a silo, to begin a training
        with: the update is what comes out of it less what it began with. Zeros if nothing is left.
        """
        with self._one_at_a_time():
            if not plan.encoding.feedback:
                raise UsageError("the plan has no feedback: nothing is added to an update")
            self._residuals.check(plan.encoding)
            (found,) = self._residuals.left(plan.encoding, [user]).residuals
            return found

    def _left_for(self, plan: RoundPlan, update: ArrayLike | UserVectors | None) -> Left | None:
        if not plan.encoding.feedback or update is None:
            return None
        if not plan.encoding.users:
            return self._residuals.left(plan.encoding, UNIT)
        if not isinstance(update, NamedVectors) or len(names := list(update.names)) != len(update):
            raise UsageError("what is left of users' vectors is kept by their names: pass vectors that have names")
        return self._residuals.left(plan.encoding, names)

    def resume(self, plan: RoundPlan, encoded: Callable[[], bytes]) -> bytes:
        """Resume a round without its update: ``encoded`` gives what ``self.encoded`` gave, and only the upload asks.

        It must not call this client, which waits for it.
        """
        with self._one_at_a_time():
            records = self._accepted(plan)
            if not records:
                raise PolicyError("nothing is known here of this round")
            if plan.encoding.feedback:
                raise UsageError("with feedback a round is resumed by start, with its update")
            ring, length = plan.ring, plan.encoding.coordinates
            return self._entered(plan, records, lambda: ring.centred(ring.unpack(encoded(), length)), records[0].secret)

    def encoded(self) -> bytes:
        """What this client puts into the sum, to be kept as a secret: without it the round cannot be resumed."""
        with self._one_at_a_time():
            if self._round is None or self.uploaded:
                raise UsageError("there is no round with an upload to come")
            if self._round.plan.encoding.feedback:
                raise UsageError("with feedback a round is resumed by start, with its update")
            ring = self._round.plan.ring
            return ring.pack(ring.lift(self._round.values()))

    @property
    def uploaded(self) -> bool:
        """Whether this client's vector is out. The step that reserves privacy budget is the one that uploads."""
        if self._round is None:
            return False
        phases, charges = list(self._round.steps), [step.charge for step in self._round.steps.values()]
        return self._round.phase not in phases[: charges.index(Charge.RESERVE) + 1]

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if os.getpid() != self._process:
            raise UsageError("this client was made in another process: two copies of it could say two things")
        with self._lock:
            yield

    def _check_ledger(self) -> None:
        """Refuse a ledger that is not the one that the journal remembers, or is older, or missing."""
        last = self._journal.last_round(_LEDGER)
        if last is None:
            return
        if self._ledger is None:
            raise UsageError("this journal is that of a client with a ledger: pass the ledger, too")
        try:
            [box] = self._journal.records(_LEDGER, last)
            self._remembered = open_box(self._journal_key, box, _ledger_associated(last))
        except (PeerError, ValueError):
            raise PolicyError("the journal is not this client's, or has been altered") from None
        if not self._ledger.contains(self._remembered):
            raise PolicyError("the ledger is older than this client's journal, or another one")

    def _accepted(self, plan: RoundPlan) -> list[_Record]:
        """What is known of the round; it is one that this client takes part in."""
        self.policy.check(plan, self.roster)
        registry.find(plan.protocol).check_policy(plan, self.policy)
        if plan.noise is not None and not installed("numba"):  # which draws it
            need("dp", "noise inside a sum")
        if self._ledger is not None and plan.noise is None:
            raise PolicyError("this client keeps a privacy budget, and the plan has no noise")
        if plan.encoding.feedback:
            self._residuals.check(plan.encoding)
        self._check_ledger()
        records = self._records(plan)
        last = self._journal.last_round(self._session(plan))
        if records and records[0].request != plan.encode():
            raise PolicyError("another plan was already accepted for this round")
        if not records and last is not None and plan.round <= last:
            raise PolicyError(
                f"this session is past round {plan.round} for this client: it is over, or was given up for a newer one"
            )
        if not records:
            self._check_uncharged(plan)
            if self.policy.ledger_owner and plan.ledger is not None:
                self._heads.check(plan.ledger)
        if self._newest is not None:
            self._newest.take(plan, self.roster)
        return records

    def _entered(
        self,
        plan: RoundPlan,
        records: list[_Record],
        values: Callable[[], Integers],
        secret: bytes,
        left: Left | None = None,
    ) -> bytes:
        protocol = registry.find(plan.protocol)
        current = protocol.client(plan, self.roster, protocol.messages, self.identity, self.policy, values, secret)
        self._round, self._left, self._answered, self._unsafe = current, left, [], True
        if records:
            frame = self._resume(current, records)
        else:
            self._remember_head(plan, reserved=False)
            frame = self._journaled(current, 0, plan.encode(), current.opening(), secret)
        self._unsafe = False
        return frame

    def receive(self, frame: bytes) -> bytes:
        """Check a frame from the server and answer it. A repeated frame gets the same answer again.

        The server is among the culprits of a bad one, whoever else is: it made it, or should have refused it, or it
        could at least have altered what is sealed to this client.

        Of anything but ``bytes``, which somebody could write to meanwhile, a copy is taken first: what is checked,
        answered and journaled is one frame.
        """
        frame = bytes(frame)
        with self._one_at_a_time():
            return self._received(frame)

    def _received(self, frame: bytes) -> bytes:
        current = self._round
        if current is None or self._unsafe:
            raise UsageError("no round is under way: start (or resume) one first")
        request = sha256(frame).digest()
        if request in self._answered:
            return self._said_before(current.plan, self._answered.index(request))
        number = len(self._answered)
        try:
            step = current.hear(frame)
        except (DecodeError, PeerError) as error:
            raise error.blaming(SERVER) from None
        self._unsafe = True  # until the answer is on disk: what fails in between must not be tried another way
        if step.charge is Charge.RESERVE:
            self._check_uncharged(current.plan)
        elif step.charge is Charge.COMMIT:
            self._commit(current)
        kept, reply = None, step.reply(current)
        if step.charge is Charge.RESERVE and self._left is not None:
            kept, self._left = self._residuals.kept(current.plan.encoding, self._left), None
        answer = self._journaled(current, number, frame, reply, b"", kept)
        if step.charge is Charge.RESERVE:
            self._reserve(current.plan)
        current.phase, self._unsafe = step.then, False
        return answer

    # The ledger is never ahead of the journal: a reservation means that the upload is journaled, or was.

    def _check_uncharged(self, plan: RoundPlan) -> None:
        """Refuse to upload for a plan that the ledger knows: it would be charged for one release, and make two."""
        if self._ledger is not None:
            worst = plan.secure_sum(plan.clients)
            if self._ledger.knows(worst):
                raise PolicyError("the ledger knows this plan, and the journal does not know what was said for it")
            self._ledger.check(worst)

    def _check_mine(self, plan: RoundPlan) -> None:
        """Refuse to say an upload again that somebody else may have paid for: a copy of this client, with another
        journal, after this one had crashed. A crash just after the reservation looks the same, and costs the round."""
        if (ledger := self._ledger) is None:
            return
        worst = plan.secure_sum(plan.clients)
        if ledger.knows(worst) and not ledger.reserved_by(self._remembered, worst):
            raise PolicyError("the ledger knows this plan, and the journal does not know that it was charged for it")

    def _reserve(self, plan: RoundPlan) -> None:
        self._remember_head(plan, reserved=plan.noise is not None)
        if self._ledger is not None:
            self._ledger.reserve(plan.secure_sum(plan.clients))
            self._remember_ledger(self._ledger.head)

    def _commit(self, current: ClientRound) -> None:
        if self._ledger is not None:
            self._ledger.commit(current.happened())
            self._remember_ledger(self._ledger.head)

    def _remember_head(self, plan: RoundPlan, reserved: bool) -> None:
        """The head of the server's ledger. The server reserves a sum with noise before it says a word of the round, so
        whoever was asked for a vector knows that it is ``reserved``."""
        if self.policy.ledger_owner and plan.ledger is not None:
            self._heads.remember(plan.ledger, reserved)

    def _remember_ledger(self, head: bytes) -> None:
        """Keep its head in the journal, in the place of the one before: as a session of its own."""
        if head == self._remembered:
            return
        last = self._journal.last_round(_LEDGER)
        number = 0 if last is None else last + 1
        box = seal(self._journal_key, head, _ledger_associated(number), self._rng)
        self._journal.append(_LEDGER, _LEDGER, number, 0, box)
        self._remembered = head

    def finish(self) -> None:
        """Destroy the secrets of the current round; from then on it can be neither resumed nor repeated.

        The next ``start`` in the same deployment does the same. Call it when the sum has been published, or given up.
        """
        with self._one_at_a_time():
            if self._round is not None:
                self._journal.retire(self._session(self._round.plan), self._round.plan.round + 1)
                self._round, self._left = None, None

    def _journaled(
        self,
        current: ClientRound,
        step: int,
        request: bytes,
        reply: object,
        secret: bytes,
        kept: Kept | None = None,
    ) -> bytes:
        """The reply, once it is on disk, and with it what is ``kept`` for later rounds. ``step`` counts the answers
        before the request was looked at, and the journal takes each number once: of two copies of this client, or two
        threads, that know the same of the round, only one answers."""
        plan = current.plan
        frame, beside = current.frame(reply), None
        if len(frame) >= _LONG:
            beside = Beside(frame, self._rng(KEY_BYTES))
        record = _Record(request, *((frame, secret) if beside is None else (b"", secret, beside.key)))
        box = seal(self._journal_key, _RECORD.encode(record), _associated(plan, step), self._rng)
        more = () if kept is None else (kept,)
        self._journal.append(self._deployment, self._session(plan), plan.round, step, box, beside, *more)
        self._answered.append(sha256(request).digest())
        return frame

    def _session(self, plan: RoundPlan) -> bytes:
        """What the journal calls the plan's session. Servers choose session ids, and could choose one of another server
        and its roster, to end a round there, or to learn from a refusal that this client takes part in it."""
        return digest(labels.JOURNAL_SESSION, self.roster.digest, plan.session)

    def _said_before(self, plan: RoundPlan, step: int) -> bytes:
        records = self._records(plan)
        if step >= len(records):
            raise PolicyError("this round's records have been destroyed")
        return self._reply(plan, step, records[step])

    def _reply(self, plan: RoundPlan, step: int, record: _Record) -> bytes:
        """What was answered, as it is in the record or beside it."""
        if not record.key:
            return record.reply
        return self._journal.frame(self._session(plan), plan.round, step, record.key)

    def _records(self, plan: RoundPlan) -> list[_Record]:
        boxes = self._journal.records(self._session(plan), plan.round)
        try:
            return [
                _RECORD.decode(open_box(self._journal_key, box, _associated(plan, step)))
                for step, box in enumerate(boxes)
            ]
        except (PeerError, DecodeError):
            raise PolicyError("the journal is not this client's, or has been altered") from None

    def _resume(self, current: ClientRound, records: list[_Record]) -> bytes:
        """Walk through what was heard before the restart; nothing that was said is computed again."""
        last = self._reply(current.plan, len(records) - 1, records[-1])
        self._answered = [sha256(record.request).digest() for record in records]
        for record in records[1:]:
            current.phase = current.hear(record.request).then
        if self.uploaded:
            self._check_mine(current.plan)
            self._reserve(current.plan)  # the crash may have come before it
        else:
            self._check_uncharged(current.plan)
        return last


@dataclass(frozen=True, slots=True, repr=False)
class _Record:
    """One journaled step: what was heard, what was answered, and (in the first) the round's secret.

    The answer is ``reply``; a long one stands beside the record, sealed under ``key``.
    """

    request: bytes
    reply: bytes
    secret: bytes
    key: bytes = b""


_RECORD = struct(_Record, request=blob(1 << 40), reply=blob(1 << 40), secret=blob(KEY_BYTES), key=blob(KEY_BYTES))

_LONG = 1 << 16
"""A frame of so many bytes is kept beside its record."""


_LEDGER = digest(labels.JOURNAL_LEDGER)
"""What the journal calls the session, and the deployment, of the ledger's heads."""


def _ledger_associated(number: int) -> bytes:
    return transcript(labels.JOURNAL_LEDGER, u32.encode(number))


def _associated(plan: RoundPlan, step: int) -> bytes:
    return transcript(labels.JOURNAL_RECORD, plan.session, u32.encode(plan.round), u32.encode(step))
