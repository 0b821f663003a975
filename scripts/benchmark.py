"""What a pass of diagonal denoising costs on this machine, and what it would cost in the originals' arrangement.

python scripts/benchmark.py [--config configs/inference_t2v_512_v2.0.yaml] [--settings originals fp32 bf16 ...]

Weights are random: time does not depend on them. All settings are measured in one run, in turn, pass after pass.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import matplotlib
import torch
from matplotlib import pyplot
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lvdm.cli.command import Parser, says_errors
from lvdm.diffusion.conditioning import Conditioning
from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import NoiseSchedule, fifo_spacing
from lvdm.io.configs import read_config
from lvdm.models.ddpm3d import linear_betas, schedule_buffers
from lvdm.models.loading import instantiate_from_config
from lvdm.modules.attention import TEXT_TOKENS
from lvdm.modules.layers import convolve_channels_last
from lvdm.pipeline.options import DTYPES
from lvdm.pipeline.resolve import device_named
from lvdm.runtime.batching import Workers, workers_of
from lvdm.runtime.compile import Compiled
from lvdm.runtime.cpu import keep_freed_memory
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import fifo
from lvdm.sampling.taps.query_reuse import QueryReuse, reuse_queries

GUIDANCE = 12.0
TIMESTEPS = 1000
BARS = "#4878a8"


@dataclass(frozen=True)
class Setting:
    """How a pass is computed. The originals take windows and guidance halves `apart`, every frame has a context and a
    step of its own, and on CUDA convolutions in fp32 round to TF32, as torch's do unless it is told otherwise."""

    precision: str
    apart: bool = False
    window_batch: int | None = None
    qcache: bool = False
    compile: bool = False


SETTINGS = {
    "originals": Setting("fp32", apart=True),
    "fp32": Setting("fp32"),
    "bf16": Setting("bf16"),
    "fp16": Setting("fp16"),
    "fp32_compile": Setting("fp32", compile=True),
    "bf16_compile": Setting("bf16", compile=True),
    "fp16_compile": Setting("fp16", compile=True),
    "bf16_qcache": Setting("bf16", qcache=True),
    "fp16_qcache": Setting("fp16", qcache=True),
    "bf16_window_batch1": Setting("bf16", window_batch=1),
    "fp16_window_batch1": Setting("fp16", window_batch=1),
}


class FrameByFrame(NoiseSchedule):
    """Take steps as the originals do: in a loop over the frames."""

    def step(
        self, x: Tensor, output: Tensor, level: Tensor, next_level: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Take the step of NoiseSchedule, frame by frame."""
        frames = [
            super(FrameByFrame, self).step(
                x[:, :, at], output[:, :, at], level[:, at], next_level[:, at], noise[:, :, at]
            )
            for at in ([frame] for frame in range(x.shape[2]))
        ]
        after, clean = zip(*frames, strict=True)
        return torch.cat(after, dim=2), torch.cat(clean, dim=2)


@dataclass(frozen=True)
class Figures:
    """Of one setting; a pass finishes one frame. Seconds are the median over the passes, memory is in GiB (CUDA only).

    The products are those of the U-Net, as torch counts them; `share_of_matmul` is against a product of large matrices
    of the same precision in the same run.
    """

    seconds_per_pass: float
    fastest: float
    slowest: float
    frames_per_second: float
    tflop_per_pass: float
    tflop_per_second: float
    share_of_matmul: float
    peak_memory: float | None
    times_faster_than_originals: float | None


@dataclass(frozen=True)
class Bench:
    """What all settings share: sizes (f, n, stride, latents (C, h, w)), the U-Net's parameters, and the device."""

    unet_config: Mapping
    window: int
    partitions: int
    stride: int
    latents: tuple[int, int, int]
    device: torch.device

    def passes(self, setting: Setting, stack: ExitStack, *, in_this_thread: bool = False) -> Iterator[LatentQueue]:
        """Endless passes over a queue, with everything that a pass of a real run does but decoding."""
        dtype = DTYPES[setting.precision]
        unet = self.unet(dtype)
        if setting.qcache:
            stack.enter_context(reuse_queries(unet, QueryReuse("TT", "attn1", 0.9)))
        params = self.unet_config["params"]
        tokens = TEXT_TOKENS + (16 if params.get("use_image_attention") else 0)
        contexts = torch.randn(3, 1, tokens, params["context_dim"], device=self.device, dtype=dtype)
        fps, starts = torch.tensor([8], device=self.device), torch.tensor([0, 10**9])
        prompts = 2 if setting.apart else 1  # a schedule of prompts gives every frame a context
        conditioning = Conditioning(contexts[:prompts], starts[:prompts], 0, contexts[2:], fps)
        if setting.apart:
            workers = Workers(rows=1)
        else:
            rows = setting.window_batch and 2 * setting.window_batch
            workers = stack.enter_context(workers_of(self.device, rows=rows))
        if in_this_thread:
            workers.run = map
        tables = schedule_buffers(linear_betas(TIMESTEPS, start=0.00085, end=0.012))
        alphas = torch.tensor(tables["alphas_cumprod"], dtype=torch.float32, device=self.device)
        kind = FrameByFrame if setting.apart else NoiseSchedule
        schedule = kind.from_tables(alphas, fifo_spacing(self.window * self.partitions), eta=1.0)
        noise = KeyedNoise(0, "benchmark", 0, self.latents, self.device)
        clip = noise.draw("base", range(self.window), [0] * self.window)
        queue = LatentQueue.from_clip(clip, schedule, noise=noise, stride=self.stride)
        forward = Compiled(unet) if setting.compile else unet
        return fifo(GuidedDenoiser(forward, conditioning, GUIDANCE, workers), schedule, queue, noise=noise)

    def unet(self, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(0)
        with self.device:
            unet = instantiate_from_config(self.unet_config).to(dtype)
        return convolve_channels_last(unet).eval().requires_grad_(False)

    def weights(self, setting: Setting) -> int:
        """Bytes of the U-Net's weights."""
        with torch.device("meta"):
            unet = instantiate_from_config(self.unet_config)
        return sum(weight.numel() for weight in unet.parameters()) * DTYPES[setting.precision].itemsize

    def tflop(self, setting: Setting) -> float:
        """Of the U-Net in a pass: guidance halves that are not apart share some."""
        together = 1 if setting.apart else 2
        windows = self.window * self.partitions // self.stride
        params = self.unet_config["params"]
        with torch.device("meta"), torch.no_grad():
            unet = instantiate_from_config(self.unet_config)
            channels, height, width = self.latents
            x = torch.empty(1, channels, self.window, height, width)
            timesteps = torch.empty(1, self.window, dtype=torch.long)
            context = torch.empty(together, 1, TEXT_TOKENS, params["context_dim"])
            fps = torch.empty(1, dtype=torch.long)
            with FlopCounterMode(display=False) as counter:
                unet(x, timesteps, context, fps)
        return windows * 2 / together * counter.get_total_flops() / 1e12


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a product of large matrices, the fastest of several."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: a @ b, device) for _ in range(8)) / 1e12


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(bench: Bench, names: Sequence[str], *, passes: int, warmup: int) -> dict[str, Figures]:
    """The figures of each of the SETTINGS `names`; a pass of each in turn, so that a slow minute is slow for all."""
    device, seconds, peaks = bench.device, {name: [] for name in names}, dict.fromkeys(names, 0.0)
    cores = torch.get_num_threads()
    rates = {SETTINGS[name].precision: 0.0 for name in names}
    for precision in rates:
        rates[precision] = matmul_rate(device, DTYPES[precision])
    with ExitStack() as stack, torch.inference_mode():
        running = {name: bench.passes(SETTINGS[name], stack) for name in names}
        for turn in range(warmup + passes):
            for name, queues in running.items():
                torch.backends.cudnn.allow_tf32 = SETTINGS[name].apart
                if device.type == "cpu":
                    torch.set_num_threads(cores if SETTINGS[name].apart else 1)  # the others share rows among threads
                else:
                    torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
                took = seconds_of(lambda queues=queues: next(queues), device)
                if turn >= warmup:
                    seconds[name].append(took)
                    if device.type == "cuda":
                        peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated(device) - before)
    torch.set_num_threads(cores)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    tflop = {name: bench.tflop(SETTINGS[name]) for name in names}
    return {
        name: Figures(
            seconds_per_pass=medians[name],
            fastest=min(seconds[name]),
            slowest=max(seconds[name]),
            frames_per_second=1 / medians[name],
            tflop_per_pass=tflop[name],
            tflop_per_second=tflop[name] / medians[name],
            share_of_matmul=tflop[name] / medians[name] / rates[SETTINGS[name].precision],
            peak_memory=(peaks[name] + bench.weights(SETTINGS[name])) / 2**30 if device.type == "cuda" else None,
            times_faster_than_originals=medians["originals"] / medians[name] if "originals" in medians else None,
        )
        for name in names
    }


def table(figures: Mapping[str, Figures]) -> str:
    """As Markdown."""
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
    """Bars of the seconds per pass, with whiskers from the fastest to the slowest."""
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


def save_profile(bench: Bench, setting: Setting, path: Path) -> None:
    """A trace of one pass for chrome://tracing or Perfetto; prints the ten most expensive operators.

    On a CPU it is a pass on one core: a profiler sees its own thread alone.
    """
    cuda = bench.device.type == "cuda"
    with ExitStack() as stack, torch.inference_mode():
        queues = bench.passes(setting, stack, in_this_thread=True)
        next(queues)
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
            next(queues)
    profiled.export_chrome_trace(str(path))
    order = f"self_{'cuda' if cuda else 'cpu'}_time_total"
    print(profiled.key_averages().table(sort_by=order, row_limit=10, max_name_column_width=60))


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {torch.get_num_threads()} threads"


def read_bench(args: argparse.Namespace) -> Bench:
    config = read_config(args.config)
    params = config["model"]["params"] if "model" in config else config
    if "unet_config" not in params:
        raise ValueError(f"--config {str(args.config)!r}: there is no unet_config; give one of a model")
    unet = params["unet_config"]["params"]
    f, n = args.video_length or unet["temporal_length"], args.num_partitions
    latents = args.latents or params["image_size"]
    if f % 2 or f < 2 or not 1 <= n <= TIMESTEPS // f:
        raise ValueError(f"--video_length {f} --num_partitions {n}: f must be even, n from 1 to {TIMESTEPS}/f")
    factor = 2 ** (len(unet["channel_mult"]) - 1)
    if any(side < 1 or side % factor for side in latents):
        raise ValueError(f"--latents {latents[0]} {latents[1]}: must be positive multiples of {factor} for this model")
    if args.passes < 1 or args.warmup < 0:
        raise ValueError(f"--passes {args.passes} --warmup {args.warmup}: at least 1 that is measured, and 0 before")
    return Bench(
        unet_config=params["unet_config"],
        window=f,
        partitions=n,
        stride=f // 2 if args.lookahead_denoising else f,
        latents=(unet["in_channels"], *latents),
        device=torch.device(device_named(args.device)),
    )


@says_errors
def main(words: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/inference_t2v_tiny.yaml"))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["originals", "fp32", "bf16"])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto: CUDA, if any)")
    parser.add_argument("--latents", nargs=2, type=int, metavar=("H", "W"), help="default: the config's image_size")
    parser.add_argument("--video_length", type=int, help="f (default: the model's temporal_length)")
    parser.add_argument("-n", "--num_partitions", type=int, default=4)
    parser.add_argument("--lookahead_denoising", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--passes", type=int, default=5, help="that are measured (default 5)")
    parser.add_argument("--warmup", type=int, default=2, help="that come before (default 2)")
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
        save_profile(bench, SETTINGS[args.settings[-1]], args.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
