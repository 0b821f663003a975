"""Videos of any length from a 16-frame model, by FIFO-Diffusion: `python videocrafter_main.py --help`."""

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch

from lvdm.cli.command import says_errors
from lvdm.cli.options import DTYPES, Options, check_writable, parse_args
from lvdm.io.files import file_digest
from lvdm.io.lock import folder_lock
from lvdm.io.prompt_file import read_prompts
from lvdm.io.prompts import share
from lvdm.models.loading import load_model
from lvdm.pipeline.batch import Summary, forget_all, make_all
from lvdm.pipeline.record import pass_log, progress_of, write_record
from lvdm.pipeline.state import check_settings
from lvdm.pipeline.studio import Studio, conditioned, denoise_to_files, first_state
from lvdm.pipeline.video import Video, videos_of
from lvdm.runtime.batching import workers_of
from lvdm.runtime.compile import Compiled
from lvdm.runtime.console import Console
from lvdm.runtime.distributed import RankError, Ranks, leaving_together, ranks_of
from lvdm.runtime.errors import one_line
from lvdm.runtime.signals import Stop, Stopped, stop_on_signals


@torch.inference_mode()
def run(options: Options, ranks: Ranks, stop: Stop) -> Summary:
    """Make the video of every prompt that is this process's share, or its ranks'."""
    prompts = read_prompts(options.prompt_file, experiment=options.experiment, with_pictures=options.mode.from_picture)
    prompts = share(prompts, rank=options.rank, num_processes=options.num_processes)
    device = torch.device(options.device)
    torch.backends.cudnn.allow_tf32 = options.precision != "fp32"  # which rounds what convolutions multiply to 10 bits
    model = load_model(
        options.config,
        options.ckpt_path,
        device=device,
        unet_dtype=DTYPES[options.precision],
        offloaded=options.offloaded,
    )
    check_writable(options.results_root)
    digest = file_digest(options.ckpt_path)
    videos = videos_of(prompts, options, digest=digest)
    ranks.from_first(partial(forget_all if options.overwrite else check_settings, videos))
    with workers_of(device, rows=options.rows) as workers:
        compiled = Compiled(model.unet) if options.compile else None
        studio = Studio(model, options, digest, workers, ranks, stop, compiled)
        return make_all(videos, partial(make_video, studio), stop=stop, debug=options.debug)


def make_video(studio: Studio, video: Video) -> bool:
    """One prompt: conditioning -> base clip -> latent queue -> diagonal denoising -> frames -> files.

    Goes on where an earlier run was stopped. False if the video was complete already.
    """
    options, ranks = studio.options, studio.ranks
    with ExitStack() as stack:
        ranks.from_first(video.check_places)
        ranks.from_first(lambda: stack.enter_context(folder_lock(video.folder)))
        ranks.from_first(video.tidy)
        state, complete = ranks.from_first(lambda: progress_of(video))
        if video.frames is not None and complete >= video.frames:
            return False
        log = stack.enter_context(pass_log(video.log if options.debug and ranks.first else None))
        begun = "begun" if state is None else f"goes on behind frame {state.frames}"
        log(f"{video.prompt.text!r}, seed {video.seed}: {begun} with {options}")
        denoise, noise, picture = conditioned(studio, video)
        if state is None:
            ranks.from_first(video.forget)
            state = first_state(studio, video, denoise=denoise, noise=noise)
        state = state.to(noise.device)
        state = denoise_to_files(studio, video, state=state, denoise=denoise, noise=noise, picture=picture, log=log)
        if ranks.first:
            write_record(video, state, options=options, checkpoint_digest=studio.digest)
    return True


def run_and_tell(options: Options) -> int:
    """Says how the run ended; returns the exit status."""
    try:
        several = options.parallel == "windows"
        with ranks_of(torch.device(options.device), wanted=several) as ranks, stop_on_signals(ranks) as stop:
            summary = run(options, ranks, stop)
    except (ValueError, OSError, torch.OutOfMemoryError, RankError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, RankError) else 2
    if ranks.first:
        print(f"{summary}; they are below {options.results_root}", flush=True)
    return 1 if summary.failed else 0


@says_errors
def main(argv: Sequence[str]) -> int:
    options = parse_args(argv)
    try:
        with leaving_together(wanted=options.parallel == "prompts"):
            return run_and_tell(options)
    except Stopped as stopped:
        again = "the same command without --overwrite" if options.overwrite else "the same command"
        print(f"{stopped}; {again} goes on where it ended", file=sys.stderr)
        return stopped.exit_status


if __name__ == "__main__":
    sys.stdout, sys.stderr = Console(sys.stdout), Console(sys.stderr)
    sys.exit(main(sys.argv[1:]))
