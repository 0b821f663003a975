"""Measure what a pass of diagonal denoising costs on this machine, and in the originals' arrangement.

python scripts/benchmark.py [--config configs/inference_t2v_512_v2.0.yaml] [--settings originals fp32 bf16 ...]

Weights are random: time does not depend on them. All settings are measured in one run, in turn, pass after pass.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import matplotlib
import torch
from matplotlib import pyplot
from torch.profiler import ProfilerActivity, profile

from lvdm.cli.command import Parser, at_least, with_error_lines
from lvdm.evaluation.speed import ARRANGEMENTS, TRAIN_STEPS, Arrangement, Bench, Figures, measure
from lvdm.io.configs import read_config
from lvdm.pipeline.resolve import device_named
from lvdm.runtime.cpu import keep_freed_memory

BARS = "#4878a8"


def table(figures: Mapping[str, Figures]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| setting | s/pass | frames/s | TFLOP/s | of a matrix product | peak memory | against the originals |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        memory = "" if row.peak_memory is None else f"{row.peak_memory:.2f} GiB"
        ratio = "" if row.times_faster_than_originals is None else f"{row.times_faster_than_originals:.2f} x"
        lines.append(
            f"| {name} | {row.seconds_per_pass:.3f} | {row.frames_per_second:.2f} | {row.tflop_per_second:.3f} | "
            f"{100 * row.share_of_matmul:.0f} % | {memory} | {ratio} |"
        )
    return "\n".join(lines)


def chart(figures: Mapping[str, Figures], path: Path, *, title: str) -> None:
    """Draw the seconds of a pass as bars, with whiskers from the fastest to the slowest one."""
    matplotlib.use("Agg")
    rows = list(figures.values())
    medians = [row.seconds_per_pass for row in rows]
    whiskers = [
        [row.seconds_per_pass - row.fastest for row in rows],
        [row.slowest - row.seconds_per_pass for row in rows],
    ]
    figure, axes = pyplot.subplots(figsize=(7, 1 + 0.5 * len(rows)), layout="constrained")
    axes.barh(list(figures), medians, xerr=whiskers, color=BARS, ecolor="black", capsize=3)
    axes.invert_yaxis()
    axes.set(xlabel="seconds per pass (median; whiskers: fastest and slowest)", title=title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def save_profile(bench: Bench, arrangement: Arrangement, path: Path) -> None:
    """Write a trace of one pass for chrome://tracing or Perfetto; print the ten most expensive operators.

    On a CPU it is a pass on one core: the profiler sees only the thread that it was started in.
    """
    cuda = bench.device.type == "cuda"
    with ExitStack() as stack, torch.inference_mode():
        queues = bench.passes(arrangement, stack, in_this_thread=True)
        next(queues)
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
            next(queues)
    profiled.export_chrome_trace(str(path))
    order = f"self_{'cuda' if cuda else 'cpu'}_time_total"
    print(profiled.key_averages().table(sort_by=order, row_limit=10, max_name_column_width=60))


def device_name(device: torch.device) -> str:
    """Return the name of the card or of the CPU, with the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {torch.get_num_threads()} threads"


def read_bench(args: argparse.Namespace) -> Bench:
    """Return the bench that the flags ask for; ValueError names the flag that does not fit."""
    config = read_config(args.config)
    params = config["model"]["params"] if "model" in config else config
    if "unet_config" not in params:
        raise ValueError(f"--config {str(args.config)!r}: there is no unet_config; give one of a model")
    unet = params["unet_config"]["params"]
    f, n = args.video_length or unet["temporal_length"], args.num_partitions
    latents = args.latents or params["image_size"]
    if f % 2 or f < 2 or not 1 <= n <= TRAIN_STEPS // f:
        raise ValueError(f"--video_length {f} --num_partitions {n}: f must be even, n from 1 to {TRAIN_STEPS}/f")
    factor = 2 ** (len(unet["channel_mult"]) - 1)
    if any(side < 1 or side % factor for side in latents):
        raise ValueError(f"--latents {latents[0]} {latents[1]}: must be positive multiples of {factor} for this model")
    return Bench(
        unet_config=params["unet_config"],
        window=f,
        partitions=n,
        stride=f // 2 if args.lookahead_denoising else f,
        latents=(unet["in_channels"], *latents),
        device=torch.device(device_named(args.device)),
    )


@with_error_lines
def main(words: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write what else the flags ask for."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--config", type=Path, default=Path("configs/inference_t2v_tiny.yaml"), help="of a model (default: %(default)s)"
    )
    parser.add_argument(
        "--settings", nargs="+", choices=ARRANGEMENTS, default=["originals", "fp32", "bf16"],
        help="ways to compute a pass (default: originals fp32 bf16)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument(
        "--latents",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="default: image_size of the config",
    )
    parser.add_argument("--video_length", type=int, help="f, frames of a window (default: the model's temporal_length)")
    parser.add_argument("-n", "--num_partitions", type=int, default=4, help="n, windows in the queue (default: 4)")
    parser.add_argument(
        "--lookahead_denoising", action=argparse.BooleanOptionalAction, default=True, help="default: on"
    )
    parser.add_argument("--passes", type=at_least(1), default=5, help="passes that are measured (default: %(default)s)")
    parser.add_argument("--warmup", type=at_least(0), default=2, help="passes before these (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--chart", type=Path, help="write a bar chart there, PNG")
    parser.add_argument("--profile", type=Path, help="write a trace of a pass of the last setting there")
    args = parser.parse_args(words)
    bench = read_bench(args)
    keep_freed_memory()
    for path in filter(None, (args.json, args.chart, args.profile)):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figures = measure(bench, args.settings, passes=args.passes, warmup=args.warmup)
    except torch.OutOfMemoryError as error:
        settings = f"--settings {' '.join(args.settings)}"
        raise ValueError(f"{settings}: the U-Nets of all are in memory at once; give fewer ({error})") from error
    title = f"{args.config.stem}, latents {'x'.join(map(str, bench.latents[1:]))}, {device_name(bench.device)}"
    print(f"{title}\n\n{table(figures)}")
    if args.json:
        record = {"title": title, "torch": torch.__version__, "figures": {k: asdict(v) for k, v in figures.items()}}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if args.chart:
        chart(figures, args.chart, title=title)
    if args.profile:
        save_profile(bench, ARRANGEMENTS[args.settings[-1]], args.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
