"""Fixtures of all tests; functions that they share are in helpers.py."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Before torch counts the cores: several processes with a thread for every core are slower than one.
    _cores, _number = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, set(_cores[_number % len(_cores) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]))

import torch
from helpers import ROOT, with_golden_weights

from lvdm.io.configs import read_config
from lvdm.models.checkpoint import save_half
from lvdm.models.loading import instantiate_from_config

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def visual_model(tmp_path_factory) -> list[str | Path]:
    """Flags of a model that takes pictures, with weights that make every input felt."""
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    config = "configs/inference_i2v_tiny.yaml"
    save_half(with_golden_weights(instantiate_from_config(read_config(ROOT / config)["model"]), ""), path)
    flags = ["--config", config, "--ckpt_path", path, "--precision", "fp32", "--save_frames", "--device", "cpu"]
    return [*flags, "--video_length", "4", "-n", "2"]
