"""Whether windows of a video show what a scene of the shapes grammar says, as lvdm.data.shape_reader reads them."""

from collections.abc import Mapping, Sequence

import numpy as np

from lvdm.data.captions import Scene
from lvdm.data.shape_reader import MIN_FRAMES, count_objects, read_clip, score


def read_shapes(frames: Sequence[np.ndarray], scene: Scene) -> Mapping[str, float]:
    """1 or 0 for each attribute that `frames` show as `scene` says, for all of them, and for a single object.

    frames: consecutive ones (H, W, 3) uint8. Empty if they are fewer than the reader needs.
    """
    if len(frames) < MIN_FRAMES:
        return {}
    window = np.stack(frames)
    right = score(read_clip(window), scene)
    one = count_objects(window) == 1
    right = {**right, "all_four": all(right.values()), "one_object": one}
    return {f"shapes_{name}": float(value) for name, value in right.items()}
