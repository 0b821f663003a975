"""Build the gallery as one HTML file: page.html with page.css, page.js and the data of the videos inserted."""

import base64
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lvdm.evaluation.metrics import Curve
from lvdm.io.results import Result
from lvdm.web.gallery.media import Movie

TEMPLATE = Path(__file__).parent


def build_page(
    results: Sequence[Result],
    movies: Mapping[Path, Movie],
    *,
    curves: Mapping[Path, Mapping[str, Curve]],
    problems: Sequence[str],
    folder: Path,
    embed: bool,
) -> str:
    """Return the HTML of a page.

    Args:
        movies: the MP4 of each result, by the result's folder.
        curves: the curves of some of the results, by the result's folder and the curve's name.
        problems: messages on results that are not shown.
        folder: where the page will be.
        embed: whether the MP4s become part of the page; otherwise it has their paths relative to `folder`.
    """
    names = column_names(results)
    rows: dict[tuple[Hashable, int], dict[str, Any]] = {}
    for result in results:
        movie, name = movies[result.folder], names[result.folder]
        # two results with the same identity and experiment get a row each, so that neither hides the other
        keys = ((result.identity, number) for number in count())
        key = next(key for key in keys if key not in rows or name not in rows[key]["cells"])
        row = rows.setdefault(key, _new_row(result))
        row["cells"][name] = {
            "src": data_url(movie.path) if embed else relative_url(movie.path, folder),
            "frames": movie.frames,
            "fps": movie.fps,
            "width": movie.width,
            "height": movie.height,
            "fromGif": result.find_movie().suffix == ".gif",
            "settings": _shown_settings(result),
            "curves": {name: _steps(curve) for name, curve in curves.get(result.folder, {}).items()},
        }
    data = {"experiments": sorted(set(names.values())), "rows": list(rows.values()), "problems": problems}
    parts = {name: (TEMPLATE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")}
    parts["data"] = script_json(data)
    # in one pass, so that inserted text is not searched for placeholders
    html = (TEMPLATE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{([\w.]+)\}\}", lambda placeholder: parts[placeholder[1]], html)


def _new_row(result: Result) -> dict[str, Any]:
    path = result.image.get("path")
    return {
        "prompt": result.prompt,
        "picture": None if path is None else Path(str(path)).name,
        "seed": _text(result.record.get("seed")),
        "cells": {},
    }


def _shown_settings(result: Result) -> dict[str, str]:
    """Return the settings that are set, as texts; of a digest the first digits."""
    texts = {name: _text(value) for name, value in result.settings.items() if value not in (None, "")}
    texts.pop("the prompt", None)  # the row's title
    return {name: text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text for name, text in texts.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _steps(curve: Curve) -> dict[str, Any]:
    """Return a value for every `window` frames; None where there is no number."""
    return {"window": curve.window, "values": [value if math.isfinite(value) else None for value in curve.values]}


def column_names(results: Sequence[Result]) -> dict[Path, str]:
    """Return the name of each result's experiment, by the result's folder.

    Experiments of the same name in several roots get the root before the name if they share a video, as those of two
    models do. Roots with different prompts or seeds, as those of an ablation, are parts of one experiment.
    """
    roots, places = defaultdict(set), defaultdict(set)
    for result in results:
        roots[result.experiment].add(result.root)
        places[result.experiment, result.identity].add(result.root)
    ambiguous = {experiment for (experiment, _), several in places.items() if len(several) > 1}
    names = {}
    for result in results:
        root = Path(os.path.relpath(result.root, os.path.commonpath(roots[result.experiment]))).as_posix()
        names[result.folder] = f"{root}/{result.experiment}" if result.experiment in ambiguous else result.experiment
    return names


def relative_url(file: Path, folder: Path) -> str:
    """Return the URL of `file` in a page in `folder`.

    Symbolic links are not resolved, since a browser removes ".." without looking at the file system.
    """
    return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))


def data_url(file: Path) -> str:
    """Return an MP4 as a URL that contains it."""
    return f"data:video/mp4;base64,{base64.b64encode(file.read_bytes()).decode()}"


def script_json(value: Any) -> str:
    """Return JSON for a <script>: ASCII only, and without "<", which could begin a tag that ends the script."""
    return json.dumps(value, allow_nan=False).replace("<", r"\u003c")
