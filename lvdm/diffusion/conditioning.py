"""What a video is conditioned on, as tensors, and classifier-free guidance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

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
