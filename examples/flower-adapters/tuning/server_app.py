"""The server: FedAvg, with ``Secure`` around it. It writes what came of each round, and the adapter for PEFT."""

from __future__ import annotations

import json
import time
from typing import Any

from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from protocols.adapters.flower import Secure
from protocols.roster import Roster
from secagg.files import write_file
from tuning.task import CLIP, FOLDER, arrays_of, begun, model_of, right

LEAST = 3

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    roster = Roster.load(FOLDER / "roster.toml")
    timeout = float(context.run_config["timeout"])
    wait_for(grid, len(roster), timeout)
    strategy = Secure(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=LEAST, min_available_nodes=LEAST),
        roster,
        run_config=context.run_config,
        clip=CLIP,
        min_contributors=LEAST,
        dropout="0.3",
        timeout=timeout,
    )
    rounds = list[dict[str, Any]]()

    def evaluated(number: int, arrays: ArrayRecord) -> MetricRecord:
        found = {name: array.numpy() for name, array in arrays.items()}
        survivors = [] if strategy.outcome is None else list(strategy.outcome.survivors)
        numbers = {name: array.tolist() for name, array in found.items()}
        rounds.append({"round": number, "survivors": survivors, "right": right(found), "arrays": numbers})
        write_file(FOLDER / "result.json", json.dumps(rounds).encode(), private=False)
        model_of(found, {}).write_adapter(FOLDER / "adapter")
        return MetricRecord({"right": rounds[-1]["right"]})

    strategy.start(
        grid,
        ArrayRecord({name: Array(array) for name, array in arrays_of(begun()).items()}),
        num_rounds=int(context.run_config["num-server-rounds"]),
        timeout=timeout,
        evaluate_fn=evaluated,
    )


def wait_for(grid: Grid, nodes: int, seconds: float) -> None:
    """A server starts before its nodes have registered."""
    deadline = time.monotonic() + seconds
    while len(list(grid.get_node_ids())) < nodes and time.monotonic() < deadline:
        time.sleep(1)
