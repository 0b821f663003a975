"""One training run from a configuration: data, module, trainer, and the model that comes out of it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from imageio.v3 import imwrite
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lvdm.data.latents import LatentClips, encode_clips, latent_deviation
from lvdm.data.shapes import ShapeClips
from lvdm.data.videos import VideoFolder
from lvdm.io.configs import read_config
from lvdm.io.files import whole_file
from lvdm.io.images import to_uint8
from lvdm.models.checkpoint import load_strictly, read_state_dict, save_half
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.models.loading import instantiate_from_config
from lvdm.training.autoencoder import AutoencoderTraining, ReconstructionLoss
from lvdm.training.diffusion import DiffusionTraining, Objective
from lvdm.training.distillation import DistillationTraining
from lvdm.training.optimization import Optimization

DATASETS = {"shapes": ShapeClips, "videos": VideoFolder}


@dataclass(frozen=True)
class Hardware:
    """Where and how to compute, in Lightning's words. Several devices (on a CPU: processes) share every batch."""

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "bf16-mixed"

    @property
    def strategy(self) -> str:
        # Some weights never get a gradient: the text tower's last layer, temporal layers while frames are trained.
        return "ddp_find_unused_parameters_true" if self.devices > 1 else "auto"


@dataclass(frozen=True)
class Training:
    """A `configs/train/<model>/<stage>.yaml`, key by key.

    `model_config` names the inference YAML whose model is trained, `stage` is "autoencoder", "diffusion" or
    "distillation" (the encoder of pictures), `init_from` a checkpoint to start from (none: random weights). `data` is
    {"kind": "shapes" or "videos", ...}. A step sees a batch of `clips` and a batch of `frames`, either may be 0; only
    diffusion sees clips. What comes out is `output`/model.ckpt: the averaged weights in half precision. Sample sheets
    show `sample_captions`, or the first items of the data if there are none or the model takes pictures.
    """

    model_config: str
    stage: str
    output: str
    data: dict
    optimization: Optimization
    init_from: str | None = None
    clips: int = 0
    frames: int = 0
    reconstruction: ReconstructionLoss = field(default_factory=ReconstructionLoss)
    objective: Objective = field(default_factory=Objective)
    hardware: Hardware = field(default_factory=Hardware)
    ema_decay: float = 0.999
    seed: int = 0
    save_every: int = 250
    sample_every: int = 1000
    sample_captions: list[str] = field(default_factory=list)

    def __post_init__(self):
        if self.stage not in STAGES:
            raise ValueError(f"stage is {self.stage!r}, allowed are {', '.join(STAGES)}")
        kind = self.data.get("kind") if isinstance(self.data, dict) else None
        if kind not in DATASETS:
            raise ValueError(f"data.kind is {kind!r}, allowed are {', '.join(DATASETS)}")
        if self.frames <= 0 and (self.clips <= 0 or self.stage != "diffusion"):
            raise ValueError(f"clips is {self.clips} and frames {self.frames}: a step would see nothing")

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Training":
        """Read a training configuration; unknown keys are a ValueError that names them."""
        values = dict(read_config(path))
        sections = {
            "optimization": Optimization,
            "reconstruction": ReconstructionLoss,
            "objective": Objective,
            "hardware": Hardware,
        }
        try:
            for name, section in sections.items():
                if name in values:
                    values[name] = section(**values[name])
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"--config {path}: {error}") from error


class Sheets(Callback):
    """Writes the picture that `draw` makes of the module, every so many steps."""

    def __init__(self, draw: Callable[[pl.LightningModule], Tensor], *, folder: Path, every: int):
        self.draw = draw
        self.folder = folder
        self.every = every

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        if not trainer.is_global_zero or trainer.global_step % self.every:
            return
        module.eval()
        sheet = self.draw(module)
        module.train()
        self.folder.mkdir(parents=True, exist_ok=True)
        imwrite(self.folder / f"{trainer.global_step:06d}.png", to_uint8(sheet))


class RankSeed(Callback):
    """Every process draws its own noise, and a resumed run draws new noise."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        torch.manual_seed(self.seed + 100_003 * trainer.global_rank + trainer.global_step)


def train(training: Training) -> Path:
    """Train, going on from `output`/last.ckpt if there is one; returns the path of the finished model."""
    output = Path(training.output)
    output.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(training.seed)
    model = instantiate_from_config(read_config(training.model_config)["model"])
    if training.init_from is not None:
        start_from(model, training.init_from)
    data = read_dataset(training.data)
    module, batches, draw = STAGES[training.stage](model, data, training)
    trainer = pl.Trainer(
        max_steps=training.optimization.steps,
        accelerator=training.hardware.accelerator,
        devices=training.hardware.devices,
        strategy=training.hardware.strategy,
        precision=training.hardware.precision,
        gradient_clip_val=1.0,
        logger=CSVLogger(output, name="log"),
        log_every_n_steps=min(20, training.optimization.steps),
        enable_model_summary=False,
        callbacks=[
            EMAWeightAveraging(decay=training.ema_decay, use_buffers=False),
            ModelCheckpoint(output, save_last=True, every_n_train_steps=training.save_every),
            RankSeed(training.seed),
            *([] if draw is None else [Sheets(draw, folder=output / "samples", every=training.sample_every)]),
        ],
    )
    last = output / "last.ckpt"
    trainer.fit(module, batches, ckpt_path=last if last.exists() else None)
    finished = output / "model.ckpt"
    trainer.save_checkpoint(last)  # all processes take part
    if trainer.is_global_zero:
        # The weights in a Lightning checkpoint are the averaged ones, also those of a run that was complete before.
        module.load_state_dict(read_state_dict(last))
        save_half(model, finished)
    return finished


def start_from(model: LatentDiffusion, path: str) -> None:
    """Take over the weights of a checkpoint. What only pictures need may be missing in it.

    Then the encoder of pictures stays as it is, and image tokens begin with the keys and values of text tokens.
    """
    state = {name: value.float() for name, value in read_state_dict(path).items()}
    if model.takes_pictures:
        parts = ("embedder.", "image_proj_model.")
        fresh = {name: value for name, value in model.state_dict().items() if name.startswith(parts)}
        of_text = {name: state[name.replace("_ip.", ".")] for name in model.state_dict() if "_ip." in name}
        state = fresh | of_text | state
    load_strictly(model, state)


def read_dataset(data: Mapping) -> Dataset:
    """The data set of a training config's `data` section."""
    try:
        return DATASETS[data["kind"]](**{key: value for key, value in data.items() if key != "kind"})
    except TypeError as error:
        raise ValueError(f"data of kind {data['kind']!r}: {error}") from error


def autoencoder_stage(model: LatentDiffusion, data: Dataset, training: Training) -> tuple:
    module = AutoencoderTraining(
        model.first_stage_model, optimization=training.optimization, loss=training.reconstruction
    )
    shown = torch.stack([data[index]["video"] for index in range(min(8, len(data)))])
    return module, batches_of(data, training.frames, training), lambda module: module.sample_sheet(shown)


def diffusion_stage(model: LatentDiffusion, data: Dataset, training: Training) -> tuple:
    encoded = encoded_data(model, data, training)
    print(f"standard deviation of the latents: {latent_deviation(encoded):.4f} (scale_factor brings it to 1)")
    module = DiffusionTraining(model, optimization=training.optimization, objective=training.objective)
    sizes = {"clips": training.clips, "frames": training.frames}
    batches = {name: batches_of(encoded, size, training) for name, size in sizes.items() if size}
    shape = (
        encoded.latents.shape[1:] if training.clips else (*encoded.latents.shape[1:2], 1, *encoded.latents.shape[3:])
    )
    captions, pictures = training.sample_captions, None
    if model.takes_pictures or not captions:
        shown = [encoded[index] for index in range(min(6, len(encoded)))]
        captions = [item["caption"] for item in shown]
        pictures = torch.stack([item["pictures"][0] for item in shown]) if model.takes_pictures else None
    return module, batches, lambda module: module.sample_sheet(captions, shape, pictures=pictures)


def distillation_stage(model: LatentDiffusion, data: Dataset, training: Training) -> tuple:
    if not model.takes_pictures:
        raise ValueError(f"stage 'distillation' trains the encoder of pictures, which {training.model_config} has not")
    module = DistillationTraining(model, optimization=training.optimization)
    return module, batches_of(data, training.frames, training), None


STAGES = {"autoencoder": autoencoder_stage, "diffusion": diffusion_stage, "distillation": distillation_stage}


def encoded_data(model: LatentDiffusion, data: Dataset, training: Training) -> LatentClips:
    """The data through the autoencoder; kept beside the output, for later stages and for resumed runs."""
    kind = (sorted(training.data.items()), model.scale_factor, *(["pictures"] if model.takes_pictures else []))
    digest = hashlib.sha256(repr(kind).encode())
    for tensor in model.first_stage_model.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    cache = Path(training.output).parent / f"latents_{digest.hexdigest()[:16]}.pt"
    if not cache.exists():
        with whole_file(cache) as partial:
            torch.save(vars(encode_clips(model, data)), partial)
    return LatentClips(**torch.load(cache, weights_only=True))


def batches_of(data: Dataset, size: int, training: Training) -> DataLoader:
    """Batches of `size` items over all devices together; ValueError if there are fewer items."""
    if len(data) < size:
        raise ValueError(f"a step takes {size} items (clips or frames in --config), but the data set has {len(data)}")
    return DataLoader(data, batch_size=max(1, size // training.hardware.devices), shuffle=True, drop_last=True)
