"""Make the videos of an ablation, a baseline and experiments that differ from it, and measure the differences.

python scripts/ablate.py configs/ablations/fifo.yaml [--output DIR] [--only NAME...] [--keep nothing] [--overwrite]
    [--dry_run] [--num_processes N --rank R]

DIR gets the tables and plots of scripts/evaluate.py, with differences to the baseline, and videos/, a small file for
each measurement. A video that was measured with the same settings is neither made nor needed again: DIR without its
runs/ is enough to continue on another machine. After a stop, also in the middle of a video, the same command continues.

Each video is a run of videocrafter_main.py in this process, so a crash costs at most the video that is being made.
The model is loaded for every video: with the embedded model a second of about a minute.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import torch

from lvdm.cli.command import Parser, with_error_lines
from lvdm.evaluation.ablation import default_output, read_ablation, trials_of
from lvdm.evaluation.ablation_run import make_and_measure, report_on, status_table
from lvdm.evaluation.encoders import model_encoders
from lvdm.evaluation.instruments import Instruments
from lvdm.evaluation.plots import write_plots
from lvdm.evaluation.report import markdown, write_report
from lvdm.pipeline.options import Options
from lvdm.runtime.cpu import keep_freed_memory
from lvdm.runtime.distributed import ALONE
from lvdm.runtime.signals import Stop, stop_on_signals
from videocrafter_main import make_videos


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the flags, from `words` or else from the command line."""
    parser = Parser(__doc__)
    parser.add_argument(
        "ablation", type=Path, metavar="ABLATION", help="a YAML file such as configs/ablations/fifo.yaml"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of videos and measurements (default: results/ablation_NAME, for NAME.yaml)",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="make the videos of these experiments (default: of all)"
    )
    parser.add_argument(
        "--keep",
        choices=("videos", "nothing"),
        default="videos",
        help="whether videos stay after they are measured (default: %(default)s)",
    )
    parser.add_argument(
        "--num_processes",
        type=int,
        default=1,
        metavar="N",
        help="processes that share the videos (default: %(default)s)",
    )
    parser.add_argument(
        "--rank",
        type=int,
        default=0,
        metavar="R",
        help="number of this process, from 0 to N - 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="make anew every video that is not measured, needed where the flags of an experiment changed",
    )
    parser.add_argument("--dry_run", action="store_true", help="show which videos are there and which are to be made")
    return parser.parse_args(words)


def make(options: Options, stop: Stop) -> bool:
    """Make one video; return whether that succeeded."""
    return not make_videos(options, ALONE, stop).failed


def ablate(args: argparse.Namespace) -> int:
    """Do what the flags say; return how many videos failed."""
    ablation = read_ablation(args.ablation)
    output = args.output or default_output(args.ablation)
    if not 0 <= args.rank < args.num_processes:
        raise ValueError(f"--rank {args.rank}: must be from 0 to {args.num_processes - 1}, --num_processes less 1")
    if unknown := [name for name in args.only or () if name not in ablation.experiments]:
        raise ValueError(f"--only {unknown[0]!r}: allowed are {', '.join(ablation.experiments)}")
    trials = trials_of(ablation, output / "runs", rank=args.rank, num_processes=args.num_processes)
    chosen = [trial for trial in trials if trial.experiment in (args.only or ablation.experiments)]
    share = [
        replace(trial, options=replace(trial.options, overwrite=args.overwrite))
        for trial in chosen[args.rank :: args.num_processes]
    ]
    measurements = output / "videos"
    if args.dry_run:
        print(status_table(share, measurements))
        return 0
    baseline = trials[0].options
    with stop_on_signals(ALONE, advice="the same command continues with what is left") as stop:
        latents, clip = model_encoders(baseline.config, baseline.ckpt_path, device=torch.device(baseline.device))
        instruments = Instruments(clip=clip, latents=latents)
        keep_videos = args.keep == "videos"
        failed = make_and_measure(
            share, instruments, make=make, folder=measurements, keep_videos=keep_videos, stop=stop
        )
        report = report_on(trials, instruments, folder=measurements)
        write_report(report, output)
        write_plots(report, output / "plots")
    print(markdown(report), end="")
    return failed


@with_error_lines
def main(words: Sequence[str] | None = None) -> int:
    """Make and measure the videos; return 1 if some failed."""
    args = read_arguments(words)
    keep_freed_memory()
    failed = ablate(args)
    if failed:
        print(f"error: {failed} videos failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
