"""Make videos of any length from a 16-frame model: the algorithm. lvdm/README.md is the map of what it calls."""

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import sys
from collections.abc import Sequence
from functools import partial

import torch

from lvdm.cli.arguments import parse_args
from lvdm.cli.command import with_error_lines
from lvdm.cli.errors import exit_status
from lvdm.models.checkpoint import checkpoint_digest
from lvdm.pipeline.base_clip import first_clip
from lvdm.pipeline.batch import Summary, check_or_forget_earlier_runs, make_all
from lvdm.pipeline.conditions import condition
from lvdm.pipeline.options import Options
from lvdm.pipeline.passes import denoise_video, fill_queue
from lvdm.pipeline.run import Run, loaded_model, run_with_compute_threads
from lvdm.pipeline.session import working_on
from lvdm.pipeline.show_plan import show_plan
from lvdm.pipeline.video import Video, prompts_of, videos_of
from lvdm.runtime.console import Console
from lvdm.runtime.cpu import keep_freed_memory
from lvdm.runtime.distributed import Ranks, leaving_together, ranks_of
from lvdm.runtime.signals import Stop, stop_on_signals


@torch.inference_mode()
def make_videos(options: Options, ranks: Ranks, stop: Stop) -> Summary:
    """Make the video of every prompt that is this process's share, or its ranks'."""
    prompts = prompts_of(options)
    model = loaded_model(options)
    videos = videos_of(prompts, options, digest=checkpoint_digest(options.ckpt_path))
    videos = ranks.from_first(partial(check_or_forget_earlier_runs, videos, options))
    with run_with_compute_threads(model, options, ranks, stop) as run:
        return make_all(videos, partial(make_video, run), stop=stop, debug=options.debug)


def make_video(run: Run, video: Video) -> bool:
    """Make one video, or what is missing of it; return False if it was complete already."""
    with working_on(run, video) as session:
        if session.complete:
            return False
        conditions = condition(run, video.prompt, video.options)
        state = session.state
        if state is None:
            clip = first_clip(run, conditions, video)
            session.write_origin_gif(clip)
            state = session.unsaved_state(fill_queue(run, conditions, clip))
        with session.recorder(state, conditions) as recorder:  # on leaving, files get their names and a record
            for after in denoise_video(run, conditions, state.snapshot, frames=video.frames):
                recorder.write_and_save_if_due(after)
                if recorder.complete:  # an endless video was stopped, or the last frame is there
                    break
    return True


def run_on_ranks(options: Options) -> int:
    """Run on all of torchrun's processes that share a video, or on this one alone; return the exit status."""
    again = "the same command without --overwrite" if options.overwrite else "the same command"
    with (
        ranks_of(torch.device(options.device), wanted=options.parallel == "windows") as ranks,
        stop_on_signals(ranks, advice=f"{again} goes on where it ended") as stop,
    ):
        summary = make_videos(options, ranks, stop)
    if ranks.first:
        print(f"{summary}; they are below {options.results_root}", flush=True)
    return 1 if summary.failed else 0


@with_error_lines
def main(argv: Sequence[str]) -> int:
    """Run the command line `argv`; return the exit status."""
    options = parse_args(argv)
    if options.show_plan:
        show_plan(options)
        return 0
    keep_freed_memory()
    with leaving_together(wanted=options.parallel == "prompts"):
        return exit_status(partial(run_on_ranks, options), debug=options.debug)


if __name__ == "__main__":
    sys.stdout, sys.stderr = Console(sys.stdout), Console(sys.stderr)
    sys.exit(main(sys.argv[1:]))
