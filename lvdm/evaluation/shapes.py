"""Check whether videos show what their captions say, by reading colour, shape and motion off their frames.

The captions are those of the shapes grammar (lvdm.data.captions); lvdm.data.shape_reader reads the frames.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lvdm.data.captions import Scene
from lvdm.data.shape_reader import MIN_FRAMES, count_objects, read_clip, score
from lvdm.io.frames import first_line, read_frames
from lvdm.io.results import Result, find_results
from lvdm.runtime.progress import progress_bar

ATTRIBUTES = {  # the columns of a table, and which attributes must be right for each
    "background": ["background"],
    "color": ["color"],
    "shape": ["shape"],
    "color and shape": ["color", "shape"],
    "motion": ["motion"],
    "all four": ["background", "color", "shape", "motion"],
}


@dataclass
class Readings:
    """What was read off the videos of several folders.

    Args:
        scores: the scores of each line of a table: of a folder, an experiment and a window.
        videos: every reading, as JSON values.
        skipped: messages on videos that cannot be read or have another prompt.
        short: messages on windows that videos do not reach.
    """

    scores: dict[str, list[Mapping[str, bool]]] = field(default_factory=lambda: defaultdict(list))
    videos: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)


def check_shapes(frames: Sequence[np.ndarray], scene: Scene) -> Mapping[str, float]:
    """Return 1 or 0 for each attribute that frames show as `scene` has it, for all four, and for a single object.

    Args:
        frames: consecutive frames (H, W, 3) uint8. The result is empty if they are fewer than the reader needs.
    """
    if len(frames) < MIN_FRAMES:
        return {}
    window = np.stack(frames)
    right = score(read_clip(window), scene)
    one = count_objects(window) == 1
    right = {**right, "all_four": all(right.values()), "one_object": one}
    return {f"shapes_{name}": float(value) for name, value in right.items()}


def read_results(roots: Sequence[Path], windows: Sequence[tuple[int, int]], *, held_out: bool) -> Readings:
    """Read the videos of results folders, and show the progress on stderr.

    Args:
        windows: the first and the last frame of each.
        held_out: leave out prompts that the embedded models were trained on.

    Raises:
        ValueError: a record cannot be read, or there is no video at all.
    """
    results: list[tuple[Path, Result]] = []
    for root in roots:
        found, problems = find_results([root])
        if problems:
            raise ValueError(problems[0])
        results += [(root, result) for result in found]
    readings = Readings()
    for root, result in progress_bar(results, desc="reading", unit="video"):
        _read_result(readings, root, result, windows, held_out=held_out)
    return readings


def _read_result(
    readings: Readings, root: Path, result: Result, windows: Sequence[tuple[int, int]], *, held_out: bool
) -> None:
    """Add what the windows of one video show to `readings`."""
    folder = result.folder
    try:
        scene = Scene.parse(result.prompt)
        if held_out and not scene.held_out:
            return
        frames = np.stack(list(islice(read_frames(result.find_frames()), max(last for _, last in windows) + 1)))
    except (ValueError, OSError) as error:
        readings.skipped.append(f"{folder}: {first_line(error)}")
        return
    of_video = {}
    for first, last in windows:
        if last >= len(frames):
            readings.short.append(f"{folder}: {len(frames)} frames do not reach {first}-{last}")
            continue
        reading = read_clip(frames[first : last + 1])
        right = score(reading, scene)
        of_video[f"{first}-{last}"] = {"reading": asdict(reading), "right": right}
        readings.scores[f"{root}: {result.experiment}, {first}-{last}"].append(right)
    mode = result.record.get("mode")
    readings.videos.append({"path": str(folder), "mode": mode, "prompt": scene.caption, "windows": of_video})


def scores_table(scores: Mapping[str, Sequence[Mapping[str, bool]]]) -> str:
    """Return a Markdown table of percentages that are right: a line for each key, a column for each of ATTRIBUTES."""
    lines = [f"| right, % | n | {' | '.join(ATTRIBUTES)} |", "|---" * (len(ATTRIBUTES) + 2) + "|"]
    for name, rows in scores.items():
        shares = (np.mean([all(row[part] for part in parts) for row in rows]) for parts in ATTRIBUTES.values())
        lines.append(f"| {name} | {len(rows)} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |")
    return "\n".join(lines)


def parse_window(text: str) -> tuple[int, int]:
    """Return the first and the last frame of FIRST-LAST."""
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(last) - int(first) + 1 >= MIN_FRAMES):
        raise ValueError(f"--windows {text!r}: expected FIRST-LAST, inclusive, of at least {MIN_FRAMES} frames")
    return int(first), int(last)
