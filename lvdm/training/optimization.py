"""The optimizer and its schedule: AdamW, a linear warm-up, then a cosine to zero."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class Optimization:
    """The settings of AdamW. The learning rate reaches zero after `steps`, the length of the run."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)


def warmup_cosine(parameters: Iterable[nn.Parameter], optimization: Optimization) -> dict:
    """Return AdamW and its schedule, as Lightning's `configure_optimizers` returns them."""

    def rate(step: int) -> float:
        if step < optimization.warmup:
            return (step + 1) / optimization.warmup
        progress = (step - optimization.warmup) / max(1, optimization.steps - optimization.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    optimizer = AdamW(
        parameters,
        lr=optimization.learning_rate,
        weight_decay=optimization.weight_decay,
        betas=tuple(optimization.betas),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, rate), "interval": "step"}}
