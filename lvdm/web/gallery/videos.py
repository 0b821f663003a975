"""What there is to show: finished videos below results folders, and their curves from a report on them."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvdm.evaluation.cache import curves_of
from lvdm.evaluation.metrics import Curve
from lvdm.evaluation.reading import find_records, read_record


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


def find_videos(roots: Sequence[Path]) -> tuple[list[Video], list[str]]:
    """All finished videos below `roots`, each once, and a sentence on each that cannot be read.

    A video is finished when its record is there. ValueError if one of `roots` is no folder.
    """
    if other := [root for root in roots if not root.is_dir()]:
        raise ValueError(f"RESULTS {str(other[0])!r}: expected a folder that videocrafter_main.py wrote")
    videos, problems = [], []
    for path in dict.fromkeys(path for root in roots for path in find_records(Path(os.path.abspath(root)))):
        try:
            if record := read_record(path):
                videos.append(_video(path.parent, record))
        except ValueError as error:
            problems.append(str(error))
    return videos, problems


def _video(folder: Path, record: Mapping[str, Any]) -> Video:
    files = [folder / f"{folder.name}.mp4", folder / f"{folder.name}.gif"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ValueError(f"{folder}: neither {files[0].name} nor {files[1].name} is there")
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


def read_curves(path: Path, videos: Sequence[Video]) -> dict[Path, dict[str, Curve]]:
    """The curves of `videos`, by their folders, from the report.json of `scripts/evaluate.py --output`.

    Its paths are of the frames that were measured, in a video's folder; they are looked up from the working directory,
    then from the file's own folder. Other videos' entries, and curves without a number, are left out. ValueError if the
    file cannot be read, is no such report, or says nothing about any of `videos`.
    """
    where = f"--metrics {str(path)!r}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [(Path(entry["path"]), curves_of(entry)) for entry in content["videos"]]
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where}: not a report.json of scripts/evaluate.py ({error})") from error
    folders, found = {video.folder for video in videos}, {}
    for frames, curves in entries:
        places = (Path(os.path.abspath(base / frames)).parent for base in (Path(), path.parent))
        folder = next((place for place in places if place in folders), None)
        if folder:
            found[folder] = {name: curve for name, curve in curves.items() if any(map(math.isfinite, curve.values))}
    if not found:
        raise ValueError(f"{where}: none of its {len(entries)} videos is in this gallery")
    return found
