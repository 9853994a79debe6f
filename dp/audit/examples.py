"""Local training against crafted examples: what one example moves is at most the claim, for the numbers really added.

On paper an example that is clipped moves a sum by the clipping bound. On a machine it can move *others*: terms that
cancel in its own norm wash out what was added before them, an overflow makes everything NaN, an error ends the run, and
one more in a batch changes the last bits of the rest, the positions at which they draw, or their statistics. Each
attack here is a small model with ordinary examples and one crafted one, and a training step is run with the crafted one
drawn and not drawn. It is a black box that says what came out:

    step(model, loss, examples, drawn)   the noised sum of the clipped gradients of those that are drawn

Two such sums are no further apart than the claimed reach and what noise explains. Where the attack is about the model,
a step that refuses it whoever is drawn is safe; an error that comes with the crafted example never is.

``trainer_step`` is the step of ``dp.training.Trainer``. Extra ``train``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dp.audit.bounds import gaussian_epsilon
from dp.audit.claim import FALSE_ALARM, Check, Claim, Vector
from dp.events import Relation
from secagg.crypto.prg import Rng

Loss: TypeAlias = Callable[..., Tensor]
Step: TypeAlias = Callable[[nn.Module, Loss, TensorDataset, Sequence[bool]], Vector]

OTHERS = 100
"""The number of ordinary examples, whose clipped gradients all have the same direction."""

_SLACK = 0.02
"""The tolerance in clips, since models are float32."""


@dataclass(frozen=True, slots=True)
class Attack:
    """``others`` and ``crafted`` are the tensors of examples, the latter without the first dimension."""

    name: str
    model: Callable[[], nn.Module]
    others: tuple[Tensor, ...]
    crafted: tuple[Tensor, ...]
    loss: Loss
    refusable: bool = False
    """Whether a step may refuse to train such a model at all."""
    least: float = 0.0
    """The least distance, in clips, by which the example must move the sum: an audit must see an ordinary one."""


def step_claim(clip: float, noise_multiplier: Fraction, delta: float = 1e-6) -> Claim:
    """What is claimed of one step, once it is known who is drawn."""
    mu = 1 / float(noise_multiplier)
    return Claim(clip * float(noise_multiplier), clip, mu, gaussian_epsilon(mu, delta), delta, Relation.ZERO_OUT)


def audit_examples(
    step: Step, claim: Claim, attacks: Sequence[Attack], *, false_alarm: float = FALSE_ALARM
) -> tuple[Check, ...]:
    """A check for each attack, with the crafted example first, in the middle and last. The worst case counts."""
    return tuple(_audited(step, claim, attack, false_alarm) for attack in attacks)


def _audited(step: Step, claim: Claim, attack: Attack, false_alarm: float) -> Check:
    count = len(attack.others[0])
    found = [_moved(step, attack, position) for position in (0, count // 2, count)]
    moved = [distance / claim.clip_l2 for distance, _ in found]
    length = max(length for _, length in found)
    # the norm of sub-Gaussian noise of length d: beyond (sqrt(d) + sqrt(2 t)) s with probability e^-t (Hsu et al. 2012)
    spread = math.sqrt(2) * (math.sqrt(length) + math.sqrt(2 * math.log(3 / false_alarm)))
    noise = spread * claim.noise_std / claim.clip_l2
    reach = claim.reach / claim.clip_l2 + _SLACK
    refused = "" if length else " (refused)"
    least = attack.least - noise if attack.least else 0.0
    worst = min(moved) if min(moved) < least else max(moved)
    return Check(attack.name + refused, worst, least, reach + noise, false_alarm)


def _moved(step: Step, attack: Attack, position: int) -> tuple[float, int]:
    """How far the sums with and without the crafted example are apart, and in how many numbers (0: refused)."""
    examples = TensorDataset(
        *(
            torch.cat([others[:position], crafted.unsqueeze(0), others[position:]])
            for others, crafted in zip(attack.others, attack.crafted, strict=True)
        )
    )
    everybody = [True] * len(examples)
    others = [i != position for i in range(len(examples))]
    try:
        without = _stepped(step, attack, examples, others)
    except Exception:
        if not attack.refusable:
            raise
        without = np.zeros(0)
    try:
        present = _stepped(step, attack, examples, everybody)
    except Exception:  # noqa: BLE001 - whatever it is: if it was not there before, it tells that the example is
        return (math.inf if len(without) else 0.0), len(without)
    if present.shape != without.shape or not np.isfinite(present).all():
        return math.inf, len(without)
    return float(np.linalg.norm(present - without)), len(without)


def _stepped(step: Step, attack: Attack, examples: TensorDataset, drawn: Sequence[bool]) -> Vector:
    """A step from the same model and the same state of torch's generator, which is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return step(attack.model(), attack.loss, examples, drawn)


def trainer_step(clip: float, noise_multiplier: Fraction, physical_batch: int = 256, rng: Rng = os.urandom) -> Step:
    """One step of ``dp.training.Trainer``. Who is drawn is decided by the words that it samples with."""
    from dp.training import Flat, Settings, Trainer

    def step(model: nn.Module, loss: Loss, examples: TensorDataset, drawn: Sequence[bool]) -> Vector:
        words = np.where(drawn, np.uint64(0), ~np.uint64(0)).astype("<u8").tobytes()
        scripted = [words]

        def read(count: int) -> bytes:
            return scripted.pop() if scripted and count == len(words) else rng(count)

        settings = Settings(Flat(clip), noise_multiplier, len(examples) - 1, physical_batch)
        before = _numbers(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        Trainer(model, optimizer, loss, settings, charge=lambda event, count: None, rng=read).run(examples, 1)
        return (before - _numbers(model)) * settings.expected_batch

    return step


def _numbers(model: nn.Module) -> Vector:
    found = [parameter.detach().double().flatten() for parameter in model.parameters()]
    numbers: Vector = torch.cat(found).numpy().copy()
    return numbers


# Models: all parameters are zero, so that what a step changes is exact, and losses are linear in them


def _untrained(module: nn.Module) -> nn.Module:
    nn.init.zeros_(module.weight)
    return module


class Weighted(nn.Module):
    """Looks up rows, with weights that are part of an example."""

    def __init__(self) -> None:
        super().__init__()
        self.items = _untrained(nn.Embedding(4, 2))

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        return (self.items(ids) * weights.unsqueeze(2)).sum((1, 2))


class Positions(nn.Module):
    """One layer at every position; the outputs count as much as a factor says, which is part of an example."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = _untrained(nn.Linear(4, 4, bias=False))

    def forward(self, inputs: Tensor, factors: Tensor) -> Tensor:
        return (self.layer(inputs) * factors.unsqueeze(2)).sum((1, 2))


class Twice(nn.Module):
    """One table that is looked up and multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.items = _untrained(nn.Embedding(4, 2))
        self.output = nn.Linear(2, 4, bias=False)
        self.output.weight = self.items.weight

    def forward(self, ids: Tensor, weights: Tensor, inputs: Tensor) -> Tensor:
        looked_up = (self.items(ids) * weights.unsqueeze(2)).sum((1, 2))
        return looked_up + self.output(inputs)[:, 0]


class Within(nn.Module):
    """A layer behind one that is not trained."""

    def __init__(self, before: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.layer = _untrained(nn.Linear(4, 1, bias=False))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.before(inputs)).sum(1)


def _within(before: Callable[[], nn.Module]) -> nn.Module:
    return Within(before())


class Drawing(nn.Module):
    """Hides some of its inputs, without a module that says so."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * (torch.rand_like(inputs) < 0.5)


class Remembering(nn.Module):
    """Takes off the mean of whatever came by."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, inputs: Tensor) -> Tensor:
        self.mean += inputs.mean(0)
        return inputs - self.mean


class Counting(Weighted):
    """Looks up rows, and after some calls with the opposite sign, as a schedule that a model keeps in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = super().forward(ids, weights)
        return found if self.calls < 5 else -found


class Keeping(Weighted):
    """The same, with the number of calls in a parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        with torch.no_grad():
            self.calls += 1
        found: Tensor = super().forward(ids, weights)
        return found * torch.where(self.calls < 5, 1, -1)


class Kinked(nn.Module):
    """A fixed layer, and its first output's distance to a threshold, in which the last bit is large."""

    def __init__(self, fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("fixed", fixed)
        self.layer = _untrained(nn.Linear(1, 1, bias=False))

    def forward(self, inputs: Tensor, threshold: Tensor) -> Tensor:
        above = (_first(inputs, self.fixed) - threshold).relu() * 1e9
        return self.layer(above.unsqueeze(1)).sum(1)


_NEVER = 1e9
"""A threshold that no output reaches."""


def _first(inputs: Tensor, fixed: Tensor) -> Tensor:
    return F.linear(inputs, fixed)[:, 0]


def _total(model: nn.Module, *example: Tensor) -> Tensor:
    loss: Tensor = model(*example).sum()
    return loss


def attacks() -> list[Attack]:
    """All of them; ``shape_attack`` only where it can be mounted."""
    shape = shape_attack()
    return [*_on_look_ups(), *_on_products(), *_on_two_uses(), *_on_models(), *([shape] if shape else [])]


def _on_look_ups() -> list[Attack]:
    ids, weights = torch.zeros(OTHERS, 4, dtype=torch.int64), torch.zeros(OTHERS, 4)
    weights[:, 0] = 1.0

    def attack(
        name: str, crafted: Sequence[float], row: int = 0, model: type[nn.Module] = Weighted, least: float = 0.0
    ) -> Attack:
        example = torch.full((4,), row), torch.tensor(crafted)
        return Attack(name, model, (ids, weights), example, _total, least=least)

    return [
        attack("an ordinary example", [1.0, 0.0, 0.0, 0.0], least=1.0),
        attack("look-ups that cancel", [1e10, -1e10, 0.0, 0.0]),
        attack("look-ups that overflow and cancel", [3e38, 3e38, -3e38, -3e38]),
        attack("a look-up of 1e38", [1e38, 0.0, 0.0, 0.0]),
        attack("a look-up of NaN", [math.nan, 0.0, 0.0, 0.0]),
        attack("a look-up of infinity", [math.inf, 0.0, 0.0, 0.0]),
        attack("a look-up of 1e-45", [1e-45, 0.0, 0.0, 0.0]),
        attack("a row that does not exist", [1.0, 0.0, 0.0, 0.0], row=4),
        attack("the same, and a model that counts calls", [1.0, 0.0, 0.0, 0.0], row=4, model=Counting),
        attack("the same, and a parameter that counts calls", [1.0, 0.0, 0.0, 0.0], row=4, model=Keeping),
    ]


def _on_two_uses() -> list[Attack]:
    ids, weights, inputs = torch.zeros(OTHERS, 1, dtype=torch.int64), torch.ones(OTHERS, 1), torch.zeros(OTHERS, 2)

    def attack(name: str, weight: float, inputs_of_it: float) -> Attack:
        crafted = ids[0], torch.tensor([weight]), torch.full((2,), inputs_of_it)
        return Attack(name, Twice, (ids, weights, inputs), crafted, _total)

    return [attack("two uses that add up", 1e10, 1e10), attack("two uses that cancel", 1e10, -1e10)]


def _on_products() -> list[Attack]:
    inputs, factors = torch.zeros(OTHERS, 2, 4), torch.zeros(OTHERS, 2)
    inputs[:, :, 0], factors[:, 0] = 1.0, 1.0

    def attack(name: str, first: float, second: float, factor: float) -> Attack:
        example = torch.zeros(2, 4), torch.full((2,), factor)
        example[0][:, 0] = torch.tensor([first, second])
        return Attack(name, Positions, (inputs, factors), example, _total)

    return [
        attack("products that cancel", 1e10, -1e10, 1.0),
        attack("products that nearly cancel", 1e9, -1e9 + 64, 1.0),
        attack("products that cancel to a thousandth", 500.0, -499.0, 1.0),
        attack("products that overflow and cancel", 1e20, -1e20, 1e20),
        attack("a product of 1e38", 1e38, 0.0, 1e38),
        attack("a product of NaN", math.nan, 0.0, 1.0),
        attack("a product of infinity", math.inf, 0.0, 1.0),
    ]


def _on_models() -> list[Attack]:
    inputs = torch.ones(OTHERS, 4) * torch.tensor([1.0, -1.0, 1.0, -1.0]) ** torch.arange(OTHERS).unsqueeze(1)

    def attack(name: str, before: Callable[[], nn.Module]) -> Attack:
        crafted = torch.tensor([1e3, -1e3, 1e3, -1e3])
        return Attack(name, partial(_within, before), (inputs,), (crafted,), _total, refusable=True)

    return [
        attack("statistics of a batch", lambda: nn.BatchNorm1d(4, affine=False)),
        attack("dropout", nn.Dropout),
        attack("draws in a model", Drawing),
        attack("a memory in a model", Remembering),
    ]


def shape_attack(most: int = 64) -> Attack | None:
    """Others that lie at a kink: with one more in the batch their last bits are others, and they are on its other side.

    None if the outputs of no more than two examples rise here from one batch size to the next: then the attack has to
    be mounted on another machine.
    """
    generator = torch.Generator().manual_seed(1)
    for width in (256, 1000, 64):
        inputs, fixed = (torch.randn(rows, width, generator=generator) for rows in (most, 16))
        found = [_first(inputs[:size], fixed) for size in range(1, most + 1)]
        rises = [int((larger[:-1] > smaller).sum()) for smaller, larger in pairwise(found)]
        if max(rises) > 2:
            size = 1 + rises.index(max(rises))
            alone, together = found[size - 1], found[size][:-1]
            threshold = torch.where(together > alone, alone, _NEVER)
            crafted = inputs[size], torch.tensor(_NEVER)
            return Attack("one more in a batch", partial(Kinked, fixed), (inputs[:size], threshold), crafted, _total)
    return None
