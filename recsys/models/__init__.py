"""Recommenders: reference models to measure by, models that federations train, and models made of two private sums."""

from recsys.models.recommender import Local, Recommender, SharedModel

__all__ = ["Local", "Recommender", "SharedModel"]
