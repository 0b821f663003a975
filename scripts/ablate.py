"""An ablation: makes the videos of a baseline and of experiments that differ from it, and measures what that changes.

python scripts/ablate.py configs/ablations/fifo.yaml [--output DIR] [--only NAME...] [--keep nothing] [--overwrite]
    [--dry_run] [--num_processes N --rank R]

Writes into DIR: the tables and plots of scripts/evaluate.py with differences to the baseline, and videos/, a small file
for each measurement. A video that was measured with the same settings is neither made nor needed again: DIR without its
runs/ is enough to go on with elsewhere. The same command goes on after a stop, in the middle of a video, too.

Each video is a run of videocrafter_main.py in this process, so that a stop, or a loss of the machine, costs no more
than the video that is being made; that its model is loaded for every video takes a second of the embedded one's minute.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import torch

from lvdm.cli.command import Parser, says_errors
from lvdm.evaluation.ablation import BASELINE, Trial, read_ablation, trials_of
from lvdm.evaluation.cache import keep, kept
from lvdm.evaluation.encoders import model_encoders
from lvdm.evaluation.measure import Instruments, measure
from lvdm.evaluation.plots import write_plots
from lvdm.evaluation.report import Report, markdown, write
from lvdm.io.files import remove
from lvdm.pipeline.record import recorded_frames
from lvdm.runtime.distributed import ALONE
from lvdm.runtime.errors import one_line
from lvdm.runtime.progress import print_above, progress_bar
from lvdm.runtime.signals import Stop, Stopped, stop_on_signals
from videocrafter_main import run


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "ablation", type=Path, metavar="ABLATION", help="a YAML file, such as configs/ablations/fifo.yaml"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="(default: results/ablation_NAME, from NAME.yaml)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="make the videos of these experiments only")
    parser.add_argument(
        "--keep", choices=("videos", "nothing"), default="videos", help="of what is measured (default videos)"
    )
    parser.add_argument("--num_processes", type=int, default=1, help="processes that share the videos (default 1)")
    parser.add_argument("--rank", type=int, default=0, help="which of them this one is, from 0 (default 0)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew what is not measured: where an experiment's flags changed",
    )
    parser.add_argument("--dry_run", action="store_true", help="list what is there and what is to make; make nothing")
    return parser.parse_args(words)


def default_output(ablation: Path) -> Path:
    """Return results/ablation_NAME for NAME.yaml, and also for ablation_NAME.yaml."""
    return Path("results") / f"ablation_{ablation.stem.removeprefix('ablation_')}"


def plan(trials: Sequence[Trial], folder: Path) -> str:
    """A Markdown table: of each experiment how many videos are measured, made, and still to be made."""
    lines = ["| experiment | videos | measured | made | to make |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(trial.experiment for trial in trials):
        own = [trial for trial in trials if trial.experiment == name]
        rest = [trial for trial in own if kept(trial.identity, folder=folder) is None]
        made = sum(not trial.options.overwrite and recorded_frames(trial.video) >= trial.video.frames for trial in rest)
        lines.append(f"| {name} | {len(own)} | {len(own) - len(rest)} | {made} | {len(rest) - made} |")
    return "\n".join(lines)


def make_and_measure(
    trials: Sequence[Trial], instruments: Instruments, *, folder: Path, keep_videos: bool, stop: Stop
) -> int:
    """Does what is not measured yet; returns how many videos failed. What fails is told, and the rest goes on."""
    left = [trial for trial in trials if kept(trial.identity, folder=folder) is None]
    failed = 0
    with progress_bar(
        desc="ablation", total=len(trials), initial=len(trials) - len(left), unit="video", leave=True
    ) as bar:
        for trial in left:
            bar.set_postfix_str(trial.experiment)
            try:
                if run(trial.options, ALONE, stop).failed:  # why, is told
                    failed += 1
                else:
                    found = measure(trial.source, instruments, limit=trial.video.frames)
                    keep(found, trial.identity, folder=folder)
                    if not keep_videos:
                        remove(trial.video.folder)
            except (ValueError, OSError, torch.OutOfMemoryError) as error:
                print_above(f"error: {trial.experiment}, {trial.video.prompt.text!r}: {one_line(error)}")
                failed += 1
            stop.check()
            bar.update()
    return failed


def report_of(trials: Sequence[Trial], instruments: Instruments, *, folder: Path) -> Report:
    """On all that is measured, by this process and others, now and before; experiment by experiment."""
    names = list(dict.fromkeys(trial.experiment for trial in trials))
    found = [
        (trial.source, measurement)
        for trial in sorted(trials, key=lambda trial: names.index(trial.experiment))
        if (measurement := kept(trial.identity, folder=folder))
    ]
    wanted, there = (Counter(names) for names in ([t.experiment for t in trials], [s.experiment for s, _ in found]))
    missing = [
        f"{name}: {wanted[name] - there[name]} of {wanted[name]} videos" for name in names if there[name] < wanted[name]
    ]
    return Report(found, BASELINE, instruments.names, instruments.left_out, missing)


@says_errors
def main(words: Sequence[str] | None = None) -> int:
    args = read_arguments(words)
    try:
        ablation = read_ablation(args.ablation)
        output = args.output or default_output(args.ablation)
        if not 0 <= args.rank < args.num_processes:
            raise ValueError(f"--rank {args.rank}: must be from 0 to {args.num_processes - 1}, --num_processes less 1")
        if unknown := [name for name in args.only or () if name not in ablation.experiments]:
            raise ValueError(f"--only {unknown[0]!r}: allowed are {', '.join(ablation.experiments)}")
        trials = trials_of(ablation, output / "runs", rank=args.rank, num_processes=args.num_processes)
        share = [trial for trial in trials if trial.experiment in (args.only or ablation.experiments)]
        share = [
            replace(trial, options=replace(trial.options, overwrite=args.overwrite))
            for trial in share[args.rank :: args.num_processes]
        ]
        measurements = output / "videos"
        if args.dry_run:
            print(plan(share, measurements))
            return 0
        baseline = trials[0].options
        with stop_on_signals(ALONE) as stop:
            device = torch.device(baseline.device)
            latents, clip = model_encoders(baseline.config, baseline.ckpt_path, device=device)
            instruments = Instruments(clip=clip, latents=latents)
            keep_videos = args.keep == "videos"
            failed = make_and_measure(share, instruments, folder=measurements, keep_videos=keep_videos, stop=stop)
            report = report_of(trials, instruments, folder=measurements)
            write(report, output)
            write_plots(report, output / "plots")
    except Stopped as stopped:
        print(f"{stopped}; the same command goes on with what is left", file=sys.stderr)
        return stopped.exit_status
    print(markdown(report), end="")
    if failed:
        print(f"error: {failed} videos failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
