"""What the tests share: reference vectors, models of a few thousand weights, and ways to run the command."""

import importlib.util
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from imageio_ffmpeg import get_ffmpeg_exe
from safetensors.torch import save_file
from torch import Tensor, nn

import videocrafter_main
from lvdm.diffusion.noise import KeyedNoise
from lvdm.io.configs import read_config
from lvdm.models.loading import instantiate_from_config

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
RED, BLUE = "a red circle moving right on a black background", "a blue star pulsing on a pink background"


def golden(name: str, folder: str = "golden") -> dict[str, Tensor]:
    """Return a file of reference vectors as tensors; scalars are tensors without axes, texts stay NumPy arrays."""
    with np.load(DATA / folder / name) as file:
        return {key: torch.from_numpy(value) if value.dtype.kind != "U" else value for key, value in file.items()}


def golden_json(name: str, folder: str = "golden") -> dict:
    return json.loads((DATA / folder / name).read_text())


def family(name: str) -> dict[str, Tensor]:
    """Return a file of reference vectors of T2V-Turbo or DynamiCrafter, as `golden` does."""
    return golden(name, "golden_family")


def family_json(name: str) -> dict:
    return golden_json(name, "golden_family")


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


def tiny_config(name: str) -> dict:
    """Return the config `name` ("t2v" or "i2v") of the embedded models with the layers of the smallest U-Net.

    It has every kind of layer, one level, and frames of 32 x 48 pixels: a pass takes a small part of the time.
    "dynamicrafter" is the one for pictures with what DynamiCrafter has besides.
    """
    if name == "dynamicrafter":
        return tiny_dynamicrafter()
    config = read_config(ROOT / f"configs/inference_{name}_tiny.yaml")
    params = config["model"]["params"]
    params["image_size"] = [4, 6]
    params["unet_config"]["params"] |= {"model_channels": 8, "channel_mult": [1], "attention_resolutions": [1]}
    params["unet_config"]["params"] |= {"norm_num_groups": 4, "num_head_channels": 4, "context_dim": 8}
    params["first_stage_config"]["params"]["ddconfig"] |= {"ch": 8, "norm_num_groups": 4}
    params["cond_stage_config"]["params"]["arch"]["text_cfg"] |= {"width": 8, "heads": 2}
    if name == "i2v":
        params["image_proj_model_params"] = {"dim": 8, "embedding_dim": 64, "output_dim": 8}
    config["inference"] |= {"height": 32, "width": 48}
    return config


def tiny_dynamicrafter() -> dict:
    """Return the config of a small DynamiCrafter: 8 input channels, tokens for 16 positions, zero terminal SNR."""
    config = tiny_config("i2v")
    params = config["model"]["params"]
    params |= {"rescale_betas_zero_snr": True, "use_dynamic_rescale": True, "base_scale": 0.7}
    params |= {"fps_condition_type": "fps"}
    params["unet_config"]["params"] |= {"in_channels": 8, "image_cross_attention_scale_learnable": True}
    resampler = params.pop("image_proj_model_params") | {"video_length": 16}
    params["image_proj_stage_config"] = {
        "target": "lvdm.modules.encoders.resampler.Resampler",
        "params": resampler,
    }
    params["img_cond_stage_config"] = params.pop("cond_img_config")
    config["inference"] |= {"base_spacing": "trailing", "guidance_rescale": 0.7}
    return config


def write_tiny_model(folder: Path, name: str) -> list[str | Path]:
    """Write `tiny_config(name)` and a checkpoint with golden weights, which make every input felt; return flags."""
    config = tiny_config(name)
    config["inference"]["ckpt_path"] = str(folder / f"{name}.safetensors")
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    model = with_golden_weights(instantiate_from_config(config["model"]), "")
    save_file(model.state_dict(), folder / f"{name}.safetensors")  # which is read faster than a pickle
    flags = ["--config", folder / f"{name}.yaml", "--precision", "fp32", "--save_frames", "--device", "cpu"]
    return [*flags, "--video_length", "4", "-n", "2"]


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


def png_frames(folder: Path, pattern: str = "*/*/fifo/*.png") -> np.ndarray:
    """Return the PNG frames below `folder` as one array (T, H, W, 3) of integers, in the order of their paths."""
    return np.stack([iio.imread(path) for path in sorted(folder.glob(pattern))]).astype(int)


@contextmanager
def stopped_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> Iterator[None]:
    """Send SIGTERM to this process once the noise of that many steps of the queue was drawn."""
    numbers, drawn = count(1), KeyedNoise.draw

    def draw(self, purpose, frames, levels):
        if purpose == "step" and next(numbers) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return drawn(self, purpose, frames, levels)

    with monkeypatch.context() as patch:
        patch.setattr(KeyedNoise, "draw", draw)
        yield


# Processes of the command. They are forked from one that has imported everything, which takes no time.

PATIENCE = 300  # seconds for what takes a few, on a machine that is busy with something else
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["videocrafter_main", "lvdm.models.autoencoder", "lvdm.modules.encoders.condition"])


def run_in_child(arguments: Sequence[object], output: Path, environment: Mapping[str, str]) -> None:
    """Run the command in this process, with stdout and stderr in the file `output`, and exit with its status."""
    os.environ.update(environment)
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    sys.exit(videocrafter_main.main([str(argument) for argument in arguments]))


def start(arguments: Sequence[object], folder: Path) -> BaseProcess:
    """Start the command in a process of its own, which writes stdout and stderr to `folder`/output0."""
    (child,) = start_ranks(arguments, folder, 1)
    return child


def start_ranks(arguments: Sequence[object], folder: Path, size: int) -> list[BaseProcess]:
    """Start the command in `size` processes with torchrun's environment; rank r writes to `folder`/output{r}."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    children = []
    for rank in range(size):
        environment = {name: str(value) for name, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        output = folder / f"output{rank}"
        children.append(FORKSERVER.Process(target=run_in_child, args=(arguments, output, environment)))
        children[-1].start()
    return children


def exit_status(child: BaseProcess) -> int:
    """Wait for `child`; return its exit status, or minus the number of the signal that killed it."""
    child.join(PATIENCE)
    assert child.exitcode is not None, f"still running after {PATIENCE} seconds"
    return child.exitcode


def wait_until(reached: Callable[[], object], process: BaseProcess | subprocess.Popen) -> None:
    """Wait until `reached()` is true; fail if `process` ends first, or if it takes longer than PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not reached():
        running = process.poll() is None if isinstance(process, subprocess.Popen) else process.is_alive()
        assert running, "the process ended before"
        assert time.monotonic() < end, f"not reached within {PATIENCE} seconds"
        time.sleep(0.01)


def moving_pattern(count: int, *, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Return frames (H, W, 3) uint8 of a pattern that moves right by a pixel per frame."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    pattern = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
    return [np.roll(pattern, at, axis=1) for at in range(count)]


def write_pictures(folder: Path, frames: list[np.ndarray]) -> Path:
    """Write frames as numbered PNGs; return the folder."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        iio.imwrite(folder / f"{number}.png", frame)
    return folder


def write_h264(path: Path, frames: list[np.ndarray], *flags: str) -> Path:
    """Write frames as an H.264 video with ffmpeg and more flags for it; return the path."""
    height, width, _ = frames[0].shape
    source = f"-y -v error -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r 8 -i -".split()
    command = [get_ffmpeg_exe(), *source, "-c:v", "libx264", "-crf", "10", *flags, str(path)]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
    return path
