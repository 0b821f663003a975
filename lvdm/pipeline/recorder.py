"""Consume the passes of a video: files, progress, log and saved states."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor
from tqdm import tqdm

from lvdm.io.images import to_uint8
from lvdm.io.writers.video_files import NO_FILES, VideoFiles, open_files
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.pipeline.conditions import Conditions
from lvdm.pipeline.passes import decoded_one_by_one
from lvdm.pipeline.record import Stopwatch
from lvdm.pipeline.run import Run
from lvdm.pipeline.snapshot import Pass
from lvdm.pipeline.state import RunState, write_state
from lvdm.pipeline.video import Video
from lvdm.runtime.background import BackgroundWriter, background_writer
from lvdm.runtime.progress import progress_bar


@dataclass
class Recorder:
    """Write what passes finish.

    Args:
        state: the newest one that was saved, or the one that the first pass began with.
        files: of the video; none on ranks other than 0.
        write: writes finished frames to them beside the next pass.
        bar: shows how many passes are done.
        passes_before: how many earlier runs have done.
        passes: how many are done.
        log: adds a line to the log file, with `--debug`.
        clock: adds up the seconds of the stages.
    """

    run: Run
    video: Video
    conditions: Conditions
    state: RunState
    files: VideoFiles
    write: BackgroundWriter
    bar: tqdm
    passes_before: int
    passes: int
    log: Callable[[str], None]
    clock: Stopwatch
    pass_clock: Stopwatch = field(default_factory=Stopwatch)
    complete: bool = False

    def write_and_save_if_due(self, after: Pass) -> None:
        """Write the frames that a pass finished; save the state if it is due. The last frame sets `complete`.

        Raises:
            Stopped: a signal asked for it; the state is saved.
        """
        stopped = self.run.stop.requested()  # ranks ask one another while their devices compute
        stepped, self.passes = after.queue.passes > self.passes, after.queue.passes
        self._write(after, with_queue=stepped)
        if stepped:
            self._show(after)
        self.complete = after.complete or (self.video.frames is None and stopped and after.frames_done > 0)
        due = stepped and after.queue.passes % self.video.options.save_every == 0
        if self.complete or stopped or due:
            self._save(after)
        if stopped and not self.complete:
            self.run.stop.check()

    def _write(self, after: Pass, *, with_queue: bool) -> None:
        if self.run.ranks.first and after.finished.shape[2]:
            self.write(after.finished, after.pixels)
        if self.files.queue is not None and with_queue:
            decode = self.run.model.decode
            self.files.write_queue(to_uint8(decode(slot)[0]) for slot in after.queue.latents.unbind(2))

    def _show(self, after: Pass) -> None:
        passes = after.queue.passes
        self.bar.update(passes - self.bar.n)
        plan = after.queue.plan
        pace = self.bar.format_dict["elapsed"] / max(1, passes - self.passes_before) * plan.steps / plan.leaving
        total = "many" if self.video.frames is None else self.video.frames
        self.bar.set_postfix_str(f"{max(0, after.frames_done)} of {total} frames written, {pace:.2f} s/frame")
        self.log(f"pass {passes}: {self.pass_clock.lap('pass'):.3f} s, {after.frames_done} frames finished")

    def _save(self, after: Pass) -> None:
        self.write.wait()
        self.clock.lap("queue")
        snapshot = after.snapshot(self.conditions.noise)
        self.state = RunState(self.video.settings, snapshot, self.files.sync(), self.clock.laps)
        if self.run.ranks.first:
            write_state(self.video.state, self.state)


@contextmanager
def open_recorder(
    run: Run,
    video: Video,
    conditions: Conditions,
    state: RunState,
    *,
    log: Callable[[str], None],
    clock: Stopwatch,
) -> Iterator[Recorder]:
    """Open the files of a video and its progress bar, to go on where `state` is; complete them at the end."""
    first, queue = run.ranks.first, state.snapshot.queue
    done = queue.passes
    total = None if video.frames is None else done + queue.passes_to(video.frames)
    with ExitStack() as stack:
        files = stack.enter_context(files_of(video, state, conditions.picture)) if first else NO_FILES
        write = stack.enter_context(background_writer(partial(write_frames, run.model, files)))
        bar = progress_bar(desc="passes", unit="pass", initial=done, total=total, disabled=not first)
        stack.enter_context(bar)
        yield Recorder(run, video, conditions, state, files, write, bar, done, done, log, clock)


def files_of(video: Video, state: RunState, picture: np.ndarray | None) -> AbstractContextManager[VideoFiles]:
    """Open the files that the options ask for, to go on where `state` is."""
    options = video.options
    return open_files(
        video.folder,
        video.name,
        formats=options.formats,
        fps=options.frame_rate,
        comment=video.comment,
        crf=options.crf,
        save_frames=options.save_frames,
        queue_slots=state.snapshot.queue.slots if options.save_queue else None,
        picture=picture,
        resume_from=state.files or None,
    )


def write_frames(model: LatentDiffusion, files: VideoFiles, latents: Tensor, pixels: Tensor | None) -> None:
    """Write the finished frames `pixels` (K, 3, H, W); if it is None, `latents` (1, C, K, h, w) are decoded first."""
    for frame in decoded_one_by_one(model, latents) if pixels is None else pixels:
        files.write(to_uint8(frame))
