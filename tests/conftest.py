"""Hypothesis profiles: the same examples on every run, unless SECAGG_HYPOTHESIS=long asks for many fresh ones.

By default a test that is marked ``thinned(k)`` runs one in k of its variants: the sum of the places that its parameters
have in their lists decides. So of k protocols times lies each lie is told under one protocol, and each protocol hears
one lie in k. ``make test-long`` runs all, and so does ``--all-variants``.
In a test all parties live in one process: a signature that one of them has verified is good for the others, too.
And no test leaves a database open behind it. What is collected stays to the end, so garbage is not looked for among it.
Libraries of linear algebra get one thread in each worker: on small matrices the others wait, and burn a core at it.
Temporary directories are in memory, if there is room: journals and ledgers wait for thousands of syncs otherwise.
"""

import gc
import os
import shutil
from collections.abc import Generator, Iterator
from zlib import crc32

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read when they are first imported
    os.environ.setdefault(_threads, "1")

_MEMORY = "/dev/shm"
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 1 << 31:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from secagg.crypto.keys import Known, verifying_once  # noqa: E402
from tests.connections import closed, watch  # noqa: E402

_ROUNDS = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("short", derandomize=True, deadline=None, max_examples=30, suppress_health_check=_ROUNDS)
settings.register_profile("long", deadline=None, max_examples=1000, suppress_health_check=_ROUNDS, print_blob=True)
settings.load_profile(os.environ.get("SECAGG_HYPOTHESIS", "short"))

watch()
_VERIFIED = Known().signatures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-variants", action="store_true", help="also of tests that are thinned by default")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.all_variants or config.option.markexpr != "not long":
        return
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {item for name, family in families.items() for item in _by_default(name, family)}
    left_out = [item for item in items if item not in kept]
    items[:] = [item for item in items if item in kept]
    config.hook.pytest_deselected(items=left_out)


def _by_default(name: str, family: list[pytest.Item]) -> list[pytest.Item]:
    """Where the count begins follows from the test's name: of two protocols each has half of the tests."""
    mark = family[0].get_closest_marker("thinned")
    if mark is None or len(family) == 1:
        return family
    begin = crc32(name.encode())
    places = [sum(getattr(item, "callspec").indices.values()) for item in family]  # noqa: B009
    found = [item for item, place in zip(family, places, strict=True) if (begin + place) % mark.args[0] == 0]
    return found or family[:1]


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
    with closed(), verifying_once(Known(_VERIFIED)):
        yield
