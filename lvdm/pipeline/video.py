"""Describe one video of a run: from what it is made, with which settings, and where it goes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from lvdm.io.configs import read_config
from lvdm.io.files import remove
from lvdm.io.images import Picture
from lvdm.io.prompt_file import read_prompts
from lvdm.io.prompts import Prompt, prompts_from_words, share
from lvdm.models.checkpoint import checkpoint_digest, read_checkpoint
from lvdm.pipeline.options import FILES, PIXELS, Options
from lvdm.pipeline.settings import identity_of
from lvdm.pipeline.source import source_digest

COMMENT_LENGTH = 4000  # characters of a prompt in the comments of files: ffmpeg takes no more than fits a command line


@dataclass(frozen=True)
class Video:
    """Describe what a run makes of one prompt.

    Args:
        prompt: what is in it.
        options: how it is made; where the prompt's line of a table says something else than the flags, that.
        contents: digests of the config's model, of the checkpoint and of the source, by the names of these settings.
        begins_anew: whether what an earlier run left of it is to be removed first.
    """

    prompt: Prompt
    options: Options
    contents: Mapping[str, str]
    begins_anew: bool = False

    @classmethod
    def of(cls, prompt: Prompt, options: Options, *, contents: Mapping[str, str]) -> "Video":
        """Return the video that `prompt` asks for, where the options say nothing else."""
        said = {"seed": prompt.seed, "new_video_length": prompt.new_video_length, "experiment": prompt.experiment}
        given = {name: value for name, value in said.items() if value is not None}
        return cls(prompt, replace(options, **given), contents)

    @property
    def frames(self) -> int | None:
        """How many frames it is to have; None without end."""
        return self.options.frames

    @property
    def name(self) -> str:
        """The name of its files and of its folder."""
        return self.options.experiment

    @property
    def settings(self) -> dict[str, object]:
        """What must stay the same for the video to go on, by flag; None where a setting does not apply."""
        picture = self.prompt.picture and self.prompt.picture.digest
        values = identity_of(self.options, self.prompt, self.contents, affects=PIXELS | FILES)
        return {"the prompt": self.prompt.text, "the picture": picture} | values

    @property
    def comment(self) -> str:
        """What its files say about themselves."""
        return f"{self.prompt.text[:COMMENT_LENGTH]} | seed {self.options.seed} | mode {self.options.mode}"

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.options.results_root / self.prompt.folder / self.name

    @property
    def base_clips(self) -> Path:
        """The folder of the base clips of all videos in the output folder."""
        return self.options.results_root / "latents"

    @property
    def outputs(self) -> list[Path]:
        """The files and folders that there are when it is complete."""
        files = [f"{self.name}.{suffix}" for suffix in [*sorted(self.options.formats), "png"]]
        folders = {"fifo": self.options.save_frames, "queue": self.options.save_queue}
        return [self.folder / name for name in [*files, *(name for name, wanted in folders.items() if wanted)]]

    @property
    def state(self) -> Path:
        """Where its state is saved."""
        return self.folder / f"{self.name}.state"

    @property
    def record(self) -> Path:
        """The JSON file with all that is known about it."""
        return self.folder / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """The log of its passes."""
        return self.folder / f"{self.name}.log"

    def check_places(self) -> None:
        """Raise ValueError if something of it would be written through a link to a place outside the output folder."""
        root = self.options.results_root
        for place in (self.folder, self.base_clips):
            if not place.resolve().is_relative_to(root.resolve()):
                raise ValueError(
                    f"--output_dir {str(root)!r}: {place} is a link to a place outside of it; remove the link"
                )

    def forget(self) -> None:
        """Make it a video that was never begun.

        Its old files stay until new ones take their places, but for its frames: they might be taken for the new ones.
        """
        for path in (self.state, self.record, self.folder / "fifo", self.folder / "queue"):
            remove(path)

    def tidy(self) -> None:
        """Remove what processes left that died while they wrote a file. Only for the process that holds the folder."""
        for path in self.folder.glob(".*.partial*"):
            remove(path)


def prompts_of(options: Options) -> list[Prompt]:
    """Read the prompts that are this process's share, from the command line or the prompt file."""
    if options.prompt:
        prompts = prompts_from_words(
            options.prompt, options.image, experiment=options.experiment, with_pictures=options.mode.from_picture
        )
    else:
        prompts = read_prompts(
            options.prompt_file, experiment=options.experiment, with_pictures=options.mode.from_picture
        )
    return share(prompts, rank=options.rank, num_processes=options.num_processes)


def last_picture(options: Options) -> Picture:
    """Return the picture that a clip ends with; ValueError if it cannot be read."""
    try:
        return Picture.find(str(options.picture_end), folder=Path())
    except ValueError as error:
        raise ValueError(f"--picture_end {error}") from error


def videos_of(prompts: Sequence[Prompt], options: Options, *, digest: str) -> list[Video]:
    """Return the videos of some prompts; ValueError if they cannot be made with these options.

    digest: of the checkpoint file.
    """
    if options.endless and len(prompts) > 1:
        raise ValueError(
            f"--endless: makes one video, and {prompts[1].where} is the second of {len(prompts)} prompts; give only one"
        )
    for prompt in prompts:
        if options.endless and prompt.new_video_length is not None:
            raise ValueError(
                f"--endless: has no length, and {prompt.where} says new_video_length {prompt.new_video_length}; "
                "leave one of them out"
            )
        if options.picture_end is not None and (prompt.new_video_length or 0) > options.video_length:
            raise ValueError(
                f"--picture_end {str(options.picture_end)!r}: ends a clip of {options.video_length} frames, and "
                f"{prompt.where} says new_video_length {prompt.new_video_length}; leave one of them out"
            )
        starts = [start for start, _ in prompt.schedule]
        gap = min((after - before for before, after in pairwise(starts)), default=None)
        if gap is not None and options.prompt_blend > gap:
            raise ValueError(
                f"--prompt_blend {options.prompt_blend}: must be at most {gap}, as {prompt.where} has a prompt for "
                f"only {gap} frames"
            )
    model = json.dumps(read_config(options.config)["model"], sort_keys=True, default=str)
    contents = {"config": sha256(model.encode()).hexdigest(), "ckpt_path": digest}
    if options.base_ckpt_path is not None and read_checkpoint(options.ckpt_path).partial:
        contents["base_ckpt_path"] = checkpoint_digest(options.base_ckpt_path, flag="--base_ckpt_path")
    if options.picture_end is not None:
        contents["picture_end"] = last_picture(options).digest
    if options.continue_from is not None:
        contents["continue_from"] = source_digest(options)
    return [Video.of(prompt, options, contents=contents) for prompt in prompts]
