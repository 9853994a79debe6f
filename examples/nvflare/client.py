"""What a site runs: an ordinary NVFlare script that knows nothing of secure aggregation.

It fits a line to data of its own. The data are made up here; every site has other points of the same line.
"""

import numpy as np
import nvflare.client as flare
from nvflare.app_common.abstract.fl_model import FLModel

LINE = np.array([2.0, -1.0, 0.5], np.float32)
STEPS, RATE = 20, 0.1


def main() -> None:
    flare.init()
    number = int(flare.get_site_name().removeprefix("site-"))
    points = 20 * number
    x = np.sin(np.outer(np.arange(points) + number, [1.0, 1.7, 2.3])).astype(np.float32)
    y = x @ LINE
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        w = model.params["numpy_key"]
        loss = float(np.mean((x @ w - y) ** 2))
        for _ in range(STEPS):
            w = w - RATE * (x.T @ (x @ w - y)) / points
        meta = {"NUM_STEPS_CURRENT_ROUND": points}
        flare.send(FLModel(params={"numpy_key": w}, metrics={"loss": loss}, meta=meta))


if __name__ == "__main__":
    main()
