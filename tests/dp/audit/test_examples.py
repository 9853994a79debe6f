"""Crafted examples against the Trainer, which passes, and against training that is wrong, where each is seen."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from dp.audit import Verdict  # noqa: E402
from dp.audit.examples import attacks, audit_examples, shape_attack, step_claim, trainer_step  # noqa: E402
from secagg.crypto.prg import Prg  # noqa: E402
from secagg.errors import UsageError  # noqa: E402
from tests.dp.audit import wrong_trainer  # noqa: E402

MULTIPLIER = Fraction(1, 64)
CLAIM = step_claim(1.0, MULTIPLIER)
ATTACKS = {attack.name: attack for attack in attacks()}
HARMLESS = {
    *("an ordinary example", "a look-up of 1e38", "a look-up of 1e-45", "a product of 1e38", "two uses that cancel"),
    *("products that nearly cancel", "products that cancel to a thousandth"),
}
"""Against sums in float32. They are attacks on shortcuts that other trainers take."""

COUNTING = ("the same, and a model that counts calls", "the same, and a parameter that counts calls")
RAISING = ("a row that does not exist", *COUNTING)


def verdict(step: Any, name: str) -> Verdict:
    (check,) = audit_examples(step, CLAIM, [ATTACKS[name]])
    return check.verdict


def test_the_trainer_passes_in_several_parts() -> None:
    """In one part, and where a model raises, it does in tests/cli/test_audit.py."""
    some = [attack for name, attack in ATTACKS.items() if name not in RAISING]
    found = audit_examples(trainer_step(1.0, MULTIPLIER, 60, Prg(b"t" * 32)), CLAIM, some)
    assert [check.name for check in found if check.verdict is not Verdict.PASSED] == []
    refused = {check.name for check in found if check.name.endswith("(refused)")}
    assert refused == {f"{attack.name} (refused)" for attack in some if attack.refusable}


@pytest.mark.parametrize("name", ATTACKS)
def test_training_that_is_wrong_is_seen(name: str) -> None:
    assert verdict(wrong_trainer.step, name) is (Verdict.PASSED if name in HARMLESS else Verdict.FAILED)


def averaged(model: Any, loss: Any, examples: Any, drawn: Any) -> Any:
    """On paper: the clipped gradients of an ordinary look-up, whatever else the example holds."""
    ids, weights = (tensor[torch.tensor(drawn)] for tensor in examples.tensors)
    known = ids[:, 0] < 4
    each = weights.sum(1).clamp(-1, 1) / math.sqrt(2)
    return torch.zeros(4, dtype=torch.float64).index_add_(0, ids[known, 0], each[known].double()).repeat(2).numpy()


def noised(step: Any, deviation: float) -> Any:
    rng = np.random.default_rng(1)
    return lambda *given: (total := step(*given)) + rng.normal(0, deviation, total.shape)


def test_claims_with_much_noise_are_held_against_what_is_left_of_it() -> None:
    """Of the 100 clips that what cancels takes along, nothing is hidden by noise of one clip."""
    claim = step_claim(1.0, Fraction(1))
    for name in ("an ordinary example", "look-ups that cancel", "a row that does not exist"):
        (check,) = audit_examples(noised(averaged, 1.0), claim, [ATTACKS[name]])
        assert check.verdict is Verdict.PASSED
    (check,) = audit_examples(noised(wrong_trainer.step, 1.0), claim, [ATTACKS["look-ups that cancel"]])
    assert check.verdict is Verdict.FAILED


def test_a_step_that_pays_no_heed_to_who_is_drawn_is_seen() -> None:
    assert verdict(lambda model, loss, examples, drawn: np.zeros(8), "an ordinary example") is Verdict.FAILED


def refuses(when: Callable[[Sequence[bool]], bool]) -> Any:
    def step(model: Any, loss: Any, examples: Any, drawn: Sequence[bool]) -> Any:
        if when(drawn):
            raise UsageError("not such a model")
        return np.zeros(8)

    return step


def test_a_refusal_is_right_whoever_is_drawn_and_only_of_a_model() -> None:
    (check,) = audit_examples(refuses(lambda drawn: True), CLAIM, [ATTACKS["dropout"]])
    assert (check.name, check.verdict) == ("dropout (refused)", Verdict.PASSED)
    assert verdict(refuses(all), "dropout") is Verdict.FAILED
    assert verdict(refuses(all), "look-ups that cancel") is Verdict.FAILED
    with pytest.raises(UsageError, match="not such a model"):
        verdict(refuses(lambda drawn: True), "look-ups that cancel")


def test_the_state_of_torchs_generator_is_put_back() -> None:
    before = torch.random.get_rng_state()
    verdict(wrong_trainer.step, "dropout")
    assert torch.equal(before, torch.random.get_rng_state())


def test_last_bits_depend_on_the_size_of_a_batch_here() -> None:
    """If not, the attack is left out, and ``secagg audit`` says so."""
    if shape_attack() is None:
        pytest.skip("no two batch sizes differ here")
    assert "one more in a batch" in ATTACKS
    assert shape_attack(most=1 + 1) is None
