"""The stand-alone verifier of the vectors accepts them and nothing else. It, the library and docs/wire.md agree."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.ckks import messages as ckks
from protocols.oneshot.parameters import CommitteeSize, lattice_of, sharing_of
from protocols.plan import RoundPlan
from secagg.assumptions import CostModel
from secagg.encoding import Encoding
from secagg.errors import UsageError
from tests.vectors import make, verify, wire_tables
from tests.vectors.samples import SAMPLES

FOLDER = Path(verify.__file__).parent


@cache
def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return content


def test_it_stands_alone_and_accepts_all_vectors(tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-I", verify.__file__], cwd=tmp_path, env=plain, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split(":")[0] for line in ran.stdout.splitlines()] == list(verify.VERIFIERS)


def test_it_imports_nothing_of_the_library() -> None:
    imported = set()
    for node in ast.walk(ast.parse(Path(verify.__file__).read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        imported |= {name.split(".")[0] for name in names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported <= sys.stdlib_module_names | {"numpy", "cryptography"}


def test_all_files_are_verified_or_said_not_to_be() -> None:
    text = (FOLDER / "README.md").read_text()
    for path in FOLDER.glob("*.json"):
        rows = [line.split("|") for line in text.splitlines() if line.startswith("|")]
        [row] = [row for row in rows if f"`{path.name}`" in row[1]]
        assert row[-2].strip().startswith("nothing") == (path.name not in verify.VERIFIERS)


@pytest.mark.parametrize("name", ["missing", "cut"])
def test_what_is_no_file_of_vectors_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "cut":
        (tmp_path / "plans.json").write_text((FOLDER / "plans.json").read_text()[:1000])
    assert verify.main([str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# Tampering


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all numbers and texts."""
    if isinstance(value, dict):
        return [leaf for name, item in value.items() for leaf in leaves(item, (*path, name))]
    if isinstance(value, list):
        return [leaf for at, item in enumerate(value) for leaf in leaves(item, (*path, at))]
    return [path]


def changed(content: dict[str, Any], path: tuple[Any, ...], at: float) -> dict[str, Any]:
    """The content with one value replaced by another of its kind; ``at`` says where in a text."""
    out = deepcopy(content)
    inside: Any = out
    for name in path[:-1]:
        inside = inside[name]
    value = inside[path[-1]]
    if isinstance(value, bool):
        inside[path[-1]] = not value
    elif isinstance(value, int | float):
        inside[path[-1]] = value + 1
    elif value:
        place = int(at * len(value))
        inside[path[-1]] = value[:place] + ("0" if value[place] != "0" else "1") + value[place + 1 :]
    else:
        inside[path[-1]] = "00"
    return out


def unchecked(name: str, content: dict[str, Any], path: tuple[Any, ...]) -> bool:
    """What is said about vectors and is no vector, and what the README says is not verified. Tampered frames are asked
    for below: another one may be as bad."""
    words = {part for part in path if isinstance(part, str)}
    if words & {"provenance", "policy", "bounces", "undecodable", "phase", "silent_from", "complains"}:
        return True
    if path[0] == "clients" and content["clients"][path[1]]["silent_from"]:  # it may have sent nothing of this
        return path[2] in ("rng", "update", "weight")
    if name == "round-threshold-ckks.json":
        return path[0] in ("frames", "survivors_digest") or "rng" in words
    return (name == "plans.json" and path[-1] == "name") or (name == "messages.json" and path[-1] == "plan")


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.long)], ids=["few", "many"])
@pytest.mark.parametrize("name", list(verify.VERIFIERS))
def test_a_tampered_vector_is_refused(name: str, many: bool) -> None:
    content = load(name)
    found = [path for path in leaves(content) if not unchecked(name, content, path)]
    rng = np.random.default_rng(len(name))
    chosen = rng.choice(len(found), min(len(found), 200 if many else 2), replace=False)
    for place in chosen:
        tampered = changed(content, found[place], rng.random())
        with pytest.raises(verify.Wrong):
            verify.verify(name, tampered, FOLDER)


@pytest.mark.parametrize("name", ["round-secagg.json", "round-secagg-plus.json", "round-oneshot.json"])
def test_a_tampered_frame_that_is_none_is_noticed(name: str) -> None:
    """Control: where a file says that a frame bounced off, the verifier finds out that it would."""
    content = load(name)
    for at in [at for at, entry in enumerate(content["frames"]) if "bounces" in entry][::4]:
        wrong = deepcopy(content)
        wrong["frames"][at]["bounces"][0]["frame"] = wrong["frames"][at]["frame"]
        with pytest.raises(verify.Wrong, match="is as good as the true one"):
            verify.verify(name, wrong, FOLDER)


@pytest.mark.parametrize(("name", "group"), [("plans.json", None), ("messages.json", 1)])
def test_an_undecodable_vector_that_is_none_is_noticed(name: str, group: int | None) -> None:
    wrong = deepcopy(load(name))
    inside = wrong if group is None else wrong["protocols"][group]
    good = wrong["plans"][0]["encoding"] if group is None else inside["frames"][0]["frame"]
    inside["undecodable"][-1]["encoding" if group is None else "frame"] = good
    with pytest.raises(verify.Wrong, match="it is decoded"):
        verify.verify(name, wrong, FOLDER)


# The page, the verifier and the library


def test_the_page_has_the_tables_of_the_verifier() -> None:
    page = wire_tables.PAGE.read_text()
    assert wire_tables.renewed(page) == page
    assert wire_tables.renewed(page.replace("| 1 | `Join` |", "| 2 | `Join` |")) == page


def test_the_verifier_has_the_protocols_of_the_library() -> None:
    assert {name: code for name, (code, _, _) in verify.PROTOCOLS.items()} == {
        name: registry.find(name).code for name in registry.names()
    }
    for name in registry.names():
        kinds = [kind.__name__ for kind in registry.find(name).messages.types]
        assert verify.PROTOCOLS[name][2] == dict(enumerate(kinds, 1))


PLANS = {
    "secagg+": make.plan_secagg_plus, "oneshot": make.plan_oneshot, "ckks": make.plan_ckks,
    "threshold_ckks": make.plan_threshold_ckks,
}  # fmt: skip


class Long(tuple[Any, ...]):
    """Something longer than any list or text of bytes could be made."""

    length: int

    def __len__(self) -> int:
        return self.length


def too_long(most: int) -> Long:
    value = Long()
    value.length = most + 1
    return value


@pytest.mark.parametrize("protocol", list(SAMPLES))
def test_bounds_are_those_of_the_library(protocol: str) -> None:
    """Each message's own lists and blobs; those of structures within it go by the same tables."""
    plan, wire = PLANS[protocol](), registry.find(protocol).messages
    known = verify.COMMON | verify.PROTOCOLS[protocol][1]
    for message in SAMPLES[protocol]():
        for field, kind in known[type(message).__name__].items():
            head, _, rest = kind.partition(" ")
            if head in ("blob", "list"):
                most = verify.amount(rest.split()[0])
                wrong: Any = replace(message, **{field: too_long(most)})  # type: ignore[type-var]
                with pytest.raises(UsageError, match=rf"^{most + 1} (bytes|items), at most {most} allowed$"):
                    wire.encode(plan, wrong)


def test_what_ckks_seals_has_the_layout_of_the_tables() -> None:
    header = ckks.KeyHeader(1, b"p" * 32, b"q" * 32, b"K" * 64)
    made = ckks.MadeKey(header, b"P" * 5, b"Q" * 6, (b"B" * 60, b"C" * 60))
    encrypted = ckks.Encrypted(b"S" * 64, (b"x" * 3, b"y" * 4))
    known = verify.PROTOCOLS["ckks"][1]
    for codec, value in ((ckks.MADE, made), (ckks.ENCRYPTED, encrypted)):
        name, data = type(value).__name__, codec.encode(value)
        reader = verify.Reader(data)
        assert verify.read(name, reader, known) == make.plain(value)
        assert reader.at == len(data)


@pytest.mark.parametrize(
    ("length", "bits", "members", "corrupt", "clients", "model"),
    [(100, 6, 5, 0, 5, "core-svp"), (30_000, 16, 40, 4, 40, "core-svp"), (1_000_000, 8, 75, 32, 1000, "standard")],
)
def test_rings_and_shares_are_those_of_the_library(
    length: int, bits: int, members: int, corrupt: int, clients: int, model: str
) -> None:
    plan = make.plan_oneshot()
    encoding, parameters = Encoding.integers(length, bits), CommitteeSize(members, corrupt, CostModel(model))
    plan = replace(
        plan,
        clients=clients,
        min_contributors=clients // 2 + 1,
        encoding=encoding,
        ring_bits=encoding.ring_bits(clients),
        parameters=parameters,
    )
    theirs, ours = verify.Plan(plan.encode()), lattice_of(plan).layout
    assert verify.lattice_of(theirs) == {
        "degree": ours.ring.degree,
        "primes": ours.ring.primes,
        "width": ours.width,
        "values": ours.values,
        "tail": ours.tail,
    }
    shares, shown = sharing_of(plan), verify.sharing_of(ours.ring.degree, clients, theirs.fields["parameters"])
    assert (shares.bound, shares.digits, shares.packing) == (shown["bound"], shown["digits"], shown["packing"])
    assert (shares.polynomials, shares.threshold) == (shown["polynomials"], shown["quorum"])


def test_noise_widens_the_ring_as_in_the_library() -> None:
    plan = make.plan_noised()
    for variance in (Fraction(1), Fraction(10**5, 3)):
        assert plan.noise is not None
        noise = replace(plan.noise, variance=variance)
        wide = plan.encoding.ring_bits(plan.clients, noise.coordinate_bound(plan.clients, plan.encoding.coordinates))
        fits = replace(plan, noise=noise, ring_bits=wide)
        assert verify.Plan(fits.encode()).fields["ring_bits"] == wide
        assert verify.noise_bound(verify.Plan(fits.encode())) == fits.noise_bound
        at = fits.encode().index(RoundPlan.encode(fits)[:1])  # the first byte, for a plan that is one bit too narrow
        narrow = bytearray(fits.encode())
        narrow[at + 4 + len("secagg+") + 16 + 4 + 32 + 32 + 4 + 4] = wide - 1
        with pytest.raises(verify.Wrong, match="a ring of another width"):
            verify.Plan(bytes(narrow))
