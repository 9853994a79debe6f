"""Any of our protocols inside Flower (extra ``flower``): a mod for its ClientApp, a strategy around its strategies.

    client: app = ClientApp(mods=[only_secagg])
            @app.train("secagg", mods=[SecAgg(Policy(min_contributors=5))])      on an ordinary train function
    server: Secure(FedAvg(), roster, clip=1.0, min_contributors=5)               instead of FedAvg()

Flower carries the messages and says which node is speaking; who a client *is*, its roster says, which the deployment
puts beside the node (``secagg-identity`` and ``secagg-roster`` in the node config). A round starts with what the
strategy wants to send, and our plan and form with it. The train function's reply stays on the client: what leaves it
is the frames of its ``protocols.client.Client``, phase after phase, until the server has one sum. From that it makes
one reply, as if a single client had trained, and hands it to the strategy.

What the train function can read of the server is hashed into the plan (the model, all other records, the run config,
the run) or is made on the client and not taken from the server (the rest of the message). The train function is called
once for a plan, and with an empty state, so that how often it was called says nothing either. A plan is refused before
the train function is called or not at all: when training fails, zeros go into the sum, and no message looks different.

Each message may reach another process of the same node, so a client lives in ``context.state``: its journal, sealed,
and until it is uploaded its vector, sealed, too. All our messages are of the type ``train.secagg``: a ClientApp
without this mod has no function of that name, and says so instead of uploading a model in clear.

``client`` is what a node runs, ``server`` the strategy, ``messages`` how plans, frames and models travel in Flower's
messages, ``state`` what a node remembers between two messages of a round.
"""

from __future__ import annotations

from secagg.extras import needing

with needing("flower", "the adapter for Flower"):
    from protocols.adapters.flower.client import EachUser, SecAgg, only_secagg
    from protocols.adapters.flower.server import Secure
    from protocols.adapters.privacy import Privacy
    from protocols.adapters.users import Silos, Trainings

__all__ = ["EachUser", "Privacy", "SecAgg", "Secure", "Silos", "Trainings", "only_secagg"]
