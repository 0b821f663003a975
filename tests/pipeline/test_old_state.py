"""A video that an earlier version of the program began goes on: see tests/data/old_state/README.md."""

import gzip
import json
import re
import shutil

import imageio.v3 as iio
import pytest
from helpers import DATA, RED, command, one, prompt_file

BEGUN, ALL = 3, 8  # frames
SAMPLING = ["--precision", "fp32", "--device", "cpu", "--video_length", 4, "-n", 1, "--no-lookahead_denoising"]
FILES = ["--formats", "gif", "mp4", "--save_frames", "--save_every", 2, "--debug"]


@pytest.fixture
def flags(tmp_path):
    """Copy what the earlier version left to `tmp_path`; return the flags of the command that began it."""
    old = DATA / "old_state"
    shutil.copytree(old / "results", tmp_path / "out")
    (tmp_path / "model.safetensors").write_bytes(gzip.decompress((old / "model.safetensors.gz").read_bytes()))
    model = ["--config", old / "model.yaml", "--ckpt_path", tmp_path / "model.safetensors"]
    video = ["-p", prompt_file(tmp_path, RED), "--new_video_length", ALL, "--output_dir", tmp_path / "out"]
    return [*model, *video, *SAMPLING, *FILES]


def test_the_same_command_goes_on_with_a_video_of_an_earlier_version(tmp_path, flags, capfd):
    begun = [path.read_bytes() for path in sorted(tmp_path.glob("out/*/t2v/fifo.partial/*"))]
    assert len(begun) == BEGUN
    assert command(*flags) == 0
    assert "1 done, 0 skipped, 0 failed" in capfd.readouterr().out

    log = one(tmp_path, "out/*/t2v/t2v.log").read_text()
    assert f"resumed after frame {BEGUN} with" in log
    assert re.findall(r"pass (\d+):", log) == [str(number) for number in range(BEGUN + 1, ALL + 1)]
    folder = one(tmp_path, "out/*/t2v")
    pictures = [path.read_bytes() for path in sorted(folder.glob("fifo/*.png"))]
    assert len(set(pictures)) == ALL
    assert pictures[:BEGUN] == begun
    assert len(iio.imread(folder / "t2v.gif", index=None)) == len(iio.imread(folder / "t2v.mp4", index=None)) == ALL
    assert json.loads((folder / "t2v.json").read_text())["frames"] == ALL
    assert not list(folder.glob("*partial*"))


def test_another_setting_than_the_earlier_version_had_is_an_error(flags, capfd):
    assert command(*flags, "--eta", 0.5) == 2
    assert "--eta was 1.0 when the video" in capfd.readouterr().err
