"""The client: an ordinary train function. What the mod lets out of it is masked, and nothing else is answered.

The silo's head stays in ``context.state`` of its node, from round to round.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from protocols.adapters.flower import SecAgg, only_secagg
from protocols.policy import Policy
from tuning.task import FOLDER, arrays_of, begun, train

POLICY = Policy(min_contributors=3, dropout="0.3", protocols={"secagg+"})


def shapes() -> dict[str, tuple[int, ...]]:
    """What this silo's own model sends: a round for other arrays, of another rank, is refused."""
    return {name: array.shape for name, array in arrays_of(begun()).items()}


app = ClientApp(mods=[only_secagg])
secagg = SecAgg(
    POLICY, identity=FOLDER / "{partition-id}.key", roster=FOLDER / "roster.toml", arrays=shapes, stateful=True
)


@app.train("secagg", mods=[secagg])
def train_function(message: Message, context: Context) -> Message:
    old = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
    kept = context.state.array_records.get("head", ArrayRecord())
    head = {name: array.numpy() for name, array in kept.items()}
    new, head, users = train(old, head, int(context.node_config["partition-id"]))
    context.state["head"] = ArrayRecord({name: Array(array) for name, array in head.items()})
    arrays = ArrayRecord({name: Array(array) for name, array in new.items()})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": users})}), reply_to=message)
