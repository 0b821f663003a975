"""Queues that the tests of sampling share: the reference vectors', and one of a U-Net of a few layers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from helpers import assert_agrees, golden, golden_json, with_golden_weights
from torch import Tensor

from lvdm.diffusion.conditioning import Conditioning
from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import NoiseSchedule, fifo_spacing
from lvdm.models.ddpm3d import linear_betas, schedule_buffers, signal_scales
from lvdm.modules.networks.openaimodel3d import UNetModel
from lvdm.runtime.batching import Workers
from lvdm.runtime.compile import Compiled
from lvdm.sampling.plan import fifo
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import denoise_queue, sample_clip, take_step
from lvdm.sampling.taps.query_reuse import QueryReuse, reuse_queries

CPU = torch.device("cpu")
BUFFERS = schedule_buffers(linear_betas(1000, start=0.00085, end=0.012))
ACP = torch.tensor(BUFFERS["alphas_cumprod"], dtype=torch.float32)
SCALES = torch.tensor(signal_scales(1000, scale_a=1, scale_b=0.7, fix_scale_bug=False), dtype=torch.float32)


def golden_unet() -> UNetModel:
    """Return the small U-Net that the reference vectors were made with."""
    return with_golden_weights(
        UNetModel(**golden_json("small_t2v.json")["unet_config"]["params"]), "model.diffusion_model."
    )


def on_device(vectors: dict, device: torch.device) -> dict:
    """Return reference vectors with their tensors on `device`."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vectors.items()}


def guided(unet: UNetModel, vectors: dict, **changes) -> GuidedDenoiser:
    conditioning = Conditioning(
        contexts=vectors["context"][:, None],
        starts=torch.zeros(1, dtype=torch.long),
        blend=0,
        unconditional=vectors["context_uncond"][:, None],
        fps=vectors["fps"],
    )
    return GuidedDenoiser(unet, conditioning, vectors["guidance"].item(), **changes)


@dataclass(frozen=True)
class RecordedClip:
    """A source of noise that answers with the recorded first latents, then with the recorded noise of each step."""

    first: torch.Tensor
    steps: Iterator[torch.Tensor]

    def draw(self, purpose, frames, levels):
        return self.first if purpose == "base" else next(self.steps, torch.zeros_like(self.first[0]))[None]


def assert_base_clip_agrees(unet: UNetModel, name: str, device: torch.device = CPU, *, tolerance: float = 1e-4) -> None:
    """Assert that the base clip is the one of the reference vectors."""
    vectors = on_device(golden(name), device)
    schedule = NoiseSchedule.from_tables(
        ACP,
        fifo_spacing(vectors["steps"].item()),
        eta=vectors["eta"].item(),
        signal_scales=SCALES if vectors["use_scale"] else None,
    )
    noise = RecordedClip(vectors["x_T"], iter(vectors.get("step_noise", ())))
    *_, clip = sample_clip(guided(unet, vectors), schedule, frames=vectors["x_T"].shape[2], noise=noise)
    assert_agrees(clip, vectors["final"], tolerance)


class NoNoise:
    """A source of noise that nothing may ask."""

    def draw(self, purpose, frames, levels):
        raise AssertionError(f"noise for {purpose}")


NO_NOISE = NoNoise()


class Recorded:
    """A source of noise that answers with one recorded tensor."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def draw(self, purpose, frames, levels):
        assert len(frames) == len(levels) == self.tensor.shape[2]
        return self.tensor


def queue_of(vectors: dict, schedule: NoiseSchedule) -> LatentQueue:
    f = vectors["video_length"].item()
    return LatentQueue.from_clip(
        vectors["video"],
        fifo(f, len(schedule), lookahead=bool(vectors["lookahead"])),
        schedule,
        noise=Recorded(vectors["init_noise"]),
        uniform="unilatent" in str(vectors["mode"]),
    )


def after_step(denoise: GuidedDenoiser, schedule: NoiseSchedule, queue: LatentQueue, drawn: Tensor | None):
    """Return the queue after a step that adds recorded noise."""
    return take_step(denoise, schedule, queue, drawn=drawn, noise=NO_NOISE)


def assert_fifo_agrees(
    unet: UNetModel, name: str, rule: QueryReuse | None, device: torch.device = CPU, *, tolerance: float = 1e-4
) -> None:
    """Assert that the queue after each pass, and the frames that leave it, are those of the reference vectors."""
    vectors = on_device(golden(name), device)
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(64), eta=vectors["eta"].item())
    queue = queue_of(vectors, schedule)
    assert_agrees(queue.latents, vectors["queue_init"])
    denoise = guided(unet, vectors)
    with reuse_queries(unet, rule):
        for number, after in enumerate(vectors["queue_after_pass"]):
            noise = vectors["step_noise"][number][None] if "step_noise" in vectors else None
            queue = after_step(denoise, schedule, queue, noise)
            assert_agrees(queue.latents[0], after, tolerance)
            assert_agrees(queue.latents[0, :, queue.plan.front], vectors["emitted"][number], tolerance)
            assert queue.head_frame == number - (64 - 16)
            queue = queue.shift(vectors["enqueue_noise"][number][None, :, None])


BASE_CLIP_VECTORS = ("base_eta0_scale.npz", "base_eta1_noscale.npz")
FIFO_VECTORS = (
    ("fifo_lookahead_eta1.npz", None),
    ("fifo_no_lookahead_eta1.npz", None),
    ("fifo_qcache_unilatent_eta0.npz", QueryReuse("TT", "attn1", 0.9)),
)
RULES = (None, QueryReuse("TT", "attn1", 0.9))


@dataclass(frozen=True)
class Small:
    """Hold a U-Net of a few layers that takes pictures, and a queue of 16 slots with lookahead: 4 windows.

    With guidance these are 8 rows. Each frame has the context of one of `prompts` prompts, or a blend of two.
    """

    unet: UNetModel
    conditioning: Conditioning
    schedule: NoiseSchedule
    noise: KeyedNoise
    queue: LatentQueue
    scale: float

    @classmethod
    def on(cls, device: torch.device, *, prompts: int = 1, scale: float = 4.0, **layers: object) -> "Small":
        """layers: what is different from all kinds of layers, in the words of the U-Net."""
        changes = {"model_channels": 16, "channel_mult": [1], "attention_resolutions": [1], "num_res_blocks": 1}
        changes |= {"context_dim": 8, "num_head_channels": 8, "norm_num_groups": 4, "use_image_attention": True}
        torch.manual_seed(0)
        unet = UNetModel(**(golden_json("small_t2v.json")["unet_config"]["params"] | changes | layers)).eval()
        for weight in unet.parameters():
            weight.normal_(std=0.1)
        contexts = torch.randn(1 + prompts, 1, 77 + 4, 8).to(device)
        starts = 8 * torch.arange(prompts)
        conditioning = Conditioning(contexts[1:], starts, 2, contexts[:1], torch.tensor([8], device=device))
        schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(16), eta=1)
        noise = KeyedNoise(0, "", 0, (4, 4, 4), device)
        clip = noise.draw("base", range(8), [0] * 8)
        queue = LatentQueue.from_clip(clip, fifo(8, 16, lookahead=True), schedule, noise=noise)
        return cls(unet.to(device), conditioning, schedule, noise, queue, scale)

    def passes(self, workers: Workers, *, forward: Callable | None = None) -> Iterator[LatentQueue]:
        denoise = GuidedDenoiser(forward or self.unet, self.conditioning, self.scale, workers)
        return denoise_queue(denoise, self.schedule, self.queue, noise=self.noise)


def assert_compiled_agrees(small: Small, rule: QueryReuse | None, *, passes: int, tolerance: float = 1e-4) -> None:
    """Assert that the compiled U-Net computes the same, on two threads, over some passes."""
    compiled = Compiled(small.unet)
    with reuse_queries(small.unet, rule), ThreadPoolExecutor(2) as threads:
        workers = Workers(2, run=threads.map)
        runs = (small.passes(workers, forward=forward) for forward in (small.unet, compiled))
        for _, (plain, fast) in zip(range(passes), zip(*runs, strict=True), strict=False):
            assert_agrees(fast.latents, plain.latents, tolerance)
