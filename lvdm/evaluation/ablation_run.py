"""Make and measure the videos of an ablation, and report on those that are measured."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lvdm.evaluation.ablation import BASELINE, Trial
from lvdm.evaluation.cache import load_measurement, save_measurement
from lvdm.evaluation.instruments import Instruments
from lvdm.evaluation.measure import measure
from lvdm.evaluation.report import Report
from lvdm.io.files import remove
from lvdm.pipeline.options import Options
from lvdm.pipeline.record import recorded_frames
from lvdm.runtime.errors import one_line
from lvdm.runtime.progress import print_above, progress_bar
from lvdm.runtime.signals import Stop


def status_table(trials: Sequence[Trial], folder: Path) -> str:
    """Return a Markdown table of how many videos of each experiment are measured, made, and still to be made.

    Args:
        folder: where the measurements are.
    """
    lines = ["| experiment | videos | measured | made | to make |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(trial.experiment for trial in trials):
        own = [trial for trial in trials if trial.experiment == name]
        rest = [trial for trial in own if load_measurement(trial.identity, folder=folder) is None]
        made = sum(
            not trial.options.overwrite and (recorded_frames(trial.video) or 0) >= trial.video.frames for trial in rest
        )
        lines.append(f"| {name} | {len(own)} | {len(own) - len(rest)} | {made} | {len(rest) - made} |")
    return "\n".join(lines)


def make_and_measure(
    trials: Sequence[Trial],
    instruments: Instruments,
    *,
    make: Callable[[Options, Stop], bool],
    folder: Path,
    keep_videos: bool,
    stop: Stop,
) -> int:
    """Make and measure the videos that are not measured yet, one after the other; return how many of them failed.

    A failure is reported on stderr, and the other videos are made all the same.

    Args:
        make: makes the video of a trial's options; returns False, after reporting why, if that failed.
        folder: where the measurements are.
    """
    left = [trial for trial in trials if load_measurement(trial.identity, folder=folder) is None]
    done = len(trials) - len(left)
    failed = 0
    with progress_bar(desc="ablation", total=len(trials), initial=done, unit="video", leave=True) as bar:
        for trial in left:
            bar.set_postfix_str(trial.experiment)
            try:
                if not make(trial.options, stop):
                    failed += 1
                else:
                    found = measure(trial.source, instruments, limit=trial.video.frames)
                    save_measurement(found, trial.identity, folder=folder)
                    if not keep_videos:
                        remove(trial.video.folder)
            except (ValueError, OSError, torch.OutOfMemoryError) as error:
                print_above(f"error: {trial.experiment}, {trial.video.prompt.text!r}: {one_line(error)}")
                failed += 1
            stop.check()
            bar.update()
    return failed


def report_on(trials: Sequence[Trial], instruments: Instruments, *, folder: Path) -> Report:
    """Report on all videos that are measured, by any process and at any time, experiment by experiment."""
    names = list(dict.fromkeys(trial.experiment for trial in trials))
    measured = [
        (trial.source, measurement)
        for trial in sorted(trials, key=lambda trial: names.index(trial.experiment))
        if (measurement := load_measurement(trial.identity, folder=folder))
    ]
    wanted = Counter(trial.experiment for trial in trials)
    found = Counter(source.experiment for source, _ in measured)
    missing = [
        f"{name}: {wanted[name] - found[name]} of {wanted[name]} videos" for name in names if found[name] < wanted[name]
    ]
    return Report(measured, BASELINE, instruments.names, instruments.left_out, missing)
