"""Who says what to whom: plans, policies, machines, messages, and the protocols themselves.

``registry`` lists the protocols; ``simulate`` runs any of them in one process.
"""
