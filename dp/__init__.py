"""Differential privacy: mechanisms, events, accountants, calibration, a ledger, an audit and training with Opacus.

The package takes the PRG, keys, samplers and canonical encoding from ``secagg``, and imports nothing above itself.

    events        what was released, in exact numbers        accountants   the epsilon of events (GDP, RDP, PLD)
    noise         clients' noise inside a secure sum         calibrate     how much noise is needed
    secure_sum    the facts of one round                     filter        whether the budget still allows a release
    ledger        charged before released; verify_ledger.py recomputes it alone
    training      DP-SGD on one client, with Opacus          audit         tries to prove an epsilon wrong
"""
