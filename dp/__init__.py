"""What a sum costs in privacy: mechanisms, events, accountants, calibration, a ledger, an audit and Opacus training.

It takes the PRG, keys and canonical encoding from ``secagg`` and imports nothing above itself. Nothing is here yet.
"""
