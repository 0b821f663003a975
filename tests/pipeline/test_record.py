"""What a run writes down about a video."""

import json
import time
from pathlib import Path

import pytest
import torch

from lvdm.cli.arguments import parse_args
from lvdm.io.prompts import Prompt
from lvdm.pipeline.passes import Snapshot
from lvdm.pipeline.record import Stopwatch, write_record
from lvdm.pipeline.state import RunState
from lvdm.pipeline.video import Video
from lvdm.sampling.plan import fifo
from lvdm.sampling.queue import LatentQueue


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unet, first_stage = {"temporal_length": 16, "channel_mult": [1]}, {"ddconfig": {"ch_mult": [1, 2]}}
    params = {"unet_config": {"params": unet}, "first_stage_config": {"params": first_stage}, "image_size": [32, 48]}
    Path("c.yaml").write_text(json.dumps({"model": {"target": "LatentDiffusion", "params": params}}))
    line = "--config c.yaml --ckpt_path m.ckpt -p p.txt -m t2v_weighted90_TTqcache --output_dir out --device cpu"
    return parse_args(line.split())


@pytest.fixture
def video(options):
    return Video.of(
        Prompt('über\n"cat"', 1, seed=5, repetition=1), options, contents={"config": "34cd", "ckpt_path": "12ab"}
    )


def test_record(video, options):
    queue = LatentQueue(torch.zeros(1), torch.tensor([20, 21]), fifo(2, 2, lookahead=False))
    snapshot = Snapshot(queue, None, ready=torch.zeros(1, 1, 0, 1, 1))
    files = {"sheet": {"count": torch.tensor(27)}}  # with 7 frames that the new ones follow
    state = RunState(video.settings, snapshot, files, {"base clip": 1.5, "queue": 8.5})
    for _ in range(2):  # the second time over the first
        write_record(video, state)
    assert [entry.name for entry in video.folder.iterdir()] == [f"{options.mode}.json"]
    record = json.loads(video.record.read_text(encoding="utf-8"))
    assert (record["prompt"], record["seed"], record["repetition"]) == (video.prompt.text, 5, 1)
    assert (record["frames"], record["new_frames"]) == (27, 20)
    assert record["mode"] == record["options"]["mode"] == "t2v_TTqcache_attn1_weighted90"
    assert record["model"] == {"config": "c.yaml", "checkpoint": "m.ckpt", "digest": "12ab"}
    assert record["options"].keys() >= set(options.__dataclass_fields__)
    assert (record["options"]["output_dir"], record["options"]["num_inference_steps"]) == ("out", 64)
    assert record["seconds"] == {"base clip": 1.5, "queue": 8.5, "total": 10.0, "per_frame": 0.5}
    assert {"python", "torch", "numpy", "open_clip_torch", "pytorch-lightning", "imageio"} == record["packages"].keys()
    assert all(record["packages"].values())
    assert record["date"].endswith("+00:00")


def test_files_say_prompt_seed_and_mode(video):
    assert video.comment == 'über\n"cat" | seed 5 | mode t2v_TTqcache_attn1_weighted90'


def test_stopwatch_gives_each_stage_its_own_time():
    start = time.perf_counter()
    watch = Stopwatch()
    time.sleep(0.02)
    watch.lap("first")
    watch.lap("second")
    assert list(watch.laps) == ["first", "second"]
    assert Stopwatch({"first": 5.0}).laps == {"first": 5.0}  # of an earlier run
    assert watch.laps["first"] >= 0.02
    assert sum(watch.laps.values()) <= time.perf_counter() - start
