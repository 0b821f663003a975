"""Predict noise with the U-Net under classifier-free guidance."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from lvdm.diffusion.conditioning import Conditioning
from lvdm.runtime.batching import Workers
from lvdm.runtime.distributed import ALONE, Ranks

# x (B, C, T, H, W); timesteps and numbers of the frames in the video (B, T), on the CPU -> the network's output, like x
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GuidedDenoiser:
    """Predict with the U-Net under classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598).

    The prediction is e_uncond + scale (e_cond - e_uncond). Ranks share the windows of a pass; the two guidance halves
    of each window are rows of one batch, which the workers of a rank share. Neither changes the result.
    """

    unet: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    conditioning: Conditioning
    scale: float
    workers: Workers = field(default_factory=Workers)
    ranks: Ranks = ALONE

    def with_picture(self, tokens: Tensor) -> "GuidedDenoiser":
        """Return the same denoiser under other image tokens (1, 1, N, D)."""
        return replace(self, conditioning=self.conditioning.with_picture(tokens))

    def with_frame_rate(self, times: int) -> "GuidedDenoiser":
        """Return the same denoiser, which tells the U-Net `times` the frame rate."""
        return replace(self, conditioning=replace(self.conditioning, fps=self.conditioning.fps * times))

    def __call__(self, x: Tensor, timesteps: Tensor, frames: Tensor) -> Tensor:
        """Return the prediction for windows x (B, C, T, H, W), like x, in fp32.

        timesteps, frames: (B, T) on the CPU, each frame's timestep and its number in the video.
        """
        mine = self.ranks.share(len(x))
        output = x[mine] if mine.start == mine.stop else self.predict(x[mine], timesteps[mine], frames[mine])
        return self.ranks.gather(output, len(x))

    def predict(self, x: Tensor, timesteps: Tensor, frames: Tensor) -> Tensor:
        """Return the prediction for windows of this rank alone; arguments as of `__call__`."""
        context = self.conditioning.at(frames)
        contexts = [context] if self.scale == 1 else [context, self.conditioning.unconditional.expand_as(context)]
        halves = len(contexts)
        timesteps = timesteps.to(x.device, non_blocking=True)
        fps = self.conditioning.fps.expand(len(x))
        # A row for each half: where memory is short, or several cores have one window, halves are computed apart.
        x, timesteps, fps = (each.repeat_interleave(halves, dim=0) for each in (x.to(context.dtype), timesteps, fps))
        contexts = torch.stack(contexts, dim=1).flatten(0, 1)
        output = self.workers(partial(self.predict_rows, halves), x, timesteps, contexts, fps).float()
        return output if halves == 1 else torch.lerp(output[1::2], output[::2], self.scale)

    def predict_rows(self, halves: int, x: Tensor, timesteps: Tensor, contexts: Tensor, fps: Tensor) -> Tensor:
        """Return what the U-Net predicts for some rows of a batch.

        The halves of a window differ only in their context: if both are among the rows, the U-Net gets the window once,
        with two contexts.
        """
        halves = halves if len(x) % halves == 0 else 1
        contexts = rearrange(contexts, "(windows halves) t l d -> (halves windows) t l d", halves=halves)
        # Channels last: one layout for convolutions over space, convolutions over time and tokens, without copies.
        x = x[::halves].contiguous(memory_format=torch.channels_last_3d)
        output = self.unet(x, timesteps[::halves], contexts, fps[::halves])
        return rearrange(output, "(halves windows) c t h w -> (windows halves) c t h w", halves=halves)
