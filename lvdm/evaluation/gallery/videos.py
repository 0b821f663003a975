"""What there is to show: finished videos below results folders, and their curves from a metrics file."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Video:
    """A finished video. folder: {root}/{prompt folder}/{experiment}. file: its MP4, or its GIF if there is no MP4.

    same: equal for the videos that differ in nothing but the experiment. settings: those that say something,
    by name, as text; digests by their first digits.
    """

    folder: Path
    file: Path
    prompt: str
    picture: str | None
    seed: str
    same: str
    settings: Mapping[str, str]

    @property
    def experiment(self) -> str:
        return self.folder.name

    @property
    def root(self) -> Path:
        return self.folder.parent.parent


@dataclass(frozen=True)
class Curves:
    """Metrics of a video over its frames: of each, a value for every `window` frames; None where there is none."""

    window: int
    values: Mapping[str, Sequence[float | None]]


def find_videos(roots: Sequence[Path]) -> tuple[list[Video], list[str]]:
    """All finished videos below `roots`, each once, and a sentence on each that cannot be read.

    A video is finished when its record, `{experiment}/{experiment}.json` with a prompt, is there. ValueError if one
    of `roots` is no folder.
    """
    videos, problems = {}, []
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"RESULTS {str(root)!r}: expected a folder that videocrafter_main.py wrote")
        for path in sorted(root.rglob("*.json")):
            folder = Path(os.path.abspath(path.parent))
            if path.stem != folder.name or folder in videos:
                continue
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(record, dict) and isinstance(record.get("prompt"), str):
                    videos[folder] = _video(folder, record)
            except (OSError, ValueError, RecursionError) as error:
                problems.append(f"{path.parent}: {str(error) or type(error).__name__}")
    return list(videos.values()), problems


def _video(folder: Path, record: Mapping[str, Any]) -> Video:
    files = [folder / f"{folder.name}.mp4", folder / f"{folder.name}.gif"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ValueError(f"neither {files[0].name} nor {files[1].name} is there")
    picture, settings = (_mapping(record.get(name)) for name in ("image", "settings"))
    shown = {name: _text(value) for name, value in settings.items() if value not in (None, "") and name != "the prompt"}
    return Video(
        folder=folder,
        file=file,
        prompt=record["prompt"],
        picture=None if picture.get("path") is None else Path(str(picture["path"])).name,
        seed=_text(record.get("seed")),
        same=json.dumps([record["prompt"], picture.get("digest"), record.get("seed"), record.get("repetition", 0)]),
        settings={name: value[:12] if re.fullmatch("[0-9a-f]{64}", value) else value for name, value in shown.items()},
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_curves(path: Path, videos: Sequence[Video]) -> dict[Path, Curves]:
    """The curves of `videos`, by their folders, from a JSON list of {"path", "window", "curves": {metric: [value]}}.

    Paths are looked up from the working directory, then from the file's own folder; other videos' entries, and curves
    without a number, are left out. ValueError if the file cannot be read, is not such a list, or says nothing about any
    of `videos`.
    """
    where = f"--metrics {str(path)!r}"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(entries, list):
        raise ValueError(f"{where}: expected a list with an entry for each video, not {type(entries).__name__}")
    folders, found = {video.folder for video in videos}, {}
    for number, entry in enumerate(entries, 1):
        name, window, values = (_mapping(entry).get(key) for key in ("path", "window", "curves"))
        if not (isinstance(name, str) and isinstance(window, int) and window > 0 and isinstance(values, dict)):
            raise ValueError(f'{where}, entry {number}: expected {{"path": text, "window": frames, "curves": object}}')
        for base in (Path(), path.parent):
            folder = Path(os.path.abspath(base / name))
            if folder in folders:
                curves = {metric: _values(curve, f"{where}, entry {number}") for metric, curve in values.items()}
                drawn = {metric: curve for metric, curve in curves.items() if curve.count(None) < len(curve)}
                found[folder] = Curves(window, drawn)
                break
    if not found:
        raise ValueError(f"{where}: none of its {len(entries)} paths is a video of this gallery")
    return found


def _values(curve: Any, where: str) -> list[float | None]:
    if not isinstance(curve, list) or not all(value is None or isinstance(value, int | float) for value in curve):
        raise ValueError(f"{where}: expected a curve to be a list of numbers, not {str(curve)[:60]}")
    return [None if value is None or not math.isfinite(value) else value for value in curve]
