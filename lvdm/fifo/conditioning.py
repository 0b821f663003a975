"""What a video is conditioned on, as tensors, and classifier-free guidance."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lvdm.fifo.workers import ONE_DEVICE, Workers
from lvdm.models.ddpm3d import LatentDiffusion


@dataclass(frozen=True)
class Conditioning:
    """Contexts with and without the condition, (1, 1, L, D) each, and the frame rate (1,).

    With a model that takes pictures, both end in image tokens: those of a picture, or of the blank one.
    """

    context: Tensor
    unconditional: Tensor
    fps: Tensor

    @classmethod
    def of_text(cls, model: LatentDiffusion, text: str, *, fps: int) -> "Conditioning":
        """The text and no picture: both halves have the tokens of a blank, mid-grey one."""
        contexts = model.encode_text([text, ""])
        if model.takes_pictures:
            blank = model.encode_pictures(torch.zeros(1, 3, 224, 224, device=contexts.device))
            contexts = torch.cat([contexts, blank.expand(2, -1, -1, -1)], dim=2)
        return cls(*contexts.split(1), fps=torch.tensor([fps], device=contexts.device))

    def with_picture(self, tokens: Tensor) -> "Conditioning":
        """The image tokens (1, 1, N, D) in the place of those that stand at the end of the context."""
        text = self.context[:, :, : -tokens.shape[2]]
        return replace(self, context=torch.cat([text, tokens], dim=2))


@dataclass(frozen=True)
class GuidedDenoiser:
    """The U-Net under classifier-free guidance (Ho and Salimans 2022): e = e_uncond + scale (e_cond - e_uncond).

    Both halves of all windows are the rows of one batch, which the workers share. The meaning does not depend on them.
    """

    unet: nn.Module
    conditioning: Conditioning
    scale: float
    workers: Workers = ONE_DEVICE

    def with_picture(self, tokens: Tensor) -> "GuidedDenoiser":
        return replace(self, conditioning=self.conditioning.with_picture(tokens))

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """x (B, C, T, H, W) fp32, timesteps (B, T) -> prediction like x, fp32."""
        contexts = [self.conditioning.context]
        if self.scale != 1:
            contexts.append(self.conditioning.unconditional)
        halves = len(contexts)
        context = torch.cat([half.expand(len(x), -1, -1, -1) for half in contexts])
        rows = x.to(context.dtype).repeat(halves, 1, 1, 1, 1)
        # Channels last: one layout for convolutions over space, convolutions over time and tokens, without copies.
        rows = rows.contiguous(memory_format=torch.channels_last_3d)
        arguments = (rows, timesteps.repeat(halves, 1), context, self.conditioning.fps.expand(len(rows)))
        parts = (argument.split(self.workers.part(len(rows))) for argument in arguments)
        output = torch.cat(list(self.workers.run(self.unet, *parts))).float()
        if halves == 1:
            return output
        conditional, unconditional = output.chunk(2)
        return torch.lerp(unconditional, conditional, self.scale)
