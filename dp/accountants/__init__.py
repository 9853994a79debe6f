"""Accountants: the epsilon of composed events. Each data subject has one accountant, for its whole life."""

from dp.accountants.composition import disjoint, group, overlapping
from dp.accountants.gdp import GdpAccountant
from dp.accountants.pld import PldAccountant
from dp.accountants.rdp import ORDERS, RdpAccountant

__all__ = ["ORDERS", "GdpAccountant", "PldAccountant", "RdpAccountant", "disjoint", "group", "overlapping"]
