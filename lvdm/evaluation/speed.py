"""Measure what a pass of diagonal denoising costs, and what it would cost in the originals' arrangement.

Weights are random: time does not depend on them.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lvdm.diffusion.conditioning import Conditioning
from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import TRAIN_STEPS, NoiseSchedule, fifo_spacing
from lvdm.models.ddpm3d import linear_betas, schedule_buffers
from lvdm.models.loading import instantiate_from_config
from lvdm.modules.attention import TEXT_TOKENS
from lvdm.modules.layers import convolve_channels_last
from lvdm.pipeline.derived import DTYPES
from lvdm.runtime.batching import Workers, workers_of
from lvdm.runtime.compile import Compiled
from lvdm.runtime.process import process_settings
from lvdm.runtime.progress import progress_bar
from lvdm.sampling.plan import fifo
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import denoise_queue
from lvdm.sampling.taps.query_reuse import QueryReuse, reuse_queries

GUIDANCE = 12.0


@dataclass(frozen=True)
class Arrangement:
    """Say how a pass is computed.

    Args:
        precision: of the U-Net, a key of DTYPES.
        apart: as the originals do: windows and guidance halves one by one, a context and a step for every frame, and on
            CUDA convolutions that round to TF32.
        window_batch: windows in one forward; None for as many as fit.
        qcache: with a Q-cache (TT, attn1, 0.9).
        compile: with kernels made by torch.compile.
    """

    precision: str
    apart: bool = False
    window_batch: int | None = None
    qcache: bool = False
    compile: bool = False


ARRANGEMENTS = {
    "originals": Arrangement("fp32", apart=True),
    "fp32": Arrangement("fp32"),
    "bf16": Arrangement("bf16"),
    "fp16": Arrangement("fp16"),
    "fp32_compile": Arrangement("fp32", compile=True),
    "bf16_compile": Arrangement("bf16", compile=True),
    "fp16_compile": Arrangement("fp16", compile=True),
    "bf16_qcache": Arrangement("bf16", qcache=True),
    "fp16_qcache": Arrangement("fp16", qcache=True),
    "bf16_window_batch1": Arrangement("bf16", window_batch=1),
    "fp16_window_batch1": Arrangement("fp16", window_batch=1),
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
    """Hold what was measured of one arrangement. A pass finishes one frame.

    Seconds are the median over the passes, and of the fastest and slowest one. Operations are those of the U-Net, as
    torch counts them; `share_of_matmul` compares them with a product of large matrices of the same precision in the
    same run. Memory is in GiB, on CUDA only.
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
    """Hold what all settings share.

    Args:
        unet_config: `unet_config` of a model's YAML file.
        window: f, frames of a window.
        partitions: n, windows in the queue.
        stride: slots that a window denoises.
        latents: (C, h, w) of a frame.
        device: where it is computed.
    """

    unet_config: Mapping
    window: int
    partitions: int
    stride: int
    latents: tuple[int, int, int]
    device: torch.device

    def passes(
        self, arrangement: Arrangement, stack: ExitStack, *, in_this_thread: bool = False
    ) -> Iterator[LatentQueue]:
        """Return endless passes over a queue, which do everything that passes of a video do but decoding.

        in_this_thread: whether the calling thread computes all, as a profiler sees no other.
        """
        dtype = DTYPES[arrangement.precision]
        unet = self.unet(dtype)
        if arrangement.qcache:
            stack.enter_context(reuse_queries(unet, QueryReuse("TT", "attn1", 0.9)))
        params = self.unet_config["params"]
        tokens = TEXT_TOKENS + (16 if params.get("use_image_attention") else 0)
        contexts = torch.randn(3, 1, tokens, params["context_dim"], device=self.device, dtype=dtype)
        fps, starts = torch.tensor([8], device=self.device), torch.tensor([0, 10**9])
        prompts = 2 if arrangement.apart else 1  # a schedule of prompts gives every frame a context
        conditioning = Conditioning(contexts[:prompts], starts[:prompts], 0, contexts[2:], fps)
        if arrangement.apart:
            workers = Workers(rows=1)
        else:
            rows = arrangement.window_batch and 2 * arrangement.window_batch
            workers = stack.enter_context(workers_of(self.device, rows=rows))
        if in_this_thread:
            workers.run = map
        tables = schedule_buffers(linear_betas(TRAIN_STEPS, start=0.00085, end=0.012))
        alphas = torch.tensor(tables["alphas_cumprod"], dtype=torch.float32, device=self.device)
        kind = FrameByFrame if arrangement.apart else NoiseSchedule
        schedule = kind.from_tables(alphas, fifo_spacing(self.window * self.partitions), eta=1.0)
        noise = KeyedNoise(0, "benchmark", 0, self.latents, self.device)
        clip = noise.draw("base", range(self.window), [0] * self.window)
        plan = fifo(self.window, len(schedule), lookahead=self.stride < self.window)
        queue = LatentQueue.from_clip(clip, plan, schedule, noise=noise)
        forward = Compiled(unet) if arrangement.compile else unet
        denoise = GuidedDenoiser(forward, conditioning, GUIDANCE, workers)
        return denoise_queue(denoise, schedule, queue, noise=noise)

    def unet(self, dtype: torch.dtype) -> nn.Module:
        """Return the U-Net with random weights."""
        torch.manual_seed(0)
        with self.device:
            unet = instantiate_from_config(self.unet_config).to(dtype)
        return convolve_channels_last(unet).eval().requires_grad_(False)

    def weights(self, arrangement: Arrangement) -> int:
        """Return the bytes of the U-Net's weights."""
        with torch.device("meta"):
            unet = instantiate_from_config(self.unet_config)
        return sum(weight.numel() for weight in unet.parameters()) * DTYPES[arrangement.precision].itemsize

    def tflop(self, arrangement: Arrangement) -> float:
        """Return the TFLOP of the U-Net in a pass; guidance halves that are not apart share some."""
        together = 1 if arrangement.apart else 2
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
    """Return the TFLOP/s of a product of large matrices, the fastest of several."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: a @ b, device) for _ in range(8)) / 1e12


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Return how long `call` takes, until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(bench: Bench, names: Sequence[str], *, passes: int, warmup: int) -> dict[str, Figures]:
    """Measure each of the ARRANGEMENTS `names`: a pass of each in turn, so that a slow minute is slow for all.

    Shows a progress bar on stderr.
    """
    precisions = dict.fromkeys(ARRANGEMENTS[name].precision for name in names)
    seconds, peaks = {name: [] for name in names}, dict.fromkeys(names, 0)
    turns = [(turn, name) for turn in range(warmup + passes) for name in names]
    with ExitStack() as stack, torch.inference_mode():
        shown = stack.enter_context(progress_bar(turns, desc="passes of all settings", unit="pass"))
        rates = {precision: matmul_rate(bench.device, DTYPES[precision]) for precision in precisions}
        running = {name: bench.passes(ARRANGEMENTS[name], stack) for name in names}
        for turn, name in shown:
            took, peak = one_pass(running[name], ARRANGEMENTS[name], bench.device)
            if turn >= warmup:
                seconds[name].append(took)
                peaks[name] = max(peaks[name], peak)
    originals = statistics.median(seconds["originals"]) if "originals" in names else None
    return {
        name: figures_of(bench, ARRANGEMENTS[name], seconds[name], peaks[name], rates, originals=originals)
        for name in names
    }


def one_pass(passes: Iterator[LatentQueue], arrangement: Arrangement, device: torch.device) -> tuple[float, int]:
    """Return seconds and, on CUDA, bytes at the peak of the next pass."""
    with ExitStack() as stack:
        if arrangement.apart:  # on a CPU with all cores in one forward; the others share rows among threads
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            torch.backends.cudnn.allow_tf32 = True
        else:
            stack.enter_context(process_settings(device, allow_tf32=False))
        if device.type != "cuda":
            return seconds_of(lambda: next(passes), device), 0
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        took = seconds_of(lambda: next(passes), device)
        return took, torch.cuda.max_memory_allocated(device) - before


def figures_of(
    bench: Bench,
    arrangement: Arrangement,
    seconds: Sequence[float],
    peak: int,
    rates: Mapping[str, float],
    *,
    originals: float | None,
) -> Figures:
    """Return the figures of an arrangement.

    Args:
        seconds: of its passes.
        peak: bytes of a pass beside the weights, on CUDA.
        rates: TFLOP/s of a matrix product in each precision.
        originals: seconds of a pass in the originals' arrangement, if it was measured.
    """
    median, tflop = statistics.median(seconds), bench.tflop(arrangement)
    return Figures(
        seconds_per_pass=median,
        fastest=min(seconds),
        slowest=max(seconds),
        frames_per_second=1 / median,
        tflop_per_pass=tflop,
        tflop_per_second=tflop / median,
        share_of_matmul=tflop / median / rates[arrangement.precision],
        peak_memory=(peak + bench.weights(arrangement)) / 2**30 if bench.device.type == "cuda" else None,
        times_faster_than_originals=originals and originals / median,
    )
