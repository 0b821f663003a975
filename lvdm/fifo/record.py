"""What a video says about itself: a line in its files, and a JSON file beside them."""

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lvdm.fifo.options import Options
from lvdm.fifo.prompts import Prompt
from lvdm.files import whole_file

PACKAGES = ("torch", "numpy", "open_clip_torch", "pytorch-lightning", "imageio")


class Stopwatch:
    """Seconds since it was made, stage by stage, in `laps`."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Ends a stage: the time since the one before it ended is its own."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now


def comment(options: Options, prompt: Prompt, *, seed: int) -> str:
    """The comment of a GIF or MP4. seed: the one really used."""
    return f"{prompt.text} | seed {seed} | mode {options.mode}"


def write_record(
    path: Path,
    options: Options,
    *,
    prompt: Prompt,
    seed: int,
    frames: int,
    checkpoint_digest: str,
    seconds: Mapping[str, float],
) -> None:
    """Writes `path` as JSON, at once: it is never there in part.

    seed, frames: as really used for this video. checkpoint_digest: SHA-256 of the checkpoint file.
    seconds: the time that each stage of this video took; their sum and the time per frame are added.
    """
    record = {
        "prompt": prompt.text,
        "image": prompt.picture and {"path": prompt.picture.path, "digest": prompt.picture.digest},
        "seed": seed,
        "repetition": prompt.repetition,
        "mode": options.mode,
        "experiment": prompt.experiment or options.experiment,
        "frames": frames,
        "model": {"config": options.config, "checkpoint": options.ckpt_path, "digest": checkpoint_digest},
        "options": {field.name: getattr(options, field.name) for field in fields(options)}
        | {"num_inference_steps": options.steps},
        "seconds": _times(seconds, frames),
        "packages": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, default=str, ensure_ascii=False, indent=2)  # paths and the mode become their names
    with whole_file(path) as partial:
        partial.write_text(f"{text}\n", encoding="utf-8")


def _times(seconds: Mapping[str, float], frames: int) -> dict[str, Any]:
    total = sum(seconds.values())
    times = {**seconds, "total": total, "per_frame": total / frames}
    return {name: round(value, 4) for name, value in times.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
