"""Hold the queue of latent frames: one in each slot, at the noise level that a plan gives the slot."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lvdm.diffusion.noise import Noise
from lvdm.diffusion.schedule import CLEAN, NoiseSchedule
from lvdm.sampling.plan import Plan


@dataclass(frozen=True)
class LatentQueue:
    """Hold the latents of all slots and their frame numbers, and how far a plan of noise levels has come.

    Frame 0 is the first of the video; frames with negative numbers are warm-up, or the user's own.

    Args:
        latents: (1, C, S, h, w) fp32.
        frames: (S,) int64, on the CPU wherever the latents are, so that reading them waits for no device.
        plan: of the S slots.
        row: which of the plan's rows the levels are at.
        passes: how many steps were taken since the queue was filled.
        known: (1, C, K, h, w), what the frames in the first K slots are to become, if that is known (`from_known`).
    """

    latents: Tensor
    frames: Tensor
    plan: Plan
    row: int = 0
    passes: int = 0
    known: Tensor | None = None

    @classmethod
    def from_clip(
        cls, clip: Tensor, plan: Plan, schedule: NoiseSchedule, *, noise: Noise, uniform: bool = False
    ) -> "LatentQueue":
        """Fill the first queue from a clean clip (1, C, window, h, w) that the video begins with.

        By default the last `window` slots hold the clip, noised to their levels, and those before it its first frame,
        noised likewise; to clean slots this adds the noise of level 0.
        With `uniform` the clip is spread evenly over the queue (uniform latents of FIFO-Diffusion+). Where a plan makes
        frames in blocks, the first block follows the clip.
        """
        slots = torch.arange(-plan.front, plan.slots - plan.front)
        frames, levels = slots + plan.start, torch.tensor(plan.rows[0])
        if uniform:
            source = slots.clamp(min=0) * plan.window // (plan.slots - plan.front)
        else:
            source = frames.clamp(0, plan.window - 1)
        drawn = noise.draw("queue", frames.tolist(), levels.clamp(min=0).tolist())
        latents = schedule.q_sample(clip[:, :, source], levels[None], drawn)
        if plan.start > 0:  # frames in front are finished ones of the video, not copies of its first
            latents[:, :, : plan.front] = clip[:, :, frames[: plan.front]]
        if plan.in_blocks:
            latents[:, :, plan.front :] = arriving(noise, frames[plan.front :], plan)
        return cls(latents, frames, plan)

    @classmethod
    def from_known(cls, known: Tensor, plan: Plan, schedule: NoiseSchedule, *, noise: Noise) -> "LatentQueue":
        """Fill the first queue from the clean frames (1, C, F, h, w) before frame 0, so that frame 0 goes on from them.

        They stand in the queue at its noise levels, and are what they are at every lower level that they come to: what
        the network makes of them is not used. If they are fewer than the slots, the first one is repeated.
        """
        slots = torch.arange(-plan.front, plan.slots - plan.front)
        frames, levels = slots - (0 if plan.in_blocks else plan.slots - plan.front), torch.tensor(plan.rows[0])
        past = frames[frames < 0]
        known = known[:, :, (past + known.shape[2]).clamp(min=0)]
        latents = at_levels(known, past, levels[: len(past)], schedule, noise=noise)
        if plan.in_blocks:
            return cls(torch.cat([latents, arriving(noise, frames[len(past) :], plan)], dim=2), frames, plan)
        return cls(latents, frames, plan, known=known)

    @classmethod
    def of_noise(cls, plan: Plan, *, noise: Noise) -> "LatentQueue":
        """Fill a queue with frames 0, 1, ... that are all noise: what a base clip is sampled from."""
        frames = torch.arange(plan.slots)
        return cls(arriving(noise, frames, plan), frames, plan)

    @property
    def levels(self) -> Tensor:
        """The noise level of each slot, (S,) int64 on the CPU."""
        return torch.tensor(self.plan.rows[self.row])

    @property
    def next_levels(self) -> Tensor:
        """The noise level of each slot after the next step, (S,) int64 on the CPU."""
        return torch.tensor(self.plan.rows[self.row + 1])

    @property
    def slots(self) -> int:
        """How many slots there are, clean ones included."""
        return self.plan.slots

    @property
    def active(self) -> slice:
        """The slots that windows write; those in front are clean context, which is only read."""
        return slice(self.plan.front, None)

    @property
    def ended(self) -> bool:
        """Whether a period is over: frames are finished, and `advance` begins the next period."""
        return self.row == self.plan.steps

    @property
    def head_frame(self) -> int:
        """The number of the frame in the foremost active slot."""
        return int(self.frames[self.plan.front])

    @property
    def finished(self) -> Tensor:
        """The frames to hand out now, (1, C, K, h, w): none in the middle of a period or in the warm-up."""
        leaving = self.plan.leaving if self.ended else 0
        first = self.plan.front + min(leaving, max(0, -self.head_frame))
        return self.latents[:, :, first : self.plan.front + leaving]

    def passes_to(self, frames: int) -> int:
        """Return how many steps it takes from here until `frames` frames of the video are finished."""
        periods = -(-(frames - self.head_frame) // self.plan.leaving)
        return max(0, periods * self.plan.steps - self.row)

    def windows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the W windows read: latents (W, C, window, h, w), levels and frame numbers (W, window)."""
        size = self.plan.window, self.plan.stride
        latents = self.latents[0].unfold(1, *size)  # (C, W, h, w, window)
        levels, frames = (numbers.unfold(0, *size) for numbers in (self.levels, self.frames))
        return latents.permute(1, 0, 4, 2, 3), levels, frames

    def stepped(self, active: Tensor) -> "LatentQueue":
        """Return the queue after a step of the plan that left `active` (1, C, S - front, h, w) in the active slots."""
        latents = torch.cat([self.latents[:, :, : self.plan.front], active], dim=2)
        return replace(self, latents=latents, row=self.row + 1, passes=self.passes + 1)

    def shift(self, tail: Tensor) -> "LatentQueue":
        """Begin the next period: the k foremost frames leave, all others move up, and `tail` (1, C, k, h, w) comes in.

        Levels belong to slots and do not move.
        """
        leaving = self.plan.leaving
        known = None if self.known is None or self.known.shape[2] <= leaving else self.known[:, :, leaving:]
        latents = torch.cat([self.latents[:, :, leaving:], tail], dim=2)
        return replace(self, latents=latents, frames=self.frames + leaving, row=0, known=known)


def arriving(noise: Noise, frames: Tensor, plan: Plan) -> Tensor:
    """Return the Gaussians (1, C, K, h, w) that the frames with the numbers (K,) come in as."""
    return noise.draw("enqueue", frames.tolist(), [plan.levels] * len(frames))


def at_levels(known: Tensor, frames: Tensor, levels: Tensor, schedule: NoiseSchedule, *, noise: Noise) -> Tensor:
    """Return clean frames (1, C, K, h, w) noised to `levels` (K,), each with one Gaussian of its own at all levels.

    frames: (K,), their numbers, by which the Gaussians are drawn. Frames at CLEAN are as they were.
    """
    drawn = noise.draw("known", frames.tolist(), [0] * len(frames))
    noised = schedule.q_sample(known, levels[None], drawn)
    clean = (levels == CLEAN)[None, None, :, None, None].to(known.device)
    return torch.where(clean, known, noised)
