"""Distill guidance and several small steps into one step of a queue of few noise levels.

The teacher takes a window from its levels to the next lower ones of the student's plan in several DDIM steps with
guidance. The student learns to get there in one step without it: progressive distillation (Salimans and Ho 2022, arXiv
2202.00512) with guidance folded in (Meng et al. 2023, arXiv 2210.03142), at the levels of a plateau plan.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lvdm.diffusion.conditioning import Conditioning
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import NoiseSchedule
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.sampling.plan import plateau
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import denoise_queue, sample_clip
from lvdm.training.diffusion import SAMPLE_FPS, context_of, denoiser_of
from lvdm.training.optimization import Optimization, warmup_cosine

SHEET_PERIODS = 12  # of the queue, for a row of a sample sheet


@dataclass(frozen=True)
class QueueObjective:
    """Say which steps a student learns.

    Args:
        timesteps: of its noise levels, falling, like `--timesteps`.
        width: frames that share a level, like `--plan plateau:WIDTH`. All levels together are one window.
        substeps: steps that the teacher takes in place of one.
        guidance: the teacher's scale of classifier-free guidance.
        constant: share of the clips whose frames all have the same level, as in a base clip.
        picture_dropout: share of the clips without a picture.

    Raises:
        ValueError: timesteps do not fall, or a number is too small.
    """

    timesteps: tuple[int, ...] = (999, 749, 499, 249)
    width: int = 4
    substeps: int = 4
    guidance: float = 4.0
    constant: float = 0.25
    picture_dropout: float = 0.5

    def __post_init__(self):
        times = tuple(self.timesteps)
        if not times or sorted(set(times), reverse=True) != list(times) or times[-1] < self.substeps or times[0] > 999:
            raise ValueError(
                f"queue.timesteps is {list(times)}, expected numbers that fall, from at most 999 to at least the "
                f"{self.substeps} substeps"
            )
        for name in ("width", "substeps"):
            if getattr(self, name) < 1:
                raise ValueError(f"queue.{name} is {getattr(self, name)}, expected at least 1")

    @property
    def window(self) -> int:
        """Frames of the student's window."""
        return self.width * len(self.timesteps)


class QueueDistillationTraining(LightningModule):
    """Train a student's U-Net on the squared error of its output; the teacher is what the student begins as."""

    def __init__(self, model: LatentDiffusion, *, optimization: Optimization, objective: QueueObjective):
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.objective = objective
        student = torch.tensor(objective.timesteps[::-1])
        self.student = NoiseSchedule.of_model(model, student, eta=0.0)
        self.fine = NoiseSchedule.of_model(model, with_substeps(student, objective.substeps), eta=0.0)
        model.requires_grad_(False)
        # In a list, so that it is no part of checkpoints: a training that goes on starts from the same model again.
        self.teacher: list[nn.Module] = [deepcopy(model.unet)]
        model.unet.requires_grad_(True)

    @cached_property
    def nothing(self) -> Tensor:
        """What guidance leads away from, (1, 1, L, D): no caption and a blank picture. The encoders do not learn."""
        return Conditioning.of_text(self.model, [(0, "")], fps=SAMPLE_FPS).unconditional

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device."""
        self.teacher[0].to(self.device)

    def training_step(self, batch: dict, index: int) -> Tensor:
        """Return the loss of a batch of clips, as items of LatentClips of `objective.window` frames."""
        x0, fps = batch["latents"].float(), batch["fps"]
        level, constant = self.levels(len(x0))
        x = self.student.q_sample(x0, level, torch.randn_like(x0))
        with torch.no_grad():
            dropout = self.objective.picture_dropout
            context = context_of(self.model, batch, constant, caption_dropout=0.0, picture_dropout=dropout)
            target = self.target(x, level, context, fps)
        output = self.model.unet(x, self.student.timesteps_of(level).to(self.device), context, fps).float()
        loss = (output - target).square().mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def levels(self, clips: int) -> tuple[Tensor, Tensor]:
        """Return the student's levels (B, T) of B clips, and in which of them (B,) all frames have the same one."""
        count, width = len(self.student), self.objective.width
        of_plan = torch.arange(count).repeat_interleave(width).expand(clips, -1)
        constant = torch.rand(clips, 1) < self.objective.constant
        return torch.where(constant, torch.randint(count, (clips, 1)), of_plan), constant[:, 0]

    def target(self, x: Tensor, level: Tensor, context: Tensor, fps: Tensor) -> Tensor:
        """Return what the student shall predict for x (B, C, T, h, w) at its levels (B, T), like x.

        context: (B, T or 1, L, D), of captions and pictures.
        """
        substeps = self.objective.substeps
        fine, at = substeps * (level + 1) - 1, x
        contexts = torch.cat([context, self.nothing.expand_as(context)])
        for _ in range(substeps):
            output = self.teacher[0](at, self.fine.timesteps_of(fine).to(self.device), contexts, fps).float()
            captioned, plain = output.chunk(2)
            at, _ = self.fine.step(at, plain.lerp(captioned, self.objective.guidance), fine, fine - 1, None)
            fine = fine - 1
        x0, eps = self.student.x0_and_eps_between(x, level, at, level - 1)
        return self.student.target(x0, level, eps)

    @torch.no_grad()
    def sample_sheet(self, captions: list[str], shape: tuple[int, int, int, int], *, pictures: Tensor | None) -> Tensor:
        """Sample a base clip and SHEET_PERIODS periods of the queue for each caption, a row each: (3, N H, T W).

        Shown are the first frames of blocks of `width` frames. Arguments as of DiffusionTraining.sample_sheet.
        """
        model, objective = self.model, self.objective
        plan = plateau(objective.window, len(self.student), objective.width, lookahead=False)
        rows = []
        for index, caption in enumerate(captions):
            picture = None if pictures is None else pictures[index : index + 1]
            denoise = denoiser_of(model, caption, picture, scale=1.0)
            noise = KeyedNoise(index, caption, 0, (shape[0], *shape[2:]), self.device)
            *_, clip = sample_clip(denoise, self.student, frames=objective.window, noise=noise)
            queue = LatentQueue.from_clip(clip, plan, self.student, noise=noise)
            shown = [clip[:, :, :: objective.width]]
            for after in islice(denoise_queue(denoise, self.student, queue, noise=noise), SHEET_PERIODS):
                shown.append(after.finished[:, :, :1])
            frames = model.decode(torch.cat(shown, dim=2)[0].transpose(0, 1))
            rows.append(torch.cat(list(frames), dim=2))
        return torch.cat(rows, dim=1)

    def configure_optimizers(self) -> dict:
        """Return the optimizer of the student's U-Net and its schedule, for Lightning."""
        return warmup_cosine(self.model.unet.parameters(), self.optimization)


def with_substeps(timesteps: Tensor, substeps: int) -> Tensor:
    """Return timesteps (S `substeps`,), rising, that end every interval of `timesteps` (S,), which rise from above 0.

    >>> with_substeps(torch.tensor([100, 200]), 2)
    tensor([ 50, 100, 150, 200])
    """
    below = torch.cat([torch.zeros(1, dtype=timesteps.dtype), timesteps[:-1]])
    share = torch.arange(1, substeps + 1) / substeps
    return (below[:, None] + (timesteps - below)[:, None] * share).round().long().flatten()
