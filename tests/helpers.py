"""What the tests share: reference vectors, models of a few thousand weights, and ways to run the command."""

import importlib.util
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import videocrafter_main

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
RED, BLUE = "a red circle moving right on a black background", "a blue star pulsing on a pink background"


def golden(name: str) -> dict[str, Tensor]:
    """Return a file of reference vectors as tensors; scalars are tensors without axes, texts stay NumPy arrays."""
    with np.load(DATA / "golden" / name) as file:
        return {key: torch.from_numpy(value) if value.dtype.kind != "U" else value for key, value in file.items()}


def golden_json(name: str) -> dict:
    return json.loads((DATA / "golden" / name).read_text())


def with_golden_weights(module: nn.Module, prefix: str) -> nn.Module:
    """Give `module` the weights of the reference vectors: a function of each parameter's full name (REFERENCE 7)."""
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
    """Assert that max |ours - theirs| <= tolerance * max |theirs|."""
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max().item() / theirs.abs().max().item()
    assert difference <= tolerance, f"{name}: off by {difference:.2e} of the largest value, not {tolerance:.0e}"


def command(*arguments: str | Path) -> int:
    """Run the command in this process, from the repository's root; return its exit status."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return videocrafter_main.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code
    finally:
        os.chdir(before)


def load_script(name: str) -> ModuleType:
    """Import scripts/`name`.py as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prompt_file(folder: Path, *prompts: str, name: str = "prompts.txt") -> Path:
    """Write `prompts`, one a line, to a file in `folder`."""
    path = folder / name
    path.write_text("\n".join(prompts), encoding="utf-8")
    return path


def one(folder: Path, pattern: str) -> Path:
    """Return the only path below `folder` that matches."""
    (found,) = folder.glob(pattern)
    return found


def result_or_sentence(call: Callable[[], Any], *, flag: str) -> Any:
    """Return what `call` returns, or None if it raises a ValueError of one line that names `flag`, as it may."""
    try:
        return call()
    except ValueError as error:
        message = str(error)
    assert flag in message
    assert "\n" not in message
    return None
