"""Which checks there are, and which tests are to kill their mutants: each stratum's own folders and the attacks on it.

The files of a stratum are tried in the order in which they stand here, the likely killer first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.mutants.operators import ROOT

PINNED = ("tests/protocols/test_vectors.py",)
"""Never killers: they compare bytes that a regeneration would change together with the mutant."""

ROUNDS = (
    "tests/protocols/test_client_ledgers.py",
    "tests/protocols/test_private_rounds.py",
    "tests/protocols/test_foreign_parameters.py",
    "tests/protocols/test_contexts.py",
    "tests/protocols/test_too_few.py",
)
"""Tests of all protocols."""

FIRST = {"charge": "tests/protocols/test_client_ledgers.py", "context": "tests/protocols/test_contexts.py"}
"""The likely killer of an operator whose mutants run in every test."""

ELSEWHERE = {"protocols/ckks/child.py": "protocols/ckks/ciphertexts.py::_Child.call::never::refused"}
"""A file that runs in a process of its own cannot be watched: its mutants matter where this one does."""

ABSENT = ("tests/mutants/",)
"""Nor is the test of this tool."""


@dataclass(frozen=True, slots=True)
class Stratum:
    name: str
    sources: tuple[str, ...]
    tests: tuple[str, ...]

    def source_files(self) -> list[str]:
        return list(dict.fromkeys(files_of(self.sources, "*.py")))

    def test_files(self) -> list[str]:
        found = dict.fromkeys(files_of(self.tests, "test_*.py"))
        return [file for file in found if file not in PINNED and not file.startswith(ABSENT)]


STRATA = (
    Stratum(
        "primitives",
        (
            "secagg/crypto/seal.py",
            "secagg/crypto/shamir.py",
            "secagg/crypto/packed.py",
            "secagg/crypto/field.py",
            "secagg/crypto/merkle.py",
            "secagg/codec.py",
            "secagg/crypto/keys.py",
            "secagg/crypto/curve25519.py",
            "secagg/crypto/graph.py",
            "secagg/crypto/ring.py",
            "secagg/crypto/prg.py",
            "secagg/crypto/masking.py",
            "secagg/encoding.py",
            "secagg/sketches.py",
            "secagg/rounding",
        ),
        (
            "tests/secagg/crypto/test_*.py",
            "tests/secagg/rounding",
            "tests/secagg/test_*.py",
            "tests/adversarial",
            "tests/fuzz",
        ),
    ),
    Stratum(
        "files",
        (
            "secagg/files.py",
            "secagg/at_rest.py",
            "secagg/tensors.py",
            "secagg/printable.py",
            "secagg/names.py",
            "recsys/export.py",
            "recsys/run_record.py",
            "recsys/sealing.py",
        ),
        (
            "tests/secagg/test_files.py",
            "tests/secagg/test_at_rest.py",
            "tests/recsys/test_run_record.py",
            "tests/recsys/test_signed_record.py",
            "tests/recsys/test_sealed_run.py",
            "tests/cli/test_seal.py",
            "tests/secagg/test_tensors.py",
            "tests/secagg/test_printable.py",
            "tests/recsys/test_export.py",
            "tests/adversarial/test_run_folders.py",
            "tests/cli/test_output.py",
        ),
    ),
    Stratum("labels", ("secagg/crypto/labels.py",), ("tests/secagg/crypto/test_keys.py",)),
    Stratum(
        "context",
        ("secagg/crypto/keys.py",),
        (
            "tests/protocols/test_contexts.py",
            "tests/adversarial",
            "tests/protocols/test_*.py",
            "tests/protocols/oneshot",
            "tests/protocols/ckks",
            "tests/protocols/threshold_ckks",
            "tests/dp/test_noise.py",
            "tests/dp/ledger",
            "tests/recsys/test_participation.py",
            "tests/secagg/crypto/lattice",
        ),
    ),
    Stratum(
        "parameters",
        ("secagg/params.py", "secagg/assumptions.py", "secagg/hypergeometric.py", "secagg/crypto/sampling"),
        (
            "tests/secagg/test_params*.py",
            "tests/secagg/test_hypergeometric.py",
            "tests/secagg/crypto/test_sampling.py",
            "tests/secagg/test_sampling*.py",
            "tests/protocols/test_policy.py",
        ),
    ),
    Stratum(
        "lattice",
        ("secagg/crypto/lattice",),
        ("tests/secagg/crypto/lattice", "tests/adversarial/test_li_micciancio.py", "tests/protocols/oneshot"),
    ),
    Stratum(
        "pairwise",
        ("protocols/pairwise",),
        (
            "tests/adversarial/pairwise/test_frames.py",
            "tests/adversarial/pairwise/test_server.py",
            "tests/adversarial/pairwise/test_survivors.py",
            "tests/adversarial/test_shares.py",
            "tests/adversarial/pairwise/test_plans.py",
            "tests/adversarial/pairwise/test_cut.py",
            "tests/adversarial",
            "tests/conformance",
            "tests/oracle",
            "tests/protocols/test_*.py",
        ),
    ),
    Stratum(
        "oneshot",
        ("protocols/oneshot",),
        (
            "tests/adversarial/oneshot",
            "tests/protocols/oneshot",
            "tests/conformance",
            *ROUNDS,
        ),
    ),
    Stratum(
        "ckks",
        ("protocols/ckks",),
        (
            "tests/adversarial/test_low_order.py",
            "tests/adversarial/test_bitmaps.py",
            "tests/adversarial/ckks",
            "tests/protocols/ckks",
            "tests/conformance",
            *ROUNDS,
        ),
    ),
    Stratum(
        "threshold_ckks",
        ("protocols/threshold_ckks",),
        (
            "tests/adversarial/test_low_order.py",
            "tests/adversarial/test_bitmaps.py",
            "tests/adversarial/threshold_ckks",
            "tests/protocols/threshold_ckks",
            "tests/conformance",
            *ROUNDS,
        ),
    ),
    Stratum(
        "round",
        (
            "protocols/plan.py",
            "protocols/policy.py",
            "protocols/roster.py",
            "protocols/wire.py",
            "protocols/journal.py",
            "protocols/newest.py",
            "protocols/residuals.py",
            "protocols/seen_heads.py",
            "protocols/client.py",
            "protocols/server.py",
            "protocols/rounds/client.py",
            "protocols/rounds/server.py",
            "protocols/rounds/steps.py",
            "protocols/outcome.py",
            "protocols/registry.py",
            "protocols/simulation/audited.py",
            "secagg/signed_versions.py",
        ),
        (
            "tests/secagg/test_signed_versions.py",
            "tests/adversarial/pairwise/test_plans.py",
            "tests/adversarial/pairwise/test_restart.py",
            "tests/protocols/test_*.py",
            "tests/adversarial",
            "tests/conformance",
            "tests/fuzz",
            "tests/cli/test_roster.py",
        ),
    ),
    Stratum(
        "cohort",
        (
            "protocols/parameters.py",
            "protocols/rounds/admission.py",
            "protocols/rounds/cohort.py",
            "protocols/rounds/dealer.py",
            "protocols/rounds/dealing.py",
            "protocols/rounds/excess.py",
            "protocols/rounds/exchange.py",
            "protocols/rounds/sets.py",
            "protocols/rounds/survivors.py",
        ),
        (
            "tests/adversarial/pairwise/test_cohort.py",
            "tests/adversarial",
            "tests/protocols/rounds",
            "tests/protocols/test_*.py",
            "tests/protocols/oneshot",
            "tests/protocols/ckks",
            "tests/protocols/threshold_ckks",
            "tests/conformance",
        ),
    ),
    Stratum(
        "tree",
        (
            "protocols/tree.py",
            "dp/tree.py",
            "protocols/engines",
            "protocols/simulation/network.py",
            "protocols/simulation/trees.py",
            "protocols/simulation/workers.py",
        ),
        (
            "tests/adversarial/test_tree.py",
            "tests/protocols/test_tree.py",
            "tests/dp/test_tree.py",
            "tests/protocols/engines",
            "tests/protocols/test_*.py",
            "tests/conformance",
        ),
    ),
    Stratum(
        "sparse",
        ("protocols/sparse.py", "dp/threshold.py"),
        ("tests/protocols/test_sparse.py", "tests/dp/test_threshold.py", "tests/statistical/test_threshold.py"),
    ),
    Stratum("buffers", ("protocols/buffers.py",), ("tests/protocols/test_buffers.py",)),
    Stratum("adapters", ("protocols/adapters",), ("tests/protocols/adapters",)),
    Stratum(
        "ledger",
        (
            "dp/ledger",
            "dp/verify_ledger.py",
            "secagg/cli/witness.py",
            "dp/turns.py",
            "dp/arrivals.py",
            "dp/client_filters.py",
        ),
        (
            "tests/dp/ledger",
            "tests/dp/test_turns.py",
            "tests/cli/test_witness.py",
            "tests/cli/test_ledger.py",
            "tests/protocols/test_private_rounds.py",
        ),
    ),
    Stratum(
        "budget",
        (
            "dp/filter.py",
            "dp/noise.py",
            "dp/secure_sum.py",
            "dp/events.py",
            "dp/calibrate.py",
            "dp/accountants",
        ),
        ("tests/dp/test_*.py", "tests/dp/ledger", "tests/protocols/test_private_rounds.py", "tests/conformance"),
    ),
    Stratum(
        "recommender",
        (
            "recsys/pending_sum.py",
            "recsys/config.py",
            "recsys/federated.py",
            "recsys/kept_by_clients.py",
            "recsys/personal_heads.py",
            "recsys/served_heads.py",
            "recsys/network.py",
            "recsys/participation.py",
            "recsys/turns.py",
            "recsys/callers.py",
            "recsys/training_state.py",
            "recsys/assembly.py",
            "recsys/budgets.py",
            "recsys/sources.py",
            "recsys/requested_sums.py",
            "recsys/users_in_silos.py",
            "recsys/run_record.py",
            "recsys/run.py",
            "recsys/aggregator.py",
            "recsys/deployment.py",
            "recsys/secure_aggregator.py",
        ),
        (
            "tests/recsys/test_*.py",
            "tests/cli/test_train.py",
            "tests/cli/test_audit.py",
        ),
    ),
    Stratum(
        "streams",
        ("recsys/stream", "recsys/data/arrow.py"),
        ("tests/recsys/stream", "tests/recsys/data/test_arrow.py", "tests/recsys/data/test_tables.py"),
    ),
    Stratum("texts", ("recsys/text", "recsys/places.py"), ("tests/recsys/text", "tests/recsys/test_o*.py")),
)


def files_of(patterns: tuple[str, ...], ending: str) -> Iterator[str]:
    """What each pattern names, a file, a folder or several of them. One that names nothing has lost its file."""
    for pattern in patterns:
        found = [ROOT / pattern] if (ROOT / pattern).is_file() else sorted(ROOT.glob(pattern))
        for path in found:
            inside = sorted(path.rglob(ending)) if path.is_dir() else [path]
            yield from (str(file.relative_to(ROOT)) for file in inside if "__pycache__" not in file.parts)
