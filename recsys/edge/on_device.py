"""Scores from a graph, by ONNX Runtime alone: what a device computes with, for ``recsys.serving``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.edge.graphs import ADDED, APART, INPUT, SCORES, USER, part, results
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
        self._onnx, self._sessions = onnx, dict[tuple[str, ...], Any]()
        self._session(SCORES)

    def _session(self, *names: str) -> Any:
        """What computes these results, and nothing else."""
        if names in self._sessions:
            return self._sessions[names]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_ERRORS
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.load_model_format", "ONNX")  # its other format was not checked
        try:
            session = onnxruntime.InferenceSession(
                part(self._onnx, names),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=False,  # to the same provider, with lines on the terminal
            )
        except _ERRORS:
            raise DecodeError("this is no model that ONNX Runtime can run") from None
        if any(one.type != "tensor(float)" for one in session.get_outputs()):
            raise DecodeError("a model whose scores are of another kind than floats of 32 bits")
        self._sessions[names] = session
        return session

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """One row for each history, as in ``recsys.models.Recommender``."""
        return np.stack([self._asked(history, SCORES)[0] for history in histories])

    def user(self, history: History) -> NDArray[np.float32]:
        """What is multiplied with items' vectors, for an index of them."""
        return self._asked(history, USER)[0]

    def _asked(self, history: History, *names: str) -> list[NDArray[np.float32]]:
        session = self._session(*names)
        try:
            found: list[NDArray[np.float32]] = session.run(names, {INPUT: history.astype(np.int64)})
        except _ERRORS:
            raise DecodeError("ONNX Runtime cannot compute what this model asks for") from None
        return found


class AdditiveOnDevice(OnDevice):
    """One whose scores are sums over a history (``recsys.explaining.Additive``)."""

    def contributions(
        self, history: History, items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Those of all places at which an item of the history stands are one."""
        places, apart = self._asked(history, ADDED, APART)
        if places.ndim != 2 or places.shape[1:] != apart.shape or items.max(initial=-1) >= len(apart):
            raise DecodeError("a model whose contributions are not those of its places to its items")
        own, places = np.unique(history), places[:, items]
        added = np.zeros((len(own), len(items)), np.float32)
        read = min(len(history), len(places))
        np.add.at(added, np.searchsorted(own, history[len(history) - read :]), places[len(places) - read :])
        return added, apart[items]


def on_device(onnx: bytes) -> OnDevice:
    """The scores of this graph, with contributions where it has any."""
    return AdditiveOnDevice(onnx) if {ADDED, APART} <= set(results(onnx)) else OnDevice(onnx)
