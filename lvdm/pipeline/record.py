"""Write down what a run did: of each video in a JSON file beside it, of its passes in a log."""

import json
import math
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lvdm.io.files import whole_file
from lvdm.pipeline.settings import settings_of
from lvdm.pipeline.state import RunState, check_same, saved_state
from lvdm.pipeline.video import Video

PACKAGES = ("torch", "numpy", "open_clip_torch", "pytorch-lightning", "imageio")


class Stopwatch:
    """Add up seconds stage by stage, in `laps`, on top of what they were `before`."""

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self.laps: dict[str, float] = dict(before or {})
        self._last = time.perf_counter()

    def lap(self, stage: str) -> float:
        """Add the time since the last call to `stage`; return it."""
        now = time.perf_counter()
        taken, self._last = now - self._last, now
        self.laps[stage] = self.laps.get(stage, 0.0) + taken
        return taken


@contextmanager
def pass_log(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that adds a line with the time of day to the file `path`; without a path it does nothing.

    An exception that leaves the context is written to the file, too, with its traceback.
    """
    if path is None:
        yield lambda line: None
        return
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with open(handle, "a", encoding="utf-8") as file:

        def write(line: str) -> None:
            file.write(f"{datetime.now(timezone.utc).isoformat(timespec='milliseconds')} {line}\n")
            file.flush()

        try:
            yield write
        except BaseException:
            write(traceback.format_exc())
            raise


def write_record(video: Video, state: RunState) -> None:
    """Write the JSON file of a video that was finished in `state`, at once: it is never there in part."""
    prompt, options = video.prompt, video.options
    record = {
        "prompt": prompt.text,
        "image": prompt.picture and {"path": prompt.picture.path, "digest": prompt.picture.digest},
        "seed": options.seed,
        "repetition": prompt.repetition,
        "mode": options.mode,
        "experiment": video.name,
        "frames": frames_in_files(state),
        "new_frames": state.frames,
        "model": {
            "config": options.config,
            "checkpoint": options.ckpt_path,
            "digest": video.contents["ckpt_path"],
        },
        "options": {name: getattr(options, name) for name in settings_of(options)}
        | {"num_inference_steps": options.steps, "new_video_length": video.frames},
        "settings": video.settings,
        "seconds": _times(state.seconds, state.frames),
        "packages": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, default=str, ensure_ascii=False, indent=2)  # paths and the mode become their names
    with whole_file(video.record) as partial:
        # Names of files may be bytes that are no text; JSON has a way to write them.
        partial.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")


def frames_in_files(state: RunState) -> int:
    """Return how many frames the files have: the new ones, those that they follow, and those in between."""
    return int(state.files["sheet"]["count"])


def recorded_frames(video: Video) -> int | None:
    """Return how many new frames the finished video has; None if there is none, or not all of its files.

    Raises:
        ValueError: it was made with other settings.
    """
    try:
        record = json.loads(video.record.read_text(encoding="utf-8"))
        frames, settings = int(record.get("new_frames", record["frames"])), dict(record["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    check_same(video, settings)
    return frames if all(path.exists() for path in video.outputs) else None


def progress_of(video: Video) -> tuple[RunState | None, int | None]:
    """Return the state from which `video` goes on, if it was begun, and how many frames its finished files have.

    Raises:
        ValueError: it was made with other settings, or is finished and cannot become longer.
    """
    state, frames = saved_state(video), recorded_frames(video)
    if state is not None:
        frames = frames and min(frames, state.frames)  # the state has a checksum
    if state is None and frames is not None and frames < (math.inf if video.frames is None else video.frames):
        raise ValueError(
            f"the video in {video.folder} has {frames} frames and cannot get more (--new_video_length, --endless), as "
            f"{video.state.name}, from which it would go on, is gone; --overwrite makes it anew"
        )
    return state, frames


def _times(seconds: Mapping[str, float], frames: int) -> dict[str, Any]:
    total = sum(seconds.values())
    times = {**seconds, "total": total, "per_frame": total / max(1, frames)}
    return {name: round(value, 4) for name, value in times.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
