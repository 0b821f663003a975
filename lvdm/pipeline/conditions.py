"""Turn a prompt and a picture into what the sampler needs: a denoiser and the noise of the video."""

from dataclasses import dataclass

import numpy as np

from lvdm.diffusion.conditioning import Conditioning, EncodedPicture
from lvdm.diffusion.guidance import DistilledGuidance, GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise
from lvdm.io.images import as_tensor
from lvdm.io.prompts import Prompt
from lvdm.pipeline.config_facts import config_facts
from lvdm.pipeline.options import Options
from lvdm.pipeline.run import Run
from lvdm.pipeline.video import last_picture
from lvdm.runtime.errors import shortened
from lvdm.runtime.progress import print_above


@dataclass(frozen=True)
class Conditions:
    """Hold what one video is sampled with.

    Args:
        denoiser: the U-Net under the video's prompts and picture.
        noise: all Gaussians of the video.
        picture: (H, W, 3) uint8, the user's picture, if there is one.
    """

    denoiser: GuidedDenoiser
    noise: KeyedNoise
    picture: np.ndarray | None


def condition(run: Run, prompt: Prompt, options: Options) -> Conditions:
    """Encode the prompts and the picture of a video; warn of words that the text encoder does not read.

    options: those of the video, whose seed may be another than the run's.
    """
    model, picture = run.model, None
    if run.ranks.first:
        _warn_of_untrained_levels(options)
        _warn_of_unread_words(run, [*(text for _, text in prompt.schedule), options.negative_prompt])
    conditioning = Conditioning.of_text(
        model, prompt.schedule, fps=options.fps, negative=options.negative_prompt, blend=options.prompt_blend
    )
    if prompt.picture is not None:
        picture = prompt.picture.read(options.height, options.width, fit=options.image_fit)
        encoded = EncodedPicture.of(model, as_tensor(picture)[None].to(run.device))
        if options.picture_end is not None:
            end = last_picture(options).read(options.height, options.width, fit=options.image_fit)
            end = EncodedPicture.of(model, as_tensor(end)[None].to(run.device))
            encoded = encoded.ending_with(end.latent, frames=options.video_length)
        conditioning = conditioning.with_picture(encoded)
    shape = model.latent_shape(options.height, options.width)
    # A schedule has the noise of its first prompt: until it switches, it can be compared with that.
    noise = KeyedNoise(options.seed, prompt.schedule[0][1], prompt.repetition, shape, run.device)
    denoiser = GuidedDenoiser(
        model.unet,
        conditioning,
        options.unconditional_guidance_scale,
        run.workers,
        run.ranks,
        rescale=options.guidance_rescale,
        distilled=_distilled(options),
    )
    return Conditions(denoiser, noise, picture)


def _distilled(options: Options) -> DistilledGuidance | None:
    if options.distilled_guidance is None:
        return None
    return DistilledGuidance(options.distilled_guidance, options.motion_guidance, options.motion_share)


def _warn_of_unread_words(run: Run, texts: list[str]) -> None:
    for text in dict.fromkeys(texts):
        if unread := run.model.cond_stage_model.unread(text):
            print_above(f"warning: the text encoder does not read the last {unread} tokens of {shortened(text)!r}")


def _warn_of_untrained_levels(options: Options) -> None:
    """Print a warning if the model will see clean frames beside noisy ones, and was not trained so."""
    wanted = []
    if options.plan.startswith("autoregressive") and options.queue_plan.front:
        wanted.append((f"--plan {options.plan}", "context", "jumps where its blocks meet"))
    if options.interpolate is not None:
        wanted.append((f"--interpolate {options.interpolate}", "between", "frames in between that flicker"))
    trained = config_facts(options.config).trained_levels
    for flag, kind, expected in wanted:
        if not {kind, "independent"} & set(trained):
            print_above(
                f"warning: {flag} shows the model clean frames beside noisy ones; {options.config} does not say that "
                f"it was trained so (trained_levels: [{kind}]), so expect {expected}"
            )
