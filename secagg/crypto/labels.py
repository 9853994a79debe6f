"""Every domain-separation label, in one place, so that no two uses of a key or a hash can be confused.

A label names one purpose. It starts each signed or hashed message and each HKDF ``info``. Its bytes never change: a
part of it that looks like the name of a protocol says where the label was first used, not where it is used now.
"""

from __future__ import annotations

from typing import Final

PLAN: Final = b"secagg/v1/plan"
ROSTER: Final = b"secagg/v1/roster"
ROTATION: Final = b"secagg/v1/rotation"
SKETCH: Final = b"secagg/v1/sketch"

VERSION_MODEL: Final = b"secagg/v1/version/model"  # a deployment signs under these three, and under no other
VERSION_ROSTER: Final = b"secagg/v1/version/roster"
VERSION_FOLDER: Final = b"secagg/v1/version/folder"

LEAF: Final = b"secagg/v1/merkle/leaf"
NODE: Final = b"secagg/v1/merkle/node"
ROOT: Final = b"secagg/v1/merkle/root"
GRAPH: Final = b"secagg/v1/graph"

CLIENT_SECRET: Final = b"secagg/v1/client/secret"  # with a purpose: all that a client draws in one round
JOURNAL_KEY: Final = b"secagg/v1/journal/key"
JOURNAL_RECORD: Final = b"secagg/v1/journal/record"
JOURNAL_DEPLOYMENT: Final = b"secagg/v1/journal/deployment"
JOURNAL_SESSION: Final = b"secagg/v1/journal/session"
JOURNAL_LEDGER: Final = b"secagg/v1/journal/ledger"
JOURNAL_HEAD: Final = b"secagg/v1/journal/head"
JOURNAL_RESIDUAL: Final = b"secagg/v1/journal/residual"
JOURNAL_VERSION: Final = b"secagg/v1/journal/version"

SHARE_COMMITMENT: Final = b"secagg/v1/dealing/commitment"
CHALLENGE: Final = b"secagg/v1/dealing/challenge"
BOX: Final = b"secagg/v1/dealing/box"
COMPLAINT: Final = b"secagg/v1/dealing/complaint"

ADVERT: Final = b"secagg/v1/pairwise/advert"
SELF_COMMITMENT: Final = b"secagg/v1/pairwise/self-commitment"
SHARE_KEY: Final = b"secagg/v1/pairwise/share-key"
PAIR_MASK: Final = b"secagg/v1/pairwise/pair-mask"
SELF_MASK: Final = b"secagg/v1/pairwise/self-mask"
VECTOR: Final = b"secagg/v1/pairwise/vector"
UPLOAD: Final = b"secagg/v1/pairwise/upload"
SURVIVORS: Final = b"secagg/v1/pairwise/survivors"  # survivors of every protocol sign under it, and ledgers keep that

NOISE_DRAW: Final = b"secagg/v1/noise/draw"
NOISE_CHAIN: Final = b"secagg/v1/noise/chain"

LEDGER_HEAD: Final = b"secagg/v1/ledger/head"  # begins the note that is signed, and is no part of a transcript
LEDGER_TURNS: Final = b"secagg/v1/ledger/turns"  # the order in which clients take turns
LEDGER_DATA: Final = b"secagg/v1/ledger/data"  # with whose data it is: a mark that only the secret's keeper can tell
RUN_RECORD: Final = b"secagg/v1/run/record"  # the record of a run, which its key signs
RUN_INPUTS: Final = b"secagg/v1/run/inputs"  # what a simulated run was begun with: a mark that is kept with it
RUN_TEXT: Final = b"secagg/v1/run/text"  # with a purpose: an encoder, the texts it was given, and the vectors of these
STORED: Final = b"secagg/v1/stored"  # with a purpose: authenticates a file of arrays that is kept

AT_REST: Final = b"secagg/v1/at-rest"  # with a purpose: keys of what is sealed on a disk, and their ids

LATTICE_UNIFORM: Final = b"secagg/v1/lattice/uniform"
LATTICE_FLOODING: Final = b"secagg/v1/lattice/flooding"

CKKS_ADVERT: Final = b"secagg/v1/ckks/advert"
CKKS_MAKERS: Final = b"secagg/v1/ckks/makers"
CKKS_KEY: Final = b"secagg/v1/ckks/key"
CKKS_BOX: Final = b"secagg/v1/ckks/box"
CKKS_VECTOR: Final = b"secagg/v1/ckks/vector"
CKKS_UPLOAD: Final = b"secagg/v1/ckks/upload"
CKKS_ANSWER: Final = b"secagg/v1/ckks/answer"

ONESHOT_SEATS: Final = b"secagg/v1/oneshot/seats"
ONESHOT_SEAT: Final = b"secagg/v1/oneshot/seat"
ONESHOT_COMMITTEE: Final = b"secagg/v1/oneshot/committee"
ONESHOT_PUBLIC: Final = b"secagg/v1/oneshot/public"
ONESHOT_BOX: Final = b"secagg/v1/oneshot/box"
ONESHOT_VECTOR: Final = b"secagg/v1/oneshot/vector"
ONESHOT_UPLOAD: Final = b"secagg/v1/oneshot/upload"

THRESHOLD_ADVERT: Final = b"secagg/v1/threshold/advert"
THRESHOLD_PUBLIC: Final = b"secagg/v1/threshold/public"
THRESHOLD_DRAW: Final = b"secagg/v1/threshold/draw"  # with a purpose: secrets and errors, from a seed
THRESHOLD_KEY: Final = b"secagg/v1/threshold/key"
THRESHOLD_JOINT: Final = b"secagg/v1/threshold/joint"
THRESHOLD_BOX: Final = b"secagg/v1/threshold/box"
THRESHOLD_UPLOAD: Final = b"secagg/v1/threshold/upload"
THRESHOLD_SUM: Final = b"secagg/v1/threshold/sum"
THRESHOLD_PARTIAL: Final = b"secagg/v1/threshold/partial"
THRESHOLD_MISSING: Final = b"secagg/v1/threshold/missing"
THRESHOLD_SHARES: Final = b"secagg/v1/threshold/shares"

ADAPTER_MODEL: Final = b"secagg/v1/adapter/model"
ADAPTER_UPDATE: Final = b"secagg/v1/adapter/update"  # seals a client's own update until it was uploaded

TREE: Final = b"secagg/v1/tree"

BUFFER: Final = b"secagg/v1/buffer"

SPARSE_IDS: Final = b"secagg/v1/sparse/ids"
SPARSE_BUCKETS: Final = b"secagg/v1/sparse/buckets"
SPARSE_COUNTS: Final = b"secagg/v1/sparse/counts"
SPARSE_ROWS: Final = b"secagg/v1/sparse/rows"

SIMULATED: Final = b"secagg/v1/simulated"  # with a purpose: what a simulation of many parties derives from its secret
