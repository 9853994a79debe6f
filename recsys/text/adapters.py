"""Adapters: small changes of a frozen linear map, which are all of an encoder that is trained and travels.

The map W of m numbers to n becomes W + s D, with a change D of a small rank r and s = alpha / r:

    FFA-LoRA   D = B A, where A (r x m) is drawn and frozen, and B (n x r) is trained, from zeros on. (Sun et al. 2024,
               "Improving LoRA in privacy-preserving federated learning".)
    Fed-SB     D = B R A, where A and B are drawn and frozen, and R (r x r) is trained, from zeros on. (After Singhal et
               al. 2025, "Fed-SB", who take the frozen factors from the gradients of the data. That would cost privacy:
               here they are random.)
    LoRA       D = B A, and both are trained. (Hu et al. 2022.)

The first two are linear in what is trained. So the mean of clients' factors is the factor of the mean of their
changes, and noise of some deviation in a factor is noise of a known deviation in D. LoRA's mean of products is not the
product of means, and noise in A and B is multiplied: it is there for comparison, and never without being named.

What is frozen is drawn from a public seed, in integers that are scaled exactly: all parties draw the same numbers,
whatever machine they have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import sqrt
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.prg import Prg
from secagg.errors import StorageError
from secagg.files import write_file

_STEPS = 1 << 15
"""Frozen numbers are multiples of the largest one by a 2^15th."""


class Adapter(StrEnum):
    FFA_LORA = "ffa-lora"
    FED_SB = "fed-sb"
    LORA = "lora"

    @property
    def caution(self) -> str:
        """What people should know who take this one; nothing of those whose sums are exact."""
        if self is not Adapter.LORA:
            return ""
        return (
            "adapter = lora: a sum adds up both factors of each client's change by themselves, and their product is "
            "not the mean of the clients' changes (ffa-lora and fed-sb have no such error)"
        )


class Adapted(nn.Module):  # type: ignore[misc]  # torch goes untyped here
    """A frozen linear map, and the change that is trained. ``base`` None: the change alone, for what reads or keeps it.

    >>> frozen = nn.Linear(3, 2)
    >>> adapted = Adapted(frozen, 3, 2, Adapter.FFA_LORA, rank=1, alpha=2.0)
    >>> bool((adapted(torch.ones(1, 3)) == frozen(torch.ones(1, 3))).all())  # a change of zeros
    True
    >>> [name for name, one in adapted.named_parameters() if one.requires_grad]
    ['up']
    """

    def __init__(
        self, base: nn.Linear | None, inputs: int, outputs: int, adapter: Adapter, rank: int, alpha: float
    ) -> None:
        super().__init__()
        self.base, self.rank, self.alpha = base, rank, alpha
        if base is not None:
            base.requires_grad_(False)
        self.down = nn.Parameter(torch.zeros(rank, inputs), requires_grad=adapter is Adapter.LORA)
        self.up = nn.Parameter(torch.zeros(outputs, rank), requires_grad=adapter is not Adapter.FED_SB)
        self.between = nn.Parameter(torch.zeros(rank, rank)) if adapter is Adapter.FED_SB else None

    def forward(self, input: Tensor) -> Tensor:
        if self.base is None:
            raise RuntimeError("a change without its frozen map")
        inner = F.linear(input, self.down)
        if self.between is not None:
            inner = F.linear(inner, self.between)
        return self.base(input) + self.alpha / self.rank * F.linear(inner, self.up)

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B, as LoRA has them."""
        up = self.up if self.between is None else self.up @ self.between
        return self.down.detach(), up.detach()


def drawn(adapted: Sequence[Adapted], seed: int) -> None:
    """Set what does not begin with zeros, from a public seed."""
    for number, one in enumerate(adapted):
        rng = Prg(derive(seed.to_bytes(8, "big", signed=True), labels.RUN_TEXT, b"adapter", number.to_bytes(4, "big")))
        _fill(one.down, one.down.shape[1], rng)
        if one.between is not None:
            _fill(one.up, one.up.shape[0], rng)


def _fill(factor: nn.Parameter, width: int, rng: Prg) -> None:
    """Uniform numbers, with vectors of ``width`` of them having a norm of about 1."""
    steps = np.frombuffer(rng(2 * factor.numel()), "<i2").astype(np.float32).reshape(factor.shape)
    with torch.no_grad():
        factor.copy_(torch.from_numpy(steps * np.float32(sqrt(3 / width) / _STEPS)))


def write_adapter(folder: Path, adapted: Mapping[str, Adapted]) -> None:
    """Write adapters, by the names of their maps in the encoder, as PEFT reads them: all kinds as a LoRA."""
    from safetensors.torch import save

    parts = dict[str, Tensor]()
    for name, one in adapted.items():
        for letter, factor in zip("AB", one.factors, strict=True):
            parts[f"base_model.model.{name}.lora_{letter}.weight"] = factor.contiguous()
    first = next(iter(adapted.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "r": first.rank,
        "lora_alpha": first.alpha,
        "target_modules": list(adapted),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot use {folder}: {error.strerror}") from None
    write_file(folder / "adapter_model.safetensors", save(parts, {"format": "pt"}), private=False)
    write_file(folder / "adapter_config.json", json.dumps(config, indent=2).encode(), private=False)
