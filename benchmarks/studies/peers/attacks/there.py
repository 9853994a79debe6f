"""Attacks on Flower's SecAgg+ (flwr 1.41, unchanged).

A client is Flower's ``secaggplus_mod`` around an app that returns a given vector. What the server may do is what that
mod answers: ``_Server`` keeps what it hears and asks what it likes. The two accidents (silence, NaN) run under
Flower's own ``SecAggPlusWorkflow``, with messages carried from function to function.

The app returns the same update every time it is asked, as training from the same model with a fixed seed does; of the
attacks ``chosen_modulus`` and ``two_rounds`` ask more than once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    FitRes,
    Status,
    bytes_to_ndarray,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, RECORD_KEY_STATE, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.compat.common.recorddict_compat import arrayrecord_to_parameters, fitres_to_recorddict, recorddict_to_fitres
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_PARAMS_RECORD
from flwr.serverapp import Grid
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from benchmarks.studies.peers.attacks.scene import (
    CLIENTS,
    LENGTH,
    SCALE,
    THRESHOLD,
    VICTIM,
    WEIGHTS,
    Seen,
    compared,
    vectors,
)
from benchmarks.studies.peers.attacks.seed import fold, search_twister, window
from benchmarks.studies.peers.flower import context_of, legacy_context, quiet

_CLIPPING, _TARGET, _MODULUS, _MAX_WEIGHT = 8.0, 1 << 22, 1 << 32, 1000.0
"""The workflow's defaults."""

_EVERYBODY = range(CLIENTS)
_OTHERS = [u for u in _EVERYBODY if u != VICTIM]


class _Node:
    """A client: Flower's mod, its context, and an app that has been trained already."""

    def __init__(self, u: int, update: NDArray[np.float32]) -> None:
        self.u, self.update = u, update
        self.context = context_of(u)

    def hear(self, message: Message) -> Message:
        return secaggplus_mod(message, self.context, self._train)

    def ask(self, stage: str, values: Mapping[str, Any]) -> RecordDict:
        content = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord({Key.STAGE: stage, **values})})
        message = Message(content, dst_node_id=self.u, message_type=MessageType.TRAIN, group_id="1")
        return self.hear(message_from_proto(message_to_proto(message))).content

    def secret(self, name: str) -> bytes:
        """What only the client knows: to place the window of a search, and to count bits."""
        return cast(bytes, self.context.state.config_records[RECORD_KEY_STATE][name])

    def _train(self, message: Message, context: Context) -> Message:
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.update]), WEIGHTS[self.u], {})
        return Message(fitres_to_recorddict(result, keep_input=True), reply_to=message)


def attempt(attack: Callable[[], Seen]) -> Seen:
    """What an attack saw, without Flower's log, which goes to the console."""
    with quiet():
        try:
            return attack()
        except (KeyError, TypeError, ValueError) as error:  # what the mod raises when it refuses a message
            return Seen(False, f"refused: “{error}”")


def _nodes() -> dict[int, _Node]:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    return {u: _Node(u, (row / SCALE).astype(np.float32)) for u, row in enumerate(vectors())}


def _said(content: RecordDict, key: str) -> Any:
    return content.config_records[RECORD_KEY_CONFIGS][key]


def _setup(count: int, threshold: int, **changed: Any) -> dict[str, Any]:
    return {
        Key.SAMPLE_NUMBER: count,
        Key.SHARE_NUMBER: count,
        Key.THRESHOLD: threshold,
        Key.CLIPPING_RANGE: _CLIPPING,
        Key.TARGET_RANGE: _TARGET,
        Key.MOD_RANGE: _MODULUS,
        Key.MAX_WEIGHT: _MAX_WEIGHT,
    } | changed


class _Server:
    """One round, up to the uploads; what comes then is the attack's. Graph: complete."""

    def __init__(self, nodes: Mapping[int, _Node], threshold: int, **changed: Any) -> None:
        self.nodes = nodes
        self.keys: dict[int, tuple[bytes, bytes]] = {}
        self.uploads: dict[int, RecordDict] = {}
        self.self_shares: list[bytes] = []  # of the victim
        self.key_shares: list[bytes] = []
        for u, node in nodes.items():
            keys = node.ask(Stage.SETUP, _setup(len(nodes), threshold, **changed))
            self.keys[u] = _said(keys, Key.PUBLIC_KEY_1), _said(keys, Key.PUBLIC_KEY_2)
        boxes: dict[int, dict[int, bytes]] = {u: {} for u in nodes}
        for u, node in nodes.items():
            dealt = node.ask(Stage.SHARE_KEYS, {str(v): list(keys) for v, keys in self.keys.items()})
            for v, box in zip(_said(dealt, Key.DESTINATION_LIST), _said(dealt, Key.CIPHERTEXT_LIST), strict=True):
                boxes[v][u] = box
        for u, node in nodes.items():
            delivery = {Key.SOURCE_LIST: list(boxes[u]), Key.CIPHERTEXT_LIST: list(boxes[u].values())}
            self.uploads[u] = node.ask(Stage.COLLECT_MASKED_VECTORS, delivery)

    def unmask(self, holder: int, alive: Iterable[int], dead: Iterable[int]) -> None:
        """Ask for shares, and keep those of the victim's secrets: an alive one's seed, a dead one's key."""
        lists = {Key.ACTIVE_NODE_ID_LIST: list(alive), Key.DEAD_NODE_ID_LIST: list(dead)}
        answer = self.nodes[holder].ask(Stage.UNMASK, lists)
        called_alive = len(lists[Key.ACTIVE_NODE_ID_LIST])
        shares = zip(_said(answer, Key.NODE_ID_LIST), _said(answer, Key.SHARE_LIST), strict=True)
        for i, (owner, share) in enumerate(shares):
            if owner == VICTIM:
                (self.self_shares if i < called_alive else self.key_shares).append(share)

    def words(self) -> NDArray[np.int64]:
        """The victim's upload: its weight, then its numbers, all masked."""
        return _words(self.uploads[VICTIM])

    def pair_masks(self) -> NDArray[np.int64]:
        """All that the victim has masked with together with the others, from its rebuilt key."""
        key = combine_shares(self.key_shares)
        return _pair_masks({v: _agree(key, self.keys[v][0]) for v in _OTHERS})

    def vector(self) -> NDArray[np.int64]:
        """What is under the victim's upload, when shares of both its secrets are there."""
        return _numbers(self.words() - self.pair_masks() - _mask(combine_shares(self.self_shares)))


def _words(upload: RecordDict) -> NDArray[np.int64]:
    words: NDArray[np.int64] = np.concatenate([bytes_to_ndarray(a) for a in _said(upload, Key.MASKED_PARAMETERS)])
    return words


def _mask(seed: bytes) -> NDArray[np.int64]:
    return np.concatenate(pseudo_rand_gen(seed, _MODULUS, [(1,), (LENGTH,)]))


def _agree(private: bytes, public: bytes) -> bytes:
    return generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(public))


def _pair_masks(secrets: Mapping[int, bytes]) -> NDArray[np.int64]:
    masks = [_mask(secret) if v < VICTIM else -_mask(secret) for v, secret in secrets.items()]
    return cast("NDArray[np.int64]", np.sum(masks, axis=0))


def _numbers(unmasked: NDArray[np.int64]) -> NDArray[np.int64]:
    """What the client was given, from its weighted and quantized words: all that is needed is public, or among them."""
    words = unmasked % _MODULUS
    ratio = int(words[0]) / _TARGET
    floats = (words[1:] * (2 * _CLIPPING / _TARGET) - _CLIPPING) / (ratio or 1.0)
    numbers: NDArray[np.int64] = np.rint(floats * SCALE).astype(np.int64)
    return numbers


# Attacks.


def late_upload(bits: int) -> Seen:
    """The victim's upload arrives after the others were told that it is dead, as with any timeout it can.

    The server asks only what the protocol lets it ask: shares of the mask key of a dead client. Of the victim's masks
    one is left, and that is why there are two kinds of masks at all; but its seed is folded to 32 bits. The weight
    is known (``num_examples``), so the first masked word gives the generator's first output.
    """
    server = _Server(_nodes(), THRESHOLD)
    for holder in _OTHERS:
        server.unmask(holder, _OTHERS, [VICTIM])
    left = server.words() - server.pair_masks()
    weight = round(_seen_examples(server.uploads[VICTIM]) / _MAX_WEIGHT * _TARGET)
    low, high = window(fold(server.nodes[VICTIM].secret("rd_seed")), bits)
    search = search_twister(int(left[0] - weight) % _MODULUS, low, high)
    found = [_numbers(left - _mask(seed.to_bytes(4, "little"))) for seed in search.found]
    right = [numbers for numbers in found if np.abs(numbers).max() <= SCALE]
    where = "all 2^32 seeds searched" if bits == 32 else f"2^{bits} seeds around the right one searched"
    how = (
        f"mask seeds have 32 bits (those of pairs {_pair_bits(server)}); {where}, {search.rate / 1e6:.0f} million a "
        f"second on one core, so all of them in {2**32 / search.rate / 60:.1f} minutes"
    )
    return compared(right[0] if right else np.zeros(LENGTH, np.int64), VICTIM, how)


def _pair_bits(server: _Server) -> int:
    """How many bits differ at all among the folded keys of the victim and each other client: base64 text, folded."""
    key = server.nodes[VICTIM].secret("sk1")
    return int(np.bitwise_or.reduce([fold(_agree(key, server.keys[v][0])) for v in _OTHERS])).bit_count()


def both_shares() -> Seen:
    """Each client is asked once, and its lists name the victim among the alive and among the dead."""
    server = _Server(_nodes(), THRESHOLD)
    for holder in _OTHERS[:THRESHOLD]:
        server.unmask(holder, _EVERYBODY, [VICTIM])
    return compared(server.vector(), VICTIM, f"{THRESHOLD} clients gave a share of either kind")


def split_view() -> Seen:
    """Half of the clients hear that the victim is alive, half that it is dead. The server has set the threshold."""
    half = CLIENTS // 2
    server = _Server(_nodes(), half)
    for i, holder in enumerate(_EVERYBODY):
        alive, dead = (_EVERYBODY, []) if i < half else (_OTHERS, [VICTIM])
        server.unmask(holder, alive, dead)
    return compared(server.vector(), VICTIM, f"threshold {half} accepted, and no client compares lists with another")


def cohort_of_one() -> Seen:
    """The victim alone, with a threshold of one: it has no neighbours to mask with, and its own share is the seed."""
    server = _Server({VICTIM: _nodes()[VICTIM]}, 1)
    server.unmask(VICTIM, [VICTIM], [])
    found = _numbers(server.words() - _mask(combine_shares(server.self_shares)))
    return compared(found, VICTIM, "a round of one client, threshold 1, is accepted")


def substituted_keys() -> Seen:
    """The victim is shown keys of the server's in place of all its neighbours'. Nothing signs them."""
    victim = _nodes()[VICTIM]
    own = victim.ask(Stage.SETUP, _setup(CLIENTS, THRESHOLD))
    fake = {v: (generate_key_pairs(), generate_key_pairs()) for v in _OTHERS}
    private = {v: [private_key_to_bytes(pair[0]) for pair in pairs] for v, pairs in fake.items()}
    shown = {str(v): [public_key_to_bytes(pair[1]) for pair in pairs] for v, pairs in fake.items()}
    mask_key, seal_key = _said(own, Key.PUBLIC_KEY_1), _said(own, Key.PUBLIC_KEY_2)
    dealt = victim.ask(Stage.SHARE_KEYS, shown | {str(VICTIM): [mask_key, seal_key]})

    shares, boxes = list[bytes](), list[bytes]()
    for v, box in zip(_said(dealt, Key.DESTINATION_LIST), _said(dealt, Key.CIPHERTEXT_LIST), strict=True):
        shared = _agree(private[v][1], seal_key)
        shares.append(share_keys_plaintext_separate(decrypt(shared, box))[2])
        boxes.append(encrypt(shared, share_keys_plaintext_concat(v, VICTIM, b"", b"")))
    upload = victim.ask(Stage.COLLECT_MASKED_VECTORS, {Key.SOURCE_LIST: list(_OTHERS), Key.CIPHERTEXT_LIST: boxes})
    pairs = _pair_masks({v: _agree(private[v][0], mask_key) for v in _OTHERS})
    found = _numbers(_words(upload) - pairs - _mask(combine_shares(shares)))
    return compared(found, VICTIM, "all neighbours' keys replaced by the server's, unnoticed")


def chosen_modulus() -> Seen:
    """With ``mod_range`` 2 every mask is drawn from {0}: an upload is the lowest bit of each quantized number.

    One round gives all signs: a tiny clipping range and ``target_range`` 1. Then the server chooses the clipping range
    c = 1.5 * 2^23 u and a target range of 2c / u. In 32-bit floats x + c is x rounded to a multiple of u, there is no
    fraction left for the random rounding, and the bit is 1 where x / u is nearest an odd number. For u = 8, 4, 2, ...
    those bits are the Gray code of |x| / 8.
    """
    nodes, levels = _nodes(), 20
    three = {u: nodes[u] for u in (0, 1, VICTIM)}

    def bits(weight: float, clipping: float, target: int) -> NDArray[np.int64]:
        chosen = {Key.MAX_WEIGHT: weight, Key.CLIPPING_RANGE: clipping, Key.TARGET_RANGE: target, Key.MOD_RANGE: 2}
        server = _Server(three, 2, **chosen)
        examples.append(_seen_examples(server.uploads[VICTIM]))
        return server.words()[1:]

    examples = list[int]()
    positive = bits(1.0, 2.0**-100, 1) == 1
    binary, below = np.zeros(LENGTH, np.int64), np.zeros(LENGTH)
    for level in range(levels):
        step = _CLIPPING / 2**level
        binary ^= bits(float(examples[0]), 1.5 * 2**23 * step, 3 << 23)
        below += binary * step / 2
    magnitude = below + _CLIPPING / 2 ** (levels + 1)
    found = np.rint(np.where(positive, magnitude, -magnitude) * SCALE).astype(np.int64)
    signs = int(np.count_nonzero(positive == (vectors()[VICTIM] > 0)))
    how = f"modulus 2 accepted; the signs of {signs:,} numbers after one round; after {1 + levels} with the same update"
    return compared(found, VICTIM, how)


def sample_count() -> Seen:
    """What the server reads off the message beside the masked vector."""
    seen = _seen_examples(_Server(_nodes(), THRESHOLD).uploads[VICTIM])
    return Seen(seen == WEIGHTS[VICTIM], f"`num_examples` = {seen} stands in the message")


def _seen_examples(upload: RecordDict) -> int:
    return recorddict_to_fitres(upload, keep_input=True).num_examples


def two_rounds() -> Seen:
    """The server has the same updates summed up twice, and calls the victim silent the second time."""
    every, rest = _workflow().mean, _workflow(silent=Stage.COLLECT_MASKED_VECTORS).mean
    if every is None or rest is None:
        return Seen(False, "a round is halted")
    own, all_ = WEIGHTS[VICTIM], sum(WEIGHTS)
    difference = (every * all_ - rest * (all_ - own)) / own
    near = int(np.count_nonzero(np.abs(difference - vectors()[VICTIM] / SCALE) < 0.001))
    return Seen(near == LENGTH, f"{near:,} of {LENGTH:,} numbers of the difference are the victim's, to 0.001")


def one_colluder() -> Seen:
    """What one client holds of the victim's secrets, beside the server, that has the upload."""
    server = _Server(_nodes(), THRESHOLD)
    server.unmask(_OTHERS[0], _EVERYBODY, [VICTIM])
    held = f"{len(server.self_shares)} share of either secret, and {THRESHOLD} are needed"
    try:
        found = server.vector()
    except ValueError as error:  # what so few shares make is no key
        return Seen(False, f"{held}: “{error}”")
    return compared(found, VICTIM, held)


def poisoned() -> Seen:
    """One client uploads the largest numbers that are not clipped."""
    nodes = _nodes()
    nodes[VICTIM].update[:] = _CLIPPING
    mean = _workflow(nodes).mean
    if mean is None:
        return Seen(False, "the round is halted")
    lied = vectors() / SCALE
    honest = np.array(WEIGHTS) @ lied / sum(WEIGHTS)
    lied[VICTIM] = _CLIPPING
    expected = np.array(WEIGHTS) @ lied / sum(WEIGHTS)
    whole = int(np.count_nonzero(np.abs(mean - expected) < 0.001))
    return Seen(
        whole == LENGTH,
        f"{whole:,} of {LENGTH:,} numbers of the mean have all of the lie in them, {mean[0]:.2f} instead of "
        f"{honest[0]:.2f}; no error",
    )


# Accidents.


def half_silent() -> Seen:
    """Half of the clients share their keys and do not upload, in a round whose threshold is for that."""
    left = list(range(CLIENTS // 2))
    gone = [u for u in _EVERYBODY if u not in left]
    network = _workflow(silent=Stage.COLLECT_MASKED_VECTORS, who=gone, threshold=len(left))
    if network.mean is None:
        return Seen(True, "the round is halted")
    weights = np.array([WEIGHTS[u] for u in left])
    right = weights @ vectors()[left] / SCALE / weights.sum()
    near = int(np.count_nonzero(np.abs(network.mean - right) < 0.001))
    return Seen(near != LENGTH, f"threshold {len(left)}: {near:,} of {LENGTH:,} numbers are the mean of the others")


def silent_before_sharing() -> Seen:
    """One client answers SETUP and nothing after; beside it, one that falls silent after it has shared."""
    early, late = _workflow(silent=Stage.SHARE_KEYS), _workflow(silent=Stage.COLLECT_MASKED_VECTORS)
    after = "the same after sharing is survived" if late.mean is not None else "and so it is after sharing"
    if early.mean is not None:
        return Seen(False, "the round ends with the mean of the others")
    return Seen(True, f"the round is halted ({len(early.errors)} clients: {early.errors[0]}); {after}")


def not_a_number() -> Seen:
    nodes = _nodes()
    nodes[VICTIM].update[:] = np.nan
    mean = _workflow(nodes).mean
    if mean is None:
        return Seen(False, "the round is halted")
    weights = np.array([WEIGHTS[u] for u in _OTHERS])
    right = weights @ vectors()[_OTHERS] / SCALE / weights.sum()
    lost = int(np.count_nonzero(~(np.abs(mean - right) < 0.01)))
    quiet = "all finite, no error" if np.isfinite(mean).all() else "some not finite"
    return Seen(
        lost == LENGTH,
        f"{lost:,} of {LENGTH:,} numbers of the mean are wrong, {quiet}: {mean[0]:.2f} instead of {right[0]:.2f}",
    )


class _Network:
    """The one method of a grid that the workflow calls. What a node raises becomes an error reply, as in Flower."""

    def __init__(self, nodes: Mapping[int, _Node], silent: str, who: Collection[int]) -> None:
        self.nodes, self.errors, self.mean = nodes, list[str](), cast("NDArray[np.float64] | None", None)
        self._silent, self._who = silent, who
        self._stages = iter(Stage.all())

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        stages = Stage.all()
        stage = next(self._stages)
        gone = self._silent in stages and stages.index(stage) >= stages.index(self._silent)
        return [self._carried(m) for m in messages if not (gone and m.metadata.dst_node_id in self._who)]

    def _carried(self, message: Message) -> Message:
        arrived = message_from_proto(message_to_proto(message))
        try:
            reply = self.nodes[message.metadata.dst_node_id].hear(arrived)
        except (KeyError, ValueError) as error:
            self.errors.append(repr(error))
            return Message(Error(0, repr(error)), reply_to=arrived)
        return message_from_proto(message_to_proto(reply))


def _workflow(
    nodes: Mapping[int, _Node] | None = None,
    silent: str = "",
    who: Collection[int] = (VICTIM,),
    threshold: int = THRESHOLD,
) -> _Network:
    """A round under Flower's own server; the victim, or ``who`` else, is silent from a stage on."""
    network = _Network(_nodes() if nodes is None else nodes, silent, who)
    grid = cast(Grid, network)
    context = legacy_context(grid, network.nodes)
    with np.errstate(invalid="ignore"):  # numpy does say something when NaN is cast to an integer
        SecAggPlusWorkflow(CLIENTS, threshold)(grid, context)
    parameters = arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], keep_input=True)
    means = parameters_to_ndarrays(parameters)
    network.mean = means[0] if means else None
    return network
