"""Training of the U-Net and its text encoder on encoded clips and single frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lvdm.diffusion.conditioning import Conditioning
from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import TRAIN_STEPS, NoiseSchedule, fifo_spacing
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.modules.attention import TemporalTransformer
from lvdm.modules.networks.openaimodel3d import ResBlock, UNetModel
from lvdm.sampling.base_clip import sample_clip
from lvdm.training.optimization import Optimization, warmup_cosine

SAMPLE_GUIDANCE = 4.0
SAMPLE_FPS = 8


@dataclass(frozen=True)
class Objective:
    """Say what a step is trained on.

    Each clip is noised at one timestep, or, for a share of `diagonal`, at timesteps that rise from frame to frame as in
    FIFO's queue (and as Diffusion Forcing, arXiv 2407.01392, trains all of them). `frames` frames of
    every clip of the "frames" batch are trained on as pictures, without the temporal layers. Captions, and the pictures
    of a model that takes some, are left out independently of each other.

    Where an object covers a latent, the squared error counts 1 + `object_weight` times. With `even_contrast`, the
    squared difference of object and background at which that holds, objects that stand out less count more in
    proportion: otherwise a wrong shape costs green on black a tenth of what it costs green on white.
    """

    diagonal: float = 0.5
    frames: int = 4
    caption_dropout: float = 0.12
    picture_dropout: float = 0.3
    object_weight: float = 0.0
    even_contrast: float | None = None


class DiffusionTraining(LightningModule):
    """Train U-Net and encoders on the mean squared error of the predicted v or noise; the autoencoder is fixed."""

    def __init__(self, model: LatentDiffusion, *, optimization: Optimization, objective: Objective):
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.objective = objective
        self.schedule = NoiseSchedule.of_model(model, torch.arange(TRAIN_STEPS), eta=0.0)
        self.model.first_stage_model.requires_grad_(False)

    def training_step(self, batch: dict, index: int) -> Tensor:
        """Return the loss of a batch: "clips", "frames" or both, as items of lvdm.training.latents.LatentClips."""
        losses = {}
        if "frames" in batch:
            frames = some_frames(batch["frames"], self.objective.frames)
            clips, count = frames["latents"].shape[0], frames["latents"].shape[2]
            timesteps = torch.randint(TRAIN_STEPS, (clips, count))
            recent = torch.zeros(clips, dtype=torch.bool)
            with without_temporal_layers(self.model.unet):
                losses["frames"] = self.loss(frames, timesteps, recent)
        if "clips" in batch:
            clips, _, length = batch["clips"]["latents"].shape[:3]
            rising = torch.rand(clips) < self.objective.diagonal
            losses["clips"] = self.loss(batch["clips"], clip_timesteps(rising, length), ~rising)
        self.log_dict({f"loss_{name}": loss for name, loss in losses.items()}, prog_bar=True)
        return sum(losses.values())

    def loss(self, batch: dict, timesteps: Tensor, recent: Tensor) -> Tensor:
        """Return the mean error on latents (B, C, T, h, w) that are noised at `timesteps` (B, T), on the CPU.

        recent: (B,) as in `context`.
        """
        x0 = batch["latents"].float()
        noise = torch.randn_like(x0)
        x = self.schedule.q_sample(x0, timesteps, noise)
        target = self.schedule.target(x0, timesteps, noise)
        context = self.context(batch, recent.to(self.device))
        output = self.model.unet(x, timesteps.to(self.device), context, batch["fps"]).float()
        error = (output - target).square()
        if "mask" in batch:
            weight = self.objective.object_weight
            if self.objective.even_contrast is not None:
                weight = weight * self.objective.even_contrast / contrast(batch["latents"], batch["mask"])
            error = error * (1 + weight * batch["mask"])
        return error.mean()

    def context(self, batch: dict, recent: Tensor) -> Tensor:
        """Return the context (B, 1, L, D) of captions and pictures, some of them left out for guidance.

        A clip has several pictures to begin from. Where `recent` (B,) is set, it gets the first, which is its own first
        frame, as a base clip has it. The others get the last, an earlier frame, as the late frames of a long video.
        """
        captions = batch["caption"]
        kept = torch.rand(len(captions)) >= self.objective.caption_dropout
        texts = [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]
        context = self.model.encode_text(texts)
        if not self.model.takes_pictures:
            return context
        pictures = torch.where(recent[:, None, None, None], batch["pictures"][:, 0], batch["pictures"][:, -1])
        kept = torch.rand(len(captions), 1, 1, 1, device=self.device) >= self.objective.picture_dropout
        return torch.cat([context, self.model.encode_pictures(pictures * kept)], dim=2)

    @torch.no_grad()
    def sample_sheet(
        self, captions: list[str], shape: tuple[int, int, int, int], *, pictures: Tensor | None, steps: int = 16
    ) -> Tensor:
        """Sample a clip of each of `captions` and return them as one picture, a clip a row: (3, N H, T W).

        Args:
            shape: (C, T, h, w) of a clip's latents.
            pictures: (N, 3, H, W) in [-1, 1], that the clips begin from; each stands in front of its clip.
            steps: of DDIM.
        """
        model = self.model
        schedule = NoiseSchedule.of_model(model, fifo_spacing(steps), eta=0.0)
        rows = []
        for index, caption in enumerate(captions):
            conditioning = Conditioning.of_text(model, [(0, caption)], fps=SAMPLE_FPS)
            if pictures is not None:
                conditioning = conditioning.with_picture(model.encode_pictures(pictures[index : index + 1]))
            noise = KeyedNoise(index, caption, 0, (shape[0], *shape[2:]), self.device)
            denoise = GuidedDenoiser(model.unet, conditioning, scale=SAMPLE_GUIDANCE)
            *_, clip = sample_clip(denoise, schedule, frames=shape[1], noise=noise)
            frames = list(model.decode(clip[0].transpose(0, 1)))
            rows.append(torch.cat(frames if pictures is None else [pictures[index], *frames], dim=2))
        return torch.cat(rows, dim=1)

    def configure_optimizers(self) -> dict:
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        return warmup_cosine(trained, self.optimization)


def contrast(latents: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared distance, summed over channels, of objects from the background's mean: (B, 1, 1, 1, 1).

    Args:
        latents: (B, C, T, h, w).
        mask: (B, 1, T, h, w), the share of each cell that objects cover.
    """
    cells, clip = (2, 3, 4), (1, 2, 3, 4)
    bare = (mask < 0.01).float()
    background = (latents * bare).sum(cells, keepdim=True) / bare.sum(cells, keepdim=True).clamp(min=1)
    distance = ((latents - background).square() * mask).sum(clip, keepdim=True)
    return (distance / mask.sum(clip, keepdim=True).clamp(min=1)).clamp(min=1)


def clip_timesteps(rising: Tensor, length: int) -> Tensor:
    """Return timesteps (B, T) of a batch of clips: a stretch of FIFO's diagonal where `rising` (B,), else constant.

    A diagonal rises by 8 to 32 timesteps a frame (8 to 2 partitions of a 16-frame model) and may begin below 0, where
    it is clipped: those frames are the clean ones that lookahead puts in front.
    """
    clips, device = len(rising), rising.device
    constant = torch.randint(TRAIN_STEPS, (clips, 1), device=device).expand(-1, length)
    slope = torch.empty(clips, 1, device=device).uniform_(8, 32)
    reach = slope * (length - 1)
    start = -reach + torch.rand(clips, 1, device=device) * (TRAIN_STEPS - 1 + reach)
    diagonal = (start + slope * torch.arange(length, device=device)).clamp(0, TRAIN_STEPS - 1).long()
    return torch.where(rising[:, None], diagonal, constant)


def some_frames(batch: dict, count: int) -> dict:
    """Return `batch` with `count` random frames of every clip, the same ones in all clips."""
    chosen = torch.randperm(batch["latents"].shape[2], device=batch["latents"].device)[:count]
    return batch | {key: batch[key][:, :, chosen] for key in ("latents", "mask") if key in batch}


@contextmanager
def without_temporal_layers(unet: UNetModel) -> Iterator[None]:
    """Make `unet` treat every frame as a picture of its own within this context (Video LDM, arXiv 2304.08818)."""
    removed: list[tuple[nn.Module, str, nn.Module]] = []

    def swap(parent: nn.Module, name: str, replacement: nn.Module | None) -> None:
        removed.append((parent, name, parent._modules[name]))
        parent._modules[name] = replacement

    for module in list(unet.modules()):
        if isinstance(module, ResBlock) and module.temopral_conv is not None:
            swap(module, "temopral_conv", None)
        elif isinstance(module, nn.Sequential):
            for name, child in list(module.named_children()):
                if isinstance(child, TemporalTransformer):
                    swap(module, name, nn.Identity())
    try:
        yield
    finally:
        for parent, name, module in removed:
            parent._modules[name] = module
