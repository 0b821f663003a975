"""What a video is conditioned on, as tensors, and classifier-free guidance."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Conditioning:
    """Contexts with and without the condition, (1, 1, L, D) each, and the frame rate (1,)."""

    context: Tensor
    unconditional: Tensor
    fps: Tensor


@dataclass(frozen=True)
class GuidedDenoiser:
    """The U-Net under classifier-free guidance (Ho and Salimans 2022): e = e_uncond + scale (e_cond - e_uncond).

    Both halves and all windows are one batch, cut into `window_batch` windows at a time where memory is short (None:
    never). The meaning does not depend on it.
    """

    unet: nn.Module
    conditioning: Conditioning
    scale: float
    window_batch: int | None = None

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """x (B, C, T, H, W) fp32, timesteps (B, T) -> prediction like x, fp32."""
        size = self.window_batch or len(x)
        parts = zip(x.split(size), timesteps.split(size), strict=True)
        return torch.cat([self.guided(*part) for part in parts])

    def guided(self, x: Tensor, timesteps: Tensor) -> Tensor:
        contexts = [self.conditioning.context]
        if self.scale != 1:
            contexts.append(self.conditioning.unconditional)
        windows, halves = len(x), len(contexts)
        context = torch.cat([half.expand(windows, -1, -1, -1) for half in contexts])
        output = self.unet(
            x.to(context.dtype).repeat(halves, 1, 1, 1, 1),
            timesteps.repeat(halves, 1),
            context,
            self.conditioning.fps.expand(halves * windows),
        ).float()
        if halves == 1:
            return output
        conditional, unconditional = output.chunk(2)
        return torch.lerp(unconditional, conditional, self.scale)
