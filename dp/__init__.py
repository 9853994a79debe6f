"""What a sum costs in privacy: mechanisms, events, accountants, calibration, a ledger, an audit and Opacus training.

It takes the PRG, keys, samplers and canonical encoding from ``secagg`` and imports nothing above itself.

    events        what was released, exact and frozen        accountants   what events come to (RDP, PLD)
    noise         shares of noise inside a secure sum        calibrate     how much of it is needed
    secure_sum    the facts of one round                     filter        whether the budget still allows a release
    ledger        charged before released; verify_ledger.py recomputes it alone
    training      DP-SGD on one client, with Opacus          audit         tries to prove an epsilon wrong
"""
