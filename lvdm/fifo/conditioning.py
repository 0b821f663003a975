"""What a video is conditioned on, as tensors, and classifier-free guidance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from lvdm.fifo.ranks import ALONE, Ranks
from lvdm.fifo.workers import Workers
from lvdm.models.ddpm3d import LatentDiffusion


@dataclass(frozen=True)
class Conditioning:
    """Contexts with the condition, one for each prompt of a schedule, (K, 1, L, D), and without it, (1, 1, L, D).

    Prompt k holds from frame `starts`[k] on, the first one before that too; it takes the place of the one before little
    by little in `blend` frames. starts (K,) is on the CPU, as the numbers of frames are. fps (1,) is the frame rate.
    With a model that takes pictures, all contexts end in image tokens: those of a picture, or of the blank one.
    """

    contexts: Tensor
    starts: Tensor
    blend: int
    unconditional: Tensor
    fps: Tensor

    @classmethod
    def of_text(
        cls,
        model: LatentDiffusion,
        schedule: Sequence[tuple[int, str]],
        *,
        fps: int,
        negative: str = "",
        blend: int = 0,
    ) -> "Conditioning":
        """The prompts (from which frame on, which text) and no picture: all have the tokens of a blank, mid-grey one.

        negative: the text that guidance leads away from.
        """
        contexts = model.encode_text([*(text for _, text in schedule), negative])
        if model.takes_pictures:
            blank = model.encode_pictures(torch.zeros(1, 3, 224, 224, device=contexts.device))
            contexts = torch.cat([contexts, blank.expand(len(contexts), -1, -1, -1)], dim=2)
        starts = torch.tensor([start for start, _ in schedule])
        return cls(contexts[:-1], starts, blend, contexts[-1:], torch.tensor([fps], device=contexts.device))

    def with_picture(self, tokens: Tensor) -> "Conditioning":
        """The image tokens (1, 1, N, D) in the place of those that stand at the end of the contexts."""
        text = self.contexts[:, :, : -tokens.shape[2]]
        return replace(self, contexts=torch.cat([text, tokens.expand(len(text), -1, -1, -1)], dim=2))

    def at(self, frames: Tensor) -> Tensor:
        """The contexts (B, T, L, D) of frames with the numbers (B, T); (B, 1, L, D) if there is but one prompt."""
        if len(self.contexts) == 1:
            return self.contexts.expand(len(frames), -1, -1, -1)
        contexts = self.contexts[:, 0]  # (K, L, D)
        frames = frames.contiguous()  # bucketize warns of windows, which overlap
        latest = (torch.bucketize(frames, self.starts, right=True) - 1).clamp(min=0)  # (B, T)
        share = ((frames - self.starts[latest] + 1) / (self.blend + 1)).clamp(0, 1)  # of the latest prompt
        share = torch.where(latest > 0, share, 1)[..., None, None].to(contexts, non_blocking=True)
        latest = latest.to(contexts.device, non_blocking=True)
        return torch.lerp(contexts[(latest - 1).clamp(min=0)], contexts[latest], share)


@dataclass(frozen=True)
class GuidedDenoiser:
    """The U-Net under classifier-free guidance (Ho and Salimans 2022): e = e_uncond + scale (e_cond - e_uncond).

    The ranks share the windows; both halves of a rank's windows, one behind the other, are the rows of one batch, which
    its workers share. The meaning does not depend on either.
    """

    unet: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    conditioning: Conditioning
    scale: float
    workers: Workers = field(default_factory=Workers)
    ranks: Ranks = ALONE

    def with_picture(self, tokens: Tensor) -> "GuidedDenoiser":
        return replace(self, conditioning=self.conditioning.with_picture(tokens))

    def __call__(self, x: Tensor, timesteps: Tensor, frames: Tensor) -> Tensor:
        """x (B, C, T, H, W) fp32; timesteps and numbers of the frames (B, T), on the CPU -> prediction like x, fp32."""
        mine = self.ranks.share(len(x))
        output = x[mine] if mine.start == mine.stop else self.predict(x[mine], timesteps[mine], frames[mine])
        return self.ranks.gather(output, len(x))

    def predict(self, x: Tensor, timesteps: Tensor, frames: Tensor) -> Tensor:
        """The same, of this rank's windows alone."""
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
        """What the U-Net predicts for some rows. It is given a window whose two halves are among them only once, with
        two contexts: the halves differ in nothing else."""
        halves = halves if len(x) % halves == 0 else 1
        contexts = rearrange(contexts, "(windows halves) t l d -> (halves windows) t l d", halves=halves)
        # Channels last: one layout for convolutions over space, convolutions over time and tokens, without copies.
        x = x[::halves].contiguous(memory_format=torch.channels_last_3d)
        output = self.unet(x, timesteps[::halves], contexts, fps[::halves])
        return rearrange(output, "(halves windows) c t h w -> (windows halves) c t h w", halves=halves)
