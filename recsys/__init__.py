"""What private sums are for: a federated recommender, from its data to the report of a run.

Other federated systems can do without it: ``secagg``, ``dp`` and ``protocols`` never import it.
"""
