"""What private sums are for: a federated recommender, with its data, models, metrics, client, server and reports.

Other federated systems can do without it: ``secagg``, ``dp`` and ``protocols`` never import it. Nothing is here yet.
"""
