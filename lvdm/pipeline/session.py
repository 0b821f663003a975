"""Arrange around one video what it needs besides its pixels: a lock, an earlier run's state, files, a record."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lvdm.io.images import to_uint8
from lvdm.io.lock import folder_lock
from lvdm.io.writers.gif import GifWriter
from lvdm.pipeline.conditions import Conditions
from lvdm.pipeline.record import Stopwatch, pass_log, progress_of, write_record
from lvdm.pipeline.recorder import Recorder, open_recorder
from lvdm.pipeline.run import Run
from lvdm.pipeline.snapshot import Snapshot
from lvdm.pipeline.state import RunState
from lvdm.pipeline.video import Video
from lvdm.runtime.distributed import Ranks


@dataclass(frozen=True)
class Session:
    """Hold a video that this run, and no other process, works on.

    Args:
        state: where an earlier run stopped, on the run's device; None if the video begins now.
        complete: whether the video has all of its frames already.
        log: adds a line to the log file, with `--debug`.
        clock: measures the stages.
    """

    run: Run
    video: Video
    state: RunState | None
    complete: bool
    log: Callable[[str], None]
    clock: Stopwatch

    def write_origin_gif(self, clip: Tensor) -> None:
        """Write the end of the clip (1, C, F, h, w) that the queue is filled from to origin.gif."""
        if self.run.ranks.first:
            path, options = self.video.folder / "origin.gif", self.video.options
            with GifWriter(path, fps=options.output_fps, comment=self.video.comment) as origin:
                for frame in clip[:, :, -options.video_length :].unbind(2):
                    origin.write(to_uint8(self.run.model.decode(frame)[0]))
        self.clock.lap("base clip")

    def unsaved_state(self, snapshot: Snapshot) -> RunState:
        """Return the state that the first pass begins with. Nothing is saved before a pass."""
        return RunState(self.video.settings, snapshot, files={}, seconds=self.clock.laps)

    @contextmanager
    def recorder(self, state: RunState, conditions: Conditions) -> Iterator[Recorder]:
        """Yield what writes the frames of passes that begin with `state`; at the end write the record of the video."""
        with open_recorder(self.run, self.video, conditions, state, log=self.log, clock=self.clock) as recorder:
            yield recorder
        if self.run.ranks.first:
            write_record(self.video, recorder.state)


@contextmanager
def working_on(run: Run, video: Video) -> Iterator[Session]:
    """Hold the folder of `video` within this context, and find out how far an earlier run came.

    Without a state, record and frames of a video that is not complete are removed, as it cannot be resumed.

    Raises:
        ValueError: another process holds the folder, or the video was begun with other settings.
    """
    ranks = run.ranks
    ranks.from_first(video.check_places)
    with locked_by_first(ranks, video.folder):
        ranks.from_first(video.tidy)
        if video.begins_anew:
            ranks.from_first(video.forget)
        state, finished = ranks.from_first(lambda: progress_of(video))
        complete = None not in (video.frames, finished) and finished >= video.frames
        with pass_log(video.log if run.options.debug and ranks.first and not complete else None) as log:
            if not complete:
                begun = "begun" if state is None else f"resumed after frame {state.frames}"
                log(f"{video.prompt.text!r}, seed {video.options.seed}: {begun} with {video.options}")
            if state is None and not complete:
                ranks.from_first(video.forget)
            clock = Stopwatch(state and state.seconds)
            yield Session(run, video, state and state.to(run.device), complete, log, clock)


@contextmanager
def locked_by_first(ranks: Ranks, folder: Path) -> Iterator[None]:
    """Hold `folder` for all ranks within this context: rank 0 takes the lock, and all fail where it cannot."""
    with ExitStack() as stack:
        ranks.from_first(lambda: stack.enter_context(folder_lock(folder)))
        yield
