"""Growing an autoencoder: one of half the height and width is trained first, four times as fast, then made larger.

It gets a finer level, as the generators of Karras et al. (2018, arXiv 1710.10196) do, but at once.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_LEVEL = re.compile(r"(?<=coder\.down\.)\d+|(?<=coder\.up\.)\d+")


def grown(small: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of `model`, with those of an autoencoder that lacks its finest level where there are such.

    Both are state dicts of an AutoencoderKL's weights, under any prefix. Level i of `small` becomes level i + 1. What
    the finest level brings along, and whatever has another shape because of it, stays as it is in `model`.

    Raises:
        ValueError: hardly any weight has a place in `model`: they are not of the same kind.
    """
    moved = {_LEVEL.sub(lambda level: str(int(level[0]) + 1), name): weight for name, weight in small.items()}
    kept = {name: moved[name] for name in moved.keys() & model.keys() if moved[name].shape == model[name].shape}
    if len(kept) < 0.8 * len(small):
        raise ValueError(f"init_from: only {len(kept)} of its {len(small)} weights fit the model's autoencoder")
    return dict(model) | kept
