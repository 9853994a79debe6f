"""Sums under ring-LWE: polynomials modulo q and X^N + 1, uniform ones from seeds, vectors in their coefficients.

    parameters.choose(encoding, n)       -> a secure ring, and a layout with a bound on failures
    packing.Layout.encode / decode       integers and errors -> coefficients; their sum -> exact sums of the integers
    sampling.uniform                     public polynomials from a seed
    ring                                 coefficients, evaluations, products, bytes

For a one-time sum, client i with secret s_i sends ``layout.encode(x_i, e_i) + (a * s_i).coefficients()``, with a public
a. Whoever learns the sum of the s_i can decode the sum of the x_i. Secrets and errors are drawn by
``secagg.crypto.sampling.discrete_gaussian`` with VARIANCE.

The arithmetic takes the same time whatever the numbers are; drawing secrets and errors does not quite
(``secagg.crypto.sampling``). No library was found that does this from Python: TenSEAL and OpenFHE's wheels hide
polynomials behind whole schemes, and galois has no transform of this size. Needs the extra ``[lattice]`` (numba).
"""

from secagg.crypto.lattice.packing import Layout
from secagg.crypto.lattice.parameters import VARIANCE, Parameters, candidates, choose, tail
from secagg.crypto.lattice.ring import Coefficients, Evaluations, QuotientRing, RunningSum
from secagg.crypto.lattice.sampling import uniform

__all__ = [
    "VARIANCE",
    "Coefficients",
    "Evaluations",
    "Layout",
    "Parameters",
    "QuotientRing",
    "RunningSum",
    "candidates",
    "choose",
    "tail",
    "uniform",
]
