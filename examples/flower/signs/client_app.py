"""The client: an ordinary train function. What the mod lets out of it is masked, and nothing else is answered."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from protocols.adapters.flower import EachUser, SecAgg, Trainings, only_secagg
from protocols.policy import Policy
from signs.task import FOLDER, USERS, train

POLICY = Policy(
    min_contributors=3, dropout="0.4", protocols={"secagg+"}, weight_bound=1 if USERS else 1000, users=USERS
)

app = ClientApp(mods=[only_secagg])


@app.train("secagg", mods=[SecAgg(POLICY, identity=FOLDER / "{partition-id}.key", roster=FOLDER / "roster.toml")])
def train_function(message: Message, context: Context) -> Message:
    weights = message.content.array_records["arrays"]["weights"].numpy()
    partition = int(context.node_config["partition-id"])
    if USERS:  # each user is trained by itself, on its own data, when its vector is wanted
        trainings = Trainings(USERS, lambda user: ({"weights": train(weights, USERS * partition + user)[0]}, {}))
        return EachUser(trainings, reply_to=message)
    weights, examples = train(weights, partition)
    arrays = ArrayRecord({"weights": Array(weights)})
    metrics = MetricRecord({"num-examples": examples})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
