"""DDIM (Song et al. 2021, arXiv 2010.02502): a schedule's tables, its one step, and the sampling of a whole clip."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lvdm.models.ddpm3d import LatentDiffusion

TRAIN_STEPS = 1000  # noise levels that every VideoCrafter model was trained on

# x (B, C, T, H, W); timesteps and numbers of the frames in the video (B, T), on the CPU -> the network's output, like x
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


def fifo_spacing(steps: int, train_steps: int = TRAIN_STEPS) -> Tensor:
    """`steps` timesteps evenly from 0 to the last one, (S,) int64: FIFO-Diffusion's spacing."""
    return torch.linspace(0, train_steps - 1, steps, dtype=torch.float64).round().long()


def videocrafter_spacing(steps: int, train_steps: int = TRAIN_STEPS) -> Tensor:
    """VideoCrafter's own spacing: every (train_steps // steps)-th timestep, from 1; these may be more than `steps`."""
    return (torch.arange(0, train_steps, max(1, train_steps // steps)) + 1).clamp(max=train_steps - 1)


SPACINGS = {"fifo": fifo_spacing, "videocrafter": videocrafter_spacing}


@dataclass(frozen=True)
class DDIMSchedule:
    """Tables of S noise levels, cleanest first, on the CPU, as levels are: each (S,) fp32 but the timesteps.

    A step at level i goes from `alphas[i]` to `alphas_prev[i]`, the cumulated signal shares of this level and the one
    below, adding noise of deviation `sigmas[i]`. `scales` multiply the signal (1 everywhere unless the model was
    trained with `use_scale`). `parameterization` is what the network predicts, "eps" or "v".
    """

    timesteps: Tensor
    alphas: Tensor
    alphas_prev: Tensor
    sigmas: Tensor
    scales: Tensor
    scales_prev: Tensor
    parameterization: str

    @classmethod
    def of_model(
        cls, model: "LatentDiffusion", steps: int, *, eta: float, spacing: str = "fifo", use_scale: bool = True
    ) -> "DDIMSchedule":
        """The schedule of a model; `use_scale` honours the signal scales of a model that was trained with them."""
        return cls.from_tables(
            model.alphas_cumprod,
            SPACINGS[spacing](steps, len(model.alphas_cumprod)),
            eta=eta,
            parameterization=model.parameterization,
            signal_scales=model.scale_arr if use_scale and model.use_scale else None,
        )

    @classmethod
    def from_tables(
        cls,
        alphas_cumprod: Tensor,
        timesteps: Tensor,
        *,
        eta: float,
        parameterization: str = "eps",
        signal_scales: Tensor | None = None,
    ) -> "DDIMSchedule":
        """The levels at `timesteps` (S,) of a model's `alphas_cumprod` and, with `use_scale`, its `scale_arr`."""
        scales = torch.ones_like(alphas_cumprod) if signal_scales is None else signal_scales
        alphas, scales = alphas_cumprod.cpu().double(), scales.cpu().double()
        alpha, scale = alphas[timesteps], scales[timesteps]
        alpha_prev, scale_prev = torch.cat([alphas[:1], alpha[:-1]]), torch.cat([scales[:1], scale[:-1]])
        sigma = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)).sqrt()
        tables = (table.float() for table in (alpha, alpha_prev, sigma, scale, scale_prev))
        return cls(timesteps, *tables, parameterization)

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def ends_in_place(self) -> bool:
        """Whether a step at level 0 changes nothing: the spacing starts at timestep 0 and has nowhere to go."""
        return bool(self.timesteps[0] == 0)

    def noised(self, x0: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Clean latents x0 (B, C, T, H, W) brought to the noise levels (B, T)."""
        tables = (per_frame(table, level) for table in (self.alphas, self.scales))
        alpha, scale = (table.to(x0.device, non_blocking=True) for table in tables)
        return alpha.sqrt() * scale * x0 + (1 - alpha).sqrt() * noise

    def step(self, x: Tensor, output: Tensor, level: Tensor, noise: Tensor | None) -> Tensor:
        """One step down for x (B, C, T, H, W), each frame from its own level (B, T), in fp32 (DDIM, equation 12).

        `noise` may be None where every sigma is zero (eta 0).
        """
        alpha, alpha_prev, sigma, scale, scale_prev = (
            per_frame(table, level).to(x.device, non_blocking=True)
            for table in (self.alphas, self.alphas_prev, self.sigmas, self.scales, self.scales_prev)
        )
        x, output = x.float(), output.float()
        if self.parameterization == "v":
            eps = alpha.sqrt() * output + (1 - alpha).sqrt() * x
            x0 = alpha.sqrt() * x - (1 - alpha).sqrt() * output
        else:
            eps = output
            x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
        x_prev = alpha_prev.sqrt() * scale_prev * (x0 / scale) + (1 - alpha_prev - sigma.square()).sqrt() * eps
        return x_prev if noise is None else x_prev + sigma * noise


def per_frame(table: Tensor, level: Tensor) -> Tensor:
    """The entries of `table` (S,) at `level` (B, T), shaped (B, 1, T, 1, 1) for latents (B, C, T, H, W)."""
    return table[level][:, None, :, None, None]


def sample_clip(
    denoise: Denoise, schedule: DDIMSchedule, x: Tensor, *, noise: Callable[[int], Tensor | None]
) -> Iterator[Tensor]:
    """Sample a clip from x (B, C, T, H, W) ~ N(0, I), all frames at one level; yields the latents after every step.

    `noise(level)` is the Gaussian of the step at that level, like x, or None. A last step that would change nothing is
    not taken.
    """
    frames = torch.arange(x.shape[2]).expand(x.shape[0], -1)
    for level in reversed(range(int(schedule.ends_in_place), len(schedule))):
        levels = torch.full_like(frames, level)
        output = denoise(x, schedule.timesteps[levels], frames)
        x = schedule.step(x, output, levels, noise(level))
        yield x
