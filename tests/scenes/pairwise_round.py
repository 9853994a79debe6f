"""A round of pairwise masking with a real server, in which a test can have any client lie."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from protocols.rounds.phases import Phase
from protocols.server import serve
from secagg.crypto.shamir import PRIME
from secagg.errors import PolicyError
from tests.scenes.pairwise import small, wary

LIAR = 2


class Round:
    """The honest server and real clients, one of whom is a liar in one phase."""

    def __init__(self, protocol: str, **options: Any) -> None:
        self.evil = small(protocol, **{"corrupt": (), "policy": wary(protocol)} | options)
        self.server: Any = serve(self.evil.plan, self.evil.roster)
        self.replies: dict[str, Any] = {}
        for u in self.evil.members:
            self.replies[self.evil.name(u)] = self.evil.start(u)

    @property
    def liar(self) -> str:
        return self.evil.name(LIAR)

    @property
    def machine(self) -> Any:
        """The liar's own round machine, to sign with."""
        return self.evil.clients[LIAR]._round

    def falsely_complain(self, v: int, u: int) -> None:
        """In COMPLAIN: v says that u's box to it is no good, and goes on as if that were so."""
        machine: Any = self.evil.clients[v]._round
        del machine._held[u]
        machine._doubted[u] = self.server._exchange.delivered(u, v)
        self.replies[self.evil.name(v)] = machine._complain()

    def hand_in(self, name: str, message: Any) -> None:
        self.server.receive(name, message if isinstance(message, bytes) else self.evil.frame(message))

    def others_speak(self, silent: tuple[int, ...] = ()) -> None:
        for name, message in self.replies.items():
            if name != self.liar and self.evil.roster.number(name) not in silent:
                self.hand_in(name, message)

    def close(self) -> None:
        evil = self.evil
        self.server.close(self.server.phase)
        self.replies = {}
        for name, frame in self.server.outbox():
            with suppress(PolicyError):  # who leaves the round says nothing
                answer = evil.clients[evil.roster.number(name)].receive(frame)
                self.replies[name] = evil.messages.decode(evil.plan, answer)

    def until(self, phase: Phase) -> Any:
        """Everybody speaks and hears, up to this phase; the others have spoken in it. The liar's honest message.

        For DEFEND a neighbour complains about the liar, falsely.
        """
        while True:
            if phase is Phase.DEFEND and self.server.phase == Phase.COMPLAIN:
                self.falsely_complain(self.server._holders[LIAR][0], LIAR)
            self.others_speak()
            if self.server.phase == phase:
                return self.replies[self.liar]
            self.hand_in(self.liar, self.replies[self.liar])
            self.close()

    def speak(self) -> None:
        for name, message in self.replies.items():
            self.hand_in(name, message)

    def finish(self) -> list[int]:
        while self.server.outcome is None:
            self.close()
            self.speak()
        return self.server.outcome.total.tolist()


NOT_ASKED = "[share.peer for share in revealed] != alive + dropped or len(reveal.self_shares) != len(alive)"


def beyond(points: bytes) -> bytes:
    """The first value in another encoding."""
    return (int.from_bytes(points[:4], "little") + PRIME).to_bytes(4, "little") + points[4:]
