"""How well it runs: one module a question, configuration in, JSON out.

A figure of merit is a ratio measured within one run (ours to the limit, or to a peer), so that it means the same on
another machine. ``secagg bench CASE`` runs one.
"""
