"""Write prompt files of the shapes grammar, of scenes that the embedded models were not trained on."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import imageio.v3 as iio
import torch

from lvdm.data.captions import HELD_OUT_SCENES, Scene
from lvdm.data.shapes import HEIGHT, WIDTH, render, to_frames, trajectory


def choose_held_out(count: int) -> list[Scene]:
    """Choose held-out scenes in which every word occurs about as often as its alternatives."""
    if not 1 <= count <= len(HELD_OUT_SCENES):
        raise ValueError(f"--count {count}: expected 1 to {len(HELD_OUT_SCENES)}")
    chosen, used = [], Counter()
    for _ in range(count):
        rest = (scene for scene in HELD_OUT_SCENES if scene not in chosen)
        chosen.append(min(rest, key=lambda scene: sum(used[word] for word in astuple(scene))))
        used.update(astuple(chosen[-1]))
    return chosen


def write_prompts(path: Path, scenes: Sequence[Scene]) -> None:
    """Write a caption per line; or, if `path` is a .csv, a table of captions and images.

    The images are rendered into a folder beside the table that has its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() != ".csv":
        path.write_text("".join(f"{scene.caption}\n" for scene in scenes), encoding="utf-8")
        return
    torch.manual_seed(0)
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    rows = [("image", "prompt")]
    for index, scene in enumerate(scenes):
        x, y, phase = (torch.rand(3) * torch.tensor([WIDTH, HEIGHT, 1])).tolist()
        image, _ = render(scene, trajectory(scene.motion, torch.zeros(1), x=x, y=y, phase=phase))
        name = f"{index:03d}_{scene.color}_{scene.shape}.png"
        iio.imwrite(folder / name, to_frames(image)[0])
        rows.append((f"{folder.name}/{name}", scene.caption))
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
