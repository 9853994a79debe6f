"""CKKS: a server that lies about the cohort, about keys and about signers, each time with the check and without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.ckks import ciphertexts, messages
from protocols.ckks import client as client_module
from protocols.ckks.client import CkksClient, advert_leaf, sum_of
from protocols.ckks.cohort import Cohort
from protocols.ckks.messages import Advert, Aggregate, Introduced, Introduction, KeyShown
from protocols.ckks.parameters import KeyMakers, Recipient
from protocols.ckks.server import CkksServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from protocols.rounds.survivors import SignedBy
from protocols.simulation.network import Envelope, local_clients
from secagg import extras
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, digest
from secagg.crypto.merkle import MerkleTree
from secagg.crypto.seal import open_box
from secagg.encoding import Encoding
from secagg.errors import MissingExtraError, PeerError, SecAggError, ThresholdError, UsageError
from tests.controls import switch_off
from tests.scenes.ckks import Scene

pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")

INCLUDED = "check_inclusion(message.root, message.size, leaves, message.proof)"


def said(scene: Scene, phase: Phase) -> list[str]:
    """Who answered in this phase of a round that comes to nothing."""
    with pytest.raises((ThresholdError, PeerError)):
        scene.run()
    return [e.sender for e in scene.passed if e.phase == phase and e.sender in scene.clients]


def introduced(scene: Scene, cohort: Cohort, u: int) -> tuple[Introduced, ...]:
    adverts = [scene.server._adverts[number] for number in scene.server._clients]
    return tuple(Introduced(v, adverts[v]) for v in cohort.knows(u) if v != u)


def place(scene: Scene, envelope: Envelope) -> int:
    return scene.server._positions[scene.roster.number(envelope.receiver)]


def introductions(
    change: Callable[[Scene, Introduction, int], Introduction],
) -> Scene:
    scene = Scene()

    def told(envelope: Envelope, message: Any) -> Any:
        return change(scene, message, place(scene, envelope)) if isinstance(message, Introduction) else message

    scene.change = told
    return scene


def test_a_root_that_the_server_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lots hang on the root. Who could tell any root would choose who makes and holds the key."""

    def change(scene: Scene, message: Introduction, u: int) -> Introduction:
        forged = next(
            cohort
            for i in range(10_000)
            if (cohort := Cohort(scene.plan, i.to_bytes(32, "big"), scene.n)).makers == (0, 1, 2)
        )
        return replace(message, root=forged.root, others=introduced(scene, forged, u))

    assert said(introductions(change), Phase.KEY) == []
    switch_off(monkeypatch, CkksClient, "_meet", INCLUDED, "None")
    scene = introductions(change)
    assert len(said(scene, Phase.KEY)) == scene.n
    assert all(client.current._cohort.makers == (0, 1, 2) for client in scene.clients.values())  # type: ignore[union-attr]


def test_clients_that_are_not_introduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not know the makers cannot tell whose key it is shown."""

    def change(scene: Scene, message: Introduction, u: int) -> Introduction:
        return replace(message, others=(), proof=scene.server._tree.proof([u]))

    assert said(introductions(change), Phase.KEY) == []
    condition = "[introduced.position for introduced in message.others] != [v for v in cohort.knows(u) if v != u]"
    switch_off(monkeypatch, CkksClient, "_meet", condition)
    with pytest.raises(KeyError):  # an undeclared error
        introductions(change).run()


def test_a_server_in_the_place_of_a_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key of its own under a holder's name it would be sealed the secret key of the round, and open uploads."""
    own = AgreementKey(b"o" * 32)

    def stolen() -> bytes:
        scene = Scene()
        for name, client in scene.clients.items():
            scene.server.receive(name, client.start(scene.plan, scene.updates[name]))
        scene.server.close(Phase.ADVERTISE)
        dict(scene.server.outbox())
        honest = [scene.server._adverts[number] for number in scene.server._clients]
        for signature in range(1000):  # until the lot falls on the victim and on somebody else
            adverts = [Advert(0, own.public, signature.to_bytes(64, "big")), *honest[1:]]
            tree = MerkleTree([advert_leaf(advert) for advert in adverts])
            cohort = Cohort(scene.plan, tree.root, scene.n)
            if 0 in cohort.makers:
                break
        u = max(cohort.makers)
        others = [v for v in cohort.knows(u) if v != u]
        introduction = Introduction(
            scene.server._seal_key.public,
            tree.root,
            scene.n,
            u,
            tuple(Introduced(v, adverts[v]) for v in others),
            tree.proof([u, *others]),
        )
        frame = scene.clients[scene.server._name(u)].receive(scene.wire.encode(scene.plan, introduction))
        ready: Any = scene.wire.decode(scene.plan, frame)
        to_server = cohort.server_key(scene.server._seal_key.agree(adverts[u].seal_key), u, labels.CKKS_KEY)
        made = messages.MADE.decode(open_box(to_server, ready.made, client_module.transcript(labels.CKKS_KEY)))
        key = cohort.box_key(own.agree(adverts[u].seal_key), u, 0)
        context = client_module.transcript(labels.CKKS_BOX, *cohort.bound(u, 0), made.header.public_hash)
        content_key = open_box(key, made.boxes[cohort.holders.index(0)], context)
        context = client_module.transcript(labels.CKKS_KEY, *cohort.bound(u), made.header.public_hash)
        return open_box(content_key, made.sealed, context)

    with pytest.raises(PeerError, match="bad signature"):
        stolen()
    monkeypatch.setattr(client_module, "check_advert", lambda *_: None)
    kept: list[ciphertexts.KeyPair] = []
    make = ciphertexts.make_keys
    monkeypatch.setattr(ciphertexts, "make_keys", lambda: kept.append(make()) or kept[-1])
    assert stolen() == kept[-1].secret


# Keys.


def test_a_secret_key_withheld_from_its_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would upload into a sum that nobody can open."""

    def change(envelope: Envelope, message: Any) -> Any:
        return replace(message, box=b"") if isinstance(message, KeyShown) else message

    scene = Scene(change=change)
    assert set(said(scene, Phase.UPLOAD)).isdisjoint(scene.makers)
    switch_off(monkeypatch, CkksClient, "_take_key", "(self._u in self._cohort.holders) != bool(message.box)")
    scene = Scene(change=change)
    assert set(said(scene, Phase.UPLOAD)) >= set(scene.makers)


def test_a_maker_of_nonsense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It signed a key that is none: whoever is shown it says whose it is, before it has taken a step."""
    monkeypatch.setattr(ciphertexts, "make_keys", lambda: ciphertexts.KeyPair(b"nonsense", b"secret"))

    def refusals() -> Iterator[tuple[set[str], Any]]:
        scene = Scene()
        replies = {name: client.start(scene.plan, scene.updates[name]) for name, client in scene.clients.items()}
        for phase in (Phase.ADVERTISE, Phase.KEY):
            for name, frame in replies.items():
                scene.server.receive(name, frame)
            scene.server.close(phase)
            frames = dict(scene.server.outbox())
            if phase is Phase.ADVERTISE:
                replies = {name: scene.clients[name].receive(frame) for name, frame in frames.items()}
        for name, frame in frames.items():
            shown: Any = scene.wire.decode(scene.plan, frame)
            with pytest.raises(PeerError) as refused:
                scene.clients[name].receive(frame)
            assert scene.clients[name].phase is Phase.UPLOAD
            yield set(refused.value.culprits), scene.server._name(shown.header.maker)

    assert all(maker in culprits for culprits, maker in refusals())
    switch_off(monkeypatch, CkksClient, "_take_key", "ciphertexts.check_public(message.public)", "None")
    assert not any(maker in culprits for culprits, maker in refusals())


# Signers.


def aggregates(change: Callable[[Scene, Aggregate, int], Aggregate], **options: Any) -> Scene:
    scene = Scene(**options)

    def told(envelope: Envelope, message: Any) -> Any:
        return change(scene, message, place(scene, envelope)) if isinstance(message, Aggregate) else message

    scene.change = told
    return scene


def knowing(scene: Scene) -> list[str]:
    def knows(client: Any) -> bool:
        try:
            sum_of(client)
        except UsageError:
            return False
        return True

    return [name for name, client in scene.clients.items() if knows(client)]


SIGNERS = "not ascending(signers) or not self._agreed.survivors >= set(signers)"


def test_a_holders_own_signature_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no proof that it is in the cohort itself: so often repeated as to be many, it would decrypt alone."""

    def change(scene: Scene, message: Aggregate, u: int) -> Aggregate:
        own = [signed for signed in message.signatures if signed.signer == u]
        if not own:
            agreed = scene.server._agreed.digest
            key = scene.clients[scene.server._name(u)].identity.key
            own = [SignedBy(u, key.sign(labels.SURVIVORS, agreed))]
        return replace(message, signatures=tuple(own * 4), others=(), proof=scene.server._tree.proof([u]))

    scene = aggregates(change, least=4)
    assert said(scene, Phase.REVEAL) == []
    assert knowing(scene) == []
    switch_off(monkeypatch, CkksClient, "_decrypt", SIGNERS)
    scene = aggregates(change, least=4)
    assert scene.run().outcome.total.tolist() == scene.sum()
    assert knowing(scene) == sorted(scene.makers)


def test_a_signer_that_is_not_in_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corrupt client that never uploaded signs in the place of one that did."""

    def change(scene: Scene, message: Aggregate, u: int) -> Aggregate:
        silent = scene.server._positions[scene.roster.number("client-5")]
        agreed = scene.server._agreed.digest
        signature = scene.clients["client-5"].identity.key.sign(labels.SURVIVORS, agreed)
        signed = (*message.signatures[:-1], SignedBy(silent, signature))
        others = [one.signer for one in signed if one.signer != u]
        leaves = tuple(scene.server._leaves[v] for v in others)
        return replace(message, signatures=signed, others=leaves, proof=scene.server._tree.proof([u, *others]))

    scene = aggregates(change, least=4)
    with pytest.raises(ThresholdError):
        scene.run(**{"client-5": Phase.UPLOAD})
    assert knowing(scene) == []
    switch_off(monkeypatch, CkksClient, "_decrypt", SIGNERS, "not ascending(signers)")
    scene = aggregates(change, least=4)
    assert scene.run(**{"client-5": Phase.UPLOAD}).outcome.total.tolist() == scene.sum("client-5")


def test_a_sum_that_is_shown_to_a_client_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no use for it, and a server that sends it is not the one of this protocol."""

    def change(scene: Scene, message: Aggregate, u: int) -> Aggregate:
        return replace(message, chunks=message.chunks or (b"a ciphertext",))

    scene = aggregates(change)
    scene.run()
    answered = {e.sender for e in scene.passed if e.phase == Phase.REVEAL and e.sender in scene.clients}
    assert answered == set(scene.makers)
    switch_off(monkeypatch, CkksClient, "_decrypt", "asked != bool(message.chunks)")
    scene = aggregates(change)
    scene.run()
    answered = {e.sender for e in scene.passed if e.phase == Phase.REVEAL and e.sender in scene.clients}
    assert answered == set(scene.clients)


# What is asked of this package.


def test_a_client_of_another_protocol_has_decrypted_nothing() -> None:
    policy = Policy(min_contributors=3, protocols={"secagg"}, corrupt=0)
    roster, clients = local_clients(3, policy)
    plan = RoundPlan.propose("secagg", roster, Encoding.integers(3), min_contributors=3, corrupt=0, dropout=0)
    clients["client-0"].start(plan, np.zeros(3))
    with pytest.raises(UsageError, match="has decrypted no sum"):
        sum_of(clients["client-0"])


def test_without_the_library_a_client_does_not_even_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="the protocol ckks needs the extra"):
        scene.clients["client-0"].start(scene.plan, scene.updates["client-0"])


# Makers that lie to the server.


def resigned(client: Any, made: messages.MadeKey, **changes: Any) -> messages.MadeKey:
    """Another key, signed anew, as a liar can."""
    made = replace(made, **{field: value for field, value in changes.items() if field != "maker"})
    maker = changes.get("maker", made.header.maker)
    hashes = (made.header.public_hash, digest(labels.CKKS_KEY, made.sealed, *made.boxes))
    signature = client.identity.key.sign(labels.CKKS_KEY, *client._cohort.bound(maker), *hashes)
    return replace(made, header=messages.KeyHeader(maker, *hashes, signature))


def another_maker(client: Any, made: messages.MadeKey) -> messages.MadeKey:
    return resigned(client, made, maker=next(v for v in client._cohort.makers if v != client._u))


def a_box_too_few(client: Any, made: messages.MadeKey) -> messages.MadeKey:
    return resigned(client, made, boxes=made.boxes[:-1])


def other_boxes(client: Any, made: messages.MadeKey) -> messages.MadeKey:
    return replace(made, boxes=made.boxes[::-1])


def unsigned(client: Any, made: messages.MadeKey) -> messages.MadeKey:
    return replace(made, header=replace(made.header, signature=bytes(64)))


@pytest.mark.parametrize(
    ("lie", "match", "condition", "instead"),
    [
        (
            unsigned,
            "bad signature",
            "check_key(self._cohort, self.roster, number, made.header, made.public)",
            "None",
        ),
        (
            another_maker,
            "a key in somebody else's name",
            "made.header.maker != u or len(made.boxes) != len(self._cohort.holders)",
            "len(made.boxes) != len(self._cohort.holders)",
        ),
        (
            a_box_too_few,
            "for others than the holders",
            "made.header.maker != u or len(made.boxes) != len(self._cohort.holders)",
            "made.header.maker != u",
        ),
        (
            other_boxes,
            "boxes that are not the signed ones",
            "digest(labels.CKKS_KEY, made.sealed, *made.boxes) != made.header.sealed_hash",
            "False",
        ),
    ],
)
def test_a_maker_that_lies_is_done_without(
    lie: Any, match: str, condition: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it offers is refused by name, and the others' keys will do."""
    honest = CkksClient._make_key

    def refusals() -> list[Any]:
        scene = Scene()

        def make(self: Any) -> Any:
            ready = honest(self)
            if self._u != min(self._cohort.makers):
                return ready
            made = messages.MADE.decode(scene.server._opened(self._u, labels.CKKS_KEY, ready.made))
            return messages.Ready(self._to_server(labels.CKKS_KEY, messages.MADE.encode(lie(self, made))))

        with monkeypatch.context() as patched:
            patched.setattr(CkksClient, "_make_key", make)
            with suppress(SecAggError, IndexError):  # taken, the lie ends the round one way or another
                result = scene.run()
                liar = scene.makers[0]
                assert result.outcome.total.tolist() == scene.sum(liar)
                return [incident.error for incident in result.incidents]
        return []

    (refused,) = refusals()
    assert match in str(refused)
    switch_off(monkeypatch, CkksServer, "_take_offer", condition, instead)
    assert refusals() == []


def test_a_client_that_is_not_in_the_roster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server builds the tree, and may put into it what it likes."""

    def change(scene: Scene, message: Introduction, u: int) -> Introduction:
        known = [scene.server._adverts[number] for number in scene.server._clients]
        v = next(v for v in range(scene.n) if v != u)
        for attempt in range(1000):  # until the lot falls on the stranger
            adverts = list(known)
            adverts[v:] = [*known[v + 1 :], replace(known[v], client=10**6 + attempt)]
            tree = MerkleTree([advert_leaf(advert) for advert in adverts])
            cohort = Cohort(scene.plan, tree.root, scene.n)
            place = adverts.index(known[u])
            if scene.n - 1 in cohort.makers:
                break
        others = [w for w in cohort.knows(place) if w != place]
        shown = tuple(Introduced(w, adverts[w]) for w in others)
        proof = tree.proof([place, *others])
        return replace(message, root=tree.root, position=place, others=shown, proof=proof)

    assert said(introductions(change), Phase.KEY) == []
    switch_off(monkeypatch, client_module, "check_advert", "known_client(roster, advert.client)", "None")
    with pytest.raises(IndexError):  # an undeclared error
        introductions(change).run()


# Holders that lie to the server.


def answers(monkeypatch: pytest.MonkeyPatch, change: Callable[[CkksClient, Any], Any]) -> None:
    honest = CkksClient._answer
    monkeypatch.setattr(CkksClient, "_answer", lambda self: change(self, honest(self)))


def test_one_against_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three holders one says nothing that opens, and one lies: neither word is taken for the sum."""
    honest = CkksClient._answer

    def half(self: Any) -> Any:
        if self._u == max(self._cohort.makers):
            self._total = self._total + 1
        answer = honest(self)
        return replace(answer, total=b"noise") if self._u == min(self._cohort.makers) else answer

    monkeypatch.setattr(CkksClient, "_answer", half)
    with pytest.raises(PeerError, match="different sums"):
        Scene().run()
    switch_off(monkeypatch, CkksServer, "_compare", "2 * len(agreeing) <= answers", "2 * len(agreeing) < answers")
    assert Scene().run().outcome is not None


def test_a_sum_from_somebody_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot know it, and has no say in what it is."""

    def change(self: Any, answer: Any) -> Any:
        if self._u == min(set(range(self._cohort.size)) - set(self._cohort.makers)):
            return replace(answer, total=self._to_server(labels.CKKS_ANSWER, bytes(100)))
        return answer

    def refusals() -> list[str]:
        return [str(incident.error) for incident in Scene().run().incidents]

    answers(monkeypatch, change)
    (refused,) = refusals()
    assert "a sum from a client that was not asked" in refused
    switch_off(monkeypatch, CkksServer, "_take_answer", "u not in self._cohort.holders", "not answer.total")
    with suppress(PeerError):  # without it the wrong sum is counted among the holders'
        assert "not asked" not in str(refusals())


def test_a_proof_of_another_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server does not see the sum, holders show hashes: anything else proves nothing."""

    def change(self: Any, answer: Any) -> Any:
        if self._u == 0:
            return replace(answer, total=self._to_server(labels.CKKS_ANSWER, b"short"))
        return answer

    def refusals() -> list[str]:
        scene = Scene()
        plan = replace(scene.plan, parameters=KeyMakers(Recipient.CLIENTS, 2))
        scene.plan, scene.server = plan, CkksServer(plan, scene.roster, registry.find(plan.protocol).messages)
        return [str(incident.error) for incident in scene.run().incidents]

    answers(monkeypatch, change)
    (refused,) = refusals()
    assert "no proof of a sum" in refused
    switch_off(monkeypatch, CkksServer, "_take_answer", "len(said) != HASH_BYTES")
    assert refusals() == []


def test_a_seed_of_noise_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a round without noise nothing is taken off."""
    answers(monkeypatch, lambda self, answer: replace(answer, excess=bytes(32)) if self._u == 0 else answer)

    def refusals() -> list[str]:
        return [str(incident.error) for incident in Scene().run().incidents]

    (refused,) = refusals()
    assert "no seed for the noise" in refused
    check = "check_excess(self.plan, len(self._uploaded), answer.excess)"
    switch_off(monkeypatch, CkksServer, "_take_answer", check, "None")
    assert refusals() == []
