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

from lvdm.diffusion.conditioning import EncodedPicture
from lvdm.io.files import DamagedFileError, read_sealed, set_aside, write_sealed
from lvdm.io.writers.video_files import WriterStates
from lvdm.pipeline.snapshot import Snapshot, Waiting
from lvdm.pipeline.video import Video
from lvdm.sampling.plan import Plan
from lvdm.sampling.queue import LatentQueue

RECORD = "record"  # the name of the JSON part, as bytes
IMAGE_TOKENS, IMAGE_LATENT = "seed", "seed latent"  # of the picture; the names are from when it was called so


@dataclass(frozen=True)
class RunState:
    """Hold a video between two passes.

    Args:
        settings: everything that changes pixels or files, by flag.
        snapshot: what the next pass begins with.
        files: what the writers need to resume; empty before the first pass.
        seconds: the time spent so far, by stage.
    """

    settings: Mapping[str, object]
    snapshot: Snapshot
    files: WriterStates
    seconds: Mapping[str, float]

    @property
    def frames(self) -> int:
        """How many new frames the video has."""
        return self.snapshot.frames

    def to(self, device: torch.device) -> "RunState":
        """Return the same state with its tensors on `device`."""
        tensors = {name: tensor.to(device) for name, tensor in tensors_of(self.snapshot).items()}
        return replace(self, snapshot=snapshot_from(tensors, self.snapshot.queue))


def tensors_of(snapshot: Snapshot) -> dict[str, Tensor]:
    """Return the tensors of a video between two passes by their names in its file, without frame numbers."""
    queue = snapshot.queue
    tensors = {"queue/latents": queue.latents, "ready": snapshot.ready}
    optional = {"queue/known": queue.known}
    if snapshot.picture is not None:
        optional |= {IMAGE_TOKENS: snapshot.picture.tokens, IMAGE_LATENT: snapshot.picture.latent}
    if snapshot.waiting is not None:
        optional |= {"waiting/frames": snapshot.waiting.frames, "waiting/window": snapshot.waiting.window}
    return tensors | {name: tensor for name, tensor in optional.items() if tensor is not None}


def snapshot_from(tensors: Mapping[str, Tensor], queue: LatentQueue) -> Snapshot:
    """Return the inverse of `tensors_of`; what is no tensor is as in `queue`."""
    latents, picture, waiting = tensors["queue/latents"], None, None
    queue = replace(queue, latents=latents, known=tensors.get("queue/known"))
    if "waiting/frames" in tensors:
        waiting = Waiting(tensors["waiting/frames"], tensors["waiting/window"])
    if IMAGE_TOKENS in tensors:
        picture = EncodedPicture(tensors[IMAGE_TOKENS], tensors.get(IMAGE_LATENT))
    return Snapshot(queue, picture, tensors.get("ready", latents[:, :, :0]), waiting)


def write_state(path: Path, state: RunState) -> None:
    """Write `path` at once: a crash leaves the state before or this one."""
    queue = state.snapshot.queue
    record = {
        "settings": state.settings,
        "row": queue.row,
        "passes": queue.passes,
        "seconds": state.seconds,
        "files": list(state.files),
    }
    tensors = tensors_of(state.snapshot) | {"queue/frames": queue.frames}
    for writer, progress in state.files.items():
        tensors |= {f"files/{writer}/{name}": value for name, value in progress.items()}
    tensors[RECORD] = torch.frombuffer(bytearray(json.dumps(record).encode()), dtype=torch.uint8)
    write_sealed(path, save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def read_state(path: Path, plan: Plan) -> RunState | None:
    """Read the state of a video that is sampled by `plan`, to the CPU; None if there is none.

    Raises:
        DamagedFileError: the file is not what was once written.
    """
    try:
        content = read_sealed(path)
    except FileNotFoundError:
        return None
    try:
        tensors = load(content)
        record = json.loads(bytes(tensors.pop(RECORD).numpy()))
        frames = tensors.pop("queue/frames")
        if "passes" not in record:  # of an earlier version, which knew FIFO-Diffusion alone
            front = record["window"] - record["stride"]
            record["passes"] = int(frames[front]) + len(frames) - front - record["window"]
        queue = LatentQueue(tensors["queue/latents"], frames, plan, record.get("row", 0), record["passes"])
        files: dict[str, dict[str, Tensor]] = {writer: {} for writer in record["files"]}
        for name, value in tensors.items():
            if name.startswith("files/"):
                _, writer, key = name.split("/")
                files[writer][key] = value
        return RunState(record["settings"], snapshot_from(tensors, queue), files, record["seconds"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedFileError(f"{path}: does not hold the state of a run ({error})") from error


def saved_state(video: Video) -> RunState | None:
    """Return the state in which `video` was stopped, on the CPU; None if it was not begun.

    A damaged state is set aside, with a warning, and with it the files that were growing.

    Raises:
        ValueError: it was begun with other settings.
    """
    try:
        state = read_state(video.state, video.options.queue_plan)
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
            state = read_state(video.state, video.options.queue_plan)
        if state is not None:
            check_same(video, state.settings)


def _told(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    text = repr(value)
    return f"{text[:13]}...'" if len(text) == 66 and text[1:-1].isalnum() else text  # digests say no more in full
