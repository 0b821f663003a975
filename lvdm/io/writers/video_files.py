"""Write all files of a video at once: GIF, MP4, contact sheet, folders of PNGs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvdm.io.files import remove
from lvdm.io.writers.base import Writer, WriterState
from lvdm.io.writers.gif import GifWriter
from lvdm.io.writers.mp4 import CRF, Mp4Writer
from lvdm.io.writers.png import PngWriter
from lvdm.io.writers.sheet import ContactSheetWriter

WriterStates = Mapping[str, WriterState]  # by the name of the writer


@dataclass(frozen=True)
class VideoFiles:
    """The writers of a video, by name; `queue`, if any, writes the slots of the queue."""

    writers: Mapping[str, Writer]
    queue: PngWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8 to every file; all frames have the same size."""
        for writer in self.writers.values():
            writer.write(frame)

    def write_queue(self, slots: Iterable[np.ndarray]) -> None:
        """Write one frame for each slot of the queue after a pass."""
        for frame in slots:
            self.queue.write(frame)

    def sync(self) -> WriterStates:
        """Flush what was written to the disk and return what `open_files` needs to resume here."""
        states = {name: writer.sync() for name, writer in self.writers.items()}
        return states if self.queue is None else states | {"queue": self.queue.sync()}


NO_FILES = VideoFiles({})


@contextmanager
def open_files(
    folder: Path,
    name: str,
    *,
    formats: Sequence[str],
    fps: int,
    comment: str,
    crf: int = CRF,
    save_frames: bool = False,
    queue_slots: int | None = None,
    picture: np.ndarray | None = None,
    resume_from: WriterStates | None = None,
) -> Iterator[VideoFiles]:
    """Open the files of a video: the contact sheet `name`.png and what else is asked for.

    The files take their names when the block ends. After an exception those that can be resumed are kept as
    `name.partial.*`, and the others are removed. All files in a folder belong to one video, so at the end of the block
    files of an earlier run that this one was not asked for are removed.

    Args:
        folder: where the files are.
        name: what they are called.
        formats: "gif" for `name`.gif, "mp4" for `name`.mp4.
        fps, comment: frames per second, and metadata, of the GIF and the MP4.
        crf: quality of the MP4, from 0 (large) to 51 (small).
        save_frames: write every frame to fifo/, too.
        queue_slots: how many slots the queue has, if they are to be written to queue/.
        picture: (H, W, 3) uint8, the first tile of the contact sheet.
        resume_from: what `sync` returned, to resume there; what was written after it is cut off. None to begin anew.
    """
    states = resume_from or {}
    with ExitStack() as stack:
        sheet = ContactSheetWriter(folder / f"{name}.png", picture=picture, resume_from=states.get("sheet"))
        writers: dict[str, Writer] = {"sheet": stack.enter_context(sheet)}
        if "gif" in formats:
            gif = GifWriter(folder / f"{name}.gif", fps=fps, comment=comment, resume_from=states.get("gif"))
            writers["gif"] = stack.enter_context(gif)
        if "mp4" in formats:
            mp4 = Mp4Writer(folder / f"{name}.mp4", fps=fps, comment=comment, crf=crf, resume_from=states.get("mp4"))
            writers["mp4"] = stack.enter_context(mp4)
        if save_frames:
            writers["fifo"] = stack.enter_context(PngWriter(folder / "fifo", resume_from=states.get("fifo")))
        queue = None
        if queue_slots is not None:
            queue = PngWriter(folder / "queue", slots=queue_slots, resume_from=states.get("queue"))
            stack.enter_context(queue)
        yield VideoFiles(writers, queue)
    names = {"gif": f"{name}.gif", "mp4": f"{name}.mp4", "fifo": "fifo", "queue": "queue"}
    for kind in names.keys() - writers.keys() - ({"queue"} if queue else set()):
        remove(folder / names[kind])
