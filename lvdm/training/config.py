"""The configuration of a training run: the YAML files configs/train/<model>/<number>_<stage>.yaml."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from lvdm.io.configs import read_config
from lvdm.runtime.errors import shortened
from lvdm.training.autoencoder import ReconstructionLoss
from lvdm.training.diffusion import Objective
from lvdm.training.levels import LevelShares
from lvdm.training.optimization import Optimization
from lvdm.training.queue_distillation import QueueObjective
from lvdm.training.trainable import Trainable, check_trainable

BATCHES = {  # what each stage trains on
    "autoencoder": ("frames",),
    "diffusion": ("clips", "frames"),
    "distillation": ("frames",),
    "queue_distillation": ("clips",),
}
DATA_KINDS = ("shapes", "journeys", "videos")


@dataclass(frozen=True)
class Hardware:
    """Where and how to compute, in Lightning's words. Several devices (on a CPU: processes) share every batch."""

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "bf16-mixed"

    @property
    def strategy(self) -> str:
        """Return how devices share the training, in Lightning's words."""
        # Some weights never get a gradient: the text tower's last layer, temporal layers while frames are trained.
        return "ddp_find_unused_parameters_true" if self.devices > 1 else "auto"


@dataclass(frozen=True)
class Training:
    """One training run; the fields are the keys of its YAML file.

    Args:
        model_config: the inference YAML of the model to train.
        stage: what is trained: "autoencoder", "diffusion", "distillation" (the image encoder), or "queue_distillation"
            (a student of few noise levels without guidance).
        output: the folder of the run. It gets model.ckpt, the averaged weights in half precision, and last.ckpt, from
            which a stopped run continues.
        data: {"kind": "shapes", "journeys" or "videos", ...}, with the fields of that data set.
        init_from: a checkpoint to start from; None for random weights.
        clips, frames: the sizes of the batch of clips and the batch of frames in one step; BATCHES says which of them a
            stage trains on, and one may be 0.
        trainable: which weights learn: "all", "temporal" (the temporal layers alone), or a list of patterns of their
            names. Other stages than diffusion have a choice of their own.
        queue: what queue_distillation teaches.
        window: frames of the stretches of clips that the U-Net is trained on; None for whole clips.
        ema_decay: decay of the moving average of the weights, per step.
        save_every, sample_every: steps between two checkpoints, and between two sample sheets.
        sample_captions: what sample sheets show; if it is empty, or the model takes images, they show the first items
            of the data.
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
    queue: QueueObjective = field(default_factory=QueueObjective)
    hardware: Hardware = field(default_factory=Hardware)
    trainable: Trainable = "all"
    window: int | None = None
    ema_decay: float = 0.999
    seed: int = 0
    save_every: int = 250
    sample_every: int = 1000
    sample_captions: list[str] = field(default_factory=list)

    def __post_init__(self):
        if self.stage not in BATCHES:
            raise ValueError(f"stage is {self.stage!r}, allowed are {', '.join(BATCHES)}")
        kind = self.data.get("kind") if isinstance(self.data, dict) else None
        if kind not in DATA_KINDS:
            raise ValueError(f"data.kind is {kind!r}, allowed are {', '.join(DATA_KINDS)}")
        batches = BATCHES[self.stage]
        if not any(getattr(self, name) > 0 for name in batches):
            needed = " or ".join(batches)
            raise ValueError(f"clips is {self.clips} and frames is {self.frames}: {needed} must be at least 1")
        check_trainable(self.trainable)
        if self.trainable != "all" and self.stage != "diffusion":
            raise ValueError(f"trainable is {self.trainable!r}, but stage {self.stage!r} has a choice of its own")
        if self.trainable == "temporal" and self.clips <= 0:
            raise ValueError("trainable is 'temporal', but without clips the temporal layers are left out")

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Training":
        """Read a training configuration. Raises ValueError that names an unknown key or a value that is not allowed."""
        sections = {
            "optimization": Optimization,
            "reconstruction": ReconstructionLoss,
            "objective": Objective,
            "queue": QueueObjective,
            "hardware": Hardware,
        }
        values = dict(read_config(path))
        try:
            objective = values.get("objective")
            if isinstance(objective, Mapping) and "shares" in objective:
                shares = section(LevelShares, objective["shares"], key="objective.shares")
                values["objective"] = {**objective, "shares": shares}
            for key in sections.keys() & values.keys():
                values[key] = section(sections[key], values[key], key=key)
            return section(cls, values, key="the file")
        except (TypeError, ValueError) as error:
            raise ValueError(f"--config {str(path)!r}: {error}") from error


def section(kind: type, values: object, *, key: str) -> Any:
    """Return an object of the dataclass `kind` with the fields `values`, which are the section `key` of a config.

    Raises:
        ValueError: `values` are no mapping, one has an unknown name, or one without a default is missing.
    """
    required = {field.name: field.default is MISSING and field.default_factory is MISSING for field in fields(kind)}
    if not isinstance(values, Mapping):
        raise ValueError(f"{key} is {shortened(repr(values))}, expected a mapping with {', '.join(required)}")
    for name in values:
        if name not in required:
            raise ValueError(f"{key} has {name!r}, allowed are {', '.join(required)}")
    if missing := [name for name in required if required[name] and name not in values]:
        raise ValueError(f"{key} lacks {missing[0]!r}")
    return kind(**values)
