"""The certificate of the reader of journeys, through its command."""

import re

import imageio.v3 as iio
import pytest
import torch
from helpers import ROOT, load_script

CHECKPOINT = ["--checkpoint", str(ROOT / "videocrafter_models/tiny_t2v/model.ckpt")]
CONFIG = ["--config", str(ROOT / "configs/inference_t2v_tiny.yaml")]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command with flags; return its status, its output and its errors."""
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # it would stay so for other tests
    main = load_script("certify_journeys").main

    def run(*flags):
        monkeypatch.setattr("sys.argv", ["certify_journeys.py", *flags])
        return main(), *capsys.readouterr()

    return run


def test_clips_are_read_as_rendered_and_after_an_autoencoder(run):
    """That of the embedded model has never seen a journey, so that words are read wrong."""
    status, output, errors = run("--clips", "1", "--size", "64x96", *CONFIG, *CHECKPOINT)
    assert status == 0
    assert re.search(r"wrong in subject, .*: Words\(subject='person'.*\n  read as Reading\(subject=None", errors)
    assert "| right, % | n | subject | color | second | facing | direction | pace | place | time | all |\n" in output
    assert f"| rendered | 1 {'| 100.0 ' * 9}|\n" in output
    assert re.search(r"\| through the autoencoder \| 1 \| 0\.0 .* \| 0\.0 \|\n", output)
    for step in ("rendering", "reading", "decoding"):
        assert re.search(rf"^{step}: \d+\.\d ms of CPU time a frame$", output, re.MULTILINE)
    assert re.search(r"^PSNR: 1\d\.\d\d dB, a tenth of the frames below 1\d\.\d\d dB$", output, re.MULTILINE)


def test_a_sheet_shows_24_scenes(run, tmp_path):
    assert run("--size", "16x24", "--sheet", str(tmp_path / "sheet.png"))[0] == 0
    assert iio.imread(tmp_path / "sheet.png").shape == (4 * 16, 6 * 24, 3)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--clips", "0"], "--clips: '0' is not a whole number from 1"),
        (["--threads", "two"], "--threads: 'two' is not a whole number from 1"),
        (["--clps", "2"], "--clps 2; did you mean --clips?"),
        (["--size", "128"], "--size '128': expected HEIGHTxWIDTH from 16 pixels"),
        (["--size", "1x1"], "--size '1x1': expected HEIGHTxWIDTH from 16 pixels"),
        (["--sheet", "/proc/sheet.png"], "--sheet '/proc': cannot be written"),
        (["--checkpoint", "nowhere.ckpt"], "--checkpoint 'nowhere.ckpt': there is no such file"),
        ([*CHECKPOINT, "--config", str(ROOT / "configs/ablations/fifo.yaml")], "there is no model.params.first_stage"),
        ([*CHECKPOINT, "--config", str(ROOT / "configs/train/tiny/model.yaml")], "does not fit --config"),
    ],
)
def test_an_error_names_its_flag(run, flags, error):
    status, _, errors = run(*flags)
    assert status == 2
    assert error in errors
    assert errors.count("\n") == 1
