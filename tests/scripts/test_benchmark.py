"""The benchmark measures what it says, and its arrangements compute the same."""

import json
import subprocess
import sys
from contextlib import ExitStack
from itertools import islice

import pytest
import torch
from helpers import ROOT, golden_json, load_script, with_golden_weights
from PIL import Image

from lvdm.evaluation import speed

benchmark = load_script("benchmark")

SMALL = ["--video_length", "4", "-n", "1", "--latents", "8", "12", "--device", "cpu"]


def test_a_small_run(tmp_path):
    files = {name: tmp_path / f"{name}.{suffix}" for name, suffix in
             (("json", "json"), ("chart", "png"), ("profile", "trace.json"))}  # fmt: skip
    flags = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, "scripts/benchmark.py", *SMALL, "--passes", "2", "--warmup", "1", *flags]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    figures = json.loads(files["json"].read_text())["figures"]
    assert list(figures) == ["originals", "fp32", "bf16"]
    for name, row in figures.items():
        assert f"| {name} |" in finished.stdout
        assert 0 < row["fastest"] <= row["seconds_per_pass"] <= row["slowest"]
        assert row["frames_per_second"] * row["seconds_per_pass"] == pytest.approx(1)
        assert 0 < row["share_of_matmul"] < 1.2
    assert figures["originals"]["times_faster_than_originals"] == 1
    assert Image.open(files["chart"]).size[0] > 300
    assert json.loads(files["profile"].read_text())["traceEvents"]
    assert "Self CPU" in finished.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--device", "meta"], "--device 'meta'"),
        (["--latents", "7", "8"], "--latents 7 8"),
        (["--latents", "0", "8"], "--latents 0 8"),
        (["--passes", "0"], "--passes: '0' is not a whole number from 1"),
        (["--warmup", "-1"], "--warmup: '-1' is not a whole number from 0"),
        (["-n", "600"], "--num_partitions 600"),
        (["--video_length", "3"], "--video_length 3"),
        (["--config", "configs/train/tiny_t2v/3_clips.yaml"], "no unet_config"),
        (["--json", "README.md/figures.json"], "README.md"),
    ],
)
def test_bad_input_is_told_before_anything_is_measured(words, named, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(benchmark, "measure", None)
    assert benchmark.main(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert named in told.err
    assert told.err.count("\n") == 1


class Golden(speed.Bench):
    """A bench whose U-Net answers something: fresh ones end in zeros."""

    def unet(self, dtype: torch.dtype) -> torch.nn.Module:
        unet = with_golden_weights(super().unet(torch.float32), "model.diffusion_model.")
        return unet.requires_grad_(False).to(dtype)


@pytest.mark.parametrize("stride", [2, 4])
def test_arrangements_compute_the_same(stride, monkeypatch):
    monkeypatch.setattr(speed, "GUIDANCE", 1.5)  # much of it makes a random network's latents explode
    config = golden_json("small_t2v.json")["unet_config"]
    config["params"] |= {"channel_mult": [1, 1], "num_res_blocks": 1, "attention_resolutions": [2]}
    bench = Golden(config, window=4, partitions=2, stride=stride, latents=(4, 8, 12), device=torch.device("cpu"))
    latents = {}
    for name in ("originals", "fp32", "bf16"):
        with ExitStack() as stack, torch.inference_mode():
            *_, last = islice(bench.passes(speed.ARRANGEMENTS[name], stack), 10)
        latents[name] = last.latents
    torch.testing.assert_close(latents["originals"], latents["fp32"], atol=1e-4, rtol=1e-4)
    assert (latents["bf16"] - latents["fp32"]).abs().max() > 1e-4
