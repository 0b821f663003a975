"""One video to make: from what, with which settings, and where it goes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from lvdm.cli.options import Options
from lvdm.io.configs import read_config
from lvdm.io.files import remove
from lvdm.io.prompts import Prompt

COMMENT_LENGTH = 4000  # characters of a prompt in the comments of files: ffmpeg takes no more than fits a command line


@dataclass(frozen=True)
class Video:
    """What a run makes of one entry of the prompt file.

    frames: how many, None for an endless one. root: the output folder. name: of its files and of its folder.
    settings: everything that changes its pixels or its files, by the name of the flag; None what changes nothing.
    """

    prompt: Prompt
    seed: int
    frames: int | None
    root: Path
    name: str
    settings: dict[str, object]
    comment: str

    @classmethod
    def of(cls, prompt: Prompt, options: Options, *, digest: str) -> "Video":
        """The video that `prompt` asks for, where the options say nothing else; `digest` is the checkpoint's."""
        seed = options.seed if prompt.seed is None else prompt.seed
        frames = options.new_video_length if prompt.new_video_length is None else prompt.new_video_length
        name = prompt.experiment or options.experiment
        comment = f"{prompt.text[:COMMENT_LENGTH]} | seed {seed} | mode {options.mode}"
        return cls(
            prompt=prompt,
            seed=seed,
            frames=frames,
            root=options.results_root,
            name=name,
            settings=_settings(prompt, options, seed=seed, digest=digest),
            comment=comment,
        )

    @property
    def folder(self) -> Path:
        return self.root / self.prompt.folder / self.name

    @property
    def base_clips(self) -> Path:
        """The folder of the base clips, those of all videos below `root`."""
        return self.root / "latents"

    @property
    def outputs(self) -> list[Path]:
        """What there is when it is complete."""
        files = [f"{self.name}.{suffix}" for suffix in [*self.settings["--formats"], "png"]]
        folders = {"fifo": self.settings["--save_frames"], "queue": self.settings["--save_queue"]}
        return [self.folder / name for name in [*files, *(name for name, wanted in folders.items() if wanted)]]

    def check_places(self) -> None:
        """ValueError if something of it would be written through a link to a place outside of `root`."""
        for place in (self.folder, self.base_clips):
            if not place.resolve().is_relative_to(self.root.resolve()):
                raise ValueError(f"{place} is a link to a place outside of the output folder {self.root}")

    @property
    def state(self) -> Path:
        """Where its state is saved."""
        return self.folder / f"{self.name}.state"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def forget(self) -> None:
        """Makes it a video that was never begun.

        Its old files stay until new ones take their places, but for its frames: they might be taken for the new ones.
        """
        for path in (self.state, self.record, self.folder / "fifo", self.folder / "queue"):
            remove(path)

    def tidy(self) -> None:
        """Removes what processes left that died while they wrote a file. Only for who holds the folder."""
        for path in self.folder.glob(".*.partial*"):
            remove(path)


def _settings(prompt: Prompt, options: Options, *, seed: int, digest: str) -> dict[str, object]:
    model = json.dumps(read_config(options.config)["model"], sort_keys=True, default=str)
    return {
        "--mode": str(options.mode),
        "--seed": seed,
        "the prompt": prompt.text,
        "the picture": prompt.picture and prompt.picture.digest,
        "--image_fit": prompt.picture and options.image_fit,
        "--negative_prompt": options.negative_prompt,
        "--prompt_blend": options.prompt_blend if len(prompt.schedule) > 1 else None,
        "--config (its model)": sha256(model.encode()).hexdigest(),
        "--ckpt_path (its content)": digest,
        "--height": options.height,
        "--width": options.width,
        "--fps": options.fps,
        "--video_length": options.video_length,
        "--num_partitions": options.num_partitions,
        "--eta": options.eta,
        "--unconditional_guidance_scale": options.unconditional_guidance_scale,
        "--lookahead_denoising": options.lookahead_denoising,
        "--qcache_weight": options.qcache_weight if options.mode.qcache else None,
        "--queue_scale": options.queue_scale,
        "--base_spacing": options.base_spacing,
        "--precision": options.precision,
        "--compile": options.compile or None,
        "--output_fps": options.output_fps,
        "--formats": sorted(options.formats),
        "--crf": options.crf if "mp4" in options.formats else None,
        "--save_frames": options.save_frames,
        "--save_queue": options.save_queue,
    }


def videos_of(prompts: Sequence[Prompt], options: Options, *, digest: str) -> list[Video]:
    """The videos of a prompt file. ValueError if they cannot be made with these options."""
    where = f"--prompt_file {str(options.prompt_file)!r}"
    if options.new_video_length is None and len(prompts) > 1:
        raise ValueError(f"--endless makes one video, and {where} has {len(prompts)} prompts for this process")
    for prompt in prompts:
        if options.new_video_length is None and prompt.new_video_length is not None:
            raise ValueError(f"--endless: {where}, line {prompt.line}, says new_video_length {prompt.new_video_length}")
        starts = [start for start, _ in prompt.schedule]
        gap = min((after - before for before, after in pairwise(starts)), default=None)
        if gap is not None and options.prompt_blend > gap:
            raise ValueError(
                f"--prompt_blend {options.prompt_blend}: {where}, line {prompt.line}, has a prompt for {gap} frames"
            )
    return [Video.of(prompt, options, digest=digest) for prompt in prompts]
