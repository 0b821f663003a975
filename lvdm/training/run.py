"""Run one training from its configuration: data, module, trainer, and the finished model."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lvdm.data.journeys.clips import JourneyClips
from lvdm.data.shapes import ShapeClips
from lvdm.data.videos import VideoFolder
from lvdm.io.configs import read_config
from lvdm.models.checkpoint import load_strictly, read_state_dict, save_half
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.models.loading import instantiate_from_config
from lvdm.training.autoencoder import AutoencoderTraining
from lvdm.training.callbacks import RankSeed, SampleSheets, TrainingProgress
from lvdm.training.config import Training, section
from lvdm.training.diffusion import DiffusionTraining
from lvdm.training.distillation import DistillationTraining
from lvdm.training.encoding import encode_clips
from lvdm.training.growth import grown_weights
from lvdm.training.latents import LatentClips, latent_deviation
from lvdm.training.queue_distillation import QueueDistillationTraining
from lvdm.training.trainable import freeze_all_but

ENCODING = 2  # the number of the format of encoded clips; files of another one are not read
AUTOENCODER = "first_stage_model."  # how the names of its weights begin
DATASETS = {"shapes": ShapeClips, "journeys": JourneyClips, "videos": VideoFolder}
Batches = DataLoader | dict[str, DataLoader]
Draw = Callable[[pl.LightningModule], Tensor]  # the sample sheet of a module, (3, H, W) in [-1, 1]
Setup = tuple[pl.LightningModule, Batches, Draw | None]


def train(training: Training) -> Path:
    """Train, from `output`/last.ckpt if there is one, and return the path of the finished model."""
    output = Path(training.output)
    if training.init_from is not None and not Path(training.init_from).is_file():
        raise FileNotFoundError(
            f"--config: init_from is {training.init_from!r}, and there is no such file; train the stage before this one"
        )
    output.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(training.seed)
    model = instantiate_from_config(read_config(training.model_config)["model"])
    if training.init_from is not None:
        start_from(model, training.init_from)
    data = read_dataset(training.data)
    module, batches, draw = SETUPS[training.stage](model, data, training)
    trainer = _build_trainer(training, draw)
    last = output / "last.ckpt"
    trainer.fit(module, batches, ckpt_path=last if last.exists() else None)
    finished = output / "model.ckpt"
    trainer.save_checkpoint(last)  # all processes take part
    if trainer.is_global_zero:
        # A Lightning checkpoint holds the averaged weights, also if the run was already complete before.
        module.load_state_dict(read_state_dict(last))
        save_half(model, finished, prefix=AUTOENCODER if training.stage == "autoencoder" else "")
    return finished


def _build_trainer(training: Training, draw: Draw | None) -> pl.Trainer:
    output = Path(training.output)
    sheets = [] if draw is None else [SampleSheets(draw, folder=output / "samples", every=training.sample_every)]
    return pl.Trainer(
        max_steps=training.optimization.steps,
        accelerator=training.hardware.accelerator,
        devices=training.hardware.devices,
        strategy=training.hardware.strategy,
        precision=training.hardware.precision,
        gradient_clip_val=1.0,
        logger=CSVLogger(output, name="log"),
        log_every_n_steps=min(20, training.optimization.steps),
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[
            EMAWeightAveraging(decay=training.ema_decay, use_buffers=False),
            ModelCheckpoint(output, save_last=True, every_n_train_steps=training.save_every),
            RankSeed(training.seed),
            TrainingProgress(),
            *sheets,
        ],
    )


def start_from(model: LatentDiffusion, path: str) -> None:
    """Load the weights of a checkpoint: of a whole model, of one without an image encoder, or of an autoencoder alone.

    Where the image encoder is missing, it keeps its weights, and the attention to image tokens starts with the keys and
    values of the attention to text tokens. An autoencoder may lack the finest level of the model's.
    """
    state = {name: value.float() for name, value in read_state_dict(path).items()}
    if all(name.startswith(AUTOENCODER) for name in state):
        own = model.state_dict()
        levels = len(model.first_stage_model.decoder.up)
        has_finest = f"{AUTOENCODER}decoder.up.{levels - 1}.block.0.conv1.weight" in state
        state = own | state if has_finest else grown_weights(state, own)
    elif model.takes_pictures:
        parts = ("embedder.", "image_proj_model.")
        fresh = {name: value for name, value in model.state_dict().items() if name.startswith(parts)}
        of_text = {name: state[name.replace("_ip.", ".")] for name in model.state_dict() if "_ip." in name}
        state = fresh | of_text | state
    load_strictly(model, state)


def read_dataset(data: Mapping) -> Dataset:
    """Return the data set of a training configuration's `data` section."""
    where = f"--config: data of kind {data['kind']!r}"
    try:
        values = {name: value for name, value in data.items() if name != "kind"}
        return section(DATASETS[data["kind"]], values, key=where)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def set_up_autoencoder(model: LatentDiffusion, data: Dataset, training: Training) -> Setup:
    """Return the module, its batches and its sample sheet for the training of the first stage."""
    module = AutoencoderTraining(
        model.first_stage_model, optimization=training.optimization, loss=training.reconstruction
    )
    shown = torch.stack([data[index]["video"] for index in range(min(8, len(data)))])
    return module, batches_of(data, training.frames, training), lambda module: module.sample_sheet(shown)


def set_up_diffusion(model: LatentDiffusion, data: Dataset, training: Training) -> Setup:
    """Return the module, its batches and its sample sheet for the training of the U-Net."""
    encoded = encoded_data(model, data, training)
    print(f"standard deviation of the latents: {latent_deviation(encoded):.4f} (scale_factor should make it 1)")
    module = DiffusionTraining(model, optimization=training.optimization, objective=training.objective)
    freeze_all_but(model, training.trainable)
    sizes = {"clips": training.clips, "frames": training.frames}
    batches = {name: batches_of(encoded, size, training) for name, size in sizes.items() if size}
    channels, _, height, width = encoded.latents.shape[1:]
    shape = (channels, encoded.length if training.clips else 1, height, width)
    captions, pictures = training.sample_captions, None
    if model.takes_pictures or not captions:
        shown = [encoded[index] for index in range(min(6, len(encoded)))]
        captions = [item["caption"] for item in shown]
        pictures = torch.stack([item["pictures"][0] for item in shown]) if model.takes_pictures else None
    return module, batches, lambda module: module.sample_sheet(captions, shape, pictures=pictures)


def set_up_distillation(model: LatentDiffusion, data: Dataset, training: Training) -> Setup:
    """Return the module and its batches, without a sample sheet, for the training of the image encoder."""
    if not model.takes_pictures:
        raise ValueError(
            "--config: stage 'distillation' needs a model with an image encoder, and that of model_config "
            f"{training.model_config!r} has none"
        )
    module = DistillationTraining(model, optimization=training.optimization)
    return module, batches_of(data, training.frames, training), None


def set_up_queue_distillation(model: LatentDiffusion, data: Dataset, training: Training) -> Setup:
    """Return the module, its batches and its sample sheet for a student of few noise levels."""
    encoded, window = encoded_data(model, data, training), training.queue.window
    if encoded.length != window:
        raise ValueError(
            f"--config: window is {encoded.length}, expected {window}, as queue has {len(training.queue.timesteps)} "
            f"timesteps with {training.queue.width} frames each"
        )
    module = QueueDistillationTraining(model, optimization=training.optimization, objective=training.queue)
    channels, _, height, width = encoded.latents.shape[1:]
    shown = [encoded[index] for index in range(min(6, len(encoded)))]
    captions = [item["caption"] for item in shown]
    pictures = torch.stack([item["pictures"][0] for item in shown]) if model.takes_pictures else None
    shape = (channels, window, height, width)
    return (
        module,
        batches_of(encoded, training.clips, training),
        lambda module: module.sample_sheet(captions, shape, pictures=pictures),
    )


SETUPS = {
    "autoencoder": set_up_autoencoder,
    "diffusion": set_up_diffusion,
    "distillation": set_up_distillation,
    "queue_distillation": set_up_queue_distillation,
}


def encoded_data(model: LatentDiffusion, data: Dataset, training: Training) -> LatentClips:
    """Return stretches of the data encoded by the autoencoder.

    The encoded clips are kept in a folder beside `output`, for later stages and resumed runs.

    Raises:
        ValueError: the config's window has more frames than the clips, or none.
    """
    if training.window is not None and not 1 <= training.window <= data.frames:
        raise ValueError(f"--config: window is {training.window}, expected 1 to {data.frames}, the frames of a clip")
    kind = (ENCODING, sorted(training.data.items()), model.scale_factor, model.takes_pictures)
    digest = hashlib.sha256(repr(kind).encode())
    for tensor in model.first_stage_model.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    folder = Path(training.output).parent / f"latents_{digest.hexdigest()[:16]}"
    encoded = encode_clips(model, data, folder, workers=training.hardware.devices - 1)
    return replace(encoded, window=training.window)


def batches_of(data: Dataset, size: int, training: Training) -> DataLoader:
    """Return batches of `size` items over all devices together; raise ValueError if there are fewer items."""
    if len(data) < size:
        raise ValueError(f"a step needs {size} items (clips or frames in --config), but the data set has {len(data)}")
    return DataLoader(data, batch_size=max(1, size // training.hardware.devices), shuffle=True, drop_last=True)
