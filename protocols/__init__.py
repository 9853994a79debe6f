"""Who says what to whom: plans, policies, machines, messages, and the protocols themselves.

``client`` and ``server`` are the two doors for a deployment, ``simulation`` runs any protocol in one process, and
``registry`` lists the protocols. What their machines are made of is in ``rounds``.
"""
