"""Read checkpoints of any published format without running code in them, and load them strictly."""

import pickle
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import omegaconf
import safetensors.torch
import torch
from omegaconf.base import ContainerMetadata, Metadata
from safetensors import SafetensorError
from torch import Tensor, nn

from lvdm.io.files import file_digest, whole_file
from lvdm.models.published import where_to_get

DEEPSPEED_PREFIX = "_forward_module."
UNET = "model.diffusion_model."  # with which the names of a U-Net's tensors begin

# Harmless classes that Lightning checkpoints carry beside the tensors: plain data, read and thrown away.
HARMLESS = [
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.nodes.AnyNode,
    ContainerMetadata,
    Metadata,
    defaultdict,
    dict,
    list,
    int,
    Any,
]


class WrongCheckpointError(ValueError):
    """Say that a file is a checkpoint, but of another model."""


@dataclass(frozen=True)
class Checkpoint:
    """Hold what a file has: tensors by the names of a model's state_dict, or the nameless factors of a LoRA.

    Args:
        tensors: by name; of a model, or of some parts of it.
        factors: up, down, up, down, ... as T2V-Turbo's list has them.
    """

    tensors: Mapping[str, Tensor]
    factors: tuple[Tensor, ...] = ()

    @property
    def parts(self) -> set[str]:
        """The parts of a model that it has something of: "model" (the U-Net), "first_stage_model", "betas", ..."""
        return {part_of(name) for name in self.tensors}

    @property
    def partial(self) -> bool:
        """Whether U-Net, autoencoder or text encoder must come from another file."""
        return not self.parts.issuperset(("model", "first_stage_model", "cond_stage_model"))


def part_of(name: str) -> str:
    """Return the part of a model that a tensor belongs to, by its full name; a table of the schedule is one itself."""
    return name.partition(".")[0]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; errors as of `read_checkpoint`, also for a LoRA."""
    checkpoint = read_checkpoint(path)
    if checkpoint.factors:
        raise ValueError(_no_weights(path, "--ckpt_path"))
    return dict(checkpoint.tensors)


def read_checkpoint(path: str | Path, *, flag: str = "--ckpt_path") -> Checkpoint:
    """Return what a checkpoint file has, memory-mapped where the format allows it.

    Understood are safetensors and PyTorch files holding a bare dict of tensors, {"state_dict": ...}, DeepSpeed's
    {"module": ...} with its prefix, the state_dict of a U-Net alone, and a list of LoRA factors. Names of DynamiCrafter
    that differ from VideoCrafter's are replaced by these. Pickled code is never run.

    flag: how the command line gives the path, for messages.

    Raises:
        FileNotFoundError: there is no such file; the message says where a published one can be had.
        ValueError: the file is truncated, not a checkpoint, or would run code.
    """
    path = Path(path)
    check_is_file(path, flag=flag)
    content = read_safetensors(path, flag=flag) if is_safetensors(path) else read_torch(path, flag=flag)
    for key in ("state_dict", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if isinstance(content, Sequence) and len(content) > 1 and all(isinstance(each, Tensor) for each in content):
        return Checkpoint({}, tuple(content))
    tensors = (
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise ValueError(_no_weights(path, flag))
    return Checkpoint(with_usual_names(tensors))


def with_usual_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names that they have in VideoCrafter's checkpoints."""
    if all(name.startswith(DEEPSPEED_PREFIX) for name in tensors):
        tensors = {name.removeprefix(DEEPSPEED_PREFIX): tensor for name, tensor in tensors.items()}
    if "input_blocks.0.0.weight" in tensors:  # a U-Net alone
        tensors = {f"{UNET}{name}": tensor for name, tensor in tensors.items()}
    return {name.replace(f"{UNET}framestride_embed.", f"{UNET}fps_embedding."): tensors[name] for name in tensors}


def _no_weights(path: str | Path, flag: str) -> str:
    return f"{flag} {str(path)!r}: the file holds no weights (a dict of tensors, maybe under 'state_dict')"


def checkpoint_digest(path: Path, *, flag: str = "--ckpt_path") -> str:
    """Return the SHA-256 of a checkpoint file as hex digits; errors as of `read_checkpoint` if there is none."""
    check_is_file(path, flag=flag)
    return file_digest(path)


def check_is_file(path: Path, *, flag: str = "--ckpt_path") -> None:
    """Raise FileNotFoundError or ValueError, with advice, if there is no checkpoint file at `path`."""
    if path.is_dir():
        raise ValueError(f"{flag} {str(path)!r}: this is a folder; name the file in it")
    if not path.is_file():
        raise FileNotFoundError(f"{flag} {str(path)!r}: there is no such file; {where_to_get(path)}")


def is_safetensors(path: Path) -> bool:
    """Return whether a file is safetensors, by its name or its beginning: a length of 8 bytes, then a JSON object."""
    with open(path, "rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def read_safetensors(path: Path, *, flag: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, memory-mapped; ValueError if it cannot be read."""
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{flag} {str(path)!r}: not a readable safetensors file, or cut short ({error})") from error


def read_torch(path: Path, *, flag: str) -> Any:
    """Return the content of a PyTorch file, on the CPU; ValueError if it is damaged or would run code."""
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on unusual pickles; what cannot be read is an error below
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)  # a file of before torch 1.6
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{flag} {str(path)!r}: refused, because reading the file would run code that comes with it "
                f"({found[1]}); ask for a file in the safetensors format"
            ) from error
        raise ValueError(f"{flag} {str(path)!r}: not a PyTorch checkpoint, or damaged") from error
    except (RuntimeError, EOFError, KeyError, IndexError, AttributeError, TypeError, OSError, ValueError) as error:
        raise ValueError(
            f"{flag} {str(path)!r}: not a PyTorch checkpoint, or cut short ({path.stat().st_size:,} bytes); "
            f"fetch it again"
        ) from error


@dataclass(frozen=True)
class Differences:
    """List how a state_dict differs from what a model expects: names, with both shapes where they disagree.

    other: what differs although names and shapes agree.
    """

    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]
    other: list[str] = field(default_factory=list)

    @classmethod
    def between(cls, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> "Differences":
        """Compare the tensors that a model expects with those that were found, by name and shape."""
        reshaped = [
            f"{name} (file {list(found[name].shape)}, model {list(tensor.shape)})"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ]
        return cls([n for n in expected if n not in found], [n for n in found if n not in expected], reshaped)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped or self.other)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        if self.other:
            kinds["of other values"] = self.other
        return "; ".join(
            f"{len(names)} keys {kind}"
            + (f": {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else "")
            for kind, names in kinds.items()
        )


def load_strictly(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Replace `model`'s tensors by those of `state`, without a copy; WrongCheckpointError unless all fit."""
    differences = Differences.between(model.state_dict(), state)
    if differences:
        raise WrongCheckpointError(str(differences))
    model.load_state_dict(state, assign=True)


def save_half(model: nn.Module, path: str | Path, *, prefix: str = "") -> None:
    """Write `model`'s weights in fp16, buffers in fp32, as {"state_dict": ...}; the file is whole or not there.

    prefix: with which the names of those that are written begin.
    """
    buffers = {name for name, _ in model.named_buffers()}
    state = {
        name: tensor.detach().cpu().to(torch.float32 if name in buffers else torch.float16).clone()
        for name, tensor in model.state_dict().items()
        if name.startswith(prefix)
    }
    with whole_file(Path(path)) as partial:
        torch.save({"state_dict": state}, partial)
