"""Which graphs are run, and which of a stranger's are refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.explaining import Additive
from secagg.errors import DecodeError, UsageError

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")

import onnx
import onnxruntime

from recsys.edge import graphs
from recsys.edge.graphs import ADDED, APART, INPUT, SCORES, Graph, check, part, rounded
from recsys.edge.on_device import on_device


def graph() -> Graph:
    """One score for each of 512 items of a history: twice its number."""
    made = Graph()
    numbers = made("Cast", INPUT, to=onnx.TensorProto.FLOAT)
    made.output(SCORES, made("Mul", numbers, made.constant(np.full(512, 2, np.float32))), ["length"])
    return made


def changed(change: Callable[[Any], object]) -> bytes:
    model = onnx.load_model_from_string(graph().encoded())
    change(model)
    return bytes(model.SerializeToString())


def elsewhere(model: Any) -> None:
    (kept,) = model.graph.initializer
    onnx.external_data_helper.set_external_data(kept, location="secret.bin", offset=0, length=2048)
    kept.ClearField("raw_data")


def named_elsewhere(model: Any) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="secret.bin")


def attribute_elsewhere(model: Any) -> None:
    value = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [1.0])
    value.data_location = onnx.TensorProto.EXTERNAL
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", [INPUT], ["x"], value=value))


def operation(model: Any) -> None:
    model.graph.node[0].op_type = "Loop"


def domain(model: Any) -> None:
    model.graph.node[0].domain = "com.microsoft"


def inside(model: Any) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("body", model.graph))


def insides(model: Any) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("bodies", [onnx.GraphProto()]))


def inside_of_no_kind(model: Any) -> None:
    inside(model)
    model.graph.node[0].attribute[-1].ClearField("type")


def tensors(model: Any) -> None:
    model.graph.node[0].attribute.add(name="values").tensors.add()


def sparse_insides(model: Any) -> None:
    model.graph.node[0].attribute.add(name="value").sparse_tensors.add()


def sparse_inside(model: Any) -> None:
    model.graph.node[0].attribute.add(name="value").sparse_tensor.values.dims.append(1)


def sparse(model: Any) -> None:
    model.graph.sparse_initializer.add()


def function(model: Any) -> None:
    model.functions.add(name="Mul")


def training(model: Any) -> None:
    model.training_info.add()


def inputs(model: Any) -> None:
    model.graph.input.add(name="more")


def outputs(model: Any) -> None:
    model.graph.output[0].name = "numbers"


def many(model: Any) -> None:
    for _ in range(1 << 14):
        model.graph.node.add()


WRONG: list[tuple[Callable[[Any], None], str]] = [
    (many, "more than 16384 operations"),
    (elsewhere, "in other files"),
    (named_elsewhere, "in other files"),
    (attribute_elsewhere, "in other files"),
    (operation, "an operation 'Loop'"),
    (domain, "an operation 'Cast'"),
    (inside, "more than one graph"),
    (insides, "more than one graph"),
    (inside_of_no_kind, "more than one graph"),
    (tensors, "more than one graph"),
    (sparse_insides, "more than one graph"),
    (sparse_inside, "more than one graph"),
    (sparse, "more than one graph"),
    (function, "more than one graph"),
    (training, "more than one graph"),
    (inputs, "not from a history to scores"),
    (outputs, "not from a history to scores"),
]


@pytest.mark.parametrize(("change", "why"), WRONG, ids=[change.__name__ for change, _ in WRONG])
def test_what_is_no_graph_of_ours_is_refused(change: Callable[[Any], None], why: str) -> None:
    """The control: as it was written, it is none of that."""
    check(changed(lambda model: None))
    with pytest.raises(DecodeError, match=why):
        check(changed(change))


def test_unchecked_numbers_of_another_file_would_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of what is refused: ONNX Runtime itself reads a file of the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("secret.bin").write_bytes(np.full(512, 7, np.float32).tobytes())
    (scores,) = on_device(changed(elsewhere)).scores([np.full(512, 3, np.int32)])
    assert set(scores.tolist()) == {21}


def test_a_graph_is_run_as_onnx_whatever_it_says_that_it_is() -> None:
    """ONNX Runtime has a format of its own, which begins like this; it would run another graph than was checked. The
    control: it takes this one for such a file."""
    data = changed(lambda model: setattr(model, "producer_name", "ORTM"))
    assert data[4:8] == b"ORTM"
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="ORT model"):
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert on_device(data).scores([np.full(512, 3, np.int32)]).tolist() == [[6] * 512]


def test_bytes_that_are_no_onnx() -> None:
    for data in (b"\xff\xff", b"{}", b"not a model"):
        with pytest.raises(DecodeError):
            check(data)
        with pytest.raises(DecodeError, match="not a file of ONNX"):
            on_device(data)


def test_only_what_is_asked_for_is_computed() -> None:
    made = Graph()
    for name, numbers in ((SCORES, [1, 2, 3]), (ADDED, [4, 5]), (APART, [6])):
        made.output(name, made("Gather", made.constant(np.float32(numbers)), INPUT), ["length"])
    left = onnx.load_model_from_string(part(made.encoded(), [SCORES]))
    assert [one.name for one in left.graph.output] == [SCORES]
    assert [one.op_type for one in left.graph.node] == ["Gather", "Identity"]
    assert [list(one.dims) for one in left.graph.initializer] == [[3]]
    device: Any = on_device(made.encoded())
    assert device.scores([np.int32([2])]).tolist() == [[3]]  # and no item 2 is looked for in the others


def test_what_cannot_be_computed_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime itself writes nothing of it."""
    made = Graph()
    found = made("Gather", made.constant(np.float32([1, 2])), INPUT)
    made.output(SCORES, found, ["length"])
    device = on_device(made.encoded())
    assert device.scores([np.int32([1, 1])]).tolist() == [[2, 2]]
    with pytest.raises(DecodeError, match="cannot compute"):
        device.scores([np.int32([5])])
    assert capfd.readouterr() == ("", "")


def test_scores_of_another_kind_are_refused() -> None:
    for kind in (onnx.TensorProto.INT64, onnx.TensorProto.BFLOAT16, onnx.TensorProto.STRING):
        made = Graph()
        made.output(SCORES, made("Cast", INPUT, to=kind), ["length"])
        model = onnx.load_model_from_string(made.encoded())
        model.graph.output[0].type.tensor_type.elem_type = kind
        with pytest.raises(DecodeError, match="another kind than floats"):
            on_device(model.SerializeToString())


@pytest.mark.parametrize(
    ("places", "apart", "fine"),
    [
        ((3, 4), (4,), True),
        ((4,), (4,), False),
        ((3, 4, 1), (4, 1), False),
        ((3, 4), (1,), False),
        ((3, 4), (5,), False),
        ((3, 1), (1,), False),
    ],
)
def test_contributions_of_another_shape_are_refused(
    places: tuple[int, ...], apart: tuple[int, ...], fine: bool
) -> None:
    made = Graph()
    for name, shape in ((SCORES, (4,)), (ADDED, places), (APART, apart)):
        made.output(name, made.constant(np.ones(shape, np.float32)), shape)
    device: Any = on_device(made.encoded())
    with nullcontext() if fine else pytest.raises(DecodeError, match="not those of its places"):
        device.contributions(np.int32([1]), np.array([3]))


def test_operations_are_those_that_are_read() -> None:
    with pytest.raises(UsageError, match="Loop is no operation"):
        Graph()("Loop", INPUT)


def test_a_graph_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MOST_BYTES", 2047)
    with pytest.raises(UsageError, match="too large for a device"):
        graph().encoded()
    monkeypatch.setattr(graphs, "_MOST_BYTES", 2048)
    graph().encoded()


def test_numbers_that_16_bits_do_not_hold_stay_as_they_are() -> None:
    made = Graph(int8=True)
    made.output(SCORES, made.numbers(np.full(256, 1e5, np.float32)), [256])
    assert on_device(made.encoded()).scores([np.int32([1])]).tolist() == [[1e5] * 256]


def test_contributions_have_two_parts_or_are_none() -> None:
    for names in ([ADDED], [APART], [ADDED, APART]):
        made = Graph()
        for name in (SCORES, *names):
            made.output(name, made.constant(np.ones(2, np.float32)), [2])
        assert isinstance(on_device(made.encoded()), Additive) == (len(names) == 2)


def test_rounding_is_off_by_half_a_step() -> None:
    rng = np.random.default_rng(0)
    array = (rng.standard_normal((50, 7)) * 10.0 ** rng.integers(-5, 3, (50, 1))).astype(np.float32)
    numbers, scales = rounded(array)
    assert (np.abs(numbers * scales.astype(np.float64) - array) <= 0.51 * scales.astype(np.float64) + 1e-7).all()
    zeros, _ = rounded(np.zeros((2, 2), np.float32))
    assert not zeros.any()


def test_a_name_that_is_no_text_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime puts such a name into what it says, which Python cannot read then. The control: the name before."""
    made = Graph()
    made.output(SCORES, made("Gather", made.constant(np.ones(3, np.float32)), INPUT, axis=0), ["length"])
    data = made.encoded()
    assert on_device(data).scores([np.int32([2])]).tolist() == [[1]]
    with pytest.raises(DecodeError, match="ONNX Runtime can run"):
        on_device(data.replace(b"axis", b"\xe3xis"))
    assert capfd.readouterr() == ("", "")
