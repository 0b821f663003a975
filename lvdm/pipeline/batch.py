"""Make many videos in a row: one that fails costs that one only, and the end says what became of all."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lvdm.io.files import check_writable
from lvdm.io.lock import folder_lock
from lvdm.pipeline.options import Options
from lvdm.pipeline.state import check_settings
from lvdm.pipeline.video import Video
from lvdm.runtime.distributed import RankError, SharedError
from lvdm.runtime.errors import reason, shortened
from lvdm.runtime.progress import print_above, progress_bar
from lvdm.runtime.signals import Stop


@dataclass(frozen=True)
class Summary:
    """Hold how many videos were made, how many were there already, and which failed, and why."""

    done: int
    skipped: int
    failed: tuple[str, ...]

    def __str__(self) -> str:
        counts = f"videos: {self.done} done, {self.skipped} skipped, {len(self.failed)} failed"
        several = self.done + self.skipped + len(self.failed) > 1  # the error of a single one is on the line above
        return "\n".join([*(f"failed: {failure}" for failure in self.failed if several), counts])


def check_or_forget_earlier_runs(videos: Sequence[Video], options: Options) -> list[Video]:
    """Check that results can be written and go on what is there; with `--overwrite`, begin all videos anew.

    Returns:
        The videos. One that cannot be begun anew now, because another process holds its folder for example, is marked
        to be begun anew when it is its turn.

    Raises:
        ValueError: the output folder takes no files, or a video was begun with other settings.
    """
    check_writable(options.results_root, flag="--output_dir")
    if options.overwrite:
        return [video if forgotten(video) else replace(video, begins_anew=True) for video in videos]
    check_settings(videos)
    return list(videos)


def forgotten(video: Video) -> bool:
    """Remove what earlier runs left of a video; return False if that cannot be done."""
    try:
        video.check_places()
        if video.folder.exists():
            with folder_lock(video.folder):
                video.forget()
    except (ValueError, OSError):
        return False
    return True


def make_all(videos: Sequence[Video], make: Callable[[Video], bool], *, stop: Stop, debug: bool) -> Summary:
    """Make each video; one that fails is reported, and the others are made nevertheless.

    Args:
        make: makes a video; returns False if it was complete already.
        debug: whether failures are reported with their traceback.

    Raises:
        RankError: one of several ranks failed alone.
        Stopped: `stop` asked for it.
    """
    ranks = stop.ranks
    done, skipped, failed = 0, 0, []
    for video in progress_bar(videos, desc="prompts", unit="video", disabled=not ranks.first or len(videos) == 1):
        where = f"{shortened(video.prompt.text)!r} ({video.prompt.where})"
        try:
            made = make(video)
        except Exception as error:  # whatever it is, a night's other prompts shall not be lost for it
            failed.append(f"{where}: {reason(error)}")
            print_above(f"error: {failed[-1]}")
            if debug:
                print_above(traceback.format_exc())
            if ranks.size > 1 and not isinstance(error, SharedError):
                raise RankError(f"rank {ranks.rank} of {ranks.size} failed; the same command goes on") from error
            stop.check()
            continue
        if made:
            done += 1
        else:
            skipped += 1
            if ranks.first:
                print_above(f"skipped: {where}: has all of its frames, in {video.folder}")
        stop.check()
    return Summary(done, skipped, tuple(failed))
