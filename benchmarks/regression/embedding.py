"""Clipped gradient sums of an embedding table: ours next to those of Opacus' grad sampler, and of its ghost clipping.

Each side works in a process of its own, on the same numbers, so that peak memory is its own. The whole way is
measured: forward, backward, norms, clipping, the sum; no noise. The sums are compared too.
"""

from __future__ import annotations

import gc
import multiprocessing
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.case import Measured
from benchmarks.memory import peak

CLIP = 1.0
SIDES = ("ours", "opacus", "opacus_ghost")
_ENOUGH_S = 10.0
"""A side that has taken so many seconds is not measured again."""


@dataclass(frozen=True, slots=True)
class Task:
    """A batch of ``examples``, each looking up ``length`` rows of ``width`` numbers in a table of ``rows``."""

    rows: int = 100_000
    examples: int = 256
    length: int = 50
    width: int = 32
    repeats: int = 5

    def inputs(self) -> tuple[Any, Any, Any]:
        """The table, the ids (half of an example's come twice), the gradient of the loss by the rows looked up."""
        import torch

        draw = torch.Generator().manual_seed(1)
        ids = torch.randint(self.rows, (self.examples, self.length), generator=draw)
        ids[:, self.length // 2 :] = ids[:, : self.length - self.length // 2]
        table = torch.randn(self.rows, self.width, generator=draw)
        return table, ids, torch.randn(self.examples, self.length, self.width, generator=draw)


def compare(task: Task) -> Measured:
    """Seconds and peak bytes of each side, and how much more than ours; ``difference``: of the sums, relative."""
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    sums = {}
    for side in SIDES:
        figures[f"{side}_s"], figures[f"{side}_peak_bytes"], sums[side] = _in_a_process(side, task)
    for side in SIDES[1:]:
        ratios[f"{side}_time_vs_ours"] = figures[f"{side}_s"] / figures["ours_s"]
        ratios[f"{side}_memory_vs_ours"] = figures[f"{side}_peak_bytes"] / figures["ours_peak_bytes"]
        difference = float(np.abs(sums[side] - sums["ours"]).max() / np.abs(sums["ours"]).max())
        figures[f"{side}_difference"] = difference
    return Measured(figures, ratios)


def _in_a_process(side: str, task: Task) -> tuple[float, float, Any]:
    context = multiprocessing.get_context("forkserver")  # which has loaded, and not yet run, what the sides need
    context.set_forkserver_preload(["benchmarks.regression.embedding", "opacus"])
    near, far = context.Pipe()
    child = context.Process(target=_measure, args=(far, side, task), daemon=True)
    child.start()
    far.close()
    seconds, extra = near.recv()
    total = np.frombuffer(near.recv_bytes(), np.float32)
    child.join()
    return seconds, extra, total


def _measure(pipe: Connection, side: str, task: Task) -> None:
    """The child: once small, to have everything loaded; once for the memory; then for the time."""
    warnings.filterwarnings("ignore", "Full backward hook is firing")  # Opacus' hooks on a first layer
    work = {"ours": _ours, "opacus": _opacus, "opacus_ghost": _opacus_ghost}[side]
    small = Task(rows=10, examples=2, length=2, width=2)
    work(*small.inputs())
    inputs = task.inputs()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from here
    before = peak()
    total = work(*inputs)
    extra = peak() - before
    seconds: list[float] = []
    while len(seconds) < task.repeats and sum(seconds) < _ENOUGH_S:
        del total
        gc.collect()  # Opacus' modules refer to themselves
        started = perf_counter()
        total = work(*inputs)
        seconds.append(perf_counter() - started)
    pipe.send((median(seconds), extra))
    pipe.send_bytes(total.numpy().tobytes())


def _ours(table: Any, ids: Any, slope: Any) -> Any:
    import torch

    from dp.training.clipping import Flat, add_clipped
    from dp.training.isolate import Objective, per_example_gradients
    from dp.training.noise import Grid

    model = torch.nn.Embedding.from_pretrained(table, freeze=False)
    objective = Objective(model, lambda model, ids, slope: (model(ids) * slope).sum())
    gradients = per_example_gradients(objective, {"weight": model.weight}, (ids, slope))
    total, everybody = torch.zeros_like(table, dtype=torch.int64), torch.ones(len(ids), dtype=torch.bool)
    grid = Grid.of(1.0, CLIP, 0.0)
    add_clipped(gradients, Flat(CLIP).layers(["weight"]), everybody, grid, {"weight": total})
    return (total * grid.unit).float()


def _opacus(table: Any, ids: Any, slope: Any) -> Any:
    import torch
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model = GradSampleModule(torch.nn.Embedding.from_pretrained(table, freeze=False), loss_reduction="sum")
    plain = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = DPOptimizer(
        plain, noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=None, loss_reduction="sum"
    )
    (model(ids) * slope).sum().backward()
    optimizer.clip_and_accumulate()
    return model._module.weight.summed_grad


def _opacus_ghost(table: Any, ids: Any, slope: Any) -> Any:
    import torch
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

    model = GradSampleModuleFastGradientClipping(
        torch.nn.Embedding.from_pretrained(table, freeze=False), loss_reduction="sum", max_grad_norm=CLIP
    )
    plain = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = DPOptimizerFastGradientClipping(
        plain, noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=None, loss_reduction="sum"
    )
    losses = (model(ids) * slope).sum((1, 2))
    DPTensorFastGradientClipping(model, optimizer, losses, "sum").backward()
    optimizer.accumulate()
    return model._module.weight.summed_grad
