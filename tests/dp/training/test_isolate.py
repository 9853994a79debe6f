"""Per-example gradients and their norms, on every kind of model, against one plain backward pass for each example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from opacus.layers import DPGRU, DPLSTM
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dp.training import isolate
from dp.training.clipping import Flat
from dp.training.gradients import Dense, Gradients, Products, Rows, written_out
from dp.training.isolate import Objective, per_example_gradients
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.dp.training import reference

ROWS, WIDTH, LENGTH, BATCH = 11, 4, 5, 7


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(3)
    yield
    torch.set_default_dtype(torch.float32)


def ids() -> Tensor:
    """With repeats within examples, and id 0, which some models pad with."""
    return torch.randint(0, ROWS // 2, (BATCH, LENGTH))


def gradients_of(
    model: nn.Module, *examples: Tensor, loss: Callable[..., Tensor] | None = None
) -> dict[str, Gradients]:
    loss = loss or (lambda model, *inputs: (model(*inputs) + 1).square().sum())
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return per_example_gradients(Objective(model, loss), parameters, tuple(examples))


def check(model: nn.Module, *examples: Tensor, loss: Callable[..., Tensor] | None = None) -> dict[str, Gradients]:
    loss = loss or (lambda model, *inputs: (model(*inputs) + 1).square().sum())
    found = gradients_of(model, *examples, loss=loss)
    wanted = [reference.gradients(model, loss, example) for example in zip(*examples, strict=True)]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert name not in found
            continue
        single = torch.stack([gradient[name] for gradient in wanted])
        if name not in found:
            assert not single.any()
            continue
        torch.testing.assert_close(written_out([found[name]], single.shape), single)
        torch.testing.assert_close(found[name].squared_norms(), single.flatten(1).square().sum(1))
        total = torch.ones_like(parameter, dtype=torch.int64)
        factors = 1e6 * torch.rand(len(single)) * (torch.rand(len(single)) < 0.7)
        found[name].add_scaled(factors, total)
        torch.testing.assert_close(total.double(), 1 + torch.tensordot(factors, single, 1), rtol=1e-6, atol=BATCH)
    return found


class Calls(nn.Module):
    """A model with its forward pass given as a function."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._forward(self, *inputs)


def table(**options: Any) -> nn.Embedding:
    return nn.Embedding(ROWS, WIDTH, **options)


def floats(*shape: int) -> Tensor:
    return torch.randn(BATCH, *shape)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch.vmap on Bilinear
@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda: nn.Linear(3, 2), [(3,)]),
        (lambda: nn.Linear(3, 2), [(LENGTH, 3)]),
        (lambda: nn.Linear(2, 2, bias=False), [(6, 5, 2)]),  # longer than wide: written out
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)), [(3,)]),
        (lambda: nn.Bilinear(3, 3, 2), [(3,), (3,)]),
        (lambda: nn.LayerNorm(3), [(LENGTH, 3)]),
        (lambda: nn.GroupNorm(2, 4), [(4, 6)]),
        (lambda: nn.InstanceNorm1d(4, affine=True), [(4, 6)]),
        (lambda: nn.Conv1d(3, 4, 2), [(3, 6)]),
        (lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2), [(2, 5, 5)]),
        (lambda: nn.PReLU(), [(3,)]),
        (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), [(LENGTH, 4)]),
    ],
)
def test_layers(make: Callable[[], nn.Module], shapes: list[tuple[int, ...]]) -> None:
    check(make(), *(floats(*shape) for shape in shapes))


@pytest.mark.parametrize("kind", [DPLSTM, DPGRU])
def test_recurrent_layers_of_opacus(kind: Callable[..., nn.Module]) -> None:
    check(Calls(lambda m, x: m.rnn(x)[0], rnn=kind(3, 4, batch_first=True)), floats(LENGTH, 3))


def test_attention_with_a_mask() -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    model = Calls(
        lambda m, x: m.attend(x, x, x, attn_mask=mask, need_weights=False)[0],
        attend=nn.MultiheadAttention(4, 2, batch_first=True),
    )
    check(model, floats(LENGTH, 4))


def test_look_ups_stay_rows_and_products_stay_products() -> None:
    model = nn.Sequential(table(), nn.Linear(WIDTH, 6), nn.ReLU(), nn.Linear(6, 1))
    kinds = {name: type(gradient) for name, gradient in check(model, torch.randint(ROWS, (BATCH, 1))).items()}
    assert kinds == {"0.weight": Rows, "1.weight": Products, "1.bias": Dense, "3.weight": Products, "3.bias": Dense}


@pytest.mark.parametrize("padding", [None, 0, -ROWS, 3])
def test_tables(padding: int | None) -> None:
    found = check(table(padding_idx=padding), ids())
    assert isinstance(found["weight"], Rows)
    if padding is not None:
        assert not written_out([found["weight"]], (BATCH, ROWS, WIDTH))[:, padding].any()


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 0])
def test_bags(mode: str, padding: int | None) -> None:
    bag = nn.EmbeddingBag(ROWS, WIDTH, mode=mode, padding_idx=padding)
    examples = ids()
    examples[1] = 0  # nothing but padding, or one row again and again
    torch.testing.assert_close(
        torch.stack([isolated_output(bag, row) for row in examples]), bag(examples).detach(), equal_nan=True
    )
    assert isinstance(check(bag, examples)["weight"], Rows)


def isolated_output(model: nn.Module, example: Tensor) -> Tensor:
    """What the model computes while it is watched."""
    seen = []

    def loss(model: nn.Module, inputs: Tensor) -> Tensor:
        output = model(inputs)
        seen.append(output.detach())
        return output.sum()

    with isolate._Aside(torch.zeros(1), {}, {}, []):
        loss(model, example.unsqueeze(0))
    return seen[0][0]


def test_ids_of_other_kinds() -> None:
    for kind in (torch.int32, torch.int64):
        check(table(), ids().to(kind))


def test_padding_counted_from_the_end() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.embedding(x, m.w, padding_idx=-ROWS).sum(1) + F.embedding_bag(x, m.w, padding_idx=-ROWS + 1)

    check(Calls(forward, w=nn.Parameter(torch.randn(ROWS, WIDTH))), ids())


def test_bags_with_weights() -> None:
    bag = nn.EmbeddingBag(ROWS, WIDTH, mode="sum", padding_idx=0)
    check(bag, ids(), floats(LENGTH), loss=lambda m, x, w: m(x, per_sample_weights=w).square().sum())


@pytest.mark.parametrize("shape", [(LENGTH,), (1, LENGTH)])
@pytest.mark.parametrize("batch", [1, LENGTH, BATCH])
def test_positions_without_a_batch_dimension(shape: tuple[int, ...], batch: int) -> None:
    positions = torch.arange(LENGTH).reshape(shape)
    model = Calls(lambda m, x: m.items(x) + m.places(positions), items=table(), places=nn.Embedding(LENGTH, WIDTH))
    found = check(model, ids()[:1].repeat(batch, 1) if batch == 1 else torch.randint(ROWS, (batch, LENGTH)))
    assert isinstance(found["places.weight"], Rows)


def test_a_look_up_that_is_the_same_for_all() -> None:
    test_positions_without_a_batch_dimension((LENGTH,), BATCH)


def test_parameters_without_a_module() -> None:
    model = Calls(lambda m, x: m.items(x) * m.places, items=table(), places=nn.Parameter(torch.randn(LENGTH, WIDTH)))
    check(model, ids())


def test_one_table_looked_up_twice() -> None:
    model = Calls(lambda m, x, y: (m.items(x) * m.items(y)).sum(1), items=table())
    assert isinstance(check(model, ids(), ids())["items.weight"], Rows)


def test_one_layer_used_twice() -> None:
    model = Calls(lambda m, x: m.layer(m.layer(x).tanh()), layer=nn.Linear(10, 10))
    assert isinstance(check(model, floats(LENGTH, 10))["layer.weight"], Products)


def test_tied_weights() -> None:
    model = Calls(lambda m, x: m.out(m.items(x)), items=table(padding_idx=0), out=nn.Linear(WIDTH, ROWS))
    model.out.weight = model.items.weight
    check(model, ids())


def test_weights_used_by_hand() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        rows = m.items(x)
        return rows[:, -1] @ m.items.weight.T + F.linear(rows, m.items.weight).sum(1)

    check(Calls(forward, items=table()), ids())


def test_frozen_and_unused_parameters() -> None:
    model = Calls(lambda m, x: m.out(m.items(x)), items=table(), out=nn.Linear(WIDTH, 2), idle=nn.Linear(2, 2))
    model.items.weight.requires_grad_(False)
    assert check(model, ids()).keys() == {"out.weight", "out.bias"}


def test_in_place_operations_on_outputs() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        rows = m.items(x)
        rows *= 3.0
        out = m.plain(rows)
        return out.relu_()

    check(Calls(forward, items=table(), plain=nn.Linear(WIDTH, 2, bias=False)), ids())


def test_an_input_that_changes_after_its_use_is_refused() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = x * 2
        out = m.layer(x)
        x.zero_()
        return out

    with pytest.raises(UsageError, match=r"layer\.weight was changed in place"):
        gradients_of(Calls(forward, layer=nn.Linear(3, 2)), floats(3))


def test_no_gradient_where_the_model_wants_none() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = m.items(x)
        return (m.items(x).mean(1, keepdim=True) - target).square() + m.items(x).detach()

    check(Calls(forward, items=table()), ids())


def test_buffers_are_used() -> None:
    model = Calls(lambda m, x: m.layer(x) * m.scale, layer=nn.Linear(3, 2))
    model.register_buffer("scale", torch.tensor(3.0))
    check(model, floats(3))


def test_examples_cannot_see_each_other() -> None:
    """The same example has the same gradient in any company; here the loss tries to use the others."""

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        users, items = model(x), model(y)
        return F.cross_entropy(users @ items.T, torch.arange(len(users))) + (users * items).sum()  # in-batch negatives

    model = nn.Linear(3, 2)
    x, y = floats(3), floats(3)
    alone = written_out([gradients_of(model, x[:1], y[:1], loss=loss)["weight"]], (1, 2, 3))
    together = written_out([gradients_of(model, x, y, loss=loss)["weight"]], (BATCH, 2, 3))
    torch.testing.assert_close(together[:1], alone)


def test_statistics_of_examples_cannot_be_kept() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.mean.copy_(x.mean(0))
            return self.layer(x - self.mean)

    with pytest.raises(RuntimeError, match="inplace"):
        gradients_of(Keeps(), floats(3))


def test_a_model_draws_nothing() -> None:
    """What it drew about one example would depend on the others."""
    noisy = Calls(lambda m, x: m.layer(x + torch.rand_like(x)), layer=nn.Linear(3, 2))
    for model in (nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1)), noisy):
        with pytest.raises(RuntimeError, match="randomness"):
            gradients_of(model, floats(3))


def test_a_bad_example_leaves_the_others_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    x = floats(3)
    good = gradients_of(model, x)
    x[2] = float("nan")
    bad = gradients_of(model, x)
    others = torch.arange(BATCH) != 2
    for name in good:
        assert not bad[name].squared_norms()[2].isfinite()
        shape = (BATCH, *model.get_parameter(name).shape)
        torch.testing.assert_close(written_out([bad[name]], shape)[others], written_out([good[name]], shape)[others])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_reduction_of_the_loss_does_not_matter(reduction: str) -> None:
    check(
        nn.Linear(3, 4),
        floats(3),
        torch.randint(4, (BATCH,)),
        loss=lambda model, x, y: F.cross_entropy(model(x), y, reduction=reduction),
    )


STRANGER = table()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (table(max_norm=1.0), "max_norm"),
        (nn.EmbeddingBag(ROWS, WIDTH, max_norm=1.0), "max_norm"),
        (table(scale_grad_by_freq=True), "scale_grad_by_freq"),
        (Calls(lambda m, x: m.bag(x.flatten(), torch.tensor([0, 2])), bag=nn.EmbeddingBag(ROWS, WIDTH)), "offsets"),
        (Calls(lambda m, x: m.items(x).detach(), items=table()), "does not depend"),
        (Calls(lambda m, x: STRANGER(x), items=table()), "does not depend"),
    ],
)
def test_models_that_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gradients_of(model, ids())


@pytest.mark.parametrize("loss", [lambda m, x: m(x), lambda m, x: 1.0])
def test_losses_that_are_refused(loss: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="single number"):
        gradients_of(nn.Linear(3, 2), floats(3), loss=loss)


class Largest(TorchDispatchMode):
    """The largest tensor that comes into being."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


def largest_tensor() -> int:
    rows, width, length, batch = 5000, 8, 6, 32
    model = nn.Sequential(nn.Embedding(rows, width), nn.Flatten(), nn.Linear(width * length, 1))
    with Largest() as largest:
        found = gradients_of(model, torch.randint(rows, (batch, length)))
        reference.added(found, model, Flat(1.0).layers([name for name, _ in model.named_parameters()]))
    return largest.bytes // (8 * rows * width)


def test_nothing_is_as_large_as_the_batch_times_the_table() -> None:
    assert largest_tensor() == 1


def test_that_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, isolate._Aside, "_trained", "id(weight) in self._known")
    assert largest_tensor() == 32


@pytest.mark.parametrize(
    ("owner", "name", "part", "instead", "test"),
    [
        (isolate._Use, "sides", "self.padding is not None", "False", lambda: test_tables(0)),
        (Rows, "of", "place.gather(1, back)", "place", lambda: test_tables(None)),
        (isolate._Aside, "_use", "output.clone()", "output", test_in_place_operations_on_outputs),
        (isolate._Together, "vmap", "dim is None", "False", test_a_look_up_that_is_the_same_for_all),
    ],
)  # fmt: skip
def test_without_this_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, part: str, instead: str, test: Callable[[], None]
) -> None:
    switch_off(monkeypatch, owner, name, part, instead)
    with pytest.raises((AssertionError, RuntimeError, TypeError)):
        test()
