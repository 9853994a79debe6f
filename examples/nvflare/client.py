"""What a site runs: an ordinary NVFlare script that knows nothing of secure aggregation.

It fits a line to data of its own. The data are made up here; every site has other points of the same line. With
``SECAGG_EXAMPLE_USERS`` in the environment the site is a silo of so many users: each has points of its own, and the
script fits a line to each of them alone. It sends them all at once, in arrays with a leading axis of users.
"""

import os
from typing import Any

import numpy as np
import nvflare.client as flare
from nvflare.app_common.abstract.fl_model import FLModel

LINE = np.array([2.0, -1.0, 0.5], np.float32)
STEPS, RATE = 20, 0.1
USERS = int(os.environ.get("SECAGG_EXAMPLE_USERS", "0"))


def points_of(number: int, count: int) -> Any:
    x = np.sin(np.outer(np.arange(count) + number, [1.0, 1.7, 2.3])).astype(np.float32)
    return x, x @ LINE


def fitted(w: Any, x: Any, y: Any) -> tuple[Any, float]:
    """The line after training, and the loss before it."""
    loss = float(np.mean((x @ w - y) ** 2))
    for _ in range(STEPS):
        w = w - RATE * (x.T @ (x @ w - y)) / len(x)
    return w, loss


def main() -> None:
    flare.init()
    number = int(flare.get_site_name().removeprefix("site-"))
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        w = model.params["numpy_key"]
        if USERS:
            lines, losses = zip(*(fitted(w, *points_of(100 * number + user, 20)) for user in range(USERS)), strict=True)
            flare.send(FLModel(params={"numpy_key": np.stack(lines)}, metrics={"loss": list(losses)}))
        else:
            points = 20 * number
            line, loss = fitted(w, *points_of(number, points))
            meta = {"NUM_STEPS_CURRENT_ROUND": points}
            flare.send(FLModel(params={"numpy_key": line}, metrics={"loss": loss}, meta=meta))


if __name__ == "__main__":
    main()
