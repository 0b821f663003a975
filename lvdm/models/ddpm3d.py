"""Hold U-Net, autoencoder and encoders of a latent diffusion model, with the noise schedule it was trained on."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lvdm.models.loading import instantiate_from_config
from lvdm.modules.encoders.resampler import Resampler


def linear_betas(timesteps: int, *, start: float, end: float) -> np.ndarray:
    """Return the variances of the forward process, (timesteps,) float64: linear in their root (arXiv 2112.10752)."""
    return np.linspace(start**0.5, end**0.5, timesteps, dtype=np.float64) ** 2


def schedule_buffers(betas: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tables of a DDPM (arXiv 2006.11239) under the names that they have in checkpoints."""
    acp = np.cumprod(1 - betas)
    acp_prev = np.append(1.0, acp[:-1])
    posterior_variance = betas * (1 - acp_prev) / (1 - acp)
    return {
        "betas": betas,
        "alphas_cumprod": acp,
        "alphas_cumprod_prev": acp_prev,
        "sqrt_alphas_cumprod": np.sqrt(acp),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - acp),
        "log_one_minus_alphas_cumprod": np.log(1 - acp),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / acp),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / acp - 1),
        "posterior_variance": posterior_variance,
        "posterior_log_variance_clipped": np.log(np.maximum(posterior_variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(acp_prev) / (1 - acp),
        "posterior_mean_coef2": (1 - acp_prev) * np.sqrt(1 - betas) / (1 - acp),
    }


def signal_scales(timesteps: int, *, scale_a: float, scale_b: float, fix_scale_bug: bool) -> np.ndarray:
    """Return by how much the signal of each timestep was scaled in training: from `scale_a` to `scale_b` in 400 steps.

    Without `fix_scale_bug` the table is 400 entries too long, as in the checkpoints; only the first 1000 are read.
    """
    constant = timesteps - 400 if fix_scale_bug else timesteps
    return np.concatenate([np.linspace(scale_a, scale_b, 400), np.full(constant, scale_b)])


class DiffusionWrapper(nn.Module):
    """Hold the U-Net under the name that it has in checkpoints."""

    def __init__(self, unet_config: Mapping):
        super().__init__()
        self.diffusion_model = instantiate_from_config(unet_config)


class LatentDiffusion(nn.Module):
    """Hold a text-to-video latent diffusion model. The U-Net may be in half precision; the rest computes in fp32.

    The parameters have the names of VideoCrafter's YAML files. `parameterization` is what the U-Net predicts: "eps" or
    "v". The following concern training in the original program and change nothing: first_stage_key, cond_stage_key,
    cond_stage_trainable, num_timesteps_cond, image_size, log_every_t, monitor, loss_type, use_ema, scale_by_std,
    conditioning_key (always cross-attention), uncond_type (always the empty text), uncond_prob, only_model,
    encoder_type, beta_schedule (always "linear"), clip_denoised, ckpt_path, ignore_keys, scheduler_config and
    random_cond.
    """

    takes_pictures = False

    def __init__(
        self,
        unet_config: Mapping,
        first_stage_config: Mapping,
        cond_stage_config: Mapping,
        timesteps: int = 1000,
        linear_start: float = 0.00085,
        linear_end: float = 0.012,
        channels: int = 4,
        scale_factor: float = 0.18215,
        parameterization: str = "eps",
        use_scale: bool = False,
        scale_a: float = 1.0,
        scale_b: float = 0.3,
        fix_scale_bug: bool = False,
        first_stage_key: str = "video",
        cond_stage_key: str = "caption",
        cond_stage_trainable: bool = False,
        num_timesteps_cond: int = 1,
        image_size: Sequence[int] | int = 64,
        conditioning_key: str = "crossattn",
        uncond_type: str = "empty_seq",
        log_every_t: int = 100,
        monitor: str | None = None,
        loss_type: str = "l2",
        use_ema: bool = False,
        scale_by_std: bool = False,
        uncond_prob: float = 0.0,
        only_model: bool = False,
        encoder_type: str = "2d",
        beta_schedule: str = "linear",
        clip_denoised: bool = False,
        ckpt_path: str | None = None,
        ignore_keys: Sequence[str] = (),
        scheduler_config: Mapping | None = None,
        cond_img_config: Mapping | None = None,
        finegrained: bool = False,
        image_proj_model_params: Mapping | None = None,
        random_cond: bool = False,
    ):
        super().__init__()
        if parameterization not in ("eps", "v"):
            raise ValueError(f"LatentDiffusion: parameterization is {parameterization!r}, allowed are 'eps' and 'v'")
        if beta_schedule != "linear":
            raise ValueError(f"LatentDiffusion: beta_schedule is {beta_schedule!r}, allowed is 'linear'")
        if scale_by_std:
            raise ValueError("LatentDiffusion: scale_by_std: true is not supported; give the factor as scale_factor")
        if self.takes_pictures != (cond_img_config is not None):
            asked = "needs" if self.takes_pictures else "has no use for"
            raise ValueError(f"{type(self).__name__} {asked} cond_img_config, the encoder of pictures")
        if self.takes_pictures and not finegrained:
            raise ValueError(
                "LatentVisualDiffusion: finegrained: false is not supported, as no published model needs it"
            )
        self.parameterization = parameterization
        self.channels = channels
        self.scale_factor = scale_factor
        self.use_scale = use_scale
        self.tables = schedule_buffers(linear_betas(timesteps, start=linear_start, end=linear_end))
        if use_scale:
            self.tables["scale_arr"] = signal_scales(
                timesteps, scale_a=scale_a, scale_b=scale_b, fix_scale_bug=fix_scale_bug
            )
        for name, table in self.fresh_tables().items():
            self.register_buffer(name, table)
        self.model = DiffusionWrapper(unet_config)
        self.first_stage_model = instantiate_from_config(first_stage_config)
        self.cond_stage_model = instantiate_from_config(cond_stage_config)
        if cond_img_config is not None:
            self.embedder = instantiate_from_config(cond_img_config)
            self.image_proj_model = Resampler(**(image_proj_model_params or {}))

    def fresh_tables(self) -> dict[str, Tensor]:
        """Return the buffers of the noise schedule in fp32, computed from its parameters."""
        return {name: torch.tensor(table, dtype=torch.float32) for name, table in self.tables.items()}

    @property
    def unet(self) -> nn.Module:
        """The U-Net itself."""
        return self.model.diffusion_model

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return the context (B, 1, 77, D) of B texts, in the U-Net's dtype."""
        return self.cond_stage_model(texts)[:, None].to(self.unet_dtype)

    def encode(self, pictures: Tensor) -> Tensor:
        """Return the latents (N, C, h, w) of pictures (N, 3, H, W) in [-1, 1]: the mean of their posterior, scaled."""
        return self.first_stage_model.encode(pictures).mean * self.scale_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Return the pictures (N, 3, H, W), about in [-1, 1], of latents (N, C, h, w)."""
        return self.first_stage_model.decode(latents / self.scale_factor)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, h, w) of the latent of one picture of `height` x `width` pixels."""
        factor = self.first_stage_model.downsampling
        return self.channels, height // factor, width // factor

    @property
    def unet_dtype(self) -> torch.dtype:
        """The number format of the U-Net's weights."""
        return next(self.model.parameters()).dtype


class LatentVisualDiffusion(LatentDiffusion):
    """Hold a LatentDiffusion whose context may end in image tokens (`cond_img_config`, `finegrained: true`).

    `image_proj_model_params` are the Resampler's; official YAML files leave them out and mean its defaults.
    """

    takes_pictures = True

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Return the image tokens (B, 1, N, D) of pictures (B, 3, H, W) of any size, in the U-Net's dtype.

        Pictures are clamped to [-1, 1].
        """
        return self.image_proj_model(self.embedder(pictures.clamp(-1, 1)))[:, None].to(self.unet_dtype)
