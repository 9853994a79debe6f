"""Sums under ring-LWE: polynomials modulo q and X^N + 1, uniform ones from seeds, vectors in their coefficients.

    parameters.choose(encoding, n)     -> a secure ring, and a layout with a bound on failures
    packing.encode / decode            integers and errors -> coefficients; their sum -> exact sums of the integers
    sampling.uniform                   public polynomials from a seed
    polynomials                        coefficients, evaluations, products, bytes

For a one-time sum, client i with secret s_i sends ``encode(layout, x_i, e_i) + (a * s_i).coefficients()``, with a
public a. Whoever learns the sum of the s_i can decode the sum of the x_i. Secrets and errors are drawn by
``secagg.crypto.sampling.draws.discrete_gaussian`` with VARIANCE.

The arithmetic takes the same time whatever the numbers are; drawing secrets and errors does not quite
(``secagg.crypto.sampling``). No library was found that does this from Python: TenSEAL and OpenFHE's wheels hide
polynomials behind whole schemes, and galois has no transform of this size. Needs the extra ``[lattice]`` (numba).

What can be had from here is what sizes follow from, and needs no numba. ``polynomials``, ``packing`` and ``sampling``
compute: they are compiled, and are imported by whoever does.
"""

from secagg.crypto.lattice.layout import Layout
from secagg.crypto.lattice.parameters import VARIANCE, Parameters, candidates, choose, tail
from secagg.crypto.lattice.ring import QuotientRing

__all__ = ["VARIANCE", "Layout", "Parameters", "QuotientRing", "candidates", "choose", "tail"]
