"""Local training under example-level differential privacy: DP-SGD with Opacus' optimiser (extra ``train``).

``Trainer`` tells the story; ``isolate`` says why each example is alone, and ``gradients`` how large tables stay small.
"""

from secagg.extras import needing

with needing("train", "local training"):
    from dp.training.clipping import Adaptive, Flat, PerLayer
    from dp.training.trainer import EXAMPLE, Settings, Trainer

__all__ = ["EXAMPLE", "Adaptive", "Flat", "PerLayer", "Settings", "Trainer"]
