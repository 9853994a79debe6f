"""Hypothesis profiles: the same examples on every run, unless SECAGG_HYPOTHESIS=long asks for many fresh ones.

And no test leaves a database open behind it. What is collected stays to the end, so garbage is not looked for among it.
Libraries of linear algebra get one thread in each worker: on small matrices the others wait, and burn a core at it.
Temporary directories are in memory, if there is room: journals and ledgers wait for thousands of syncs otherwise.
"""

import gc
import os
import shutil
from collections.abc import Generator, Iterator

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read when they are first imported
    os.environ.setdefault(_threads, "1")

_MEMORY = "/dev/shm"
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 1 << 31:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from tests.connections import closed, watch  # noqa: E402

_ROUNDS = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("short", derandomize=True, deadline=None, max_examples=50, suppress_health_check=_ROUNDS)
settings.register_profile("long", deadline=None, max_examples=1000, suppress_health_check=_ROUNDS, print_blob=True)
settings.load_profile(os.environ.get("SECAGG_HYPOTHESIS", "short"))

watch()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def databases() -> Iterator[None]:
    """The first to be set up of what belongs to one test, so the last to be torn down."""
    with closed():
        yield
