"""Hold a video between two passes, and what a pass leaves."""

from dataclasses import dataclass

from torch import Tensor

from lvdm.diffusion.conditioning import EncodedPicture
from lvdm.diffusion.noise import Noise
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import advance


@dataclass(frozen=True)
class Waiting:
    """Hold what `--interpolate` has not made frames between yet.

    Args:
        frames: (1, C, K, h, w), from the last frame that the video has on.
        window: (1, C, S, h, w), the last frames of the video, with those in between; S is 0 before the first window.
    """

    frames: Tensor
    window: Tensor


@dataclass(frozen=True)
class Snapshot:
    """Hold what the next pass begins with.

    Args:
        queue: its latents, and where in its plan it is.
        picture: a frame that takes the place of the user's picture, if any.
        ready: (1, C, K, h, w), frames in front of the queue that are finished, and that the video does not have yet.
        waiting: with `--interpolate`, once there are frames.
    """

    queue: LatentQueue
    picture: EncodedPicture | None
    ready: Tensor
    waiting: Waiting | None = None

    @property
    def given_out(self) -> int:
        """How many new frames are finished and not `ready`; below 0 while those that it goes on from are `ready`."""
        return max(0, self.queue.head_frame) - self.ready.shape[2]

    @property
    def frames(self) -> int:
        """How many new frames the video has: those given out, without those that wait for others between."""
        return self.given_out - (0 if self.waiting is None else self.waiting.frames.shape[2] - 1)


@dataclass(frozen=True)
class Pass:
    """Hold what a pass over the queue has left.

    Args:
        queue: as the pass left it.
        finished: (1, C, K, h, w), frames that the video gets now; K is 0 in the warm-up and within a period.
        pixels: (K, 3, H, W), the same frames, if they were decoded already.
        picture, ready, waiting: as of Snapshot, for the next pass.
        frames_done: how many new frames the video has, with these; those in between do not count.
        complete: whether these are all.
    """

    queue: LatentQueue
    finished: Tensor
    pixels: Tensor | None
    picture: EncodedPicture | None
    ready: Tensor
    frames_done: int
    complete: bool
    waiting: Waiting | None = None

    def snapshot(self, noise: Noise) -> Snapshot:
        """Return what the next pass begins with."""
        return Snapshot(advance(self.queue, noise=noise), self.picture, self.ready, self.waiting)
