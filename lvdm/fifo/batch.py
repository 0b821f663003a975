"""Many videos in a row: one that fails costs that one, and the end says what became of all."""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from lvdm.fifo.options import one_line
from lvdm.fifo.stop import Stop
from lvdm.fifo.video import Video


@dataclass(frozen=True)
class Summary:
    """How many videos were made, were there already, and failed."""

    done: int
    skipped: int
    failed: int

    def __str__(self) -> str:
        return f"videos: {self.done} done, {self.skipped} skipped, {self.failed} failed"


class RankFailedError(RuntimeError):
    """With several ranks, one that failed."""


def make_all(videos: Sequence[Video], make: Callable[[Video], bool], *, stop: Stop, debug: bool) -> Summary:
    """Makes each video; `make` says whether it was not there already. What fails is told and left behind.

    With several ranks a failure of one ends the run: the others wait for what does not come. Stopped if `stop` says so.
    With `debug` failures are told with their traceback.
    """
    ranks = stop.ranks
    outcomes = {"done": 0, "skipped": 0, "failed": 0}
    for video in tqdm(videos, desc="prompts", disable=not ranks.first or len(videos) == 1):
        where = f"{video.prompt.text!r} (line {video.prompt.line})"
        try:
            made = make(video)
        except Exception as error:  # whatever it is, a night's other prompts shall not be lost for it
            outcomes["failed"] += 1
            expected = isinstance(error, (ValueError, OSError))
            reason = one_line(error) if expected else f"{type(error).__name__}: {one_line(error)}"
            tqdm.write(f"error: {where}: {reason}", file=sys.stderr)
            if debug:
                tqdm.write(traceback.format_exc(), file=sys.stderr)
            if ranks.size > 1 and not hasattr(error, "on_all_ranks"):
                raise RankFailedError(f"rank {ranks.rank} of {ranks.size} failed; the same command goes on") from error
            stop.check()
            continue
        if not made and ranks.first:
            tqdm.write(f"skipped: {where}: has all of its frames, in {video.folder}", file=sys.stderr)
        outcomes["done" if made else "skipped"] += 1
        stop.check()
    return Summary(**outcomes)
