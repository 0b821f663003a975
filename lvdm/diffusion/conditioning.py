"""Hold what a video is conditioned on, as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lvdm.models.ddpm3d import LatentDiffusion


@dataclass(frozen=True)
class EncodedPicture:
    """Hold what a model is told of a picture.

    Args:
        tokens: (1, G, N, D), image tokens: of one group for all frames, or of a group for each position in a window.
        latent: (1, C, 1 or T, h, w), which stands beside the noisy latent of each frame, or of each position; None for
            models that take only tokens.
    """

    tokens: Tensor
    latent: Tensor | None = None

    @classmethod
    def of(cls, model: LatentDiffusion, picture: Tensor) -> "EncodedPicture":
        """Encode a picture (1, 3, H, W) in [-1, 1]; its latent is the mean of the posterior, the same in all frames."""
        latent = model.encode(picture.clamp(-1, 1))[:, :, None].float() if model.takes_latent else None
        return cls(model.encode_pictures(picture), latent)

    def ending_with(self, latent: Tensor, *, frames: int) -> "EncodedPicture":
        """Return the same tokens for a clip of `frames` frames that begins with this picture and ends with another.

        Its latent (1, C, 1, h, w) stands beside the last frame, this one's beside the first, and zeros between
        (DynamiCrafter's interpolation).
        """
        between = torch.zeros_like(latent).expand(-1, -1, frames - 2, -1, -1)
        return replace(self, latent=torch.cat([self.latent, between, latent], dim=2))


@dataclass(frozen=True)
class Conditioning:
    """Hold the contexts of all prompts of a video and choose each frame's.

    With a model that takes pictures, all contexts end in image tokens: those of a picture, or of a blank one. Where
    each position in a window has image tokens of its own, there is a context for each of G positions; otherwise G is 1.

    Args:
        contexts: (K, G, L, D), one for each of the K prompts of a schedule.
        starts: (K,) int64 on the CPU, the frame from which each prompt holds. The first one also holds before it.
        blend: frames in which a prompt replaces the one before it, linearly; 0 is at once.
        unconditional: (1, G, L, D), what guidance leads away from.
        fps: (1,), the frame rate that the model is told.
        latent: as of EncodedPicture; the same for both halves of guidance.
    """

    contexts: Tensor
    starts: Tensor
    blend: int
    unconditional: Tensor
    fps: Tensor
    latent: Tensor | None = None

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
            contexts = dealt_out(contexts, blank)
        starts = torch.tensor([start for start, _ in schedule])
        return cls(contexts[:-1], starts, blend, contexts[-1:], torch.tensor([fps], device=contexts.device))

    def with_picture(self, picture: EncodedPicture) -> "Conditioning":
        """Return the same contexts with a picture's tokens in place of those at their end, and its latent."""
        text = self.contexts[:, :1, : -picture.tokens.shape[2]]
        return replace(self, contexts=dealt_out(text, picture.tokens), latent=picture.latent)

    def beside(self, x: Tensor) -> Tensor:
        """Return windows x (B, C, T, H, W) with the picture's latent in further channels, if the model takes it."""
        if self.latent is None:
            return x
        latent = self.latent[:, :, : x.shape[2]].to(x.dtype)
        return torch.cat([x, latent.expand(len(x), -1, x.shape[2], -1, -1)], dim=1)

    def at(self, frames: Tensor) -> Tensor:
        """Return the contexts (B, T, L, D) of frames with the numbers (B, T).

        They are (B, 1, L, D) if there is one prompt and no position has image tokens of its own.
        """
        positions = frames.shape[1]
        if len(self.contexts) == 1:
            return self.contexts[:, :positions].expand(len(frames), -1, -1, -1)
        frames = frames.contiguous()  # bucketize warns about overlapping windows
        latest = (torch.bucketize(frames, self.starts, right=True) - 1).clamp(min=0)  # (B, T)
        share = ((frames - self.starts[latest] + 1) / (self.blend + 1)).clamp(0, 1)  # of the latest prompt
        share = torch.where(latest > 0, share, 1)[..., None, None].to(self.contexts, non_blocking=True)
        latest = latest.to(self.contexts.device, non_blocking=True)
        position = torch.arange(positions, device=latest.device) % self.contexts.shape[1]
        before, after = (self.contexts[index, position] for index in ((latest - 1).clamp(min=0), latest))
        return torch.lerp(before, after, share)


def dealt_out(text: Tensor, tokens: Tensor) -> Tensor:
    """Return contexts (K, G, 77 + N, D): text (K, 1, 77, D), and behind it the image tokens (1 or K, G, N, D)."""
    groups = tokens.shape[1]
    return torch.cat([text.expand(-1, groups, -1, -1), tokens.expand(len(text), -1, -1, -1)], dim=2)
