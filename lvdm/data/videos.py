"""Read captioned videos from a folder, as training data."""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from lvdm.io.files import VIDEO_SUFFIXES
from lvdm.io.images import as_tensor


@dataclass(frozen=True)
class VideoFolder(Dataset):
    """A data set of the videos below `folder`, each with its caption in a .txt of the same name beside it.

    Items are {"video" (3, T, H, W) in [-1, 1], "pictures" (1, 3, H, W), "caption", "fps"}. The video has every
    `stride`-th frame of the file until there are `frames`, scaled to cover height x width and cropped in the centre.
    The picture is its first frame.

    Raises:
        FileNotFoundError: there is no folder, no video in it, or no caption of a video.
        ValueError: a video has too few frames.
    """

    folder: str
    frames: int = 16
    height: int = 64
    width: int = 96
    stride: int = 1
    fps: int = 8

    @cached_property
    def files(self) -> list[Path]:
        """Find the video files, in the order of their paths."""
        folder = Path(self.folder)
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
        if not files:
            raise FileNotFoundError(f"data.folder {folder}: there is no video ({', '.join(VIDEO_SUFFIXES)}) in it")
        for file in files:
            if not file.with_suffix(".txt").is_file():
                raise FileNotFoundError(f"data.folder {folder}: {file.name} has no caption beside it, {file.stem}.txt")
        return files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        file = self.files[index]
        video = self.read(file)
        return {
            "video": video,
            "pictures": video[:, :1].transpose(0, 1),
            "caption": file.with_suffix(".txt").read_text(encoding="utf-8").strip(),
            "fps": self.fps,
        }

    def read(self, file: Path) -> Tensor:
        """Read the clip (3, T, H, W) of a file."""
        read = islice(iio.imiter(file), 0, self.frames * self.stride, self.stride)
        frames = [frame[..., :3] for frame in read]
        if len(frames) < self.frames:
            raise ValueError(
                f"{file}: has {len(frames)} frames at stride {self.stride}, data.frames needs {self.frames}"
            )
        video = as_tensor(np.stack(frames))  # (T, 3, H', W')
        scale = max(self.height / video.shape[2], self.width / video.shape[3])
        size = (max(self.height, round(video.shape[2] * scale)), max(self.width, round(video.shape[3] * scale)))
        video = F.interpolate(video, size=size, mode="bilinear", antialias=True, align_corners=False)
        top, left = (size[0] - self.height) // 2, (size[1] - self.width) // 2
        return video[:, :, top : top + self.height, left : left + self.width].clamp(-1, 1).transpose(0, 1)
