"""Grow an autoencoder: train it on pictures of half the height and width, four times as fast, and then add a level.

Karras et al. (2018, arXiv 1710.10196) grow generators in this way, but fade the new level in; here it is added at once.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_LEVEL = re.compile(r"(?<=coder\.down\.)\d+|(?<=coder\.up\.)\d+")


def grown_weights(small: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of `model`, replaced by those of an autoencoder without its finest level where these fit.

    Level i of `small` becomes level i + 1 of `model`. Weights of the finest level, and weights whose shape differs
    because of it, stay as they are in `model`.

    Args:
        small: state dict of an AutoencoderKL with one level less, under any prefix.
        model: state dict of the AutoencoderKL to fill, under the same prefix.

    Raises:
        ValueError: fewer than 80 % of the weights of `small` fit.
    """
    moved = {_LEVEL.sub(lambda level: str(int(level[0]) + 1), name): weight for name, weight in small.items()}
    kept = {name: moved[name] for name in moved.keys() & model.keys() if moved[name].shape == model[name].shape}
    if len(kept) < 0.8 * len(small):
        raise ValueError(
            f"init_from: only {len(kept)} of its {len(small)} weights fit the model's autoencoder, "
            "expected at least 80 % of them"
        )
    return dict(model) | kept
