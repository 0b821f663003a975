"""What a run says: of each video in a JSON file beside it, of its passes in a log."""

import json
import math
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lvdm.cli.options import Options
from lvdm.io.files import whole_file
from lvdm.pipeline.state import RunState, check_same, saved_state
from lvdm.pipeline.video import Video

PACKAGES = ("torch", "numpy", "open_clip_torch", "pytorch-lightning", "imageio")


class Stopwatch:
    """Seconds since it was made, stage by stage, in `laps`, on top of what they were `before`."""

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self.laps: dict[str, float] = dict(before or {})
        self._last = time.perf_counter()

    def lap(self, stage: str) -> float:
        """Gives the time since the last call to this stage; returns it."""
        now = time.perf_counter()
        taken, self._last = now - self._last, now
        self.laps[stage] = self.laps.get(stage, 0.0) + taken
        return taken


@contextmanager
def pass_log(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that adds a line with the time of day to the file `path`; one that does nothing without a path.

    An exception that leaves the context is in the file, too, with its traceback.
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


def write_record(video: Video, state: RunState, *, options: Options, checkpoint_digest: str) -> None:
    """Writes the JSON file of a video that was finished in `state`, at once: it is never there in part.

    checkpoint_digest: SHA-256 of the checkpoint file. The sum of the stages' times and the time per frame are added.
    """
    prompt = video.prompt
    record = {
        "prompt": prompt.text,
        "image": prompt.picture and {"path": prompt.picture.path, "digest": prompt.picture.digest},
        "seed": video.seed,
        "repetition": prompt.repetition,
        "mode": options.mode,
        "experiment": video.name,
        "frames": state.frames,
        "model": {"config": options.config, "checkpoint": options.ckpt_path, "digest": checkpoint_digest},
        "options": {field.name: getattr(options, field.name) for field in fields(options)}
        | {"num_inference_steps": options.steps},
        "settings": video.settings,
        "seconds": _times(state.seconds, state.frames),
        "packages": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, default=str, ensure_ascii=False, indent=2)  # paths and the mode become their names
    with whole_file(video.record) as partial:
        # Names of files may be bytes that are no text; JSON has a way to write them.
        partial.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")


def recorded_frames(video: Video) -> int:
    """How many frames the video has that is there under its own name; 0 if there is none, or not all of its files.

    ValueError if it was made with other settings.
    """
    try:
        record = json.loads(video.record.read_text(encoding="utf-8"))
        frames, settings = int(record["frames"]), dict(record["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    check_same(video, settings)
    return frames if all(path.exists() for path in video.outputs) else 0


def progress_of(video: Video) -> tuple[RunState | None, int]:
    """Where `video` is to go on, if it was begun, and how many frames it has if it is complete as far as it goes.

    ValueError if it was made with other settings, or is complete and cannot go on.
    """
    state, frames = saved_state(video), recorded_frames(video)
    if state is not None:
        frames = min(frames, state.frames)  # the state has a checksum
    if state is None and 0 < frames < (video.frames or math.inf):
        raise ValueError(
            f"the video in {video.folder} has {frames} frames, and its state, from which it would go on, is gone; "
            "--overwrite makes it anew"
        )
    return state, frames


def _times(seconds: Mapping[str, float], frames: int) -> dict[str, Any]:
    total = sum(seconds.values())
    times = {**seconds, "total": total, "per_frame": total / frames}
    return {name: round(value, 4) for name, value in times.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
