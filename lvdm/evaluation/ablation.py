"""An ablation: a baseline and experiments that differ from it in some flags, all with the same prompts and seeds.

Its YAML file says everything, and all of it is read before the first video is begun:

    prompt_file: prompts/held_out_shapes.txt    as videocrafter_main.py takes it
    count: 32                                   its first prompts (all, if this is left out)
    seeds: [321]
    frames: 128                                 of each video
    baseline: --config configs/inference_t2v_tiny.yaml --mode t2v
    experiments:                                name: flags of videocrafter_main.py, put behind the baseline's
      eta_0: --eta 0
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from lvdm.cli.arguments import parse_args
from lvdm.evaluation.cache import VERSION
from lvdm.evaluation.measure import WINDOW
from lvdm.evaluation.reading import Source
from lvdm.io.configs import read_yaml
from lvdm.io.files import file_digest
from lvdm.io.prompt_file import read_prompts
from lvdm.io.prompts import Prompt
from lvdm.pipeline.options import Options
from lvdm.pipeline.video import Video, videos_of

BASELINE = "baseline"
MODEL = ("--config (its model)", "--ckpt_path (its content)")  # settings of a video
KINDS = {"prompt_file": str, "count": int, "seeds": list, "frames": int, "baseline": str, "experiments": dict}
OPTIONAL = {"count"}
TAKEN = {  # flags that the ablation sets itself, with other keys of its file or other flags of its command
    *("--prompt_file", "-p", "--seed", "--new_video_length", "-l", "--endless", "--experiment", "-ex", "--output_dir"),
    *("--num_processes", "--rank", "--parallel", "--overwrite", "--save_frames"),
}


@dataclass(frozen=True)
class Ablation:
    """What the file says. count: None for all prompts. experiments: the flags of each as words, the baseline first."""

    path: Path
    prompt_file: str
    count: int | None
    seeds: tuple[int, ...]
    frames: int
    experiments: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Trial:
    """One video of an ablation. options: with which a run of videocrafter_main.py makes this video and no other.

    pair: equal for the videos of two experiments that have the same prompt and seed. encoders: digests of the model
    whose VAE and CLIP it is measured with: the baseline's, for all.
    """

    experiment: str
    options: Options
    video: Video
    pair: tuple[int, int]
    encoders: tuple[str, ...]

    @property
    def source(self) -> Source:
        """The video's pictures: unlike MP4s and GIFs they are what the model made, and flicker is measured in them."""
        video = self.video
        path, name = video.folder / "fifo", f"{video.prompt.folder}, seed {video.seed}"
        return Source(path, video.root, self.experiment, name, video.prompt.schedule, self.pair)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that its measurement depends on: no place and no time, so that it holds on other machines, too."""
        return {
            "version": VERSION,
            "window": WINDOW,
            "encoders": self.encoders,
            "frames": self.video.frames,
            "repetition": self.video.prompt.repetition,
            "settings": self.video.settings,
        }


def read_ablation(path: Path) -> Ablation:
    """FileNotFoundError or ValueError, with the file and the key, if it says what is not understood."""
    where = str(path)
    content = read_yaml(path, where=where)
    if unknown := [key for key in content if key not in KINDS]:
        raise ValueError(f"{where}: the key {unknown[0]!r} is not known; allowed are {', '.join(KINDS)}")
    for key, kind in KINDS.items():
        if key not in content and key not in OPTIONAL:
            raise ValueError(f"{where}: the key {key} is missing")
        if key in content and (not isinstance(content[key], kind) or isinstance(content[key], bool)):
            raise ValueError(f"{where}: {key} is {content[key]!r}, expected {kind.__name__}")
    for key in ("count", "frames"):
        if content.get(key, 1) < 1:
            raise ValueError(f"{where}: {key} is {content[key]}, expected at least 1")
    seeds = content["seeds"]
    if not seeds or len(set(map(str, seeds))) < len(seeds) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"{where}: seeds is {seeds!r}, expected a list of different whole numbers")
    if BASELINE in content["experiments"]:
        raise ValueError(f"{where}: experiments.{BASELINE}: this is the name of what `{BASELINE}:` says")
    baseline = _words(content["baseline"], f"{where}: {BASELINE}")
    experiments = {
        str(name): (*baseline, *_words(flags, f"{where}: {_key(name)}"))
        for name, flags in content["experiments"].items()
    }
    return Ablation(
        path=path,
        prompt_file=content["prompt_file"],
        count=content.get("count"),
        seeds=tuple(seeds),
        frames=content["frames"],
        experiments={BASELINE: baseline, **experiments},
    )


def trials_of(ablation: Ablation, folder: Path, *, rank: int, num_processes: int) -> list[Trial]:
    """All videos of an ablation, prompt by prompt, so that one that is not finished has pairs to compare.

    They go below `folder`, where those of a seed share their base clips. rank, num_processes: which of the processes
    that share an ablation this one is, for the choice of its device.

    ValueError, with the file and the experiment, for flags that videocrafter_main.py does not take.
    """
    trials: list[Trial] = []
    encoders: tuple[str, ...] = ()
    for (at, seed), (name, words) in product(enumerate(ablation.seeds), ablation.experiments.items()):
        flags = {
            "--prompt_file": ablation.prompt_file,
            "--seed": seed,
            "--new_video_length": ablation.frames,
            "--experiment": name,
            "--output_dir": folder / f"seed_{seed}",
            "--num_processes": num_processes,
            "--rank": rank,
        }
        own = [str(word) for flag in flags.items() for word in flag]
        try:
            options = parse_args([*words, *own, "--save_frames"])
            prompts = _prompts(options)
            if len(prompts) < (ablation.count or 0):
                raise ValueError(f"count is {ablation.count}, and the prompt file has {len(prompts)} prompts")
            videos = videos_of(prompts[: ablation.count], options, digest=_digest(options.ckpt_path))
        except (ValueError, OSError) as error:
            raise ValueError(f"{ablation.path}: {_key(name)}: {error}") from error
        if name == BASELINE:  # the first
            encoders = tuple(str(videos[0].settings[model]) for model in MODEL)
        for place, video in enumerate(videos):
            alone = replace(options, rank=place, num_processes=len(prompts))  # whose share is this prompt
            trials.append(Trial(name, alone, video, (place, at), encoders))
    return sorted(trials, key=lambda trial: trial.pair)


def _key(name: str) -> str:
    """Where the file says what an experiment is."""
    return BASELINE if name == BASELINE else f"experiments.{name}"


def _words(flags: Any, where: str) -> tuple[str, ...]:
    if not isinstance(flags, str):
        raise ValueError(f"{where} is {flags!r}, expected flags as on the command line of videocrafter_main.py")
    try:
        words = shlex.split(flags)
    except ValueError as error:
        raise ValueError(f"{where} is {flags!r}, which a shell cannot read either ({error})") from error
    if taken := [word for word in words if word.partition("=")[0] in TAKEN]:
        raise ValueError(f"{where}: {taken[0]} is what the ablation sets itself")
    return tuple(words)


def _prompts(options: Options) -> list[Prompt]:
    prompts = read_prompts(options.prompt_file, with_pictures=options.mode.from_picture)
    for prompt in prompts:
        if (prompt.seed, prompt.new_video_length, prompt.experiment) != (None, None, None):
            where = f"--prompt_file {str(options.prompt_file)!r}, line {prompt.line}"
            raise ValueError(f"{where}: seeds, frames and experiments are what the ablation says, not the table")
    return prompts


@cache
def _digest(path: Path) -> str:
    """Of a checkpoint, which many experiments share."""
    try:
        return file_digest(path)
    except OSError as error:
        raise FileNotFoundError(f"--ckpt_path {str(path)!r}: {error.strerror}") from error
