"""The attack table: every verdict, and for each that it can come out the other way.

Ours is attacked again with one check taken away, and Flower's with one put in; both tables must then change.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.peers import attacks
from benchmarks.studies.peers.attacks import here, there
from benchmarks.studies.peers.attacks.scene import CLIENTS, LENGTH, SCALE, VICTIM, WEIGHTS, Seen, vectors
from benchmarks.studies.peers.attacks.seed import fold, search_ours, search_twister, window
from protocols.pairwise import client as client_module
from protocols.pairwise import cohort as rules
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.cohort import Cohort
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from protocols.simulation.network import Faults
from secagg.crypto.prg import Prg, random_words
from secagg.crypto.ring import Ring
from secagg.encoding import Encoding
from secagg.errors import UsageError
from tests.controls import journal_by_count, switch_off

pytest.importorskip("flwr", reason="NOT TESTED: the peers are compared with the extra peers")

mod = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")  # its package has a function of that name

RECOVERED = "1,000 of the victim's 1,000 numbers are exactly right"
EXACT_SUM = "1,000 of 1,000 numbers are the exact sum of the others"

OBSERVED = {
    "seed_of_32_bits": (RECOVERED, "mask seeds have 256 bits"),
    "both_shares": (RECOVERED, "Survivors does not belong in phase done"),
    "chosen_modulus": (RECOVERED, "a ring of 8 bits is too narrow"),
    "silent_before_sharing": ("9 clients: KeyError(4)", EXACT_SUM),
    "not_a_number": ("1,000 of 1,000 numbers of the mean are wrong, all finite", EXACT_SUM),
    "sample_count": (f"`num_examples` = {WEIGHTS[VICTIM]}", "masked words"),
    "two_lists_of_survivors": (RECOVERED, "5 neighbours signed the survivors, at least 6 are needed"),
    "substituted_keys": (RECOVERED, "bad signature"),
    "cohort_of_one": (RECOVERED, "min_contributors 2 is below the 5 demanded"),
    "half_silent": ("1,000 of 1,000 numbers are the mean of the others", "5 clients uploaded, at least 6 are needed"),
    "one_colluder": ("1 share of either secret, and 7 are needed", RECOVERED),
    "poisoned": ("1,000 of 1,000 numbers of the mean have all of the lie", "nobody is named"),
    "two_rounds": ("1,000 of 1,000 numbers of the difference are the victim's", RECOVERED),
}

LOST_HERE = {"half_silent": False, "one_colluder": False, "poisoned": True, "two_rounds": True}
"""Where ours does no better, or worse: whether Flower's loses there, too."""


@pytest.mark.thinned(4)
@pytest.mark.parametrize("attack", list(OBSERVED))
def test_a_row(attack: str) -> None:
    row = attacks.row(attack, window_bits=16)
    there, here = OBSERVED[attack]
    assert there in row.there, row
    assert here in row.here, row
    expected = (LOST_HERE[attack], True) if attack in LOST_HERE else (True, False)
    assert (row.there_works, row.here_works) == expected, row


def test_the_table_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each attack is, and what happened on either side; none is left out."""
    monkeypatch.setattr(here, "attempt", lambda attack: Seen(True, "here"))
    monkeypatch.setattr(there, "attempt", lambda attack: Seen(False, "there"))
    said = list[str]()
    rows = attacks.table(said.append)
    assert [row.attack for row in rows] == list(OBSERVED)
    assert said[:3] == [
        "seed_of_32_bits (a server that looks): an upload comes late, and its mask's seed is searched",
        "  there: fails: there",
        "  here: WORKS: here",
    ]
    assert len(said) == 3 * len(rows)


@pytest.mark.parametrize("bits", [7, 33])
def test_a_window_that_is_none(bits: int) -> None:
    with pytest.raises(UsageError, match="between 8 and 32"):
        attacks.row("both_shares", window_bits=bits)


# Ours without one check.


def test_control_a_seed_of_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Cohort.self_seed
    monkeypatch.setattr(
        Cohort, "self_seed", lambda *arguments: fold(whole(*arguments)).to_bytes(4, "little").ljust(32, b"\0")
    )
    assert RECOVERED in worked(here.late_upload)


def test_control_both_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    again = PairwiseClient.steps[Phase.REVEAL]._replace(then=Phase.CONSISTENCY)
    monkeypatch.setattr(PairwiseClient, "steps", {**PairwiseClient.steps, Phase.REVEAL: again})
    journal_by_count(monkeypatch)
    assert RECOVERED in worked(here.both_shares)


def test_control_a_ring_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan's own check is all there is: what a client encodes fits into a ring that passes it."""
    monkeypatch.setattr(Encoding, "check_ring", lambda *_: None)
    assert worked(here.chosen_modulus).startswith("the client takes part")


def test_control_somebody_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "Faults", lambda dropouts: Faults())
    assert "0 of 1,000" in worked(here.silent_before_sharing)


def test_control_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Encoding, "_clipped", "np.isfinite(vector).all()", "True")
    assert "bytes before anything is sent" in worked(here.not_a_number)


def test_control_a_weight_without_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(values: Any, ring: Ring, plus: list[bytes], minus: list[bytes], out: memoryview) -> None:
        ring.pack_into(ring.wrap(values), out)

    monkeypatch.setattr(client_module, "pack_masked", pack)
    assert f"reads {WEIGHTS[VICTIM]}" in worked(here.sample_count)


def test_control_two_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "check_private", lambda *_: None)
    assert RECOVERED in worked(here.split_view)


def test_control_substituted_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "check_advert", lambda *_: None)
    assert RECOVERED in worked(here.substituted_keys)


def test_control_a_small_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Policy, "check", "plan.min_contributors < self.min_contributors")
    assert "the client takes part" in worked(here.cohort_of_one)


def test_control_four_of_ten_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many the threshold bears, and then the sum of the rest is not that of five."""
    original = here.Faults
    monkeypatch.setattr(here, "Faults", lambda dropouts: original(dropouts=dict(list(dropouts.items())[1:])))
    assert "0 of 1,000 numbers are the exact sum" in here.attempt(here.half_silent).text


def test_control_another_key_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    decrypt, other = here.ciphertexts.decrypt, here.ciphertexts.make_keys().secret
    monkeypatch.setattr(here.ciphertexts, "decrypt", lambda layout, _, chunks: decrypt(layout, other, chunks))
    assert not here.attempt(here.one_colluder).works


def test_control_nobody_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.np, "full", lambda length, value: vectors()[VICTIM])
    seen = here.attempt(here.poisoned)
    assert (seen.works, seen.text.split(" of")[0]) == (False, "0")


def test_control_noise_hides_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two sums with noise in them."""
    original = here.simulate

    def noisy(*arguments: Any, **named: Any) -> Any:
        ran = original(*arguments, **named)
        ran.outcome.total.setflags(write=True)
        ran.outcome.total[:] += np.random.default_rng(len(named)).integers(1, 9, LENGTH)
        return ran

    monkeypatch.setattr(here, "simulate", noisy)
    assert not here.attempt(here.two_rounds).works


def worked(attack: Callable[[], Seen]) -> str:
    seen = here.attempt(attack)
    assert seen.works, seen
    return seen.text


# Flower's with one check that it does not have.


def test_there_whole_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(seed: bytes, num_range: int, dimensions: list[tuple[int, ...]]) -> list[np.ndarray]:
        stream = Prg(seed.ljust(32, b"\0")[:32])
        return [(random_words(stream, *shape) % num_range).astype(np.int64).reshape(shape) for shape in dimensions]

    for module in (mod, there):
        monkeypatch.setattr(module, "pseudo_rand_gen", whole)
    assert RECOVERED not in failed(lambda: there.late_upload(16))


@pytest.mark.parametrize(
    ("attack", "step", "check"),
    [
        (there.both_shares, "_unmask", lambda c: set(c["active_nids"]) & set(c["dead_nids"])),
        (there.chosen_modulus, "_setup", lambda c: c["mod_range"] <= c["target_range"]),
        (there.cohort_of_one, "_setup", lambda c: c["sample_num"] < 3),
        (there.split_view, "_setup", lambda c: 2 * c["threshold"] <= c["share_num"]),
        (there.substituted_keys, "_share_keys", lambda c: True),
    ],
)
def test_there_with_a_check(
    attack: Callable[[], Seen], step: str, check: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(mod, step)

    def checked(state: Any, configs: Any) -> Any:
        if check(configs):
            raise ValueError("not with me")
        return original(state, configs)

    monkeypatch.setattr(mod, step, checked)
    assert failed(attack) == "refused: “not with me”"


def test_there_no_sample_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(message: Any, context: Any, call_next: Any) -> Any:
        reply = mod.secaggplus_mod(message, context, call_next)
        for record in reply.content.metric_records.values():
            record["num_examples"] = 0
        return reply

    monkeypatch.setattr(there, "secaggplus_mod", without)
    assert "= 0 " in failed(there.sample_count)


def test_there_nobody_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same workflow gives the right mean when nothing goes wrong."""
    fleet = there._workflow()
    right = np.array(WEIGHTS) @ vectors() / SCALE / sum(WEIGHTS)
    assert fleet.mean == pytest.approx(right, abs=1e-5)
    monkeypatch.setattr(there, "_workflow", lambda silent: fleet)
    assert "the mean of the others" in failed(there.silent_before_sharing)


def test_there_a_check_for_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    original = mod.quantize

    def checked(parameters: list[np.ndarray], clipping_range: float, target_range: int) -> list[np.ndarray]:
        if not all(np.isfinite(array).all() for array in parameters):
            raise ValueError("not a number")
        return original(parameters, clipping_range, target_range)

    monkeypatch.setattr(mod, "quantize", checked)
    assert "0 of 1,000 numbers of the mean are wrong" in failed(there.not_a_number)


@pytest.mark.long
def test_there_a_threshold_of_seven(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the threshold of the other rows half of the clients are too few there, too."""
    original = there._workflow
    monkeypatch.setattr(there, "_workflow", lambda threshold, **named: original(**named))
    seen = there.attempt(there.half_silent)
    assert (seen.works, seen.text) == (True, "the round is halted")


@pytest.mark.long
def test_there_a_threshold_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(there, "THRESHOLD", 1)
    seen = there.attempt(there.one_colluder)
    assert seen.works, seen


@pytest.mark.long
def test_there_nobody_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """And twice the same sum has no difference."""
    right = there._workflow()
    monkeypatch.setattr(there, "_workflow", lambda nodes=None, silent="": right)
    assert "0 of 1,000" in failed(there.poisoned)
    assert not there.attempt(there.two_rounds).works


def failed(attack: Callable[[], Seen]) -> str:
    seen = there.attempt(attack)
    assert not seen.works, seen
    return seen.text


def test_there_keys_of_pairs_fold_to_28_bits() -> None:
    """They are base64 text, and no letter of it has its highest bit set."""
    server = there._Server(there._nodes(), CLIENTS - 1)
    key = server.nodes[VICTIM].secret("sk1")
    folded = [fold(there._agree(key, server.keys[v][0])) for v in range(CLIENTS)]
    assert all(seed & 0x80808080 == 0 for seed in folded)
    assert len(set(folded)) == CLIENTS


# The searches.


@pytest.mark.parametrize("seed", [0, 1, 255, 256, 5489, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_the_search_finds_what_numpy_draws(seed: int) -> None:
    first = np.random.RandomState(seed).randint(0, 2**32 - 1, (3,), dtype=np.int64)[0]
    search = search_twister(int(first), *window(seed, 12))
    assert search.found == (seed,)
    assert search.tried == 1 << 12
    assert search_twister(int(first) ^ 1, *window(seed, 12)).found == ()


def test_the_search_ends_where_it_is_told() -> None:
    first = int(np.random.RandomState(1000).randint(0, 2**32 - 1, (1,), dtype=np.int64)[0])
    assert search_twister(first, 900, 1000).found == ()
    assert search_twister(first, 900, 1001).found == (1000,)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("bits", [20, 40])
def test_our_search_finds_a_short_seed(bits: int) -> None:
    ring, seed = Ring(bits), 123_456_789
    stream = Prg(seed.to_bytes(4, "little").ljust(32, b"\0"))(LENGTH * ring.dtype.itemsize)
    masked = ring.lift(vectors()[0]) + np.frombuffer(stream, ring.dtype)
    assert search_ours(masked, ring, SCALE, seed).found == (seed,)
    assert search_ours(masked + ring.dtype.type(2 * SCALE), ring, SCALE, seed).found == ()
