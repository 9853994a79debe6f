"""Adapters of a text encoder, tuned by silos under secure aggregation: a Flower app."""
