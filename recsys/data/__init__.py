"""Data of recommenders: loading, splitting, handing out to clients, and a made-up population."""

from recsys.data.interactions import History, Interactions
from recsys.data.split import Split

__all__ = ["History", "Interactions", "Split"]
