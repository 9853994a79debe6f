"""The unit costs by which a protocol is chosen: constants, so that the same is chosen wherever one asks.

They are renewed when the code has become faster or slower in some parts more than in others: whoever has the machine
runs ``secagg bench scale --set parts=units --set out=DIRECTORY``, which writes this file.
"""

from __future__ import annotations

from protocols.costs.units import UnitCosts

MACHINE = "AMD EPYC, 2 cores, Python 3.11.7, commit 4aaba13c2d32"
"""What they were measured on."""

COSTS = UnitCosts(
    start=0.0014,
    frame=0.000241,
    sign=4.5e-05,
    verify=0.000125,
    agree=5.99e-05,
    box=0.000125,
    hash=7.13e-10,
    seal=6.75e-10,
    copy=1.96e-10,
    unbox=7.26e-05,
    take=9.34e-06,
    deliver=1.33e-05,
    check=1.6e-05,
    stream=1.84e-05,
    mask=2.55e-10,
    encode=7.13e-09,
    pack=2.32e-09,
    add=8.94e-10,
    centre=1.21e-09,
    deal_step=1.73e-05,
    deal=3.52e-09,
    rebuild=2.58e-08,
    share=1.57e-06,
    item=5.72e-06,
    header=6.55e-06,
    record=1.42e-06,
    climb=5.03e-06,
    prove=4.33e-07,
    member=4.83e-08,
    order=1.1e-08,
    scan=4.31e-08,
    uniform=2.83e-09,
    gaussian=4.1e-09,
    flood=1.83e-08,
    transform=5.99e-09,
    product=7.08e-09,
    lift=1.55e-09,
    residue_pack=1.42e-09,
    residue_unpack=2.24e-09,
    residue_add=6.81e-10,
    decode=4.86e-09,
    split=8.05e-09,
    ckks_keys=0.0027,
    ckks_check=0.000404,
    ckks_encrypt=0.00319,
    ckks_add=0.000409,
    ckks_decrypt=0.000341,
    ckks_public_bytes=124000.0,
    ckks_secret_bytes=61900.0,
    ckks_ciphertext_bytes=61700.0,
    ckks_sum_bytes=61700.0,
)
