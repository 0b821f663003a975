"""Keep measurements on the disk, so that a second run measures only what is new or has changed."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lvdm.evaluation.instruments import Instruments
from lvdm.evaluation.measure import Measurement, measure
from lvdm.evaluation.metrics import Curve
from lvdm.evaluation.sources import Source
from lvdm.io.files import whole_file
from lvdm.io.frames import UnreadableVideoError, fingerprint
from lvdm.runtime.progress import progress_bar

VERSION = 3  # of the metrics; to be raised by every change of the code that changes results


def measure_all(
    sources: Sequence[Source], instruments: Instruments, *, folder: Path | None
) -> tuple[list[tuple[Source, Measurement]], list[str]]:
    """Measure videos, or read what `folder` has of them if it is given, and show the progress on stderr.

    Returns:
        Each video with its measurement, and a message for each video that cannot be read.
    """
    videos, problems = [], []
    with (
        progress_bar(desc="measuring", total=len(sources), unit="video") as bar,
        progress_bar(desc="frames", unit="frame") as frames,
    ):
        for source in sources:
            bar.set_postfix_str(f"{source.experiment}: {source.name}"[:40])
            try:
                if folder is None:
                    found = measure(source, instruments, progress=frames.update)
                else:
                    found = measure_cached(source, instruments, folder=folder, progress=frames.update)
                videos.append((source, found))
            except UnreadableVideoError as error:
                problems.append(str(error))
            bar.update()
    return videos, problems


def measure_cached(
    source: Source, instruments: Instruments, *, folder: Path, progress: Callable[[int], object]
) -> Measurement:
    """Return the measurement that `folder` has for the same video and instruments, or else measure and save it there.

    The video is the same if its files have the same names, sizes and modification times, and its prompt is the same.
    """
    identity = {
        "version": VERSION,
        "path": str(source.path.resolve()),
        "files": fingerprint(source.path),
        "schedule": source.schedule,
        "settings": instruments.settings | {"window": instruments.window},
    }
    measurement = load_measurement(identity, folder=folder)
    if measurement is None:
        measurement = measure(source, instruments, progress=progress)
        save_measurement(measurement, identity, folder=folder)
    else:
        progress(measurement.frames)
    return measurement


def load_measurement(identity: Mapping[str, Any], *, folder: Path) -> Measurement | None:
    """Return the measurement that was saved under `identity`, or None if there is none or its file is damaged.

    Args:
        identity: everything that the measurement depends on, as JSON values.
    """
    try:
        content = json.loads(_path(identity, folder).read_text(encoding="utf-8"))["measurement"]
        return Measurement(**{**content, "curves": parse_curves(content)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_measurement(measurement: Measurement, identity: Mapping[str, Any], *, folder: Path) -> None:
    """Write a small file in `folder`, for `load_measurement` with the same `identity`."""
    content = {"of": identity, "measurement": to_json(measurement)}
    with whole_file(_path(identity, folder)) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _path(identity: Mapping[str, Any], folder: Path) -> Path:
    text = json.dumps(identity, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def to_json(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as JSON values, with None for NaN."""
    curves = {
        name: asdict(curve) | {"values": [None if math.isnan(value) else value for value in curve.values]}
        for name, curve in measurement.curves.items()
    }
    return {**vars(measurement), "curves": curves}


def parse_curves(content: Mapping[str, Any]) -> dict[str, Curve]:
    """Return the curves in what `to_json` returned.

    Raises ValueError, KeyError, TypeError or AttributeError if `content` is something else.
    """
    return {
        name: Curve(
            window=int(curve["window"]),
            values=tuple(math.nan if value is None else float(value) for value in curve["values"]),
            counts=tuple(curve["counts"]),
        )
        for name, curve in content["curves"].items()
    }
