"""Show a plan of noise levels: as a table, and as a picture (--show_plan)."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from lvdm.diffusion.schedule import CLEAN
from lvdm.io.files import check_writable, whole_file
from lvdm.pipeline.options import Options
from lvdm.sampling.plan import Plan

CELL = 6  # pixels of a slot
GAP = 2  # cells between the two halves
HEIGHT = 96  # cells at most
OUTSIDE = np.array([24, 40, 88], np.uint8)  # the colour of frames that are not in the queue


def show_plan(options: Options) -> Path:
    """Print the plan and write its picture into the output folder; return the picture's path."""
    plan = options.queue_plan
    check_writable(options.results_root, flag="--output_dir")
    path = options.results_root / "plans" / f"{plan.name.replace(':', '_')}.png"
    with whole_file(path) as partial:
        iio.imwrite(partial, plan_picture(plan))
    print(f"{plan}\ndrawn in {path}")
    return path


def plan_picture(plan: Plan) -> np.ndarray:
    """Draw a plan, (H, W, 3) uint8: black is noise, white is clean, and steps go down.

    On the left are slots, which keep their places. On the right are frames, which move through the slots: Diffusion
    Forcing's matrix. Frames that are not in the queue are blue.
    """
    rows = np.array(plan.rows[:-1])
    periods = max(1, min(HEIGHT, 2 * plan.levels) // plan.steps)
    slots = grey(np.tile(rows, (periods, 1)), plan)
    frames = np.broadcast_to(OUTSIDE, (len(slots), plan.slots + plan.leaving * (periods - 1), 3)).copy()
    for period in range(periods):
        first, steps = period * plan.leaving, slice(period * plan.steps, (period + 1) * plan.steps)
        frames[steps, :first] = 255
        frames[steps, first : first + plan.slots] = grey(rows, plan)
    gap = np.broadcast_to(OUTSIDE, (len(slots), GAP, 3))
    picture = np.concatenate([slots, gap, frames], axis=1)
    return picture.repeat(CELL, axis=0).repeat(CELL, axis=1)


def grey(levels: np.ndarray, plan: Plan) -> np.ndarray:
    """Return levels (R, S) as grey pixels (R, S, 3) uint8: CLEAN is white, the highest level black."""
    shade = np.round(255 * (plan.levels - 1 - levels) / (plan.levels - 1 - CLEAN))
    return shade.astype(np.uint8)[..., None].repeat(3, axis=-1)
