"""Measurements that stay on the disk, so that a second run measures only what is new or has changed."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lvdm.evaluation.measure import Instruments, Measurement, measure
from lvdm.evaluation.metrics import Curve
from lvdm.evaluation.reading import Source, fingerprint
from lvdm.io.files import whole_file

VERSION = 2  # of the metrics: another number where a change to them changes results


def measured(
    source: Source, instruments: Instruments, *, folder: Path, progress: Callable[[int], object]
) -> Measurement:
    """The measurement of a video, read from `folder` if the video and the instruments are the same, and kept there.

    A video is the same if its files have the same names, sizes and times of change, and its prompt is the same.
    """
    identity = {
        "version": VERSION,
        "path": str(source.path.resolve()),
        "files": fingerprint(source.path),
        "schedule": source.schedule,
        "settings": instruments.settings | {"window": instruments.window},
    }
    measurement = kept(identity, folder=folder)
    if measurement is None:
        measurement = measure(source, instruments, progress=progress)
        keep(measurement, identity, folder=folder)
    else:
        progress(measurement.frames)
    return measurement


def kept(identity: Mapping[str, Any], *, folder: Path) -> Measurement | None:
    """The measurement that `keep` wrote with the same `identity`; None if there is none, or none that is whole.

    identity: everything that it depends on, for JSON.
    """
    try:
        content = json.loads(_place(identity, folder).read_text(encoding="utf-8"))["measurement"]
        return Measurement(**{**content, "curves": curves_of(content)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(measurement: Measurement, identity: Mapping[str, Any], *, folder: Path) -> None:
    """Writes a small file in `folder`."""
    content = {"of": identity, "measurement": as_json(measurement)}
    with whole_file(_place(identity, folder)) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _place(identity: Mapping[str, Any], folder: Path) -> Path:
    text = json.dumps(identity, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def as_json(measurement: Measurement) -> dict[str, Any]:
    """With None for NaN, which JSON does not have."""
    curves = {
        name: asdict(curve) | {"values": [None if math.isnan(value) else value for value in curve.values]}
        for name, curve in measurement.curves.items()
    }
    return {**vars(measurement), "curves": curves}


def curves_of(content: Mapping[str, Any]) -> dict[str, Curve]:
    """The curves of what `as_json` returned. ValueError, KeyError, TypeError or AttributeError if they are not."""
    return {
        name: Curve(
            window=int(curve["window"]),
            values=tuple(math.nan if value is None else float(value) for value in curve["values"]),
            counts=tuple(curve["counts"]),
        )
        for name, curve in content["curves"].items()
    }
