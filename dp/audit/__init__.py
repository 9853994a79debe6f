"""The audit: try to prove a pipeline's epsilon wrong.

A pipeline is anything that takes the clients' updates and gives back one noised sum; a ``Claim`` says what it is
supposed to do. Cheap and exact tests come first, and what they can see is not left to statistics of canaries:

    contribution   no update, however crafted, moves the sum further than the claim says; where clients are silos, no
                   user's part of one, in however many silos, and no silo counts more users than it may
    noise          known inputs: what is left after subtracting them is the planned noise, all of it, each time fresh
    coordinates    that noise is in every coordinate, also in the last one, and along every simple pattern
    streams        a client's noise follows from its secret: another secret, client, round or upload gives other noise
    sampling       the cohorts are drawn as the accountant believes
    accounting     what is charged for several releases is at least what they cost
    canaries       the released sums tell inserted clients from absent ones no better than the claimed mu allows
    examples       no crafted example moves a step of local training further than the claim says
    steps          the noise of such a step is all there, in each coordinate of each parameter, and fresh
    bounds         what such guesses prove about epsilon, whatever the mechanism

Each test returns ``Check``s, which state how often they would raise a false alarm on a correct pipeline. An audit can
show that a claim is false. It cannot show that one is true.
"""

from dp.audit.accounting import audit_accounting
from dp.audit.bounds import clopper_pearson, gaussian_epsilon, one_run_epsilon, rates_epsilon, rates_mu
from dp.audit.canaries import (
    LowerBounds,
    Scores,
    audit_canaries,
    estimate_mu,
    insert_canaries,
    mu_interval,
    one_run_bounds,
    repeated_runs_bounds,
)
from dp.audit.claim import Check, Claim, Noise, Pipeline, Vector, Verdict, false_alarm
from dp.audit.contribution import audit_cap, audit_clip, audit_contribution, inside_silos
from dp.audit.coordinates import audit_lone, landmarks
from dp.audit.margins import enough_coordinates, enough_rounds, least_mean_square, visible_share
from dp.audit.noise import audit_noise, spikes
from dp.audit.sampling import audit_sampling
from dp.audit.streams import Draw, Drawn, audit_parts, audit_streams

__all__ = [
    "Check",
    "Claim",
    "Draw",
    "Drawn",
    "LowerBounds",
    "Noise",
    "Pipeline",
    "Scores",
    "Vector",
    "Verdict",
    "audit_accounting",
    "audit_canaries",
    "audit_cap",
    "audit_clip",
    "audit_contribution",
    "audit_lone",
    "audit_noise",
    "audit_parts",
    "audit_sampling",
    "audit_streams",
    "clopper_pearson",
    "enough_coordinates",
    "enough_rounds",
    "estimate_mu",
    "false_alarm",
    "gaussian_epsilon",
    "insert_canaries",
    "inside_silos",
    "landmarks",
    "least_mean_square",
    "mu_interval",
    "one_run_bounds",
    "one_run_epsilon",
    "rates_epsilon",
    "rates_mu",
    "repeated_runs_bounds",
    "spikes",
    "visible_share",
]
