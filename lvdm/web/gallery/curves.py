"""Read the curves of videos from a report on them, to be shown below the videos."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from lvdm.evaluation.cache import parse_curves
from lvdm.evaluation.metrics import Curve
from lvdm.io.results import Result


def read_curves(path: Path, results: Sequence[Result]) -> dict[Path, dict[str, Curve]]:
    """Return the curves of `results`, by their folders, from the report.json of `scripts/evaluate.py --output`.

    The report has the paths of the frames that were measured, which are in a result's folder. They are relative to the
    working directory or to the folder of the report. Entries of other videos, and curves without a number, are left
    out.

    Raises:
        ValueError: the file cannot be read, is no such report, or has none of `results`.
    """
    where = f"--metrics {str(path)!r}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [(Path(entry["path"]), parse_curves(entry)) for entry in content["videos"]]
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where}: not a report.json of scripts/evaluate.py ({error})") from error
    folders, found = {result.folder for result in results}, {}
    for frames, curves in entries:
        candidates = (Path(os.path.abspath(base / frames)).parent for base in (Path(), path.parent))
        folder = next((candidate for candidate in candidates if candidate in folders), None)
        if folder:
            found[folder] = {name: curve for name, curve in curves.items() if any(map(math.isfinite, curve.values))}
    if not found:
        raise ValueError(f"{where}: none of its {len(entries)} videos is in this gallery")
    return found
