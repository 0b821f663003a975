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


def zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Return betas (S,) whose last timestep is pure noise (Lin et al. 2023, arXiv 2305.08891): sqrt(acp) ends at 0.

    sqrt(acp) is moved down and stretched so that its first value stays.
    """
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    acp = root**2
    return 1 - np.append(acp[:1], acp[1:] / acp[:-1])


def schedule_buffers(betas: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tables of a DDPM (arXiv 2006.11239) under the names that they have in checkpoints.

    With zero terminal SNR, reciprocals of alphas_cumprod would be infinite at the end; they are 0 throughout, as there.
    """
    acp = np.cumprod(1 - betas)
    acp_prev = np.append(1.0, acp[:-1])
    posterior_variance = betas * (1 - acp_prev) / (1 - acp)
    reciprocal = 1 / acp if acp[-1] > 0 else np.zeros_like(acp)
    return {
        "betas": betas,
        "alphas_cumprod": acp,
        "alphas_cumprod_prev": acp_prev,
        "sqrt_alphas_cumprod": np.sqrt(acp),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - acp),
        "log_one_minus_alphas_cumprod": np.log(1 - acp),
        "sqrt_recip_alphas_cumprod": np.sqrt(reciprocal),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(np.maximum(reciprocal - 1, 0)),
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

    The parameters have the names of VideoCrafter's and DynamiCrafter's YAML files. `parameterization` is what the U-Net
    predicts: "eps" or "v". `use_dynamic_rescale` and `base_scale` are DynamiCrafter's words for `use_scale` and
    `scale_b`. `interp_mode` says that the model makes the frames between two pictures. The following concern training
    in the original program and change nothing: first_stage_key, cond_stage_key, cond_stage_trainable,
    num_timesteps_cond, image_size, log_every_t, monitor, loss_type, use_ema, scale_by_std, conditioning_key (a U-Net
    with more input channels takes a picture's latent), uncond_type (always the empty text), uncond_prob, only_model,
    encoder_type, beta_schedule (always "linear"), clip_denoised, ckpt_path, ignore_keys, scheduler_config, random_cond,
    fps_condition_type (see --fps), perframe_ae (frames are always decoded one by one), rand_cond_frame and
    image_proj_model_trainable.
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
        rescale_betas_zero_snr: bool = False,
        use_dynamic_rescale: bool = False,
        base_scale: float = 0.7,
        interp_mode: bool = False,
        img_cond_stage_config: Mapping | None = None,
        image_proj_stage_config: Mapping | None = None,
        fps_condition_type: str = "fs",
        perframe_ae: bool = False,
        rand_cond_frame: bool = False,
        image_proj_model_trainable: bool = True,
    ):
        super().__init__()
        if parameterization not in ("eps", "v"):
            raise ValueError(f"LatentDiffusion: parameterization is {parameterization!r}, allowed are 'eps' and 'v'")
        if beta_schedule != "linear":
            raise ValueError(f"LatentDiffusion: beta_schedule is {beta_schedule!r}, allowed is 'linear'")
        if scale_by_std:
            raise ValueError("LatentDiffusion: scale_by_std: true is not supported; give the factor as scale_factor")
        if rescale_betas_zero_snr and parameterization != "v":
            raise ValueError(
                "LatentDiffusion: rescale_betas_zero_snr needs parameterization: v, as eps tells no x0 there"
            )
        cond_img_config = cond_img_config or img_cond_stage_config
        if self.takes_pictures != (cond_img_config is not None):
            asked = "needs" if self.takes_pictures else "has no use for"
            raise ValueError(f"{type(self).__name__} {asked} cond_img_config, the encoder of pictures")
        if self.takes_pictures and not finegrained and image_proj_stage_config is None:
            raise ValueError(
                "LatentVisualDiffusion: finegrained: false is not supported, as no published model needs it"
            )
        self.parameterization = parameterization
        self.channels = channels
        self.scale_factor = scale_factor
        self.use_scale = use_scale
        self.use_dynamic_rescale = use_dynamic_rescale
        betas = linear_betas(timesteps, start=linear_start, end=linear_end)
        self.tables = schedule_buffers(zero_terminal_snr(betas) if rescale_betas_zero_snr else betas)
        if use_scale or use_dynamic_rescale:
            self.tables["scale_arr"] = signal_scales(
                timesteps,
                scale_a=1.0 if use_dynamic_rescale else scale_a,
                scale_b=base_scale if use_dynamic_rescale else scale_b,
                fix_scale_bug=fix_scale_bug,
            )
        for name, table in self.fresh_tables().items():
            self.register_buffer(name, table)
        self.model = DiffusionWrapper(unet_config)
        self.first_stage_model = instantiate_from_config(first_stage_config)
        self.cond_stage_model = instantiate_from_config(cond_stage_config)
        if cond_img_config is not None:
            self.embedder = instantiate_from_config(cond_img_config)
            self.image_proj_model = (
                Resampler(**(image_proj_model_params or {}))
                if image_proj_stage_config is None
                else instantiate_from_config(image_proj_stage_config)
            )

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
    def takes_latent(self) -> bool:
        """Whether the U-Net takes the latent of a picture beside the noisy one, so that there must be a picture."""
        return self.unet.in_channels > self.channels

    @property
    def distilled(self) -> bool:
        """Whether the U-Net is told a guidance scale instead of being guided, as T2V-Turbo is."""
        return self.unet.time_cond_proj is not None

    @property
    def unet_dtype(self) -> torch.dtype:
        """The number format of the U-Net's weights."""
        return next(self.model.parameters()).dtype


class LatentVisualDiffusion(LatentDiffusion):
    """Hold a LatentDiffusion whose context may end in image tokens (`cond_img_config`, `finegrained: true`).

    `image_proj_model_params` are the Resampler's; VideoCrafter's YAML files leave them out and mean its defaults.
    DynamiCrafter's say `img_cond_stage_config` for `cond_img_config`, and have an `image_proj_stage_config`.
    """

    takes_pictures = True

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Return the image tokens (B, G, N, D) of pictures (B, 3, H, W) of any size, in the U-Net's dtype.

        G is 1, or with DynamiCrafter the positions in a window, each of which has tokens of its own. Pictures are
        clamped to [-1, 1].
        """
        tokens = self.image_proj_model(self.embedder(pictures.clamp(-1, 1)))  # (B, G N, D)
        return tokens.unflatten(1, (self.image_proj_model.groups, -1)).to(self.unet_dtype)
