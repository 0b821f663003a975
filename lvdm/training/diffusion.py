"""Training of the U-Net and its text encoder on encoded clips and single frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lvdm.diffusion.conditioning import Conditioning, EncodedPicture
from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import TRAIN_STEPS, NoiseSchedule, fifo_spacing
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.modules.attention import TemporalTransformer
from lvdm.modules.networks.blocks import ResBlock
from lvdm.modules.networks.openaimodel3d import UNetModel
from lvdm.sampling.sampler import sample_clip
from lvdm.training.levels import ClipLevels, LevelShares, clip_levels
from lvdm.training.optimization import Optimization, warmup_cosine

SAMPLE_GUIDANCE = 4.0
SAMPLE_FPS = 8
FRAME_LEVELS = LevelShares(independent=1.0)


@dataclass(frozen=True)
class Objective:
    """Say what a step is trained on.

    `shares` are the kinds of noise levels of clips. `frames` frames of every clip of the "frames" batch are trained on
    as pictures, without the temporal layers, each at a timestep of its own. Captions, and the pictures of a model that
    takes some, are left out independently of each other.

    Where an object covers a latent, the squared error counts 1 + `object_weight` times. With `even_contrast`, the
    squared difference of object and background at which that holds, objects that stand out less count more in
    proportion: otherwise a wrong shape costs green on black a tenth of what it costs green on white.
    """

    shares: LevelShares = field(default_factory=lambda: LevelShares(constant=0.5, diagonal=0.5))
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
        """Return the loss of a batch: "clips", "frames" or both, as items of LatentClips."""
        losses = {}
        if "frames" in batch:
            frames = some_frames(batch["frames"], self.objective.frames)
            count, _, length = frames["latents"].shape[:3]
            with without_temporal_layers(self.model.unet):
                losses["frames"] = self.loss(frames, clip_levels(FRAME_LEVELS, count, length))
        if "clips" in batch:
            count, _, length = batch["clips"]["latents"].shape[:3]
            losses["clips"] = self.loss(batch["clips"], clip_levels(self.objective.shares, count, length))
        self.log_dict({f"loss_{name}": loss for name, loss in losses.items()}, prog_bar=True)
        return sum(losses.values())

    def loss(self, batch: dict, levels: ClipLevels) -> Tensor:
        """Return the mean error on latents (B, C, T, h, w) at `levels`, over the frames that are not given."""
        x0, timesteps = batch["latents"].float(), levels.timesteps
        noise = torch.randn_like(x0)
        x = self.schedule.q_sample(x0, timesteps, noise)
        target = self.schedule.target(x0, timesteps, noise)
        objective = self.objective
        context = context_of(
            self.model,
            batch,
            levels.own_picture,
            caption_dropout=objective.caption_dropout,
            picture_dropout=objective.picture_dropout,
        )
        output = self.model.unet(x, timesteps.to(self.device), context, batch["fps"]).float()
        error = (output - target).square()
        if "mask" in batch:
            weight = self.objective.object_weight
            if self.objective.even_contrast is not None:
                weight = weight * self.objective.even_contrast / contrast(batch["latents"], batch["mask"])
            error = error * (1 + weight * batch["mask"])
        return error.mean((1, 3, 4))[levels.noisy.to(self.device)].mean()

    @torch.no_grad()
    def sample_sheet(
        self, captions: list[str], shape: tuple[int, int, int, int], *, pictures: Tensor | None, steps: int = 16
    ) -> Tensor:
        """Sample a clip of each of `captions` and return them as one picture, a clip a row: (3, N H, T W).

        Args:
            shape: (C, T, h, w) of a clip's latents.
            pictures: (N, 3, H', W') in [-1, 1], that the clips begin from; each stands in front of its clip.
            steps: of DDIM.
        """
        model = self.model
        schedule = NoiseSchedule.of_model(model, fifo_spacing(steps), eta=0.0)
        rows = []
        for index, caption in enumerate(captions):
            picture = None if pictures is None else pictures[index : index + 1]
            denoise = denoiser_of(model, caption, picture, scale=SAMPLE_GUIDANCE)
            noise = KeyedNoise(index, caption, 0, (shape[0], *shape[2:]), self.device)
            *_, clip = sample_clip(denoise, schedule, frames=shape[1], noise=noise)
            frames = model.decode(clip[0].transpose(0, 1))  # (T, 3, H, W)
            if pictures is not None:
                picture = F.interpolate(pictures[index : index + 1], frames.shape[2:], mode="bilinear")
                frames = torch.cat([picture, frames])
            rows.append(torch.cat(list(frames), dim=2))
        return torch.cat(rows, dim=1)

    def configure_optimizers(self) -> dict:
        """Return the optimizer of the weights that are trained and its schedule, for Lightning."""
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        return warmup_cosine(trained, self.optimization)


def denoiser_of(model: LatentDiffusion, caption: str, picture: Tensor | None, *, scale: float) -> GuidedDenoiser:
    """Return what denoises a sample under a caption, and a picture (1, 3, H, W) in [-1, 1] if there is one."""
    conditioning = Conditioning.of_text(model, [(0, caption)], fps=SAMPLE_FPS)
    if picture is not None:
        conditioning = conditioning.with_picture(EncodedPicture.of(model, picture))
    return GuidedDenoiser(model.unet, conditioning, scale=scale)


def context_of(
    model: LatentDiffusion, batch: dict, own_picture: Tensor, *, caption_dropout: float, picture_dropout: float
) -> Tensor:
    """Return the context (B, T or 1, L, D) of captions and pictures, some of them left out for guidance.

    It is one for the whole clip unless the caption changes in a clip of the batch.
    A clip has several pictures to begin from. Where `own_picture` (B,) is set, it gets the first, which is its own
    first frame. The others get the last, an earlier frame.
    """
    kept = (torch.rand(len(batch["caption"])) >= caption_dropout).tolist()

    def of_captions(captions: list[str]) -> Tensor:
        return model.encode_text([text if keep else "" for text, keep in zip(captions, kept, strict=True)])

    context, changed = of_captions(batch["caption"]), batch["changed"]
    if not changed.all():
        context = torch.where(changed[:, :, None, None], context, of_captions(batch["caption_before"]))
    if not model.takes_pictures:
        return context
    own_picture = own_picture.to(context.device)[:, None, None, None]
    pictures = torch.where(own_picture, batch["pictures"][:, 0], batch["pictures"][:, -1])
    shown = torch.rand(len(pictures), 1, 1, 1, device=context.device) >= picture_dropout
    tokens = model.encode_pictures(pictures * shown)
    return torch.cat([context, tokens.expand(-1, context.shape[1], -1, -1)], dim=2)


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


def some_frames(batch: dict, count: int) -> dict:
    """Return `batch` with `count` random frames of every clip, the same ones in all clips."""
    chosen = torch.randperm(batch["latents"].shape[2], device=batch["latents"].device)[:count]
    of_frames = {key: batch[key][:, :, chosen] for key in ("latents", "mask") if key in batch}
    return batch | of_frames | {"changed": batch["changed"][:, chosen]}


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
