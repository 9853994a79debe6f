"""The unit costs by which a protocol is chosen: constants, so that the same is chosen wherever one asks.

They are renewed when the code has become faster or slower in some parts more than in others: whoever has the machine
runs ``secagg bench scale --set parts=units --set out=DIRECTORY``, which writes this file.
"""

from __future__ import annotations

from protocols.costs.units import UnitCosts

MACHINE = "AMD EPYC, 2 cores, Python 3.11.7, commit 01b9f598a913+"
"""What they were measured on."""

COSTS = UnitCosts(
    start=0.00118,
    frame=0.000169,
    sign=6.38e-05,
    verify=0.000197,
    agree=6.68e-05,
    box=7.2e-05,
    hash=7.11e-10,
    seal=7.19e-10,
    copy=1.65e-10,
    unbox=4.15e-05,
    take=5.77e-06,
    deliver=8.35e-06,
    check=1.63e-05,
    stream=2.05e-05,
    mask=2.93e-10,
    encode=9.02e-09,
    pack=1.12e-09,
    add=8.52e-10,
    centre=1.04e-09,
    deal_step=2.02e-05,
    deal=3.03e-09,
    rebuild=1.84e-08,
    share=9.73e-07,
    item=3.32e-06,
    header=3.74e-06,
    record=7.98e-07,
    climb=2.63e-06,
    prove=2.6e-07,
    member=2.83e-08,
    order=7.93e-09,
    scan=2.73e-08,
    uniform=3.55e-09,
    gaussian=4.64e-09,
    flood=1.86e-08,
    transform=5.92e-09,
    product=7.32e-09,
    lift=1.56e-09,
    residue_pack=2.43e-09,
    residue_unpack=2.71e-09,
    residue_add=6.2e-10,
    decode=4.81e-09,
    split=9.66e-09,
    ckks_keys=0.00214,
    ckks_check=0.000448,
    ckks_encrypt=0.00333,
    ckks_add=0.00045,
    ckks_decrypt=0.000431,
    ckks_public_bytes=124000.0,
    ckks_secret_bytes=61900.0,
    ckks_ciphertext_bytes=61700.0,
    ckks_sum_bytes=61700.0,
)
