"""Declare everything that a user can set. This is the only place where a setting is described."""

from dataclasses import dataclass
from pathlib import Path

from lvdm.diffusion.schedule import CONSISTENCY, SPACINGS, TRAIN_STEPS
from lvdm.io.images import FITS
from lvdm.io.prompt_file import LONGEST
from lvdm.io.prompts import LARGEST
from lvdm.io.writers.mp4 import CRF
from lvdm.pipeline.derived import DTYPES, RESULTS, Derived
from lvdm.pipeline.mode import MODES, Mode
from lvdm.pipeline.settings import ABLATION, GENERATE, Affects, Range, Setting, declare, falling_timesteps, finite
from lvdm.sampling.plan import PLANS

PRECISIONS = ("auto", *DTYPES)
PARALLEL = ("windows", "prompts")
FORMATS = ("gif", "mp4")
LARGEST_SIDE = 4096  # pixels
HIGHEST_FPS = 1000
QCACHE_WEIGHT = 0.9

# The groups of `--help`.
WHAT = "what to make"
MODEL = "the model"
SAMPLE = "how to sample"
COMPUTE = "where and how to compute"
WRITE = "what to write"

NOTHING, FILES, PIXELS, BASE_CLIP = Affects.NOTHING, Affects.FILES, Affects.PIXELS, Affects.BASE_CLIP
SAMPLING = Affects.SAMPLING
PYTHON, BOTH = (GENERATE,), (GENERATE, ABLATION)


@dataclass(frozen=True)
class Options(Derived):
    """Hold the settings of a run: each field is a flag of the command line.

    Where a default is None or "auto", the mode, the model's config or the machine says it: `resolved` in
    `lvdm.pipeline.resolve` fills it in and checks all values. A mode may be given as text.
    """

    mode: Mode = declare(Mode("t2v"), Setting(f"task and tricks: {MODES}", WHAT, PIXELS, short="-m", identity=str))
    prompt: tuple[str, ...] = declare((), Setting(
        "a prompt, or a schedule of prompts as JSON; give the flag again for each further video", WHAT, NOTHING,
        exclusive="prompts", repeated=True, default_help="those of --prompt_file", set_by=BOTH,
    ))  # fmt: skip
    image: tuple[Path, ...] = declare((), Setting(
        "picture for --prompt (--mode i2v, i2v_ar): one for all prompts, or one for each in order", WHAT, NOTHING,
        repeated=True, default_help="none", set_by=BOTH,
    ))  # fmt: skip
    picture_end: Path | None = declare(None, Setting(
        "picture that a single clip (--plan full) ends with; that of --image makes a loop", WHAT, SAMPLING,
        content="its content", default_help="none",
        applies=lambda options, prompt: options.picture_end is not None,
    ))  # fmt: skip
    prompt_file: Path | None = declare(None, Setting(
        ".txt with a prompt a line (i2v: image;prompt), or .csv with a `prompt` column", WHAT, NOTHING,
        short="-p", exclusive="prompts", from_config=True, set_by=BOTH,
    ))  # fmt: skip
    seed: int = declare(321, Setting("random seed", WHAT, SAMPLING, check=Range(0, LARGEST), set_by=(ABLATION,)))
    new_video_length: int = declare(100, Setting(
        "frames of each video", WHAT, NOTHING, short="-l", exclusive="length",
        check=Range(0, LONGEST, "; --endless has no end"), set_by=BOTH,
    ))  # fmt: skip
    endless: bool = declare(
        False, Setting("make one video that goes on until Ctrl-C", WHAT, NOTHING, exclusive="length", set_by=BOTH)
    )
    negative_prompt: str = declare("", Setting("what guidance leads away from", WHAT, SAMPLING, default_help="nothing"))
    prompt_blend: int = declare(0, Setting(
        "frames to cross-fade between scheduled prompts; 0 switches at once", WHAT, SAMPLING,
        check=Range(0), applies=lambda options, prompt: len(prompt.schedule) > 1,
    ))  # fmt: skip
    continue_from: Path | None = declare(None, Setting(
        "video to go on from; --new_video_length frames are added", WHAT, PIXELS, content="its content",
        default_help="none", applies=lambda options, prompt: options.continue_from is not None,
    ))  # fmt: skip
    keep_source: bool = declare(True, Setting(
        "let the output begin with the frames of --continue_from", WHAT, FILES, negatable=True,
        applies=lambda options, prompt: options.continue_from is not None,
    ))  # fmt: skip
    interpolate: int | None = declare(None, Setting(
        "make N frames of one: N - 1 between every two, and N times the frame rate", WHAT, PIXELS,
        check=Range(2, hint=", the frames that are made of one"), default_help="none",
        applies=lambda options, prompt: options.interpolate is not None,
    ))  # fmt: skip
    height: int | None = declare(
        None, Setting("height in pixels", WHAT, SAMPLING, check=Range(None, LARGEST_SIDE), from_config=True)
    )
    width: int | None = declare(
        None, Setting("width in pixels", WHAT, SAMPLING, check=Range(None, LARGEST_SIDE), from_config=True)
    )
    fps: int | None = declare(None, Setting(
        "frames a second that the model is told; DynamiCrafter 256 is told a stride", WHAT, SAMPLING,
        check=Range(1, HIGHEST_FPS), from_config=True, fallback=8,
    ))  # fmt: skip
    image_fit: str = declare(FITS[0], Setting(
        "what is done to pictures and videos of another shape", WHAT, SAMPLING, choices=FITS,
        applies=lambda options, prompt: prompt.picture is not None or options.continue_from is not None,
    ))  # fmt: skip

    config: Path | None = declare(None, Setting(
        "YAML file of a model", MODEL, SAMPLING, content="its model",
        default_help="the embedded model that can do the --mode",
    ))  # fmt: skip
    ckpt_path: Path | None = declare(
        None, Setting("checkpoint of that model", MODEL, SAMPLING, content="its content", from_config=True)
    )
    base_ckpt_path: Path | None = declare(None, Setting(
        "checkpoint that has what the other one lacks, or that a LoRA is added to", MODEL, SAMPLING,
        content="its content", from_config=True, default_help="none",
        applies=lambda options, prompt: options.base_ckpt_path is not None,
    ))  # fmt: skip

    video_length: int | None = declare(None, Setting(
        "f, frames of a window: even, at most the model's temporal_length", SAMPLE, SAMPLING,
        default_help="the model's temporal_length",
    ))  # fmt: skip
    num_partitions: int = declare(
        4, Setting("n: the queue of --plan fifo or plateau has f*n slots", SAMPLE, SAMPLING, short="-n", check=Range(1))
    )
    num_inference_steps: int | None = declare(
        None,
        Setting("steps of the base clip", SAMPLE, NOTHING, default_help="f*n, or as many as --timesteps; must be that"),
    )
    plan: str | None = declare(None, Setting(
        f"noise levels of the queue, step by step: {PLANS}", SAMPLE, PIXELS, from_config=True,
        fallback="fifo", applies=lambda options, prompt: options.plan != "fifo",
    ))  # fmt: skip
    show_plan: bool = declare(
        False, Setting("print the plan, draw it in the output folder, and make no video", SAMPLE, NOTHING, set_by=BOTH)
    )
    timesteps: tuple[int, ...] | None = declare(None, Setting(
        "timesteps of the noise levels, falling: 999,749,499,249", SAMPLE, SAMPLING, separator=",",
        check=falling_timesteps, from_config=True, default_help="as many as the plan has, evenly from 999 to 0",
        applies=lambda options, prompt: options.timesteps is not None,
    ))  # fmt: skip
    context_level: int | None = declare(None, Setting(
        "timestep of the noise in which the U-Net sees clean frames; a small one may drift less", SAMPLE, PIXELS,
        check=Range(0, TRAIN_STEPS - 1), from_config=True, fallback=0,
        applies=lambda options, prompt: options.context_level > 0,
    ))  # fmt: skip
    eta: float | str | None = declare(None, Setting(
        f"noise added in each step: 0 is DDIM, 1 is DDPM, {CONSISTENCY} is for distilled models", SAMPLE, SAMPLING,
        short="-e", check=Range(0, 1), words=(CONSISTENCY,), from_config=True, fallback=1.0,
    ))  # fmt: skip
    unconditional_guidance_scale: float | None = declare(None, Setting(
        "scale of classifier-free guidance; 1 is none", SAMPLE, SAMPLING, check=finite, from_config=True,
        fallback=12.0,
    ))  # fmt: skip
    guidance_rescale: float | None = declare(None, Setting(
        "share in which guidance leaves contrast as it is without it, from 0 to 1", SAMPLE, SAMPLING,
        check=Range(0, 1), from_config=True, fallback=0.0,
        applies=lambda options, prompt: options.guidance_rescale > 0,
    ))  # fmt: skip
    distilled_guidance: float | None = declare(None, Setting(
        "scale that a U-Net which was distilled without guidance is told (T2V-Turbo)", SAMPLE, SAMPLING,
        check=finite, from_config=True, default_help="none",
        applies=lambda options, prompt: options.distilled_guidance is not None,
    ))  # fmt: skip
    motion_guidance: float | None = declare(None, Setting(
        "scale of motion guidance that such a U-Net is told, too (T2V-Turbo v2)", SAMPLE, SAMPLING,
        check=finite, from_config=True, default_help="none",
        applies=lambda options, prompt: options.motion_guidance is not None,
    ))  # fmt: skip
    motion_share: float | None = declare(None, Setting(
        "share of the timesteps, from the noisy end, at which it is told that", SAMPLE, SAMPLING,
        check=Range(0, 1), from_config=True, fallback=0.5,
        applies=lambda options, prompt: options.motion_guidance is not None,
    ))  # fmt: skip
    lookahead_denoising: bool | None = declare(None, Setting(
        "give each frame f/2 cleaner ones to look at, for twice the work", SAMPLE, PIXELS,
        short="-ld", negatable=True, from_config=True, fallback=True,
    ))  # fmt: skip
    qcache_weight: float | None = declare(None, Setting(
        "share of the encoder's query in a Q-cache, from 0 to 1", SAMPLE, PIXELS, check=Range(0, 1),
        default_help=f"what --mode says, else {QCACHE_WEIGHT}",
        applies=lambda options, prompt: options.mode.qcache is not None,
    ))  # fmt: skip
    queue_scale: bool = declare(False, Setting(
        "honour the model's use_scale in the queue, which the originals do not", SAMPLE, PIXELS, negatable=True,
    ))  # fmt: skip
    base_spacing: str | None = declare(None, Setting(
        "spacing of the base clip's timesteps", SAMPLE, SAMPLING, choices=tuple(SPACINGS), from_config=True,
        fallback="fifo",
    ))  # fmt: skip

    device: str = declare("auto", Setting(
        "auto, cpu, cuda or cuda:N; auto is CUDA where there is one", COMPUTE, BASE_CLIP,
        identity=lambda device: device.partition(":")[0],
    ))  # fmt: skip
    precision: str = declare(
        "auto", Setting("number format of the U-Net; auto is the fastest one", COMPUTE, SAMPLING, choices=PRECISIONS)
    )
    window_batch: int | None = declare(None, Setting(
        "windows in one forward; another number rounds otherwise", COMPUTE, NOTHING, check=Range(1),
        default_help="as many as fit into memory; on a CPU at most 2",
    ))  # fmt: skip
    compile: bool = declare(False, Setting(
        "make kernels for the U-Net with torch.compile: takes a minute first", COMPUTE, PIXELS, negatable=True,
        applies=lambda options, prompt: options.compile,
    ))  # fmt: skip
    offload: bool = declare(False, Setting(
        "keep on the device only the network that computes: less memory, slower", COMPUTE, NOTHING, negatable=True,
    ))  # fmt: skip
    num_processes: int = declare(
        1, Setting("processes that share the prompts", COMPUTE, NOTHING, check=Range(1), set_by=BOTH)
    )
    rank: int = declare(0, Setting("index of this process, from 0 to num_processes - 1", COMPUTE, NOTHING, set_by=BOTH))
    parallel: str = declare(
        "windows", Setting("what the processes of torchrun share", COMPUTE, NOTHING, choices=PARALLEL, set_by=BOTH)
    )

    experiment: str | None = declare(None, Setting(
        "name of the videos and of their folder", WRITE, NOTHING, short="-ex", default_help="the mode", set_by=BOTH,
    ))  # fmt: skip
    output_dir: Path | None = declare(
        None,
        Setting("folder of the results", WRITE, NOTHING, default_help=str(RESULTS), metavar="FOLDER", set_by=BOTH),
    )
    output_fps: int | None = declare(None, Setting(
        "frames a second of the files", WRITE, FILES, check=Range(1, HIGHEST_FPS), from_config=True, fallback=10,
        set_by=PYTHON,
    ))  # fmt: skip
    formats: tuple[str, ...] = declare(("gif",), Setting(
        "kinds of video files", WRITE, FILES, choices=FORMATS, exclusive="formats",
        shorthand=("--use_mp4", ("mp4",)), identity=sorted, set_by=PYTHON,
    ))  # fmt: skip
    crf: int = declare(CRF, Setting(
        "quality of an MP4: 0 (best, large) to 51", WRITE, FILES, check=Range(0, 51),
        applies=lambda options, prompt: "mp4" in options.formats, set_by=PYTHON,
    ))  # fmt: skip
    save_frames: bool = declare(False, Setting("write each frame as a PNG", WRITE, FILES, set_by=BOTH))
    save_queue: bool = declare(
        False, Setting("write each slot of the queue after each pass as a PNG", WRITE, FILES, set_by=PYTHON)
    )
    save_every: int = declare(
        16, Setting("passes from one saved state to the next", WRITE, NOTHING, check=Range(1), set_by=PYTHON)
    )
    overwrite: bool = declare(False, Setting("begin anew what is finished or was stopped", WRITE, NOTHING, set_by=BOTH))
    debug: bool = declare(
        False,
        Setting("show errors with a traceback; write a log file beside each video", WRITE, NOTHING, set_by=PYTHON),
    )

    def __post_init__(self) -> None:
        if isinstance(self.mode, str):
            object.__setattr__(self, "mode", Mode.parse(self.mode))
