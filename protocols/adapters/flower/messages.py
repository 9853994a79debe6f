"""How plans, frames and models travel in Flower's messages, and how each side reads what the other may have written.

A message of ours has a config record ``secagg``: from the server it holds the plan, and in the first message of a round
the form; from a client its name. A frame is cut into chunks, each in a config record of its own. The first message of a
round carries no frame, but all records of the strategy's own message.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeAlias, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict, UserConfig
from flwr.common.constant import SType
from numpy.typing import NDArray

from protocols.adapters.instructions import Instructions
from secagg.errors import DecodeError, UsageError
from secagg.foreign import parse_array

MESSAGE_TYPE = "train.secagg"
RECORD = "secagg"
WEIGHTED_BY = "num-examples"
"""The metric by which clients are weighted, unless they say otherwise; Flower's own name for it."""
CHUNK_BYTES = 64 << 20
"""A frame travels in records of so many bytes: each is one protobuf, which cannot be larger than 2 GiB."""

_CHUNK = "secagg.frame."

Record: TypeAlias = ArrayRecord | ConfigRecord | MetricRecord
T = TypeVar("T")


def secagg_record(message: Message) -> ConfigRecord:
    record = message.content.config_records.get(RECORD) if message.has_content() else None
    if record is None:
        raise DecodeError("a message without a secagg record")
    return record


def field_of(record: ConfigRecord, key: str, kind: type[T]) -> T:
    """A field of a record, if it is of exactly this type."""
    value = record.get(key)
    if type(value) is not kind:
        raise DecodeError(f"a secagg record without {key}")
    return value


def content_with_frame(fields: Mapping[str, str | bytes], frame: bytes) -> RecordDict:
    """The content of a message: these fields in the record ``secagg``, and the frame in chunks."""
    parts = [frame[at : at + CHUNK_BYTES] for at in range(0, len(frame), CHUNK_BYTES)]
    chunks = {f"{_CHUNK}{i}": ConfigRecord({"bytes": part}) for i, part in enumerate(parts)}
    return RecordDict({RECORD: ConfigRecord({**fields, "chunks": len(parts)}), **chunks})


def frame_in(content: RecordDict) -> bytes:
    records = content.config_records
    count = field_of(records[RECORD], "chunks", int)
    names = [name for name in records if name.startswith(_CHUNK)]
    if len(names) != count or set(names) != {f"{_CHUNK}{i}" for i in range(len(names))}:
        raise DecodeError("chunks of a frame are missing")
    return b"".join([field_of(records[f"{_CHUNK}{i}"], "bytes", bytes) for i in range(count)])


def model_in(records: Mapping[str, Record]) -> tuple[str, ArrayRecord]:
    """The one record of arrays among these, and its name."""
    found = [(name, record) for name, record in records.items() if isinstance(record, ArrayRecord)]
    if len(found) != 1:
        raise UsageError(f"a model is one array record, not {len(found)}")
    return found[0]


def instructions_in(records: Mapping[str, Record], model: str, run: int, config: UserConfig) -> Instructions:
    """All that a train function can read of the server, but for the arrays, which are in the record named ``model``."""
    others = {name: [type(one).__name__, {**one}] for name, one in records.items() if name not in (model, RECORD)}
    return {"model": model, "records": others, "run": run, "run config": dict(config)}


def arrays_in(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Not by Flower's own ``Array.numpy``: that allocates what a header announces, and opens archives."""
    if any(array.stype != SType.NUMPY for array in record.values()):
        raise DecodeError("an array record that does not hold numpy arrays")
    return {name: parse_array(array.data) for name, array in record.items()}


def record_of(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """These arrays in one memory layout, whatever layout they came in."""
    return ArrayRecord({name: _in_one_layout(array) for name, array in arrays.items()})


def record_again(record: ArrayRecord, arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """``record_of`` the arrays that were read from a record. What is written so already is not written again."""
    return ArrayRecord({name: _as_it_is(record[name], array) for name, array in arrays.items()})


def _in_one_layout(array: NDArray[Any]) -> Array:
    return Array(np.array(array, order="C"))


def _as_it_is(sent: Array, array: NDArray[Any]) -> Array:
    """A model's bytes without a copy, if ``_in_one_layout`` would give the same: only its header leaves a choice."""
    if sent.data[: -array.nbytes or None] != _header_of(array):
        return _in_one_layout(array)
    return Array(dtype=str(array.dtype), shape=array.shape, stype=SType.NUMPY, data=sent.data)


def _header_of(array: NDArray[Any]) -> bytes:
    """What ``numpy.save`` writes before the numbers of an array, in the one layout."""
    header = np.lib.format.header_data_from_array_1_0(array) | {"fortran_order": False}
    out = BytesIO()
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()
