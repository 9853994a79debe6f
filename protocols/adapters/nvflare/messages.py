"""How plans, frames and models travel in NVFlare's tasks and answers, and how each side reads what the other wrote.

The task ``secagg_train`` holds the model, and in its meta the plan and the form; ``secagg_frame`` and all answers hold
a frame, as an array of bytes, because arrays are what NVFlare can carry at any size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel

from protocols.adapters.instructions import Instructions
from secagg.errors import DecodeError, UsageError

TRAIN_TASK = "secagg_train"
FRAME_TASK = "secagg_frame"
PLAN_KEY, FORM_KEY, FRAME_KEY = "secagg_plan", "secagg_form", "secagg_frame"

Arrays = dict[str, NDArray[Any]]


def frame_params(frame: bytes) -> Arrays:
    """The parameters of an ``FLModel`` that carries this frame."""
    return {FRAME_KEY: np.frombuffer(frame, np.uint8)}


def frame_in(model: FLModel) -> bytes:
    params = model.params
    frame = params.get(FRAME_KEY) if isinstance(params, dict) else None
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        raise DecodeError("no frame in this message")
    return frame.tobytes()


def bytes_in(task: FLModel, key: str) -> bytes:
    """The plan or the form in the meta of a task."""
    value = task.meta.get(key)
    if not isinstance(value, bytes):
        raise DecodeError(f"no {key} in this task")
    return value


def arrays_in(model: FLModel) -> Arrays:
    """What the model consists of; numpy makes scalars of arrays without dimensions as soon as one calculates."""
    params = model.params
    kinds = (np.ndarray, np.generic)
    if not isinstance(params, dict) or not params or not all(isinstance(value, kinds) for value in params.values()):
        raise UsageError("a model is a dictionary of numpy arrays here (server_expected_format: numpy)")
    return {name: np.asarray(value) for name, value in params.items()}


def instructions_in(total_rounds: Any, fl_ctx: FLContext) -> Instructions:
    """All that a trainer can read of the server, but for the model and the round's number."""
    return {"total rounds": total_rounds, "job": fl_ctx.get_job_id()}
