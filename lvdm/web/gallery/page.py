"""The gallery as one HTML file: page.html with page.css, page.js and the videos' data put into it."""

import base64
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lvdm.evaluation.metrics import Curve
from lvdm.web.gallery.media import Clip
from lvdm.web.gallery.videos import Video

TEMPLATE = Path(__file__).parent


def page(
    videos: Sequence[Video],
    clips: Mapping[Path, Clip],
    *,
    curves: Mapping[Path, Mapping[str, Curve]],
    problems: Sequence[str],
    folder: Path,
    embed: bool,
) -> str:
    """The HTML of a page that is to lie in `folder`.

    clips: what is shown of each video. curves: of some of them, by name. Both are by the video's folder. problems:
    sentences on what is not shown.
    embed: the clips are part of the page; otherwise it names them by paths relative to `folder`.
    """
    names = column_names(videos)
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for video in videos:
        clip, name = clips[video.folder], names[video.folder]
        # two videos that should be one get a row each: none hides the other
        keys = ((video.same, number) for number in count())
        key = next(key for key in keys if key not in rows or name not in rows[key]["cells"])
        row = rows.setdefault(key, {"prompt": video.prompt, "picture": video.picture, "seed": video.seed, "cells": {}})
        row["cells"][name] = {
            "src": data_url(clip.path) if embed else relative_url(clip.path, folder),
            "frames": clip.frames,
            "fps": clip.fps,
            "width": clip.width,
            "height": clip.height,
            "fromGif": clip.path != video.file,
            "settings": video.settings,
            "curves": {name: _steps(curve) for name, curve in curves.get(video.folder, {}).items()},
        }
    data = {"experiments": sorted(set(names.values())), "rows": list(rows.values()), "problems": problems}
    parts = {name: (TEMPLATE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")}
    parts["data"] = script_json(data)
    # one pass: what is put in is not looked through for more places
    html = (TEMPLATE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{([\w.]+)\}\}", lambda place: parts[place[1]], html)


def _steps(curve: Curve) -> dict[str, Any]:
    """A value for every `window` frames; None where there is no number."""
    return {"window": curve.window, "values": [value if math.isfinite(value) else None for value in curve.values]}


def column_names(videos: Sequence[Video]) -> dict[Path, str]:
    """The experiment of each video, by its folder.

    With the root before it where an experiment of that name in another root has the same video, as of another model;
    roots with other prompts or seeds, as those of an ablation, are parts of one experiment.
    """
    roots, places = defaultdict(set), defaultdict(set)
    for video in videos:
        roots[video.experiment].add(video.root)
        places[video.experiment, video.same].add(video.root)
    told_apart = {experiment for (experiment, _), several in places.items() if len(several) > 1}
    names = {}
    for video in videos:
        root = Path(os.path.relpath(video.root, os.path.commonpath(roots[video.experiment]))).as_posix()
        names[video.folder] = f"{root}/{video.experiment}" if video.experiment in told_apart else video.experiment
    return names


def relative_url(file: Path, folder: Path) -> str:
    """How a page in `folder` names `file`. Links stay links: a browser takes ".." away without looking at them."""
    return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))


def data_url(file: Path) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(file.read_bytes()).decode()}"


def script_json(value: Any) -> str:
    """JSON that can stand in a <script>: ASCII only, and without the "<" of a tag that would end it."""
    return json.dumps(value, allow_nan=False).replace("<", r"\u003c")
