"""Draw the noise levels of training clips: one for the whole clip, or another for every frame."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lvdm.diffusion.schedule import LEVEL_KINDS, TRAIN_STEPS

PLATEAU_WIDTHS = (2, 4)  # frames that have one level
BETWEEN_STRIDES = (2, 5)  # smallest and largest distance of the clean frames that others are put between


@dataclass(frozen=True)
class LevelShares:
    """Say which share of the clips is noised in which way; the five shares sum to 1.

    Args:
        constant: one timestep for the whole clip (VideoCrafter).
        diagonal: timesteps that rise from frame to frame, as in FIFO's queue.
        independent: a timestep of its own for every frame (Diffusion Forcing, arXiv 2407.01392).
        context: some first frames are clean, and the others have one timestep (prediction in Video LDM, arXiv
            2304.08818).
        between: every second to fifth frame is clean, and the others have one timestep (interpolation in Video LDM).
        slopes: the smallest and the largest rise of a diagonal, in timesteps a frame. 32 to 8 are the diagonals of 2
            to 8 partitions of 16 frames.
        plateaus: share of the diagonals in which 2 or 4 frames at a time have one timestep (Rolling Forcing, arXiv
            2509.25161).

    Raises:
        ValueError: a share lies outside 0 to 1, the five do not sum to 1, or `slopes` are no two positive numbers in
            order.
    """

    constant: float = 0.0
    diagonal: float = 0.0
    independent: float = 0.0
    context: float = 0.0
    between: float = 0.0
    slopes: tuple[float, float] = (8, 32)
    plateaus: float = 0.0

    def __post_init__(self):
        for name in (*LEVEL_KINDS, "plateaus"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"objective.shares.{name} is {getattr(self, name)}, expected a share from 0 to 1")
        if abs(sum(self.of_kinds) - 1) > 1e-6:
            given = ", ".join(f"{name} {share}" for name, share in zip(LEVEL_KINDS, self.of_kinds, strict=True))
            raise ValueError(f"objective.shares are {given}, expected shares that sum to 1")
        if len(self.slopes) != 2 or not 0 < self.slopes[0] <= self.slopes[1]:
            raise ValueError(f"objective.shares.slopes is {self.slopes}, expected two positive numbers in order")

    @property
    def of_kinds(self) -> tuple[float, ...]:
        """The shares of LEVEL_KINDS, in this order."""
        return tuple(getattr(self, name) for name in LEVEL_KINDS)


@dataclass(frozen=True)
class ClipLevels:
    """Hold the noise levels of B clips of T frames, on the CPU.

    Args:
        timesteps: (B, T) int64, 0..999.
        noisy: (B, T) bool, the frames that the loss counts; the others are clean ones that are given.
        own_picture: (B,) bool, the clips that are told their own first frame as picture, as a base clip is. The others
            are told an earlier frame, as the late frames of a long video are.
    """

    timesteps: Tensor
    noisy: Tensor
    own_picture: Tensor


def clip_levels(shares: LevelShares, clips: int, length: int) -> ClipLevels:
    """Return random levels of B = `clips` clips of T = `length` frames.

    Raises:
        ValueError: clips of one frame shall have clean frames and others.
    """
    if length < 2 and shares.context + shares.between > 0:
        raise ValueError("objective.shares.context and between must be 0 for clips of 1 frame")
    kind = torch.multinomial(torch.tensor(shares.of_kinds), clips, replacement=True)[:, None]  # (B, 1)
    one = torch.randint(TRAIN_STEPS, (clips, 1)).expand(-1, length)
    given = {
        "context": torch.arange(length) < torch.randint(1, max(2, length), (clips, 1)),
        "between": torch.arange(length) % torch.randint(BETWEEN_STRIDES[0], BETWEEN_STRIDES[1] + 1, (clips, 1)) == 0,
    }
    choices = {
        "constant": one,
        "diagonal": diagonals(shares, clips, length),
        "independent": torch.randint(TRAIN_STEPS, (clips, length)),
        "context": one.masked_fill(given["context"], 0),
        "between": one.masked_fill(given["between"], 0),
    }
    timesteps = torch.stack([choices[name] for name in LEVEL_KINDS]).gather(0, kind.expand(-1, length)[None])[0]
    is_kind = {name: kind == index for index, name in enumerate(LEVEL_KINDS)}
    clean = (is_kind["context"] & given["context"]) | (is_kind["between"] & given["between"])
    return ClipLevels(timesteps, ~clean, (is_kind["constant"] | is_kind["context"])[:, 0])


def diagonals(shares: LevelShares, clips: int, length: int) -> Tensor:
    """Return timesteps (B, T) of stretches of FIFO's queue, some of them with plateaus.

    A diagonal may begin below 0, where it is clipped: those frames are the clean ones that lookahead puts in front.
    """
    slope = torch.empty(clips, 1).uniform_(*shares.slopes)
    reach = slope * (length - 1)
    start = -reach + torch.rand(clips, 1) * (TRAIN_STEPS - 1 + reach)
    width = torch.tensor(PLATEAU_WIDTHS)[torch.randint(len(PLATEAU_WIDTHS), (clips, 1))]
    width = torch.where(torch.rand(clips, 1) < shares.plateaus, width, 1)
    frame = torch.arange(length) // width * width
    return (start + slope * frame).clamp(0, TRAIN_STEPS - 1).long()
