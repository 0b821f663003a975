"""Consume the passes of a video: files, progress, log and saved states."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lvdm.io.images import to_uint8
from lvdm.io.writers.video_files import NO_FILES, VideoFiles, open_files
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.pipeline.conditions import Conditions
from lvdm.pipeline.passes import Pass
from lvdm.pipeline.record import Stopwatch
from lvdm.pipeline.run import Run
from lvdm.pipeline.state import RunState, write_state
from lvdm.pipeline.video import Video
from lvdm.runtime.background import background_writer
from lvdm.runtime.progress import progress_bar
from lvdm.sampling.sampler import advance


def record_passes(
    run: Run,
    video: Video,
    passes: Iterator[Pass],
    state: RunState,
    conditions: Conditions,
    *,
    log: Callable[[str], None],
    clock: Stopwatch,
) -> RunState:
    """Write what `passes` finish, beginning from `state`; return the state at the end.

    Raises:
        Stopped: a signal asked for it; the state is saved.
    """
    options, stop, first = video.options, run.stop, run.ranks.first
    pass_clock = Stopwatch()
    total = None if video.frames is None else state.queue.warm_up + video.frames
    done = state.queue.head_frame + state.queue.warm_up
    with ExitStack() as stack:
        stack.enter_context(closing(passes))
        files = stack.enter_context(files_of(video, state, conditions.picture)) if first else NO_FILES
        write = stack.enter_context(background_writer(partial(write_frame, run.model, files)))
        bar = stack.enter_context(
            progress_bar(desc="passes", unit="pass", initial=done, total=total, disabled=not first)
        )
        for finished in passes:
            stopped = stop.requested()  # ranks ask one another while their devices compute
            if first and finished.finished:
                write(finished.queue.head, finished.pixels)
            if files.queue is not None:
                files.write_queue(to_uint8(run.model.decode(slot)[0]) for slot in finished.queue.latents.unbind(2))
            bar.update()
            pace = bar.format_dict["elapsed"] / (finished.number - done)
            bar.set_postfix_str(f"{finished.finished} of {video.frames or 'many'} frames written, {pace:.2f} s/frame")
            log(f"pass {finished.number}: {pass_clock.lap('pass'):.3f} s, {finished.finished} frames finished")
            last = stopped and finished.finished > 0 if total is None else finished.number == total
            if last or stopped or finished.number % options.save_every == 0:
                write.wait()
                clock.lap("queue")
                queue = advance(finished.queue, noise=conditions.noise)
                state = RunState(video.settings, queue, finished.image_tokens, files.sync(), clock.laps)
                if first:
                    write_state(video.state, state)
            if last:
                break
            if stopped:
                stop.check()
    return state


def files_of(video: Video, state: RunState, picture: np.ndarray | None) -> AbstractContextManager[VideoFiles]:
    """Open the files that the options ask for, to go on where `state` is."""
    options = video.options
    return open_files(
        video.folder,
        video.name,
        formats=options.formats,
        fps=options.output_fps,
        comment=video.comment,
        crf=options.crf,
        save_frames=options.save_frames,
        queue_slots=state.queue.slots if options.save_queue else None,
        picture=picture,
        resume_from=state.files or None,
    )


def write_frame(model: LatentDiffusion, files: VideoFiles, latent: Tensor, pixels: Tensor | None) -> None:
    """Write the finished frame `pixels` (1, 3, H, W); if it is None, `latent` (1, C, h, w) is decoded first."""
    with torch.inference_mode():  # which holds only in the thread that enters it
        files.write(to_uint8((model.decode(latent) if pixels is None else pixels)[0]))
