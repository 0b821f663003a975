"""What came out, for people and for programs: a Markdown table, CSV, JSON, and plots over frames."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lvdm.evaluation.cache import as_json
from lvdm.evaluation.measure import Measurement
from lvdm.evaluation.metrics import COLUMNS, SHAPES
from lvdm.evaluation.reading import Source
from lvdm.evaluation.statistics import Summary, bootstrap_interval, paired, summarize
from lvdm.files import whole_file

FEW = 10  # frames of a video that the table's remarks name


@dataclass(frozen=True)
class Row:
    """One metric of one experiment; `against` is the difference to the baseline, None where there are no pairs."""

    metric: str
    experiment: str
    summary: Summary
    against: Summary | None


@dataclass(frozen=True)
class Report:
    """All that is reported. encoders: what metrics were seen with, by name. left_out: metrics, and why."""

    videos: Sequence[tuple[Source, Measurement]]
    baseline: str | None
    encoders: Mapping[str, str]
    left_out: Mapping[str, str]
    problems: Sequence[str]

    @property
    def experiments(self) -> list[str]:
        return list(dict.fromkeys(source.experiment for source, _ in self.videos))

    def rows(self) -> list[Row]:
        """Metric by metric, experiment by experiment; what no video has is not there."""
        rows = []
        for metric, experiment in product(COLUMNS, self.experiments):
            values = self._values(metric, experiment)
            summary = summarize(values.values())
            if summary is not None:
                other = self.baseline if experiment != self.baseline else None
                against = paired(values, self._values(metric, other)) if other else None
                rows.append(Row(metric, experiment, summary, against))
        return rows

    def missing(self) -> dict[str, str]:
        """Every metric that has no row, and why."""
        measured = {name for _, one in self.videos for name in one.numbers}
        shapes = dict.fromkeys((shape.name for shape in SHAPES), "no prompt is a caption of the shapes grammar")
        short = dict.fromkeys(COLUMNS, "the videos have too few frames, or no prompt")
        return {name: ({**short, **shapes, **self.left_out})[name] for name in COLUMNS if name not in measured}

    def _values(self, metric: str, experiment: str) -> dict[tuple[Any, ...], tuple[str, float]]:
        return {
            source.key: (source.prompt, measurement.numbers[metric])
            for source, measurement in self.videos
            if source.experiment == experiment and metric in measurement.numbers
        }


def markdown(report: Report) -> str:
    """The table, then what it was seen with, what was left out, and where seams and duplicates are."""
    columns = ["metric", "experiment", "prompts", "mean", "SD", "95 % interval"]
    if report.baseline:
        columns += [f"less {report.baseline}", "95 % interval", "pairs"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in report.rows():
        column = COLUMNS[row.metric]
        arrow = {"higher": " ↑", "lower": " ↓", "": ""}[column.better]
        one, other = row.summary, row.against
        cells = [f"{row.metric} ({column.unit}){arrow}", row.experiment, one.prompts, _number(one.mean)]
        cells += [_number(one.deviation), _interval(one)]
        if report.baseline:
            cells += [_number(other.mean, sign=True), _interval(other), other.videos] if other else [""] * 3
        lines.append(f"| {' | '.join(map(str, cells))} |")
    notes = [f"{what}: {name}" for what, name in report.encoders.items()]
    reasons: dict[str, list[str]] = {}
    for name, reason in report.missing().items():
        reasons.setdefault(reason, []).append(name)
    notes += [f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    forms = sorted({source.path.suffix or "pictures" for source, _ in report.videos})
    if len(forms) > 1:
        notes.append(f"videos are of several kinds ({', '.join(forms)}): lossy files change flickering and duplicates")
    for kind in ("seams", "duplicates"):
        for source, measurement in report.videos:
            if frames := getattr(measurement, kind):
                shown = ", ".join(map(str, frames[:FEW])) + (f" and {len(frames) - FEW} more" if frames[FEW:] else "")
                notes.append(f"{kind} in {source.path}: at frame {shown}")
    notes += [f"not read: {problem}" for problem in report.problems]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).strip() + "\n"


def write(report: Report, folder: Path) -> None:
    """table.md, report.json, videos.csv, curves.csv, experiments.csv, and plots/{metric}.png, below `folder`."""
    _write_text(folder / "table.md", markdown(report))
    _write_text(folder / "report.json", json.dumps(_content(report), ensure_ascii=False, indent=1) + "\n")
    names = [name for name in COLUMNS if any(name in one.numbers for _, one in report.videos)]
    known = ["experiment", "name", "prompt", "path", "frames", "height", "width"]
    _write_csv(
        folder / "videos.csv",
        [*known, *names, "seams_at", "duplicates_at"],
        [
            [source.experiment, source.name, source.prompt, source.path, one.frames, one.height, one.width]
            + [one.numbers.get(name, "") for name in names]
            + [" ".join(map(str, frames)) for frames in (one.seams, one.duplicates)]
            for source, one in report.videos
        ],
    )
    _write_csv(
        folder / "curves.csv",
        ["experiment", "name", "metric", "first_frame", "values", "mean"],
        [
            [source.experiment, source.name, metric, at * curve.window, count, value]
            for source, one in report.videos
            for metric, curve in one.curves.items()
            for at, (value, count) in enumerate(zip(curve.values, curve.counts, strict=True))
            if count
        ],
    )
    fields = list(Summary.__dataclass_fields__)
    _write_csv(
        folder / "experiments.csv",
        ["metric", "experiment", *fields, *(f"difference_{name}" for name in fields)],
        [
            [
                row.metric,
                row.experiment,
                *_cells(row.summary),
                *(_cells(row.against) if row.against else [""] * len(fields)),
            ]
            for row in report.rows()
        ],
    )
    for metric in COLUMNS:
        if any(metric in one.curves for _, one in report.videos):
            with whole_file(folder / "plots" / f"{metric}.png") as partial:
                plot(report, metric).savefig(partial, dpi=120)


def plot(report: Report, metric: str) -> Figure:
    """The mean curve over prompts of every experiment against the frame number, with its 95 % interval as a band."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    colors = cycle(f"C{number}" for number in range(10))
    for experiment, color in zip(report.experiments, colors, strict=False):
        frames, values = _curves(report, metric, experiment)
        if not len(frames):
            continue
        axes.plot(frames, np.nanmean(values, axis=0), color=color, marker=".", label=experiment)
        if len(values) > 1:
            axes.fill_between(frames, *bootstrap_interval(values), color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="frame", ylabel=f"{metric} ({COLUMNS[metric].unit})")
    axes.legend(fontsize="small")
    return figure


def _curves(report: Report, metric: str, experiment: str) -> tuple[np.ndarray, np.ndarray]:
    """The middles (K,) of the windows in which a metric is known, and its means there for each of N prompts (N, K)."""
    videos = [
        (source.prompt, one.frames, one.curves[metric])
        for source, one in report.videos
        if source.experiment == experiment and metric in one.curves
    ]
    longest = max((len(curve.values) for _, _, curve in videos), default=0)
    sums, counts = defaultdict(lambda: np.zeros(longest)), defaultdict(lambda: np.zeros(longest))
    for prompt, _, curve in videos:
        known = ~np.isnan(curve.values)
        sums[prompt][: len(known)] += np.where(known, curve.values, 0)
        counts[prompt][: len(known)] += known
    means = [
        np.divide(sums[prompt], counts[prompt], out=np.full(longest, math.nan), where=counts[prompt] > 0)
        for prompt in sums
    ]
    known = sum(counts.values(), np.zeros(longest)) > 0
    window = videos[0][2].window if videos else 1
    starts = window * np.arange(longest)
    ends = np.minimum(starts + window, max((frames for _, frames, _ in videos), default=0))
    return ((starts + ends) / 2)[known], np.reshape(means, (len(means), longest))[:, known]


def _content(report: Report) -> dict[str, Any]:
    return {
        "encoders": report.encoders,
        "baseline": report.baseline,
        "left_out": report.missing(),
        "problems": report.problems,
        "experiments": [asdict(row) for row in report.rows()],
        "videos": [
            {
                "experiment": source.experiment,
                "name": source.name,
                "prompt": source.prompt,
                "path": str(source.path),
                **as_json(measurement),
            }
            for source, measurement in report.videos
        ],
    }


def _number(value: float | None, *, sign: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if sign else ''}.4g}"


def _interval(summary: Summary) -> str:
    return "" if summary.low is None else f"{_number(summary.low)} to {_number(summary.high)}"


def _cells(summary: Summary) -> list[Any]:
    return ["" if value is None else value for value in asdict(summary).values()]


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])
