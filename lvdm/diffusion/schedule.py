"""Define the noise levels that a sampler visits and the mathematics between them.

Training, base clip and queue use the same functions: `q_sample` adds noise, `x0_and_eps` reads what the network
predicted, and `step` goes from any level to any lower one.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lvdm.models.ddpm3d import LatentDiffusion

TRAIN_STEPS = 1000  # noise levels that every VideoCrafter model was trained on
LEVEL_KINDS = ("constant", "diagonal", "independent", "context", "between")  # in the clips of a training
CLEAN = -1  # the level below level 0: the end of the last step, where the signal share is that of timestep 0
CONSISTENCY = "consistency"  # as eta: all of the noise of a step is fresh, as consistency models want it


def fifo_spacing(steps: int, train_steps: int = TRAIN_STEPS) -> Tensor:
    """Return FIFO-Diffusion's timesteps, (S,) int64: `steps` of them, evenly from 0 to the last one."""
    return torch.linspace(0, train_steps - 1, steps, dtype=torch.float64).round().long()


def videocrafter_spacing(steps: int, train_steps: int = TRAIN_STEPS) -> Tensor:
    """Return VideoCrafter's own timesteps, (S,) int64: every (train_steps // steps)-th one, beginning with 1.

    These may be more than `steps`: 67 for 64 steps of 1000.
    """
    return (torch.arange(0, train_steps, max(1, train_steps // steps)) + 1).clamp(max=train_steps - 1)


def trailing_spacing(steps: int, train_steps: int = TRAIN_STEPS) -> Tensor:
    """Return DynamiCrafter's timesteps, (S,) int64: evenly down from the last one, which is pure noise there.

    For 16 steps these are 61, 124, ... 999: round(1000 - 1000 k / S) - 1, halves to even.
    """
    falling = train_steps - train_steps * torch.arange(steps, dtype=torch.float64) / steps
    return falling.round().long().flip(0) - 1


SPACINGS = {"fifo": fifo_spacing, "videocrafter": videocrafter_spacing, "trailing": trailing_spacing}


@dataclass(frozen=True)
class NoiseSchedule:
    """Hold S noise levels, numbered from 0 (cleanest) to S - 1, and compute what happens between them.

    All tables are on the CPU, where levels are too; latents may be on any device.

    Args:
        timesteps: (S,) int64, what the network is told about each level; of CLEAN it is told `context`.
        alphas: (S + 1,) float64, the cumulated signal share of CLEAN and of each level behind it ("alpha bar" of DDPM).
        scales: (S + 1,) float64, by which the signal was multiplied in training; 1 unless the model has `use_scale` or
            `use_dynamic_rescale`. That of CLEAN is timestep 0's, which is 1; DynamiCrafter's own sampler leaves clean
            latents at the scale of level 0, 0.99 or 0.97, and in a queue contrast would fade with each frame.
        eta: stochasticity of a step: 0 is DDIM, 1 is DDPM, CONSISTENCY is a step of consistency models (Song et al.
            2023, arXiv 2303.01469): noise of the next level on x0, and x0 itself at CLEAN.
        parameterization: what the network predicts, "eps" or "v".
        context: timestep at which the network sees clean frames, with its signal share and scale; 0 leaves them clean.
        boundary: whether x itself is a part of x0 close to timestep 0, as latent consistency models were distilled.
    """

    timesteps: Tensor
    alphas: Tensor
    scales: Tensor
    eta: float | str
    parameterization: str
    context: tuple[int, float, float] = (0, 1.0, 1.0)
    boundary: bool = False

    @classmethod
    def of_model(
        cls,
        model: LatentDiffusion,
        timesteps: Tensor,
        *,
        eta: float | str,
        use_scale: bool = True,
        context_level: int = 0,
    ) -> "NoiseSchedule":
        """Return the levels at `timesteps` (S,) of a model.

        Models with `use_dynamic_rescale` are not sampled without their signal scales; distilled ones (T2V-Turbo) never
        saw those of the model that they come from.

        Args:
            use_scale: whether the signal scales of a model with `use_scale` are honoured.
            context_level: timestep at which the network sees clean frames.
        """
        scaled = model.use_dynamic_rescale or (use_scale and model.use_scale and not model.distilled)
        schedule = cls.from_tables(
            model.alphas_cumprod,
            timesteps,
            eta=eta,
            parameterization=model.parameterization,
            signal_scales=model.scale_arr if scaled else None,
            context_level=context_level,
        )
        return replace(schedule, boundary=model.distilled and eta == CONSISTENCY)

    @classmethod
    def from_tables(
        cls,
        alphas_cumprod: Tensor,
        timesteps: Tensor,
        *,
        eta: float | str,
        parameterization: str = "eps",
        signal_scales: Tensor | None = None,
        context_level: int = 0,
    ) -> "NoiseSchedule":
        """Return the levels at `timesteps` (S,) of tables with an entry for each training timestep."""
        visited = torch.cat([torch.zeros(1, dtype=torch.long), timesteps.cpu()])
        scales = torch.ones_like(alphas_cumprod) if signal_scales is None else signal_scales
        context = (context_level, alphas_cumprod[context_level].item(), scales[context_level].item())
        alphas, scales = (table.cpu().double()[visited] for table in (alphas_cumprod, scales))
        if eta == CONSISTENCY:
            alphas[0] = 1
        return cls(timesteps, alphas, scales, eta, parameterization, context)

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def stochastic(self) -> bool:
        """Whether steps need noise."""
        return self.eta == CONSISTENCY or self.eta > 0

    @property
    def ends_in_place(self) -> bool:
        """Whether a step from level 0 to CLEAN changes nothing, because level 0 is at timestep 0 already."""
        return bool(self.alphas[0] == self.alphas[1])

    def timesteps_of(self, level: Tensor) -> Tensor:
        """Return the timesteps, int64 like `level`, that the network is told about levels."""
        return torch.where(level == CLEAN, self.context[0], self.timesteps[level.clamp(min=0)])

    def q_sample(self, x0: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Return clean latents x0 (B, C, T, H, W) with noise of the levels (B, T) (DDPM, arXiv 2006.11239, eq. 4)."""
        return _noised(x0, *self._signal(level, x0.device), noise)

    def target(self, x0: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Return what the network shall predict for `q_sample(x0, level, noise)`, like x0 (B, C, T, H, W).

        v is sqrt(alpha) eps - sqrt(1 - alpha) x0 (Salimans and Ho 2022, arXiv 2202.00512).
        """
        if self.parameterization == "eps":
            return noise
        alpha, scale = self._signal(level, x0.device)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * scale * x0

    def x0_and_eps(self, x: Tensor, output: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean latents and the noise that the network's `output` for x (B, C, T, H, W) means.

        level: (B, T). The clean latents are without the signal scale of the level.
        """
        alpha, scale = self._signal(level, x.device)
        if self.parameterization == "v":
            eps = alpha.sqrt() * output + (1 - alpha).sqrt() * x
            x0 = alpha.sqrt() * x - (1 - alpha).sqrt() * output
        else:
            eps = output
            x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
        if self.boundary:
            skip, out = (per_frame(weight, x.device) for weight in boundary_weights(self.timesteps_of(level)))
            x0 = out * x0 + skip * x
        return x0 / scale, eps

    def x0_and_eps_between(self, x: Tensor, level: Tensor, x_next: Tensor, next_level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean latents and the noise with which a step of DDIM leads from x to `x_next`, all like x.

        These are the targets of progressive distillation (Salimans and Ho 2022, arXiv 2202.00512, appendix G).

        level, next_level: (B, T), of x and `x_next`; next_level is lower, and may be CLEAN.
        """
        (signal, noise), (signal_next, noise_next) = (
            (alpha.sqrt() * scale, (1 - alpha).sqrt())
            for alpha, scale in (self._signal(level, x.device), self._signal(next_level, x.device))
        )
        determinant = signal_next * noise - signal * noise_next
        x0 = (noise * x_next - noise_next * x) / determinant
        return x0, (signal_next * x - signal * x_next) / determinant

    def step(
        self, x: Tensor, output: Tensor, level: Tensor, next_level: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Take x (B, C, T, H, W) from its levels to lower ones (DDIM, arXiv 2010.02502, eq. 12), in fp32.

        Args:
            output: what the network predicted for x, like x.
            level, next_level: (B, T), each frame's own; next_level may be CLEAN.
            noise: Gaussians like x; may be None if eta is 0.

        Returns:
            x at `next_level`, and the clean latents x0 that were predicted on the way, both like x.
        """
        x0, eps = self.x0_and_eps(x.float(), output.float(), level)
        alpha, alpha_next = self.alphas[level + 1], self.alphas[next_level + 1]
        if self.eta == CONSISTENCY:
            sigma, eps = (1 - alpha_next).sqrt(), torch.zeros_like(eps)
        else:
            # A slot that stays at pure noise (alpha 0) is stepped like the others, and left as it was afterwards.
            ratio = alpha / alpha_next.clamp(min=torch.finfo(alpha.dtype).tiny)
            sigma = self.eta * ((1 - alpha_next) / (1 - alpha) * (1 - ratio)).sqrt()
        sigma = per_frame(sigma, x.device)
        alpha_next, scale_next = self._signal(next_level, x.device)
        x_next = alpha_next.sqrt() * scale_next * x0 + (1 - alpha_next - sigma.square()).clamp(min=0).sqrt() * eps
        return x_next if noise is None else x_next + sigma * noise, x0

    def with_context_noise(self, x: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Return x (B, C, T, H, W) at the levels (B, T) with clean frames brought to the context's timestep.

        SkyReels-V2 calls this `addnoise_condition`; it is to make errors of earlier frames count less in later ones.
        """
        _, alpha, scale = (torch.tensor(value, dtype=torch.float64) for value in self.context)
        return torch.where(per_frame(level == CLEAN, x.device) > 0, _noised(x, alpha, scale, noise), x)

    def _signal(self, level: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return signal share and scale of the levels (B, T), each (B, 1, T, 1, 1) on `device`."""
        return per_frame(self.alphas[level + 1], device), per_frame(self.scales[level + 1], device)


def _noised(x0: Tensor, alpha: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """Return x0 with the signal share `alpha`, after it was multiplied with `scale`."""
    return alpha.sqrt() * scale * x0 + (1 - alpha).sqrt() * noise


def boundary_weights(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Return c_skip and c_out of timesteps (B, T): what x and the predicted x0 count in the x0 of consistency models.

    At timestep 0 that is x alone, from about 100 on x0 alone (Luo et al. 2023, arXiv 2310.04378; Song et al. 2023).
    """
    square = (10 * timesteps.double()).square()
    return 0.25 / (square + 0.25), (square / (square + 0.25)).sqrt()


def per_frame(values: Tensor, device: torch.device) -> Tensor:
    """Return numbers (B, T), one a frame, in fp32 and shaped (B, 1, T, 1, 1) for latents (B, C, T, H, W)."""
    return values.float()[:, None, :, None, None].to(device, non_blocking=True)
