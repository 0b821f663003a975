"""Fixtures of all tests; functions that they share are in helpers.py."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Before torch counts the cores: several processes with a thread for every core are slower than one.
    _cores, _number = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, set(_cores[_number % len(_cores) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]))

import torch
from helpers import write_tiny_model

torch.set_num_threads(min(2, torch.get_num_threads()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> list[str | Path]:
    """Flags of the smallest model that makes videos of texts."""
    return write_tiny_model(tmp_path_factory.mktemp("model"), "t2v")


@pytest.fixture(scope="session")
def visual_model(tmp_path_factory) -> list[str | Path]:
    """Flags of the smallest model that takes pictures, too."""
    return write_tiny_model(tmp_path_factory.mktemp("model"), "i2v")
