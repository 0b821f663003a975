"""Predict noise with the U-Net under classifier-free guidance."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from lvdm.diffusion.conditioning import Conditioning, EncodedPicture
from lvdm.diffusion.schedule import TRAIN_STEPS
from lvdm.runtime.batching import Workers
from lvdm.runtime.distributed import ALONE, Ranks

# x (B, C, T, H, W); timesteps and numbers of the frames in the video (B, T), on the CPU -> the network's output, like x
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DistilledGuidance:
    """Hold the guidance scales that a distilled U-Net is told (T2V-Turbo, arXiv 2405.18750 and 2410.05677).

    Args:
        scale: w, of classifier-free guidance.
        motion: m, of motion guidance, where that was distilled, too; None tells nothing.
        motion_share: share of the timesteps, from the noisy end, at which m is told; at the others it is 0.
    """

    scale: float
    motion: float | None = None
    motion_share: float = 0.5

    def told(self, timesteps: Tensor) -> tuple[Tensor, ...]:
        """Return w (B,), and m (B, T) if there is one, for the timesteps (B, T)."""
        scale = torch.full(timesteps.shape[:1], self.scale, device=timesteps.device)
        if self.motion is None:
            return (scale,)
        return scale, self.motion * (timesteps >= TRAIN_STEPS * (1 - self.motion_share)).float()


@dataclass(frozen=True)
class GuidedDenoiser:
    """Predict with the U-Net under classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598).

    The prediction is e_uncond + scale (e_cond - e_uncond). Ranks share the windows of a pass; the two guidance halves
    of each window are rows of one batch, which the workers of a rank share. Neither changes the result.

    Args:
        rescale: share in which the prediction gets the deviation of e_cond (`rescaled`).
        distilled: what a distilled U-Net is told.
    """

    unet: Callable[..., Tensor]
    conditioning: Conditioning
    scale: float
    workers: Workers = field(default_factory=Workers)
    ranks: Ranks = ALONE
    rescale: float = 0.0
    distilled: DistilledGuidance | None = None

    def with_picture(self, picture: EncodedPicture) -> "GuidedDenoiser":
        """Return the same denoiser under another picture."""
        return replace(self, conditioning=self.conditioning.with_picture(picture))

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
        unconditional = self.conditioning.unconditional[:, : x.shape[2]]
        contexts = [context] if self.scale == 1 else [context, unconditional.expand_as(context)]
        halves = len(contexts)
        x = self.conditioning.beside(x.to(context.dtype))
        timesteps = timesteps.to(x.device, non_blocking=True)
        fps = self.conditioning.fps.expand(len(x))
        told = self.distilled.told(timesteps) if self.distilled else ()
        # A row for each half: where memory is short, or several cores have one window, halves are computed apart.
        rows = (each.repeat_interleave(halves, dim=0) for each in (x, timesteps, fps, *told))
        contexts = torch.stack(contexts, dim=1).flatten(0, 1)
        output = self.workers(partial(self.predict_rows, halves), contexts, *rows).float()
        if halves == 1:
            return output
        guided = torch.lerp(output[1::2], output[::2], self.scale)
        return rescaled(guided, output[::2], timesteps, share=self.rescale) if self.rescale else guided

    def predict_rows(self, halves: int, contexts: Tensor, x: Tensor, timesteps: Tensor, *told: Tensor) -> Tensor:
        """Return what the U-Net predicts for some rows of a batch.

        The halves of a window differ only in their context: if both are among the rows, the U-Net gets the window once,
        with two contexts.

        told: what the U-Net is told of each row besides: the frame rate, and guidance scales if it was distilled.
        """
        halves = halves if len(x) % halves == 0 else 1
        contexts = rearrange(contexts, "(windows halves) t l d -> (halves windows) t l d", halves=halves)
        # Channels last: one layout for convolutions over space, convolutions over time and tokens, without copies.
        x = x[::halves].contiguous(memory_format=torch.channels_last_3d)
        output = self.unet(x, timesteps[::halves], contexts, *(each[::halves] for each in told))
        return rearrange(output, "(halves windows) c t h w -> (windows halves) c t h w", halves=halves)


def rescaled(guided: Tensor, conditional: Tensor, timesteps: Tensor, *, share: float) -> Tensor:
    """Return the guided prediction (B, C, T, H, W) with less contrast (Lin et al. 2023, arXiv 2305.08891, eq. 15).

    Guidance makes deviations larger; `share` of the result has that of the conditional prediction. It is taken over the
    frames of a window that are at the same timestep: over all of a clip, over each frame of FIFO's queue.

    timesteps: (B, T).
    """
    same = (timesteps[:, :, None] == timesteps[:, None, :]).float()
    same = same / same.sum(-1, keepdim=True)  # (B, T, T), rows sum to 1

    def deviation(x: Tensor) -> Tensor:
        mean = torch.einsum("bts,bs->bt", same, x.mean((1, 3, 4)))[:, None, :, None, None]
        return torch.einsum("bts,bs->bt", same, (x - mean).square().mean((1, 3, 4))).sqrt()[:, None, :, None, None]

    return torch.lerp(guided, guided * (deviation(conditional) / deviation(guided)), share)
