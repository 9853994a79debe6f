"""Federated sign descent under secure aggregation: a Flower app."""
