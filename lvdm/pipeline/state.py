"""Save what a run needs to go on after a stop, and read it with checks."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lvdm.io.files import DamagedFileError, read_sealed, set_aside, write_sealed
from lvdm.io.writers.video_files import WriterStates
from lvdm.pipeline.video import Video
from lvdm.sampling.queue import LatentQueue

RECORD = "record"  # the name of the JSON part, as bytes
IMAGE_TOKENS = "seed"  # their name in the file, from when they were called so


@dataclass(frozen=True)
class RunState:
    """Hold a video between two passes.

    Args:
        settings: everything that changes pixels or files, by flag.
        queue: as the next pass begins with it.
        image_tokens: (1, 1, N, D) of the frame that the video is conditioned on, if any.
        files: what the writers need to resume; empty before the first pass.
        seconds: the time spent so far, by stage.
    """

    settings: Mapping[str, object]
    queue: LatentQueue
    image_tokens: Tensor | None
    files: WriterStates
    seconds: Mapping[str, float]

    @property
    def frames(self) -> int:
        """How many frames of the video are finished."""
        return max(0, self.queue.head_frame)

    def to(self, device: torch.device) -> "RunState":
        """Return the same state with its tensors on `device`."""
        queue = replace(self.queue, latents=self.queue.latents.to(device))
        tokens = None if self.image_tokens is None else self.image_tokens.to(device)
        return replace(self, queue=queue, image_tokens=tokens)


def queue_tensors(queue: LatentQueue) -> dict[str, Tensor]:
    """Return the tensors of a queue by name."""
    return {"latents": queue.latents, "levels": queue.levels, "frames": queue.frames}


def write_state(path: Path, state: RunState) -> None:
    """Write `path` at once: a crash leaves the state before or this one."""
    record = {
        "settings": state.settings,
        "window": state.queue.window,
        "stride": state.queue.stride,
        "seconds": state.seconds,
        "files": list(state.files),
    }
    tensors = {f"queue/{name}": tensor for name, tensor in queue_tensors(state.queue).items()}
    for writer, progress in state.files.items():
        tensors |= {f"files/{writer}/{name}": value for name, value in progress.items()}
    if state.image_tokens is not None:
        tensors[IMAGE_TOKENS] = state.image_tokens
    tensors[RECORD] = torch.frombuffer(bytearray(json.dumps(record).encode()), dtype=torch.uint8)
    write_sealed(path, save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def read_state(path: Path) -> RunState | None:
    """Read a state to the CPU; None if there is none. DamagedFileError if it is not what was once written."""
    try:
        content = read_sealed(path)
    except FileNotFoundError:
        return None
    try:
        tensors = load(content)
        record = json.loads(bytes(tensors.pop(RECORD).numpy()))
        latents, levels, frames = (tensors.pop(f"queue/{name}") for name in ("latents", "levels", "frames"))
        files: dict[str, dict[str, Tensor]] = {writer: {} for writer in record["files"]}
        image_tokens = tensors.pop(IMAGE_TOKENS, None)
        for name, value in tensors.items():
            _, writer, key = name.split("/")
            files[writer][key] = value
        return RunState(
            settings=dict(record["settings"]),
            queue=LatentQueue(latents, levels, frames, record["window"], record["stride"]),
            image_tokens=image_tokens,
            files=files,
            seconds=record["seconds"],
        )
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{path}: does not hold the state of a run ({error})") from error


def saved_state(video: Video) -> RunState | None:
    """Return the state in which `video` was stopped, on the CPU; None if it was not begun.

    A damaged state is set aside, with a warning, and with it the files that were growing.

    Raises:
        ValueError: it was begun with other settings.
    """
    try:
        state = read_state(video.state)
    except DamagedFileError as error:
        growing = sorted(video.folder.glob("*.partial*"))
        set_aside(video.state, error, with_it=[path for path in growing if not path.suffix.startswith(".damaged")])
        return None
    if state is not None:
        check_same(video, state.settings)
    return state


def check_same(video: Video, saved: Mapping[str, object]) -> None:
    """Raise ValueError, with the first that differs, if `saved` are other settings than the video's."""
    now = json.loads(json.dumps(video.settings))
    for name in [*now, *saved]:
        if now.get(name) != saved.get(name):
            raise ValueError(
                f"{name} was {_told(saved.get(name))} when the video in {video.folder} was begun, and is now "
                f"{_told(now.get(name))}; pass --overwrite to restart every video of this run, or another --experiment "
                "or --output_dir to keep it"
            )


def check_settings(videos: Iterable[Video]) -> None:
    """Raise ValueError if one of `videos` was begun with other settings."""
    for video in videos:
        state = None
        with suppress(DamagedFileError, OSError):  # these fail one video, when it is its turn
            state = read_state(video.state)
        if state is not None:
            check_same(video, state.settings)


def _told(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    text = repr(value)
    return f"{text[:13]}...'" if len(text) == 66 and text[1:-1].isalnum() else text  # digests say no more in full
