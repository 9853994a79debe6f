"""A client that is restarted between any two messages of a round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocols.client import Client
from protocols.journal import Journal, MemoryJournal, SqliteJournal
from protocols.plan import RoundPlan
from protocols.rounds.dealing import Accusations
from tests.scenes.pairwise import small, wary

VICTIM = 2
STEPS = range(1, 7)
"""How many frames a client has sent that nobody complains about: after each of these it may crash."""


class Life:
    """One client in one honest round, which dies and is restarted over the same journal. A corrupt neighbour may
    complain about it: then it says one thing more."""

    def __init__(self, protocol: str, reopen: Callable[[], Journal] | None = None, *, accused: bool = False) -> None:
        self.evil = small(protocol, policy=wary(protocol))
        self.script = ["advert", "introduction", "delivery", *["accusations"] * accused, "verdict", "survivors"]
        self.script.append("consents")
        kept = MemoryJournal()
        self.reopen = reopen or (lambda: kept)
        self.journal = self.reopen()
        self.evil.clients[VICTIM]._journal = self.journal
        self.said: list[bytes] = []

    @property
    def client(self) -> Client:
        return self.evil.clients[VICTIM]

    def restart(self, update: Any = None, plan: RoundPlan | None = None) -> bytes:
        """A new process: nothing but identity, roster, policy and journal is left, and the randomness is new."""
        evil = self.evil
        if isinstance(self.journal, SqliteJournal):
            self.journal.close()
        self.journal = self.reopen()
        identity = evil.identities[evil.name(VICTIM)]
        evil.clients[VICTIM] = Client(identity, evil.roster, policy=evil.policy, journal=self.journal)
        return self.client.start(plan or evil.plan, evil.values[VICTIM] if update is None else update)

    def live(self, steps: int | None = None) -> None:
        """The round, until the victim has sent so many frames, or all. The others are ahead of it."""
        evil = self.evil
        for u in evil.members:
            evil.adverts[u] = evil.start(u)
        self.said = [evil.frame(evil.adverts[VICTIM])]
        evil.found([evil.adverts[u] for u in evil.members])
        self.others = [u for u in evil.members if u != VICTIM]
        evil.share(self.others)
        for _ in range(1, len(self.script) if steps is None else steps):
            self.step()

    def step(self) -> bytes:
        """One more frame to the victim, and its answer."""
        evil, hears = self.evil, self.script[len(self.said)]
        answer = self.client.receive(self.frame(hears))
        message = evil.messages.decode(evil.plan, answer)
        if hears == "introduction":
            evil.keep_boxes(VICTIM, message)
        elif hears == "verdict":
            evil.keep_upload(VICTIM, message)
            evil.upload([u for u in self.others if u not in evil.headers])
        self.said.append(answer)
        return answer

    def frame(self, hears: str) -> bytes:
        evil = self.evil
        if hears == "consents":
            return self.consents(evil.members)
        if hears == "survivors":
            return evil.frame(evil.survivors(VICTIM, evil.members))
        if hears == "accusations":
            liar = next(v for v in evil.others(VICTIM) if v in evil.corrupt)
            return evil.frame(Accusations((evil.false_complaint(liar, VICTIM),)))
        made: dict[str, Callable[[int], object]] = {
            "introduction": evil.introduction, "delivery": evil.delivery, "verdict": evil.verdict
        }  # fmt: skip
        return evil.frame(made[hears](VICTIM))

    def consents(self, alive: list[int]) -> bytes:
        return self.evil.frame(self.evil.consents(VICTIM, {v: self.evil.sign(v, alive) for v in alive}))
