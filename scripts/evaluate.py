"""Measure how videos hold up over their frames: consistency, motion, drift, identity; by experiment, with intervals.

python scripts/evaluate.py RESULTS... [--output DIR] [--baseline EXPERIMENT] [--window 16] [--reference VIDEO]
    [--clip_weights FILE --clip_arch NAME] [--config configs/....yaml]

RESULTS are results folders of videocrafter_main.py, video files, folders of pictures, or folders of these. Videos
without a record are grouped by their folder: a folder is an experiment, and videos of the same name in two folders are
a pair. The table goes to standard output. With --output, CSV, JSON and plots are written too, and a video that was
measured before is not measured again.
"""

import argparse
import sys
from pathlib import Path
from signal import SIGINT

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

from lvdm.cli.command import Parser, with_error_lines
from lvdm.evaluation.cache import measure_all
from lvdm.evaluation.instruments import WINDOW, load_instruments
from lvdm.evaluation.plots import write_plots
from lvdm.evaluation.report import Report, markdown, write_report
from lvdm.evaluation.sources import find_sources
from lvdm.runtime.signals import Stopped


def read_arguments() -> argparse.Namespace:
    """Read the flags of the command line."""
    parser = Parser(__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="videos, or folders of them")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write tables, plots and measurements there")
    parser.add_argument("--baseline", metavar="EXPERIMENT", help="compare the other experiments with this one")
    parser.add_argument(
        "--window",
        type=int,
        default=WINDOW,
        metavar="N",
        help="frames to a point of a curve, at least 2 (default: %(default)s)",
    )
    parser.add_argument("--reference", type=Path, metavar="VIDEO", help="compare every video with this one, by SSIM")
    parser.add_argument(
        "--clip_weights", type=Path, metavar="FILE", help="weights of OpenCLIP, or a checkpoint that contains them"
    )
    parser.add_argument(
        "--clip_arch",
        default="ViT-H-14",
        metavar="NAME",
        help="architecture of --clip_weights, as open_clip names it, or a JSON file (default: %(default)s)",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="config of a model whose VAE and, for image-to-video, CLIP are used"
    )
    parser.add_argument(
        "--ckpt_path", type=Path, metavar="FILE", help="checkpoint of that model (default: the one its config names)"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N, for CLIP and the VAE (default: cuda if there is a GPU)")
    return parser.parse_args()


def evaluate(args: argparse.Namespace) -> Report:
    """Measure the videos and write what --output asks for."""
    sources, problems = find_sources(args.results)
    experiments = sorted({source.experiment for source in sources})
    if not sources and not problems:
        raise ValueError(f"there is no video in {', '.join(map(str, args.results))}; RESULTS are videos, or folders")
    if args.baseline and args.baseline not in experiments:
        raise ValueError(f"--baseline {args.baseline!r}: allowed are {', '.join(experiments)}")
    if args.output and args.output.exists() and not args.output.is_dir():
        raise ValueError(f"--output {str(args.output)!r} is a file; expected a folder")
    instruments = load_instruments(
        window=args.window,
        reference=args.reference,
        clip_weights=args.clip_weights,
        clip_arch=args.clip_arch,
        config=args.config,
        ckpt_path=args.ckpt_path,
        device=args.device,
    )
    videos, unreadable = measure_all(sources, instruments, folder=args.output and args.output / "videos")
    report = Report(videos, args.baseline, instruments.names, instruments.left_out, [*problems, *unreadable])
    if args.output:
        write_report(report, args.output)
        write_plots(report, args.output / "plots")
    return report


@with_error_lines
def main() -> int:
    """Measure the videos and print the table; return 1 if some could not be measured."""
    args = read_arguments()
    try:
        report = evaluate(args)
    except KeyboardInterrupt:
        raise Stopped(SIGINT, advice="with --output, the same command continues with the remaining videos") from None
    print(markdown(report), end="")
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
