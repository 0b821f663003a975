"""Report measurements as a Markdown table for people, and as CSV and JSON for programs."""

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from lvdm.evaluation.cache import to_json
from lvdm.evaluation.measure import Measurement
from lvdm.evaluation.metrics import COLUMNS, JOURNEY_EVENTS, JOURNEYS, SHAPES, START_END
from lvdm.evaluation.sources import Source
from lvdm.evaluation.statistics import Estimate, estimate_mean, p_value, paired_differences, q_values
from lvdm.io.files import whole_file

FEW = 10  # seams or duplicates of a video that the notes list
REAL = 0.05  # the false discovery rate below which a difference is shown as real


@dataclass(frozen=True)
class Row:
    """One metric of one experiment.

    Args:
        summary: its mean.
        against: its mean difference to the baseline; None if there are no pairs.
        q: the false discovery rate of calling this difference, and all in the report with smaller p values, real.
    """

    metric: str
    experiment: str
    summary: Estimate
    against: Estimate | None
    q: float | None = None

    @property
    def real(self) -> bool:
        """Return whether the difference is real at the report's false discovery rate."""
        return self.q is not None and self.q < REAL


@dataclass(frozen=True)
class Report:
    """Everything that is reported.

    Args:
        videos: each video with its measurement.
        baseline: the experiment that the others are compared with; None for none.
        encoders: the names of the encoders that were used, by what they are.
        left_out: the metrics that no video can have, with the reason.
        problems: messages on videos that are missing.
    """

    videos: Sequence[tuple[Source, Measurement]]
    baseline: str | None
    encoders: Mapping[str, str]
    left_out: Mapping[str, str]
    problems: Sequence[str]

    @property
    def experiments(self) -> list[str]:
        """Return the names of the experiments, in the order of their first videos."""
        return list(dict.fromkeys(source.experiment for source, _ in self.videos))

    @cached_property
    def rows(self) -> list[Row]:
        """Return a row for every metric and experiment of which there are values."""
        rows, p_values = [], {}
        for metric, experiment in product(COLUMNS, self.experiments):
            values = self._values(metric, experiment)
            summary = estimate_mean(values.values())
            if summary is not None:
                other = self.baseline if experiment != self.baseline else None
                differences = paired_differences(values, self._values(metric, other)) if other else []
                if differences:
                    p_values[len(rows)] = p_value(differences)
                rows.append(Row(metric, experiment, summary, estimate_mean(differences)))
        for at, q in zip(p_values, q_values(list(p_values.values())), strict=True):
            rows[at] = replace(rows[at], q=q)
        return rows

    def missing(self) -> dict[str, str]:
        """Return every metric without a row, with the reason."""
        measured = {name for _, one in self.videos for name in one.numbers}
        reasons = dict.fromkeys(COLUMNS, "the videos have too few frames, or no prompt")
        reasons |= dict.fromkeys(
            (shape.name for shape in SHAPES), "no prompt is a caption of the shapes grammar, or windows are too short"
        )
        reasons |= dict.fromkeys((column.name for column in (*JOURNEYS, *JOURNEY_EVENTS)), _why_no_journey(measured))
        reasons |= self.left_out
        reasons |= {START_END[name].name: reasons[name] for name in START_END if name not in measured}
        return {name: reasons[name] for name in COLUMNS if name not in measured}

    def _values(self, metric: str, experiment: str) -> dict[tuple[Any, ...], tuple[str, float]]:
        """Return (prompt, value) of each video of an experiment, by its key."""
        return {
            source.key: (source.prompt, measurement.numbers[metric])
            for source, measurement in self.videos
            if source.experiment == experiment and metric in measurement.numbers
        }


def _why_no_journey(measured: Collection[str]) -> str:
    """Return why metrics of journeys are left out, for a report that has the metrics `measured`."""
    if "journey_all_words" in measured:
        return "no caption names the word, no schedule changes it, or it cannot be read"
    return (
        "no prompt is a caption of the journeys grammar, or the frames are fewer than 16, narrower than 3 : 2 or lower "
        "than 32 pixels"
    )


def markdown(report: Report) -> str:
    """Return the report as Markdown: the table, then the encoders, what is left out, seams and duplicates, problems."""
    columns = ["metric", "experiment", "prompts", "mean", "SD", "95 % interval"]
    if report.baseline:
        columns += [f"less {report.baseline}", "95 % interval", "q", "pairs"]
    lines = [_line(columns), "|---" * len(columns) + "|"]
    for row in report.rows:
        one, other = row.summary, row.against
        name = f"{row.metric} ({COLUMNS[row.metric].unit}) {_arrow(row.metric)}".strip()
        cells = [name, row.experiment, one.prompts, _number(one.mean)]
        cells += [_number(one.deviation), _interval(one)]
        if report.baseline:
            difference = (
                [_number(other.mean, sign=True), _interval(other), f"{row.q:.2g}", other.videos] if other else []
            )
            cells += difference or [""] * 4
        lines.append(_line(cells))
    return "\n".join([*lines, "", *(f"- {note}" for note in _notes(report))]).strip() + "\n"


def _notes(report: Report) -> list[str]:
    """Return what the table does not say."""
    notes = [f"{kind}: {name}" for kind, name in report.encoders.items()]
    reasons: dict[str, list[str]] = {}
    missing = report.missing()
    implied = {column.name for name, column in START_END.items() if name in missing}
    for name, reason in missing.items():
        if name not in implied:
            reasons.setdefault(reason, []).append(name)
    notes += [f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    forms = sorted({source.path.suffix or "pictures" for source, _ in report.videos})
    if len(forms) > 1:
        notes.append(
            f"videos have several formats ({', '.join(forms)}): lossy compression changes flickering and duplicates"
        )
    if len({(one.height, one.width) for _, one in report.videos}) > 1:
        notes.append("videos have several sizes: motion and jerk are in pixels of each video")
    for kind in ("seams", "duplicates"):
        for source, measurement in report.videos:
            if frames := getattr(measurement, kind):
                shown = ", ".join(map(str, frames[:FEW])) + (f" and {len(frames) - FEW} more" if frames[FEW:] else "")
                notes.append(f"{kind} in {source.path}: at frame {shown}")
    return notes + [f"missing: {problem}" for problem in report.problems]


def differences_table(report: Report) -> str:
    """Return a Markdown table of the baseline's means and, for each experiment, of its paired differences to them.

    Real differences are bold; one in twenty of these is expected to be false.
    """
    rows = report.rows
    metrics = list(dict.fromkeys(row.metric for row in rows if row.against))
    texts = {(row.experiment, row.metric): _difference(row) for row in rows if row.against}
    means = {row.metric: _number(row.summary.mean) for row in rows if row.experiment == report.baseline}
    lines = [_line(["", *(f"{name} {_arrow(name)}".strip() for name in metrics)]), "|---" * (len(metrics) + 1) + "|"]
    lines.append(_line([report.baseline, *(means[name] for name in metrics)]))
    for experiment in dict.fromkeys(experiment for experiment, _ in texts):
        lines.append(_line([experiment, *(texts.get((experiment, name), "") for name in metrics)]))
    return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write table.md, report.json, videos.csv, curves.csv and experiments.csv, and with pairs differences.md."""
    _write_text(folder / "table.md", markdown(report))
    if any(row.against for row in report.rows):
        _write_text(folder / "differences.md", differences_table(report))
    else:
        (folder / "differences.md").unlink(missing_ok=True)
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
    fields = list(Estimate.__dataclass_fields__)
    _write_csv(
        folder / "experiments.csv",
        ["metric", "experiment", *fields, *(f"difference_{name}" for name in fields), "q"],
        [
            [
                row.metric,
                row.experiment,
                *_cells(row.summary),
                *([*_cells(row.against), row.q] if row.against else [""] * (len(fields) + 1)),
            ]
            for row in report.rows
        ],
    )


def _content(report: Report) -> dict[str, Any]:
    return {
        "encoders": report.encoders,
        "baseline": report.baseline,
        "left_out": report.missing(),
        "problems": report.problems,
        "experiments": [asdict(row) for row in report.rows],
        "videos": [
            {
                "experiment": source.experiment,
                "name": source.name,
                "prompt": source.prompt,
                "path": str(source.path),
                **to_json(measurement),
            }
            for source, measurement in report.videos
        ],
    }


def _line(cells: Sequence[Any]) -> str:
    r"""Return a line of a Markdown table; a bar in a cell is written as \|."""
    texts = (str(cell).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(texts)} |"


def _arrow(metric: str) -> str:
    return {"higher": "↑", "lower": "↓", "": ""}[COLUMNS[metric].better]


def _difference(row: Row) -> str:
    text = _number(row.against.mean, sign=True, digits=2)
    return f"**{text}**" if row.real else text


def _number(value: float | None, *, sign: bool = False, digits: int = 4) -> str:
    return "" if value is None else f"{value:{'+' if sign else ''}.{digits}g}"


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None else f"{_number(estimate.low)} to {_number(estimate.high)}"


def _cells(estimate: Estimate) -> list[Any]:
    return ["" if value is None else value for value in asdict(estimate).values()]


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])
