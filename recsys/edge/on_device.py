"""Scores from a graph, by ONNX Runtime alone: what a device computes with, for ``recsys.serving``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.edge.graphs import ADDED, APART, INPUT, SCORES, USER
from secagg.errors import DecodeError
from secagg.extras import needing

with needing("edge", "a model on a device"):
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as refused

_ERRORS = (
    refused.Fail,
    refused.InvalidArgument,
    refused.InvalidGraph,
    refused.InvalidProtobuf,
    refused.NotImplemented,
    refused.RuntimeException,
    UnicodeDecodeError,  # of its own words, with a name out of the graph in them
)
_ONLY_ERRORS = 4
"""of its severities: it prints nothing, and what is wrong is raised"""


class OnDevice:
    """The scores of an exported model, with the same numbers for items as the model that it was made of."""

    def __init__(self, onnx: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_ERRORS
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.load_model_format", "ONNX")  # its other format was not checked
        try:
            self._session = onnxruntime.InferenceSession(
                onnx,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=False,  # to the same provider, with lines on the terminal
            )
        except _ERRORS:
            raise DecodeError("this is no model that ONNX Runtime can run") from None
        self._run = onnxruntime.RunOptions()
        self._run.only_execute_path_to_fetches = True
        outputs = self._session.get_outputs()
        self._outputs = {one.name for one in outputs}
        if any(one.type != "tensor(float)" for one in outputs):
            raise DecodeError("a model whose scores are of another kind than floats of 32 bits")

    @property
    def additive(self) -> bool:
        return {ADDED, APART} <= self._outputs

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """One row for each history, as in ``recsys.models.Recommender``."""
        return np.stack([self._asked([SCORES], history)[0] for history in histories])

    def user(self, history: History) -> NDArray[np.float32]:
        """What is multiplied with items' vectors, for an index of them."""
        return self._asked([USER], history)[0]

    def _asked(self, names: list[str], history: History) -> list[NDArray[np.float32]]:
        try:
            found: list[NDArray[np.float32]] = self._session.run(names, {INPUT: history.astype(np.int64)}, self._run)
        except _ERRORS:
            raise DecodeError("ONNX Runtime cannot compute what this model asks for") from None
        return found


class AdditiveOnDevice(OnDevice):
    """One whose scores are sums over a history (``recsys.explaining.Additive``)."""

    def contributions(
        self, history: History, items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Those of all places at which an item of the history stands are one."""
        places, apart = self._asked([ADDED, APART], history)
        if places.ndim != 2 or places.shape[1:] != apart.shape or items.max(initial=-1) >= len(apart):
            raise DecodeError("a model whose contributions are not those of its places to its items")
        own, places = np.unique(history), places[:, items]
        added = np.zeros((len(own), len(items)), np.float32)
        read = min(len(history), len(places))
        np.add.at(added, np.searchsorted(own, history[len(history) - read :]), places[len(places) - read :])
        return added, apart[items]


def on_device(onnx: bytes) -> OnDevice:
    """The scores of this graph, with contributions where it has any."""
    made = OnDevice(onnx)
    return AdditiveOnDevice(onnx) if made.additive else made
