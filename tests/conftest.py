"""What the tests share: the reference vectors and the weights they were made with."""

import json
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Before torch counts the cores: several processes with a thread for every core are slower than one.
    _cores, _number = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, set(_cores[_number % len(_cores) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]))

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
sys.path.insert(0, str(ROOT))
torch.set_num_threads(min(2, torch.get_num_threads()))

import videocrafter_main  # noqa: E402
from lvdm.io.configs import read_config  # noqa: E402
from lvdm.models.checkpoint import save_half  # noqa: E402  (importable from here on)
from lvdm.models.loading import instantiate_from_config  # noqa: E402

RED, BLUE = "a red circle moving right on a black background", "a blue star pulsing on a pink background"


def golden(name: str) -> dict[str, Tensor]:
    """A file of reference vectors as tensors; scalars are tensors without axes, texts stay NumPy arrays."""
    with np.load(DATA / "golden" / name) as file:
        return {key: torch.from_numpy(value) if value.dtype.kind != "U" else value for key, value in file.items()}


def golden_json(name: str) -> dict:
    return json.loads((DATA / "golden" / name).read_text())


def with_golden_weights(module: nn.Module, prefix: str) -> nn.Module:
    """`module` with the weights of the reference vectors: a function of each parameter's full name (REFERENCE 7)."""
    for name, parameter in module.named_parameters():
        generator = np.random.default_rng(zlib.crc32((prefix + name).encode()))
        weight = generator.standard_normal(tuple(parameter.shape))
        if parameter.ndim >= 2:
            weight = weight / np.sqrt(np.prod(parameter.shape[1:]))
        else:
            weight = 0.05 * weight + (1 if name.endswith(".weight") else 0)
        parameter.data = torch.from_numpy(np.asarray(weight, dtype=np.float32))
    return module.eval()


def assert_agrees(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5, name: str = "this") -> None:
    """max |ours - theirs| <= tolerance * max |theirs|."""
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max().item() / theirs.abs().max().item()
    assert difference <= tolerance, f"{name}: off by {difference:.2e} of the largest value, not {tolerance:.0e}"


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def command(*arguments: str | Path) -> int:
    """Run the command in this process, from the repository's root; returns its exit status."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return videocrafter_main.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code
    finally:
        os.chdir(before)


def prompt_file(folder: Path, *prompts: str, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(prompts), encoding="utf-8")
    return path


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.fixture(scope="session")
def visual_model(tmp_path_factory) -> list[str | Path]:
    """Flags of a model that takes pictures, with weights that make every input felt."""
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    config = "configs/inference_i2v_tiny.yaml"
    save_half(with_golden_weights(instantiate_from_config(read_config(ROOT / config)["model"]), ""), path)
    flags = ["--config", config, "--ckpt_path", path, "--precision", "fp32", "--save_frames", "--device", "cpu"]
    return [*flags, "--video_length", "4", "-n", "2"]


def result_or_sentence(call: Callable[[], Any], *, flag: str) -> Any:
    """What `call` returns; None if it raises ValueError with one line that names `flag`, as it may."""
    try:
        return call()
    except ValueError as error:
        message = str(error)
    assert flag in message
    assert "\n" not in message
    return None
