"""Plot a report: metrics against the frame number, and differences to the baseline."""

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lvdm.evaluation.metrics import COLUMNS
from lvdm.evaluation.report import Report, Row
from lvdm.evaluation.statistics import bootstrap_interval
from lvdm.io.files import whole_file

LINES = tuple(product(("-", "--", ":"), (f"C{number}" for number in range(10))))  # one for each experiment
OVERVIEW = (  # what to look at first: consistency, drift, and whether the video shows its caption
    *("latent_consistency", "background_consistency", "brightness_drift", "contrast_drift", "shapes_all_four"),
    *("journey_second_color_kept", "journey_all_words"),
)
ACROSS, DIFFERENCES_ACROSS = 3, 4  # panels in a row


def write_plots(report: Report, folder: Path) -> None:
    """Write {metric}.png, overview.png and, with a baseline, differences.png into `folder`.

    A plot without values is not written, and one that an earlier report left is removed.
    """
    figures = {metric: plot(report, metric) for metric in COLUMNS if _has_curve(report, metric)}
    if shown := [metric for metric in OVERVIEW if metric in figures]:
        figures["overview"] = overview(report, shown)
    if rows := [row for row in report.rows if row.against]:
        figures["differences"] = differences(report, rows)
    for name in {*COLUMNS, "overview", "differences"} - set(figures):
        (folder / f"{name}.png").unlink(missing_ok=True)
    for name, figure in figures.items():
        with whole_file(folder / f"{name}.png") as partial:
            figure.savefig(partial, dpi=120)


def plot(report: Report, metric: str) -> Figure:
    """Plot the mean over prompts against the frame number: a line and a band, its 95 % interval, per experiment."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    _draw(axes, report, metric, banded=report.experiments)
    axes.legend(fontsize="small")
    return figure


def overview(report: Report, metrics: Sequence[str]) -> Figure:
    """Plot a panel for each of `metrics`, with one legend. With a baseline only its interval is drawn."""
    figure, panels = _panels(len(metrics), across=ACROSS, width=4.2, height=3.2, sharey=False)
    banded = [report.baseline] if report.baseline else report.experiments
    for axes, metric in zip(panels, metrics, strict=True):
        _draw(axes, report, metric, banded=banded)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def differences(report: Report, rows: Sequence[Row]) -> Figure:
    """Plot a panel for each metric with the mean paired differences to the baseline and their 95 % intervals.

    Real differences have full dots.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    experiments = [name for name in report.experiments if name != report.baseline]
    height = 1 + 0.25 * len(experiments)
    figure, panels = _panels(len(metrics), across=DIFFERENCES_ACROSS, width=3.4, height=height, sharey=True)
    for axes, metric in zip(panels, metrics, strict=True):
        axes.axvline(0, color="0.6", linewidth=1)
        for row in rows:
            if row.metric == metric:
                place, other = experiments.index(row.experiment), row.against
                if other.low is not None:
                    axes.plot([other.low, other.high], [place, place], color="C0")
                axes.plot(other.mean, place, "o", color="C0", markersize=4, fillstyle="full" if row.real else "none")
        better = COLUMNS[metric].better
        axes.set_title(metric + (f" ({better} is better)" if better else ""), fontsize="small")
        axes.tick_params(labelsize="small")
        axes.locator_params(axis="x", nbins=4)
        axes.set_yticks(range(len(experiments)), experiments)
        axes.set_ylim(len(experiments) - 0.5, -0.5)
    figure.supxlabel(
        f"difference to {report.baseline}, pair by pair, with its 95 % interval; full: false discovery rate below 5 %",
        fontsize="small",
    )
    return figure


def _panels(count: int, *, across: int, width: float, height: float, sharey: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure and its `count` panels, each of that size in inches, with `across` of them in a row."""
    across = min(across, count)
    down = math.ceil(count / across)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    panels = figure.subplots(down, across, sharey=sharey, squeeze=False).flatten().tolist()
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def _draw(axes: Axes, report: Report, metric: str, *, banded: Sequence[str]) -> None:
    """Draw the curves of a metric. banded: the experiments whose intervals are drawn too."""
    for experiment, (line, color) in zip(report.experiments, cycle(LINES), strict=False):
        frames, values = _curves(report, metric, experiment)
        if not len(frames):
            continue
        axes.plot(frames, np.nanmean(values, axis=0), line, color=color, marker=".", label=experiment)
        if len(values) > 1 and experiment in banded:
            axes.fill_between(frames, *bootstrap_interval(values), color=color, alpha=0.12, linewidth=0)
    axes.set(xlabel="frame", ylabel=f"{metric}\n({COLUMNS[metric].unit})")


def _has_curve(report: Report, metric: str) -> bool:
    return any(metric in one.curves for _, one in report.videos)


def _curves(report: Report, metric: str, experiment: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles (K,) of the windows in which a metric has values, and its means there by prompt (N, K)."""
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
