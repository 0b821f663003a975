"""Everything the command line and the model's config say, checked once, before any weights are read."""

import argparse
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lvdm.cli.command import Parser
from lvdm.diffusion.schedule import SPACINGS, TRAIN_STEPS
from lvdm.io.configs import read_config
from lvdm.io.images import FITS
from lvdm.io.prompt_file import LONGEST
from lvdm.io.prompts import LARGEST, safe_experiment
from lvdm.io.writers.mp4 import CRF
from lvdm.pipeline.mode import Mode
from lvdm.runtime.cpu import has_bf16_units
from lvdm.runtime.distributed import global_rank, local_rank, local_world_size, world_size
from lvdm.runtime.errors import one_line

RESULTS = Path("results/videocraft_v2_fifo/random_noise")
PARALLEL = ("windows", "prompts")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("auto", *DTYPES)
FORMATS = ("gif", "mp4")
MAX_SIDE = 4096  # pixels
FASTEST = 1000  # frames a second
EMBEDDED = Path("configs/inference_t2v_tiny.yaml")
EMBEDDED_WITH_PICTURES = Path("configs/inference_i2v_tiny.yaml")

INFERENCE_DEFAULTS = {"fps": 8, "output_fps": 10, "unconditional_guidance_scale": 12.0}  # where a config says nothing
INFERENCE_TYPES = {
    "ckpt_path": str,
    "prompt_file": str,
    "height": int,
    "width": int,
    "fps": int,
    "output_fps": int,
    "unconditional_guidance_scale": float,
}


@dataclass(frozen=True)
class Options:
    """What one run does. Made by `parse_args`, which resolves and checks every value."""

    # what to make
    mode: Mode
    prompt_file: Path
    seed: int
    new_video_length: int | None  # frames; None: without end
    negative_prompt: str  # guidance leads away from it
    prompt_blend: int  # frames in which a prompt of a schedule takes the place of the one before
    height: int  # pixels
    width: int  # pixels
    fps: int  # that the model is told
    image_fit: str  # one of FITS; only i2v reads pictures
    # the model
    config: Path
    ckpt_path: Path
    # how to sample
    video_length: int  # f, the frames of a window and of the base clip
    num_partitions: int  # n
    eta: float
    unconditional_guidance_scale: float
    lookahead_denoising: bool
    qcache_weight: float
    queue_scale: bool
    base_spacing: str
    # where and how to compute
    device: str
    precision: str
    window_batch: int | None  # windows in one forward; None: as many as fit
    compile: bool
    offload: bool
    num_processes: int
    rank: int
    parallel: str  # what torchrun's processes share: one of PARALLEL
    # what to write
    experiment: str
    output_dir: Path | None
    output_fps: int
    formats: tuple[str, ...]
    crf: int  # of an MP4
    save_frames: bool
    save_queue: bool
    save_every: int  # passes
    overwrite: bool
    debug: bool

    @property
    def steps(self) -> int:
        """Denoising steps: one for every slot of the queue."""
        return self.video_length * self.num_partitions

    @property
    def rows(self) -> int | None:
        """What `window_batch` is in rows of a batch: guidance makes two of a window, a scale of 1 one."""
        return self.window_batch and self.window_batch * (1 if self.unconditional_guidance_scale == 1 else 2)

    @property
    def offloaded(self) -> tuple[str, ...]:
        """The parts of the model that are on the device only while they compute; encoders do so once a video.

        The encoder of pictures does so for every frame if each becomes the picture of those that follow.
        """
        pictures = ("embedder", "image_proj_model")
        if self.offload:
            return ("model", "first_stage_model", "cond_stage_model", *pictures)
        return ("cond_stage_model",) if self.mode.reseeded else ("cond_stage_model", *pictures)

    @property
    def results_root(self) -> Path:
        return RESULTS if self.output_dir is None else self.output_dir


def parse_args(argv: Sequence[str]) -> Options:
    """argv: the words behind the program's name.

    Words that cannot be read, and values that do not fit each other, the model or the machine, raise ValueError or
    FileNotFoundError with one line that names the flag and value.
    """
    args = _parser().parse_args(argv)
    mode = Mode.parse(args.mode)
    if args.config is None:
        args.config = EMBEDDED_WITH_PICTURES if mode.needs_image else EMBEDDED
    model = _read_model(args.config)
    for key, value in model.defaults.items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    if args.parallel == "prompts" and world_size() > 1:
        if args.num_processes > 1:
            raise ValueError(f"--num_processes {args.num_processes}: with torchrun and --parallel prompts it is known")
        args.num_processes, args.rank = world_size(), global_rank()
    _check_counts(args)
    _check_model(args, mode, model)
    _check_numbers(args)
    device = device_named(
        args.device,
        rank=local_rank() if world_size() > 1 else args.rank,
        sharing=local_world_size() if args.parallel == "windows" else 1,
    )
    return Options(
        mode=mode,
        prompt_file=Path(_needed(args, "prompt_file")),
        seed=args.seed,
        new_video_length=None if args.endless else args.new_video_length,
        negative_prompt=args.negative_prompt,
        prompt_blend=args.prompt_blend,
        height=args.height,
        width=args.width,
        fps=args.fps,
        image_fit=_image_fit(args, mode),
        config=args.config,
        ckpt_path=Path(_needed(args, "ckpt_path")),
        video_length=args.video_length,
        num_partitions=args.num_partitions,
        eta=args.eta,
        unconditional_guidance_scale=args.unconditional_guidance_scale,
        lookahead_denoising=args.lookahead_denoising,
        qcache_weight=_qcache_weight(args, mode),
        queue_scale=args.queue_scale,
        base_spacing=args.base_spacing,
        device=device,
        precision=_precision(args.precision, device),
        window_batch=args.window_batch,
        compile=args.compile,
        offload=args.offload,
        num_processes=args.num_processes,
        rank=args.rank,
        parallel=args.parallel,
        experiment=safe_experiment(str(mode) if args.experiment is None else args.experiment),
        output_dir=args.output_dir,
        output_fps=args.output_fps,
        formats=tuple(dict.fromkeys(args.formats)),
        crf=args.crf,
        save_frames=args.save_frames,
        save_queue=args.save_queue,
        save_every=args.save_every,
        overwrite=args.overwrite,
        debug=args.debug,
    )


def check_writable(folder: Path) -> None:
    """Creates `folder`, so that nothing is sampled for a place that takes no files; else ValueError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise ValueError(f"--output_dir {str(folder)!r}: cannot be written ({one_line(error)})") from None


def _parser() -> Parser:
    parser = Parser(
        "Videos without end from a text-to-video diffusion model, by FIFO-Diffusion.",
        epilog="Flags without a default here take it from the config's `inference:` section.",
    )
    switch = argparse.BooleanOptionalAction

    group = parser.add_argument_group("what to make")
    group.add_argument("--mode", "-m", default="t2v", help="e.g. t2v_TTqcache_attn1_weighted90_unilatent (default t2v)")
    group.add_argument(
        "--prompt_file", "-p", help=".txt with a prompt (i2v: image;prompt) a line, or .csv with a `prompt` column"
    )
    group.add_argument("--seed", type=int, default=321, help="default 321")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--new_video_length", "-l", type=int, default=100, help="frames of each video (default 100)")
    length.add_argument("--endless", action="store_true", help="one video that goes on until Ctrl-C")
    group.add_argument("--negative_prompt", default="", help="what guidance leads away from (default: nothing)")
    group.add_argument(
        "--prompt_blend", type=int, default=0, help="frames in which prompts of a schedule change (default 0: at once)"
    )
    group.add_argument("--height", type=int, help="pixels")
    group.add_argument("--width", type=int, help="pixels")
    group.add_argument("--fps", type=int, help="frame rate that the model is told")
    group.add_argument("--image_fit", choices=FITS, help="pictures of another aspect ratio (i2v; default crop)")

    group = parser.add_argument_group("the model")
    group.add_argument("--config", type=Path, help="YAML file (default: the embedded model that can do the --mode)")
    group.add_argument("--ckpt_path", help="checkpoint of the config's model")

    group = parser.add_argument_group("how to sample")
    group.add_argument("--video_length", type=int, help="f, frames of a window (default: the model's temporal_length)")
    group.add_argument("--num_partitions", "-n", type=int, default=4, help="n, windows in the queue (default 4)")
    group.add_argument("--num_inference_steps", type=int, help="must be f*n, which it is when left out")
    group.add_argument("--eta", "-e", type=float, default=1.0, help="0 is DDIM, 1 is DDPM (default 1)")
    group.add_argument("--unconditional_guidance_scale", type=float, help="of classifier-free guidance")
    group.add_argument("--lookahead_denoising", "-ld", action=switch, default=True, help="on by default")
    group.add_argument("--qcache_weight", type=float, help="share of the encoder's query, 0 to 1 (default 0.9)")
    group.add_argument("--queue_scale", action=switch, default=False, help="honour the model's use_scale in the queue")
    group.add_argument("--base_spacing", choices=SPACINGS, default="fifo", help="timesteps of the base clip")

    group = parser.add_argument_group("where and how to compute")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto: CUDA, if any)")
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help="default auto")
    group.add_argument(
        "--window_batch", type=int, help="windows in one forward (default: as many as fit into memory; on a CPU 2)"
    )
    group.add_argument("--compile", action=switch, default=False, help="the U-Net, for the queue; takes a minute first")
    group.add_argument(
        "--offload",
        action=switch,
        default=False,
        help="keep on the device only the network that computes: for little memory; slower",
    )
    group.add_argument("--num_processes", type=int, default=1, help="processes that share the prompt file (default 1)")
    group.add_argument("--rank", type=int, default=0, help="which of them this one is, from 0 (default 0)")

    group.add_argument(
        "--parallel", choices=PARALLEL, default="windows", help="what the processes of torchrun share (default windows)"
    )

    group = parser.add_argument_group("what to write")
    group.add_argument("--experiment", "-ex", help="name of the videos (default: the mode)")
    group.add_argument("--output_dir", type=Path, help=f"default {RESULTS}")
    group.add_argument("--output_fps", type=int, help="frame rate of the files")
    formats = group.add_mutually_exclusive_group()
    formats.add_argument("--formats", nargs="+", choices=FORMATS, default=["gif"], help="default gif")
    formats.add_argument("--use_mp4", dest="formats", action="store_const", const=["mp4"], help="= --formats mp4")
    group.add_argument("--crf", type=int, default=CRF, help=f"of an MP4: 0 (best, large) to 51 (default {CRF})")
    group.add_argument("--save_frames", action="store_true", help="a PNG a frame")
    group.add_argument("--save_queue", action="store_true", help="a PNG a pass and slot of the queue")
    group.add_argument(
        "--save_every", type=int, default=16, help="passes from one saved state to the next (default 16)"
    )
    group.add_argument("--overwrite", action="store_true", help="begin anew what is finished or was stopped")
    group.add_argument("--debug", action="store_true", help="errors with a traceback; a log file beside each video")
    return parser


@dataclass(frozen=True)
class _Model:
    """The part of a model's config that the flags depend on."""

    target: str
    temporal_length: int
    size_factor: int  # sides in pixels are multiples of this
    defaults: Mapping[str, str | int | float | None]  # of the flags that depend on the model


def _read_model(path: Path) -> _Model:
    where = f"--config {str(path)!r}"
    config = read_config(path)
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{where}: there is no section `model:`")
    unet = "model.params.unet_config.params"
    ddconfig = "model.params.first_stage_config.params.ddconfig"
    vae_factor = 2 ** (len(_lookup(config, f"{ddconfig}.ch_mult", list, where)) - 1)
    unet_factor = 2 ** (len(_lookup(config, f"{unet}.channel_mult", list, where)) - 1)
    temporal_length = _lookup(config, f"{unet}.temporal_length", int, where)
    return _Model(
        target=_lookup(config, "model.target", str, where),
        temporal_length=temporal_length,
        size_factor=vae_factor * unet_factor,
        defaults={"video_length": temporal_length, **_inference(config, vae_factor, where)},
    )


def _inference(config: Mapping[str, Any], vae_factor: int, where: str) -> dict[str, str | int | float | None]:
    """The `inference:` section, with None for keys that nothing gives a value."""
    section = config.get("inference") or {}
    if not isinstance(section, dict):
        raise ValueError(f"{where}: inference is {section!r}, expected keys among {', '.join(INFERENCE_TYPES)}")
    if unknown := section.keys() - INFERENCE_TYPES.keys():
        unknown = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"{where}: inference has the unknown {unknown}; allowed are {', '.join(INFERENCE_TYPES)}")
    image_size = config["model"]["params"].get("image_size")  # of latents; all that official configs say
    sides = {}
    if isinstance(image_size, list) and list(map(type, image_size)) == [int, int]:
        sides = {"height": vae_factor * image_size[0], "width": vae_factor * image_size[1]}
    kinds = {key: INFERENCE_TYPES[key] for key in section}
    given = {key: kind(_lookup(config, f"inference.{key}", kind, where)) for key, kind in kinds.items()}
    return dict.fromkeys(INFERENCE_TYPES) | INFERENCE_DEFAULTS | sides | given


def _lookup(config: Any, key: str, kind: type, where: str) -> Any:
    """The value at a dotted key, of the type `kind` (an int will do for a float), else ValueError."""
    value = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not fits or value == []:
        raise ValueError(f"{where}: {key} is {value!r}, expected {'a list' if kind is list else kind.__name__}")
    return value


def _check_counts(args: argparse.Namespace) -> None:
    minima = {
        "--num_partitions": args.num_partitions,
        "--new_video_length": args.new_video_length,
        "--num_processes": args.num_processes,
        "--window_batch": args.window_batch,
        "--fps": args.fps,
        "--output_fps": args.output_fps,
        "--save_every": args.save_every,
    }
    for flag, value in minima.items():
        if value is not None and value < 1:
            raise ValueError(f"{flag} {value}: must be at least 1")
    for flag, value in {"--fps": args.fps, "--output_fps": args.output_fps}.items():
        if value is not None and value > FASTEST:
            raise ValueError(f"{flag} {value}: must be at most {FASTEST}")
    if args.new_video_length > LONGEST:
        raise ValueError(f"--new_video_length {args.new_video_length}: must be at most {LONGEST}; or --endless")
    if args.prompt_blend < 0:
        raise ValueError(f"--prompt_blend {args.prompt_blend}: must be at least 0")
    if not 0 <= args.crf <= 51:
        raise ValueError(f"--crf {args.crf}: must be from 0 (best) to 51")
    if not 0 <= args.seed <= LARGEST:
        raise ValueError(f"--seed {args.seed}: must be from 0 to {LARGEST}")
    if args.compile and args.offload:
        raise ValueError("--compile --offload: compiled kernels want the weights in one place; allowed is one of them")
    if not 0 <= args.rank < args.num_processes:
        allowed = f"from 0 to {args.num_processes - 1}"
        raise ValueError(f"--rank {args.rank}: must be {allowed} with --num_processes {args.num_processes}")


def _check_model(args: argparse.Namespace, mode: Mode, model: _Model) -> None:
    if mode.needs_image and not model.target.endswith("LatentVisualDiffusion"):
        raise ValueError(
            f"--mode {args.mode!r}: this model takes no image (the target of --config {str(args.config)!r} is "
            f"{model.target}); allowed with it: t2v, alone or with qcache, weightedNN and unilatent; "
            f"the embedded model that takes images is --config {EMBEDDED_WITH_PICTURES}"
        )
    f, n, steps = args.video_length, args.num_partitions, args.num_inference_steps
    if f % 2 or not 2 <= f <= model.temporal_length:
        raise ValueError(
            f"--video_length {f}: must be even and from 2 to {model.temporal_length}, the model's temporal_length"
        )
    if f * n > TRAIN_STEPS:
        raise ValueError(
            f"--num_partitions {n}: a queue of {f}*{n} = {f * n} noise levels; the model knows {TRAIN_STEPS}"
        )
    if steps is not None and steps != f * n:
        raise ValueError(f"--num_inference_steps {steps}: must be f*n = {f}*{n} = {f * n}, or left out")
    for side in ("height", "width"):
        pixels = _needed(args, side)
        if pixels > MAX_SIDE:
            raise ValueError(f"--{side} {pixels}: must be at most {MAX_SIDE}")
        if pixels < 1 or pixels % model.size_factor:
            below = pixels // model.size_factor * model.size_factor
            nearest = [size for size in (below, below + model.size_factor) if size > 0] or [model.size_factor]
            raise ValueError(
                f"--{side} {pixels}: must be a positive multiple of {model.size_factor} for this model; "
                f"the nearest {'are' if len(nearest) > 1 else 'is'} {' and '.join(map(str, nearest))}"
            )


def _check_numbers(args: argparse.Namespace) -> None:
    if not 0 <= args.eta <= 1:  # also false for NaN
        raise ValueError(f"--eta {args.eta}: must be from 0 to 1")
    if not math.isfinite(args.unconditional_guidance_scale):
        raise ValueError(f"--unconditional_guidance_scale {args.unconditional_guidance_scale}: must be finite")
    if args.negative_prompt and args.unconditional_guidance_scale == 1:
        raise ValueError(
            f"--negative_prompt {args.negative_prompt!r}: without guidance (a scale of 1) it has no effect"
        )


def _needed(args: argparse.Namespace, key: str) -> Any:
    if getattr(args, key) is None:
        raise ValueError(f"--{key} is missing, and --config {str(args.config)!r} has no inference.{key}")
    return getattr(args, key)


def _image_fit(args: argparse.Namespace, mode: Mode) -> str:
    if args.image_fit is not None and not mode.from_picture:
        raise ValueError(f"--image_fit {args.image_fit!r}: only --mode i2v reads pictures, and it is {args.mode!r}")
    return args.image_fit or FITS[0]


def _qcache_weight(args: argparse.Namespace, mode: Mode) -> float:
    given = args.qcache_weight
    if given is not None and not 0 <= given <= 1:
        raise ValueError(f"--qcache_weight {given}: must be from 0 to 1")
    if mode.qcache_weight is None:
        return 0.9 if given is None else given
    if given is not None and not math.isclose(given, mode.qcache_weight):
        raise ValueError(f"--qcache_weight {given}: --mode {args.mode!r} says {mode.qcache_weight}; give one of them")
    return mode.qcache_weight


def device_named(name: str, *, rank: int = 0, sharing: int = 1) -> str:
    """What --device means here. auto, cuda: processes of one machine spread over its CUDA devices.

    sharing: how many of them share the windows of a video, for which NCCL wants a device each.
    """
    if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?", name):
        raise ValueError(f"--device {name!r}: must be auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return "cpu"
    index = name.partition(":")[2]
    if int(index or 0) >= count:
        raise ValueError(f"--device {name!r}: there are {count} CUDA devices here; use auto or cpu")
    if index and sharing > 1:
        raise ValueError(f"--device {name!r} --parallel windows: {sharing} ranks need a device each; use --device cuda")
    if sharing > count:
        raise ValueError(
            f"--parallel windows: {sharing} ranks need a CUDA device each, and there are {count} here; "
            f"start at most {count} (--nproc_per_node), or use --parallel prompts or --device cpu"
        )
    return name if index else f"cuda:{rank % count}"


def _precision(name: str, device: str) -> str:
    if device == "cpu":
        if name == "fp16":
            raise ValueError("--precision 'fp16': not on a CPU (--device cpu); use fp32 or bf16")
        if name == "auto":
            return "bf16" if has_bf16_units() else "fp32"
        return name
    if name == "auto":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return name
