"""Scores from a file of LiteRT, by its interpreter alone, for ``recsys.serving``.

Nobody looks at which operations are in such a file, as ``recsys.edge.graphs.check`` does with a graph. So nothing is
read here but what is known to be as it was written (``recsys.edge.folder.load_lite``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from secagg.errors import DecodeError
from secagg.extras import needing

with needing("litert", "a model for LiteRT"):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

_PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
"""what it would do faster for lengths that are known beforehand"""
_NOTHING = -1
"""what stands for no item, so that no history is empty"""


class OnLiteRt:
    """The scores of an exported model, with the same numbers for items as the model that it was made of."""

    def __init__(self, lite: bytes) -> None:
        try:
            self._interpreter = Interpreter(model_content=lite, num_threads=1, experimental_op_resolver_type=_PLAIN)
        except (RuntimeError, ValueError):
            raise DecodeError("this is no model that LiteRT can run") from None
        (asked,), (told,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._asked, self._told = asked["index"], told["index"]

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """One row for each history, as in ``recsys.models.Recommender``."""
        return np.stack([self._scores(history) for history in histories])

    def _scores(self, history: History) -> NDArray[np.float32]:
        items = np.concatenate([[_NOTHING], history]).astype(np.int32)
        self._interpreter.resize_tensor_input(self._asked, items.shape)
        try:
            self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(self._asked, items)
            self._interpreter.invoke()
        except (RuntimeError, ValueError):
            raise DecodeError("LiteRT cannot compute what this model asks for") from None
        found: NDArray[np.float32] = self._interpreter.get_tensor(self._told)
        return found
