"""The numbers that the model multiplies: what each piece of a round costs on one machine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite

from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """The seconds that one of each takes, or its bytes where the name says so. Zero if an extra is missing for it."""

    start: float
    """A client makes its first message: it checks the plan, makes two keys, signs, and writes its journal."""
    frame: float
    """A message is taken in, whatever is in it, by a processor whose caches hold something else."""
    sign: float
    verify: float
    agree: float
    """A secret is agreed on (X25519), and a key derived from it."""
    box: float
    """The same, and a share is put under a pad, with commitments."""
    hash: float
    """A byte is hashed."""
    seal: float
    """A byte is encrypted and authenticated, as in a client's journal."""
    copy: float
    """A byte is copied."""
    unbox: float
    """A box is opened and checked; its key is agreed on already."""
    take: float
    """The server takes a box in."""
    deliver: float
    """The server hands a box to its holder."""
    check: float
    """A share that is revealed is checked against its commitment."""
    stream: float
    """A mask is begun, before its first byte."""
    mask: float
    """A byte of a mask is made and added."""
    encode: float
    """A coordinate is scaled, rounded and weighed."""
    pack: float
    """A coordinate is lifted into the ring and packed."""
    add: float
    """A packed coordinate is unpacked and added."""
    centre: float
    """A coordinate of the ring becomes a signed integer."""
    deal_step: float
    """A coefficient of the polynomials with which secrets are dealt is drawn."""
    deal: float
    """Such a coefficient is evaluated for one holder and one value."""
    rebuild: float
    """A secret is rebuilt from t shares, over t^2."""
    share: float
    """The server reads a share of a secret, and keeps it."""
    item: float
    """An item of a message is written or read."""
    header: float
    """The header of an upload is written or read."""
    record: float
    """An item that has only plain fields is written or read."""
    climb: float
    """A node of a Merkle tree is checked."""
    prove: float
    """A node of a Merkle tree is looked up."""
    member: float
    """A bit of a set of clients is read."""
    order: float
    """A client gets its place in the graph, over log2 n."""
    scan: float
    """An element of a list is looked at."""
    uniform: float = 0
    """A residue of a public polynomial is made."""
    gaussian: float = 0
    """A narrow discrete Gaussian is sampled."""
    flood: float = 0
    """A wide one is sampled, over its number of parts."""
    transform: float = 0
    """A residue is transformed, at N = 4096."""
    product: float = 0
    """A residue of a product of evaluations is made and transformed back, at N = 4096."""
    lift: float = 0
    """A residue is lifted, for each column."""
    residue_pack: float = 0
    residue_unpack: float = 0
    residue_add: float = 0
    decode: float = 0
    """A residue of a sum is decoded."""
    split: float = 0
    """One product in the field, when packed shares are made."""
    ckks_keys: float = 0
    """A pair of keys is made."""
    ckks_check: float = 0
    """A public key is read and checked."""
    ckks_encrypt: float = 0
    """A ciphertext is made."""
    ckks_add: float = 0
    ckks_decrypt: float = 0
    ckks_public_bytes: float = 0
    ckks_secret_bytes: float = 0
    ckks_ciphertext_bytes: float = 0
    ckks_sum_bytes: float = 0

    def __post_init__(self) -> None:
        if not all(isfinite(getattr(self, field.name)) and getattr(self, field.name) >= 0 for field in fields(self)):
            raise UsageError("what something costs is a number, and not negative")
