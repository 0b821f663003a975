"""How videos hold up over their frames: consistency, motion, drift, seams; by experiment, with intervals.

python scripts/evaluate.py RESULTS... [--output DIR] [--baseline EXPERIMENT] [--window 16] [--reference VIDEO]
    [--clip_weights FILE --clip_arch NAME] [--config configs/....yaml]

RESULTS are results folders of videocrafter_main.py, video files, folders of pictures, or folders of these. Without
records an experiment is a folder, and videos of one name in two folders are a pair. The table goes to standard output;
with --output also CSV, JSON and plots, and what is measured already is not measured again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

from lvdm.cli.command import Parser, says_errors
from lvdm.evaluation.cache import measured
from lvdm.evaluation.measure import WINDOW, Instruments, Measurement, measure
from lvdm.evaluation.plots import write_plots
from lvdm.evaluation.reading import Source, UnreadableVideoError, find_sources, fingerprint, read_frames
from lvdm.evaluation.report import Report, markdown, write
from lvdm.runtime.progress import progress_bar


def read_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="videos, or folders of them")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write tables, plots and measurements there")
    parser.add_argument("--baseline", metavar="EXPERIMENT", help="the experiment that others are compared with")
    parser.add_argument("--window", type=int, default=WINDOW, help=f"frames to a point of a curve (default {WINDOW})")
    parser.add_argument("--reference", type=Path, metavar="VIDEO", help="the video that SSIM compares with")
    parser.add_argument("--clip_weights", type=Path, metavar="FILE", help="of OpenCLIP, or of a model for pictures")
    parser.add_argument("--clip_arch", default="ViT-H-14", help="its name in open_clip, or a JSON file (ViT-H-14)")
    parser.add_argument("--config", type=Path, help="of a model, for its VAE and, if it takes pictures, its CLIP")
    parser.add_argument("--ckpt_path", type=Path, help="of that model (default: what the config names)")
    parser.add_argument("--device", help="of CLIP and the VAE: cpu, cuda or cuda:N (default: CUDA, if any)")
    return parser.parse_args()


def prepare(args: argparse.Namespace) -> Instruments:
    """ValueError or FileNotFoundError for a flag that cannot be followed."""
    if args.window < 2:
        raise ValueError(f"--window {args.window}: must be at least 2")
    if args.output and args.output.exists() and not args.output.is_dir():
        raise ValueError(f"--output {str(args.output)!r}: this is a file; a folder is expected")
    if args.ckpt_path and not args.config:
        raise ValueError("--ckpt_path needs --config, which says what model it is of")
    files = [args.clip_weights, args.config, args.ckpt_path, args.reference]
    if args.reference:
        if not args.reference.exists():
            raise FileNotFoundError(f"--reference {str(args.reference)!r}: there is no such video")
        try:
            next(read_frames(args.reference))
        except UnreadableVideoError as error:
            raise ValueError(f"--reference {error}") from error
    clip = latents = None
    if args.clip_weights or args.config:
        import torch  # takes 500 MB and seconds: only who needs it loads it

        from lvdm.evaluation.encoders import model_encoders, open_clip_encoder

        try:
            device = torch.zeros(0, device=args.device or ("cuda" if torch.cuda.is_available() else "cpu")).device
        except (
            RuntimeError,
            AssertionError,
        ) as error:  # AssertionError: torch's word for CUDA that it was built without
            raise ValueError(
                f"--device {args.device!r}: allowed are cpu, and cuda or cuda:N where there is one"
            ) from error
        if args.config:
            latents, clip = model_encoders(args.config, args.ckpt_path, device=device)
            files.append(latents.path)
        if args.clip_weights:
            clip = open_clip_encoder(args.clip_weights, args.clip_arch, device=device)
            files += [arch] if (arch := Path(args.clip_arch)).is_file() else []
    settings = {"files": [[str(file.resolve()), fingerprint(file)] for file in files if file], "arch": args.clip_arch}
    return Instruments(args.window, clip, latents, args.reference, settings)


def run(
    sources: Sequence[Source], instruments: Instruments, *, output: Path | None
) -> tuple[list[tuple[Source, Measurement]], list[str]]:
    """The measurement of each video, and a sentence for each that cannot be read. Shows how far it is."""
    videos, problems = [], []
    with (
        progress_bar(desc="videos", total=len(sources), unit="video", leave=True) as bar,
        progress_bar(desc="frames", unit=" frames") as frames,
    ):
        for source in sources:
            bar.set_postfix_str(f"{source.experiment}: {source.name}"[:40])
            try:
                if output:
                    found = measured(source, instruments, folder=output / "videos", progress=frames.update)
                else:
                    found = measure(source, instruments, progress=frames.update)
                videos.append((source, found))
            except UnreadableVideoError as error:
                problems.append(str(error))
            bar.update()
    return videos, problems


@says_errors
def main() -> int:
    args = read_arguments()
    try:
        sources, problems = find_sources(args.results)
        experiments = sorted({source.experiment for source in sources})
        if not sources and not problems:
            raise ValueError(
                f"there is no video in {', '.join(map(str, args.results))}; RESULTS are videos, or folders"
            )
        if args.baseline and args.baseline not in experiments:
            raise ValueError(f"--baseline {args.baseline!r}: allowed are {', '.join(experiments)}")
        instruments = prepare(args)
        videos, unread = run(sources, instruments, output=args.output)
        report = Report(videos, args.baseline, instruments.names, instruments.left_out, [*problems, *unread])
        if args.output:
            write(report, args.output)
            write_plots(report, args.output / "plots")
    except KeyboardInterrupt:
        print("stopped; with --output, the same command goes on with the videos that are left", file=sys.stderr)
        return 130
    print(markdown(report), end="")
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
