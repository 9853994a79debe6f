"""What a one-shot round costs: a client beside a client of pairwise masking, a server with and without dropouts.

*client*  the vector's steps alone, beside masks of k neighbours and oneself; then real clients of both protocols, from
          the plan to the upload (keys, shares, boxes, hashes, signatures, journal): in turns. The committee is made for
          ``corrupt`` and ``dropout``, as about k neighbours of pairwise masking are.
*server*  the real server through whole rounds of n clients, of which a fraction ``drop`` never uploads, or is gone
          after its upload (members of the committee, which is made for that, too), or nobody: in turns. It verifies,
          adds, forwards and opens real frames, but no n clients compute them: a few vectors and their secrets are
          signed for everybody, half of them negated, so that sums of secrets and errors are small, as they would be.
          Its time is all that it does, making frames included.
*real*    the same three with n real clients, of shorter vectors.

Frames go straight from one to the other, so nobody waits for a network.
"""

from __future__ import annotations

from benchmarks.case import Measured, Say
from benchmarks.regression.oneshot.cast import Cast
from benchmarks.regression.oneshot.clients import time_clients, time_vector
from benchmarks.regression.oneshot.deployment import Config
from benchmarks.regression.oneshot.server import time_real_rounds, time_server
from secagg.extras import need

DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    need("lattice", "the protocol oneshot")
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    cast = Cast(config, config.dropout)
    time_vector(config, cast, figures, ratios, say)
    time_clients(config, cast, figures, ratios, say)
    time_server(config, Cast(config, config.drop), figures, ratios, say)
    time_real_rounds(config, figures, ratios, say)
    return Measured(figures, ratios)
