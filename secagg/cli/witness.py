"""``secagg ledger heads``, ``prove``, ``included``, ``witness`` and ``evidence``: whether all were shown one ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from dp.ledger.entries import Chargeable, canonical, from_facts, parse, plain, unsigned
from dp.ledger.file import read
from dp.ledger.heads import SignedHead, cosigned_text
from dp.ledger.heads import line as signature_line
from dp.ledger.proofs import leaf_hash
from dp.ledger.state import LedgerState, Row, replay
from dp.ledger.witness import Compared, Consistency, Evidence, Inclusion, Log, compare_heads
from protocols.roster import Identity
from protocols.seen_heads import heads_in
from secagg.cli.exit_codes import CONSISTENT_ONLY
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.ledger_files import RunDir, file_of, key_in
from secagg.cli.output import Json, emit, line, say
from secagg.errors import DecodeError, PeerError, SecAggError, UsageError
from secagg.files import alone, read_file, write_file
from secagg.foreign import as_declared, named_file, parse_json

_MOST_BYTES = 1 << 28
_T = TypeVar("_T")

Key = Annotated[Path | None, typer.Option(help="File with the public key of the ledger's owner, in hexadecimal.")]


def heads(file: RunDir, keyring: KeyringFile = None, as_json: Json = False) -> None:
    """The signed heads of the server's ledger that are in a ledger, as JSON lines: what a party hands to a witness.

    In a client's own ledger they are in the plans of its sums; in that of a run, too, and its latest head is there.
    """
    rows = read(file_of(file), keys_of(keyring))
    state = replay(rows)
    found = heads_in(parse(body) for body, _ in rows)
    if all(head.ledger == state.heads[0] for head in found):
        found = list(dict.fromkeys([*found, _own_head(state, rows)]))
    _print(as_json, "heads", found)


def prove(
    run_dir: RunDir,
    first: Annotated[int | None, typer.Option(help="The size of the smaller of two heads.")] = None,
    second: Annotated[int | None, typer.Option(help="The size of the larger one; by default of all entries.")] = None,
    release: Annotated[str | None, typer.Option(help="The name of a release: of a sum the digest of its plan.")] = None,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Prove that the ledger of --second entries goes on from that of --first; or that a --release is in the ledger."""
    rows = read(file_of(run_dir), keys_of(keyring))
    state, leaves = replay(rows), [leaf_hash(body) for body, _ in rows]
    if (first is None) == (release is None):
        raise UsageError("say --first (and --second), or --release")
    if first is not None:
        proof: Any = Consistency.of(leaves, first, len(leaves) if second is None else second)
    else:
        named = [number for number, (body, _) in enumerate(rows) if parse(body).get("release") == release]
        if not named:
            raise UsageError("there is no such release in the ledger")
        proof = Inclusion.of(_own_head(state, rows), leaves, named[-1], rows[named[-1]][0])
    _print(as_json, "proofs", [proof])


def included(
    proof: Annotated[Path, typer.Argument(help="What ``secagg ledger prove --release`` has printed.")],
    own: Annotated[Path, typer.Argument(metavar="CLIENT_LEDGER", help="The ledger of a client that was in the sum.")],
    key: Key = None,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Check a proof that a sum in a client's own ledger is in the server's, with the same survivors.

    Exit code 0: it is, 4: it is not, 5: without --key anybody can have signed the head in the proof.
    """
    found = _one_line(proof, Inclusion)
    if found.head.owner != _owner([found.head], key):
        raise PeerError("the proof is of the ledger of another owner")
    found.check()
    entry = parse(found.entry.encode())
    name = str(entry.get("release"))
    mine = replay(read(file_of(own), keys_of(keyring))).records.get(name)
    if mine is None or mine.happened is None:
        raise UsageError(f"the client's ledger has no release {name}, or it is not committed there")
    if entry.get("phase") != "commit" or _facts_in(entry) != unsigned(mine.happened):
        raise PeerError("the entry says something else of this release than the client's ledger")
    said = (
        f"release {name} is entry {found.number} of the {found.head.size} in the ledger {found.head.ledger.hex()}, as "
        f"the client knows it; the head is {found.head.root.hex()}"
    )
    figures = {"release": name, "entry": found.number, "size": found.head.size, "head": found.head.root.hex()}
    emit(as_json, figures, line(said))
    _end_without(key)


def witness(
    state: Annotated[Path, typer.Argument(help="The witness's memory: the latest head that it has verified.")],
    heads: Annotated[list[Path], typer.Argument(help="Heads of several parties, each as ``heads`` prints them.")],
    key: Key = None,
    log: Annotated[Path | None, typer.Option(help="The server's run, or its ledger.")] = None,
    proofs: Annotated[Path | None, typer.Option(help="Without the ledger: what ``prove`` has printed.")] = None,
    identity: Annotated[Path | None, typer.Option(help="The witness's own identity, to cosign the head.")] = None,
    note: Annotated[Path | None, typer.Option(help="Where to write the cosigned head, as a signed note.")] = None,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Compare the heads that several parties were shown: are all of them of one ledger?

    A new witness remembers a head under --key only: else whoever hands in the first head would say whose ledger it is.

    Exit code 0: all are beginnings of the latest one, which the witness remembers. 4: they are not, and what proves it
    is written beside STATE; or a signature or a proof does not hold. 5: a proof is missing, or --key.
    """
    if (identity is None) != (note is None):
        raise UsageError("a head is cosigned with --identity, and written to --note")
    if identity is not None and key is None:
        raise UsageError("a head is cosigned under a --key only: without one, anybody can have signed it")
    keys = keys_of(keyring)
    cosigner = None if identity is None else Identity.load(identity, keys)
    with alone(state.absolute().parent):  # two processes could each believe, and cosign, another ledger
        ledger = None if log is None else read(file_of(log), keys)
        _witness(state, heads, key, ledger, proofs, cosigner, note, as_json)


def evidence(
    file: Annotated[Path, typer.Argument(help="What ``secagg ledger witness`` has written.")],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Check evidence of a split view again.

    Exit code 4: the owner of the key has signed two heads that do not agree. 2: this shows nothing.
    """
    found = _one_line(file, Evidence)
    found.check()
    if key is not None and found.first.owner != key_in(key):
        raise DecodeError("these are heads of another owner")
    raise PeerError(f"split view: {found}")


@dataclass(frozen=True, slots=True)
class _Memory:
    latest: SignedHead


def _witness(
    path: Path,
    files: Sequence[Path],
    key: Path | None,
    log: Sequence[Row] | None,
    proofs: Path | None,
    cosigner: Identity | None,
    note: Path | None,
    as_json: bool,
) -> None:
    known = _remembered(path)
    told = {f"{file}, line {number}": head for file in files for number, head in enumerate(_lines(file, SignedHead), 1)}
    owner = _owner([*([] if known is None else [known]), *told.values()], key)
    if known is not None:
        told = {f"{path}": known, **told}
    if log is not None:
        inside = heads_in(parse(body) for body, _ in log)
        told |= {f"the ledger, head {number}": head for number, head in enumerate(inside, 1)}
    if known is not None and known.owner != owner:
        raise PeerError(f"{path} is the memory of a witness of another owner's ledger")
    told, all_told = {where: head for where, head in told.items() if head.owner == owner}, len(told)
    for where, head in told.items():
        head.check(where)
    given = [] if proofs is None else _lines(proofs, Consistency)
    found = compare_heads(told.values(), given, None if log is None else _log(log, owner))
    if found.evidence is not None:
        _accuse(path, found.evidence)
    latest = found.latest
    if latest is None:
        raise UsageError("there are no heads to compare")
    if (known is None and key is not None) or (known is not None and latest.size > known.size):
        write_file(path, canonical(plain(_Memory(latest))) + b"\n", private=False)
    if cosigner is not None and note is not None and not found.unproven:
        text = cosigned(latest, cosigner, int(time.time()))
        write_file(note, text.encode(), private=False)
    _tell(as_json, found, latest, len(told), all_told - len(told))
    if found.unproven:
        raise typer.Exit(CONSISTENT_ONLY)
    _end_without(key)


def _accuse(path: Path, evidence: Evidence) -> None:
    beside = path.with_name(f"{path.name}.split-view")
    write_file(beside, canonical(plain(evidence)) + b"\n", private=False)
    raise PeerError(f"split view: {evidence}; the evidence is in {beside}")


def _tell(as_json: bool, found: Compared, latest: SignedHead, told: int, strangers: int) -> None:
    said = [f"{strangers} heads of other owners: not looked at"] if strangers else []
    said += [f"{told} heads: consistent up to {latest.size} entries, head {latest.root.hex()}"]
    said += [f"no proof given for sizes {first} and {second}" for first, second in found.unproven]
    figures = {
        "heads": told,
        "of_other_owners": strangers,
        "ledger": latest.ledger.hex(),
        "consistent_up_to": latest.size,
        "head": latest.root.hex(),
        "unproven": [list(pair) for pair in found.unproven],
    }
    if as_json:
        emit(as_json, figures, "")
    else:
        for text in said:
            say(text)


def cosigned(head: SignedHead, witness: Identity, when: int) -> str:
    """A note of the head with the witness's cosignature (C2SP, tlog-cosignature): that it is the latest of those that
    this witness has seen, all of which agree, at a time in seconds."""
    if any(one.isspace() or one == "+" for one in witness.name):
        raise UsageError("in a note the name of a key has no spaces and no plus sign: take another identity")
    stamp, text = when.to_bytes(8, "big"), cosigned_text(head, when)
    return head.note() + signature_line(witness.name, 4, witness.key.public, stamp + witness.key.sign_raw(text))


def _remembered(path: Path) -> SignedHead | None:
    try:
        return as_declared(_Memory, parse_json(read_file(path, most=1 << 16)), "the memory").latest  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None
    except DecodeError as error:
        raise DecodeError(f"{path} is not the memory of a witness: {error}") from None


def _lines(path: Path, kind: type[_T]) -> list[_T]:
    """A file of JSON lines, each of this kind."""
    found = list[_T]()
    for number, text in enumerate(named_file(path, most=_MOST_BYTES).splitlines(), 1):
        try:
            found.append(as_declared(kind, parse_json(text), "it"))
        except DecodeError as error:
            raise DecodeError(f"{path}, line {number}: {error}") from None
    return found


def _one_line(path: Path, kind: type[_T]) -> _T:
    found = _lines(path, kind)
    if len(found) != 1:
        raise DecodeError(f"{path} has {len(found)} lines, and not the one of a {kind.__name__.lower()}")
    return found[0]


def _facts_in(entry: Mapping[str, Any]) -> Chargeable:
    try:
        return unsigned(from_facts(entry))
    except (SecAggError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise PeerError(f"the entry in the proof is none: {error}") from None


def _owner(heads: Sequence[SignedHead], key: Path | None) -> bytes:
    if (owner := key_in(key)) is not None:
        return owner
    if not heads:
        raise UsageError("there are no heads to compare")
    return heads[0].owner


def _own_head(state: LedgerState, rows: Sequence[Row]) -> SignedHead:
    return SignedHead(state.genesis.owner, state.heads[0], len(rows), state.head, rows[-1][1])


def _log(rows: Sequence[Row], owner: bytes) -> Log:
    state = replay(rows, owner)
    return Log(_own_head(state, rows), [leaf_hash(body) for body, _ in rows], state.heads)


def _print(as_json: bool, name: str, values: Sequence[Any]) -> None:
    if as_json:
        emit(as_json, {name: [plain(value) for value in values]}, "")
    else:
        for value in values:
            say(canonical(plain(value)).decode())


def _end_without(key: Path | None) -> None:
    if key is None:
        raise typer.Exit(CONSISTENT_ONLY)
