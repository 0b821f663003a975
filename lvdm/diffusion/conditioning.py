"""Hold what a video is conditioned on, as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lvdm.models.ddpm3d import LatentDiffusion


@dataclass(frozen=True)
class Conditioning:
    """Hold the contexts of all prompts of a video and choose each frame's.

    With a model that takes pictures, all contexts end in image tokens: those of a picture, or of a blank one.

    Args:
        contexts: (K, 1, L, D), one for each of the K prompts of a schedule.
        starts: (K,) int64 on the CPU, the frame from which each prompt holds. The first one also holds before it.
        blend: frames in which a prompt replaces the one before it, linearly; 0 is at once.
        unconditional: (1, 1, L, D), what guidance leads away from.
        fps: (1,), the frame rate that the model is told.
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
        """Encode a schedule of (first frame, text) without a picture.

        With a model that takes pictures, the image tokens are those of a mid-grey one.

        negative: the text that guidance leads away from.
        """
        contexts = model.encode_text([*(text for _, text in schedule), negative])
        if model.takes_pictures:
            blank = model.encode_pictures(torch.zeros(1, 3, 224, 224, device=contexts.device))
            contexts = torch.cat([contexts, blank.expand(len(contexts), -1, -1, -1)], dim=2)
        starts = torch.tensor([start for start, _ in schedule])
        return cls(contexts[:-1], starts, blend, contexts[-1:], torch.tensor([fps], device=contexts.device))

    def with_picture(self, tokens: Tensor) -> "Conditioning":
        """Return the same contexts with image tokens (1, 1, N, D) in place of those at their end."""
        text = self.contexts[:, :, : -tokens.shape[2]]
        return replace(self, contexts=torch.cat([text, tokens.expand(len(text), -1, -1, -1)], dim=2))

    def at(self, frames: Tensor) -> Tensor:
        """Return the contexts (B, T, L, D) of frames with the numbers (B, T); (B, 1, L, D) if there is one prompt."""
        if len(self.contexts) == 1:
            return self.contexts.expand(len(frames), -1, -1, -1)
        contexts = self.contexts[:, 0]  # (K, L, D)
        frames = frames.contiguous()  # bucketize warns about overlapping windows
        latest = (torch.bucketize(frames, self.starts, right=True) - 1).clamp(min=0)  # (B, T)
        share = ((frames - self.starts[latest] + 1) / (self.blend + 1)).clamp(0, 1)  # of the latest prompt
        share = torch.where(latest > 0, share, 1)[..., None, None].to(contexts, non_blocking=True)
        latest = latest.to(contexts.device, non_blocking=True)
        return torch.lerp(contexts[(latest - 1).clamp(min=0)], contexts[latest], share)
