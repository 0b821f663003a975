"""What came out, for people and for programs: a Markdown table, CSV and JSON."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from lvdm.evaluation.cache import as_json
from lvdm.evaluation.measure import Measurement
from lvdm.evaluation.metrics import COLUMNS, SHAPES
from lvdm.evaluation.reading import Source
from lvdm.evaluation.statistics import Summary, p_value, paired, q_values, summarize
from lvdm.io.files import whole_file

FEW = 10  # frames of a video that the table's remarks name
REAL = 0.05  # the false discovery rate up to which a difference is shown as one


@dataclass(frozen=True)
class Row:
    """One metric of one experiment; `against` is the difference to the baseline, None where there are no pairs.

    q: the false discovery rate of calling this difference real, and with it all of the report that are clearer.
    """

    metric: str
    experiment: str
    summary: Summary
    against: Summary | None
    q: float | None = None

    @property
    def real(self) -> bool:
        """Whether the difference is one that chance would hardly make, among so many."""
        return self.q is not None and self.q < REAL


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

    @cached_property
    def rows(self) -> list[Row]:
        """Metric by metric, experiment by experiment; what no video has is not there."""
        rows, p_values = [], {}
        for metric, experiment in product(COLUMNS, self.experiments):
            values = self._values(metric, experiment)
            summary = summarize(values.values())
            if summary is not None:
                other = self.baseline if experiment != self.baseline else None
                differences = paired(values, self._values(metric, other)) if other else []
                if differences:
                    p_values[len(rows)] = p_value(differences)
                rows.append(Row(metric, experiment, summary, summarize(differences)))
        for at, q in zip(p_values, q_values(list(p_values.values())), strict=True):
            rows[at] = replace(rows[at], q=q)
        return rows

    def missing(self) -> dict[str, str]:
        """Every metric that has no row, and why."""
        measured = {name for _, one in self.videos for name in one.numbers}
        shapes = dict.fromkeys(
            (shape.name for shape in SHAPES), "no prompt is a caption of the shapes grammar, or windows are too short"
        )
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
    notes = [f"{what}: {name}" for what, name in report.encoders.items()]
    reasons: dict[str, list[str]] = {}
    for name, reason in report.missing().items():
        reasons.setdefault(reason, []).append(name)
    notes += [f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    forms = sorted({source.path.suffix or "pictures" for source, _ in report.videos})
    if len(forms) > 1:
        notes.append(f"videos are of several kinds ({', '.join(forms)}): lossy files change flickering and duplicates")
    if len({(one.height, one.width) for _, one in report.videos}) > 1:
        notes.append("videos are of several sizes: motion is in the pixels of each")
    for kind in ("seams", "duplicates"):
        for source, measurement in report.videos:
            if frames := getattr(measurement, kind):
                shown = ", ".join(map(str, frames[:FEW])) + (f" and {len(frames) - FEW} more" if frames[FEW:] else "")
                notes.append(f"{kind} in {source.path}: at frame {shown}")
    notes += [f"missing: {problem}" for problem in report.problems]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).strip() + "\n"


def differences_at_a_glance(report: Report) -> str:
    """A table with a line for the baseline's means and one for each experiment's differences to it, pair by pair.

    Those that chance would hardly make are bold: of these, one in twenty may be expected to be chance all the same.
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


def write(report: Report, folder: Path) -> None:
    """In `folder`: table.md, report.json, videos.csv, curves.csv, experiments.csv; with pairs, differences.md."""
    _write_text(folder / "table.md", markdown(report))
    if any(row.against for row in report.rows):
        _write_text(folder / "differences.md", differences_at_a_glance(report))
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
    fields = list(Summary.__dataclass_fields__)
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
                **as_json(measurement),
            }
            for source, measurement in report.videos
        ],
    }


def _line(cells: Sequence[Any]) -> str:
    r"""A line of a table; a bar in a name is written \|, as Markdown has it."""
    texts = (str(cell).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(texts)} |"


def _arrow(metric: str) -> str:
    return {"higher": "↑", "lower": "↓", "": ""}[COLUMNS[metric].better]


def _difference(row: Row) -> str:
    text = _number(row.against.mean, sign=True, digits=2)
    return f"**{text}**" if row.real else text


def _number(value: float | None, *, sign: bool = False, digits: int = 4) -> str:
    return "" if value is None else f"{value:{'+' if sign else ''}.{digits}g}"


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
