"""What events come to, in epsilon. One accountant a data subject, for its whole life."""

from dp.accountants.composition import disjoint, group, overlapping
from dp.accountants.pld import PldAccountant
from dp.accountants.rdp import ORDERS, RdpAccountant

__all__ = ["ORDERS", "PldAccountant", "RdpAccountant", "disjoint", "group", "overlapping"]
