"""Read the user's video that a new one goes on from (--continue_from)."""

from collections import deque
from collections.abc import Iterator
from hashlib import sha256

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lvdm.io.files import file_digest
from lvdm.io.frames import UnreadableVideoError, list_pictures, read_frames
from lvdm.io.images import as_tensor, fitted
from lvdm.pipeline.options import Options
from lvdm.pipeline.run import Run
from lvdm.runtime.distributed import global_rank
from lvdm.runtime.progress import progress_bar


def source_frames(options: Options) -> Iterator[np.ndarray]:
    """Yield the frames (H', W', 3) uint8 of the video, at the frame rate of the output.

    A folder of pictures has the frame rate of the output.

    Raises:
        ValueError: it cannot be read, or has too few frames to go on from.
    """
    path, least, count = options.continue_from, frames_needed(options), 0
    if not path.exists():
        raise FileNotFoundError(f"--continue_from {str(path)!r}: there is no such file")
    try:
        for frame in read_frames(path, fps=options.output_fps):
            count += 1
            yield frame
    except UnreadableVideoError as error:
        raise ValueError(f"--continue_from {str(path)!r}: cannot be read as a video ({error})") from error
    if count < least:
        raise ValueError(
            f"--continue_from {str(path)!r}: has {count} frames at {options.output_fps} frames a second "
            f"(--output_fps); --plan {options.plan} needs at least {least} to go on from"
        )


def frames_needed(options: Options) -> int:
    """Return how many frames a video must have to go on from it.

    Plans of blocks look back at as many as they have context; with others two suffice, as the first is repeated.
    """
    plan = options.queue_plan
    return max(2, plan.front if plan.in_blocks else 0)


def source_digest(options: Options) -> str:
    """Check that the video can be read, and return the SHA-256 of its files; errors as of `source_frames`."""
    path = options.continue_from
    frames = progress_bar(
        source_frames(options), desc=f"checking {path.name}", unit="frame", disabled=global_rank() > 0
    )
    deque(frames, maxlen=0)
    if not path.is_dir():
        return file_digest(path)
    return sha256("".join(map(file_digest, list_pictures(path))).encode()).hexdigest()


def encoded_source(run: Run) -> Tensor:
    """Return the latents (1, C, F, h, w) of the frames of the video; errors as of `source_frames`.

    These are all, or with `--no-keep_source` as many of the last ones as a queue or a window can hold.
    """
    options, name = run.options, run.options.continue_from.name
    frames = source_frames(options)
    if not options.keep_source:
        frames = deque(frames, maxlen=max(options.queue_plan.slots, options.video_length))
    frames = progress_bar(frames, desc=f"reading {name}", unit="frame", disabled=not run.ranks.first)
    latents = []
    for frame in frames:
        picture = fitted(Image.fromarray(frame), options.height, options.width, fit=options.image_fit)
        latents.append(run.model.encode(as_tensor(np.asarray(picture))[None].to(run.device)).float())
        run.stop.check()
    return torch.stack(latents, dim=2)
