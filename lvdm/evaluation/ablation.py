"""An ablation: a baseline and experiments that differ from it in some flags, all with the same prompts and seeds.

It is described in a YAML file, all of which is checked before the first video is begun:

    prompt_file: prompts/held_out_shapes.txt    the same as --prompt_file of videocrafter_main.py
    count: 32                                   how many of its prompts, from the first (default: all)
    seeds: [321]
    frames: 128                                 of each video
    baseline: --config configs/inference_t2v_tiny.yaml --mode t2v
    experiments:                                name: flags of videocrafter_main.py, appended to the baseline's
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
from lvdm.evaluation.instruments import WINDOW
from lvdm.evaluation.sources import Source
from lvdm.io.configs import read_yaml
from lvdm.io.files import file_digest
from lvdm.io.prompt_file import read_prompts
from lvdm.io.prompts import Prompt
from lvdm.pipeline.options import Options
from lvdm.pipeline.settings import ABLATION, settings_of
from lvdm.pipeline.video import Video, videos_of

BASELINE = "baseline"
MODEL = ("--config (its model)", "--ckpt_path (its content)")  # the settings of a video that identify its model
KINDS = {"prompt_file": str, "count": int, "seeds": list, "frames": int, "baseline": str, "experiments": dict}
OPTIONAL = {"count"}
RESERVED = {  # flags that the ablation sets itself, by other keys of its file or flags of its command
    flag
    for name, setting in settings_of(Options).items()
    if ABLATION in setting.set_by
    for flag in (f"--{name}", setting.short)
    if flag
}


@dataclass(frozen=True)
class Ablation:
    """The content of an ablation's file.

    Args:
        count: how many prompts; None for all.
        experiments: the words of each experiment's flags, including the baseline's; the baseline is the first.
    """

    path: Path
    prompt_file: str
    count: int | None
    seeds: tuple[int, ...]
    frames: int
    experiments: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Trial:
    """One video of an ablation.

    Args:
        options: with these, a run of videocrafter_main.py makes this video and no other.
        pair: equal for the videos of two experiments that have the same prompt and seed.
        encoders: digests of the model whose VAE and CLIP measure the video, which is the baseline's.
    """

    experiment: str
    options: Options
    video: Video
    pair: tuple[int, int]
    encoders: tuple[str, ...]

    @property
    def source(self) -> Source:
        """Return the video's pictures, in which flickering is measured: unlike MP4s and GIFs they are lossless."""
        video = self.video
        path, name = video.folder / "fifo", f"{video.prompt.folder}, seed {video.options.seed}"
        return Source(path, video.options.results_root, self.experiment, name, video.prompt.schedule, self.pair)

    @property
    def identity(self) -> dict[str, Any]:
        """Return everything that the measurement depends on, without paths and dates, which differ between machines."""
        return {
            "version": VERSION,
            "window": WINDOW,
            "encoders": self.encoders,
            "frames": self.video.frames,
            "repetition": self.video.prompt.repetition,
            "settings": self.video.settings,
        }


def read_ablation(path: Path) -> Ablation:
    """Read an ablation from its YAML file.

    Raises:
        FileNotFoundError, ValueError: the message names the file and the key.
    """
    where = str(path)
    content = read_yaml(path, where=where)
    _check(content, where)
    baseline = _split_flags(content["baseline"], f"{where}: {BASELINE}")
    experiments = {
        str(name): (*baseline, *_split_flags(flags, f"{where}: {_key(name)}"))
        for name, flags in content["experiments"].items()
    }
    return Ablation(
        path=path,
        prompt_file=content["prompt_file"],
        count=content.get("count"),
        seeds=tuple(content["seeds"]),
        frames=content["frames"],
        experiments={BASELINE: baseline, **experiments},
    )


def default_output(path: Path) -> Path:
    """Return results/ablation_NAME for an ablation in NAME.yaml or ablation_NAME.yaml."""
    return Path("results") / f"ablation_{path.stem.removeprefix('ablation_')}"


def _check(content: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for keys and values that are not allowed in an ablation's file."""
    if unknown := [key for key in content if key not in KINDS]:
        raise ValueError(f"{where}: the key {unknown[0]!r} is unknown; allowed are {', '.join(KINDS)}")
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
        raise ValueError(f"{where}: seeds is {seeds!r}, expected a list of distinct integers")
    if BASELINE in content["experiments"]:
        raise ValueError(f"{where}: experiments.{BASELINE}: this name is reserved for the key {BASELINE}")


def trials_of(ablation: Ablation, folder: Path, *, rank: int, num_processes: int) -> list[Trial]:
    """Return all videos of an ablation, prompt by prompt, so that an unfinished ablation has pairs to compare.

    Args:
        folder: where the videos go; those of a seed share their base clips there.
        rank, num_processes: this process among those that share the ablation, for the choice of its device.

    Raises:
        ValueError: the flags of an experiment are none that videocrafter_main.py allows; the message names it.
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
            prompts = _read_prompts(options)
            if len(prompts) < (ablation.count or 0):
                raise ValueError(
                    f"count is {ablation.count}, but {ablation.prompt_file} has only {len(prompts)} prompts"
                )
            videos = videos_of(prompts[: ablation.count], options, digest=_digest(options.ckpt_path))
        except (ValueError, OSError) as error:
            raise ValueError(f"{ablation.path}: {_key(name)}: {error}") from error
        if name == BASELINE:  # it comes first
            encoders = tuple(str(videos[0].settings[setting]) for setting in MODEL)
        for place, video in enumerate(videos):
            alone = replace(options, rank=place, num_processes=len(prompts))  # that rank's share is this prompt
            trials.append(Trial(name, alone, video, (place, at), encoders))
    return sorted(trials, key=lambda trial: trial.pair)


def _key(name: str) -> str:
    """Return the key of an experiment in the file."""
    return BASELINE if name == BASELINE else f"experiments.{name}"


def _split_flags(flags: Any, where: str) -> tuple[str, ...]:
    """Split the text of flags into words, as a shell does."""
    if not isinstance(flags, str):
        raise ValueError(f"{where} is {flags!r}, expected flags as on the command line of videocrafter_main.py")
    try:
        words = shlex.split(flags)
    except ValueError as error:
        raise ValueError(f"{where} is {flags!r}, which a shell could not split into words ({error})") from error
    if reserved := [word for word in words if word.partition("=")[0] in RESERVED]:
        raise ValueError(f"{where}: {reserved[0]} is not allowed here, the ablation sets it itself")
    return tuple(words)


def _read_prompts(options: Options) -> list[Prompt]:
    """Read the prompt file, which must not set what the ablation sets."""
    prompts = read_prompts(options.prompt_file, with_pictures=options.mode.from_picture)
    for prompt in prompts:
        if (prompt.seed, prompt.new_video_length, prompt.experiment) != (None, None, None):
            raise ValueError(
                f"{prompt.where}: seed, new_video_length and experiment are set by the ablation and not allowed in "
                "its table"
            )
    return prompts


@cache
def _digest(path: Path) -> str:
    """Return the digest of a checkpoint, computed once for all experiments that use it."""
    try:
        return file_digest(path)
    except OSError as error:
        raise FileNotFoundError(f"--ckpt_path {str(path)!r}: {error.strerror}") from error
