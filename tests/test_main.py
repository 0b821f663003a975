"""The real command: files, determinism, and errors before anything is written."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from helpers import BLUE, RED, ROOT, command, one, prompt_file
from PIL import Image
from safetensors.torch import load

from lvdm.cli.arguments import parse_args
from lvdm.diffusion.conditioning import Conditioning, EncodedPicture
from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import NoiseSchedule, fifo_spacing
from lvdm.io.files import file_digest, read_sealed
from lvdm.io.images import to_uint8
from lvdm.models.loading import load_network
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import denoise_queue


@pytest.fixture(scope="module")
def small(tiny_model) -> list[str | Path]:
    """Flags of 3 frames of the smallest model, without guidance and lookahead."""
    return [*tiny_model, "-l", "3", "--unconditional_guidance_scale", 1, "--no-lookahead_denoising"]


def frames_below(folder: Path) -> dict[str, bytes]:
    """The bytes of every emitted frame below `folder`, by path."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*/fifo/*.png")}
    assert found
    return found


def test_one_command_makes_every_file(tmp_path):
    prompts = prompt_file(tmp_path, RED)
    mode = "t2v_TTqcache_attn1_weighted90_unilatent"
    arguments = ["--video_length", 4, "-n", 2, "-l", 3, "--device", "cpu", "-p", prompts, "-m", mode]
    arguments += ["--formats", "gif", "mp4", "--save_frames", "--save_queue"]
    finished = subprocess.run(
        [sys.executable, "videocrafter_main.py", *map(str, arguments), "--output_dir", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    (folder,) = (tmp_path / "out").glob(f"a_red_circle_moving_right_on_a_black_background-*/{mode}")
    assert {path.name for path in folder.iterdir()} == {
        f"{mode}.gif", f"{mode}.mp4", f"{mode}.png", f"{mode}.json", f"{mode}.state", "origin.gif", "fifo", "queue",
    }  # fmt: skip
    assert sorted(path.name for path in (folder / "fifo").iterdir()) == ["00000.png", "00001.png", "00002.png"]
    # 3 frames and 4 warm-up passes; 8 slots and 2 clean ones in front
    assert len(list((folder / "queue").iterdir())) == (3 + 4) * (8 + 2)
    for name in (f"{mode}.gif", f"{mode}.mp4"):
        assert iio.imread(folder / name).shape == (3, 64, 96, 3)
    assert iio.imread(folder / "origin.gif").shape == (4, 64, 96, 3)
    record = json.loads((folder / f"{mode}.json").read_text())
    assert record["prompt"] == RED
    assert record["seed"] == 321
    assert record["mode"] == mode
    assert record["frames"] == 3
    assert record["options"]["qcache_weight"] == 0.9
    assert len(record["model"]["digest"]) >= 64


def test_same_seed_same_frames_and_other_seed_other_frames(tmp_path, small):
    prompts = prompt_file(tmp_path, RED)
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        arguments = ["-p", prompts, "--seed", seed, "--output_dir", tmp_path / name]
        assert command(*small, *arguments) == 0
    first, again, other = (frames_below(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)
    # A second run in the same place finds the base clip in the cache: nothing but the time changes.
    again = ["--seed", 1, "--overwrite"]
    assert command(*small, "-p", prompts, *again, "--output_dir", tmp_path / "first") == 0
    assert frames_below(tmp_path / "first") == first
    assert len(list((tmp_path / "first" / "latents").iterdir())) == 1


def test_order_and_processes_change_nothing(tmp_path, small):
    forward = prompt_file(tmp_path, RED, BLUE, RED, name="forward.txt")
    backward = prompt_file(tmp_path, BLUE, RED, RED, name="backward.txt")
    shared = small
    assert command("-p", forward, "--output_dir", tmp_path / "forward", *shared) == 0
    assert command("-p", backward, "--output_dir", tmp_path / "backward", *shared) == 0
    for rank in range(2):
        ranks = ["--num_processes", 2, "--rank", rank]
        assert command("-p", forward, "--output_dir", tmp_path / "two", *ranks, *shared) == 0
    frames = frames_below(tmp_path / "forward")
    assert frames == frames_below(tmp_path / "backward") == frames_below(tmp_path / "two")
    folders = {Path(name).parts[0] for name in frames}
    assert len(folders) == 3  # the same prompt twice: two places
    assert len(set(frames.values())) == len(frames)  # and two videos


def test_a_process_without_a_share_has_nothing_to_do(tmp_path, capfd):
    prompts = prompt_file(tmp_path, RED)
    assert command("-p", prompts, "--output_dir", tmp_path / "out", "--num_processes", 3, "--rank", 2) == 0
    assert "0 done" in capfd.readouterr().out


def test_an_environment_that_torchrun_did_not_make(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert command("--output_dir", tmp_path / "out") == 2
    assert "WORLD_SIZE is 'two'" in capfd.readouterr().err


def test_window_batches_make_the_same_video(tmp_path, tiny_model):
    """Chunks of 1, 3 and n windows against one batch: at most one level of 255 from rounding."""
    prompts = prompt_file(tmp_path, BLUE)
    sizes = {"all": [], "1": ["--window_batch", 1], "3": ["--window_batch", 3], "n": ["--window_batch", 2]}
    videos = {}
    for name, size in sizes.items():
        arguments = ["-p", prompts, "--output_dir", tmp_path / name]
        assert command(*tiny_model, "-l", 3, *arguments, *size) == 0
        files = sorted((tmp_path / name).glob("*/*/fifo/*.png"))
        videos[name] = np.stack([iio.imread(file) for file in files]).astype(int)
    for name in ("1", "3", "n"):
        assert abs(videos[name] - videos["all"]).max() <= 1


def test_half_precision_makes_nearly_the_same_video(tmp_path):
    prompts = prompt_file(tmp_path, RED)
    videos = {}
    for precision in ("fp32", "bf16"):
        flags = ["-p", prompts, "--precision", precision, "--output_dir", tmp_path / precision]
        assert command(*flags, "-n", 1, "-l", 2, "--save_frames", "--device", "cpu") == 0
        frames = sorted((tmp_path / precision).glob("*/t2v/fifo/*.png"))
        videos[precision] = np.stack([iio.imread(path) for path in frames]).astype(float)
    difference = np.abs(videos["bf16"] - videos["fp32"]).mean()
    assert 0 < difference < 0.5  # of 255 levels


def test_files_of_an_earlier_run_do_not_stay(tmp_path, small):
    arguments = [*small, "-p", prompt_file(tmp_path, RED), "--output_dir", tmp_path / "out"]
    assert command(*arguments, "--save_queue", "--formats", "gif", "mp4") == 0
    fewer = [argument for argument in arguments if argument != "--save_frames"]
    assert command(*fewer, "--seed", 2, "--formats", "mp4", "--overwrite") == 0
    (folder,) = (tmp_path / "out").glob("*/t2v")
    names = {"t2v.mp4", "t2v.png", "t2v.json", "t2v.state", "origin.gif"}
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-100], lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])], ids=["cut", "bit"]
)
def test_damaged_base_clip_is_set_aside_and_sampled_anew(tmp_path, small, capfd, damage):
    arguments = [*small, "-p", prompt_file(tmp_path, RED), "--output_dir", tmp_path / "out"]
    assert command(*arguments) == 0
    before = frames_below(tmp_path / "out")
    (cached,) = (tmp_path / "out" / "latents").iterdir()
    whole = cached.read_bytes()
    cached.write_bytes(damage(whole))
    assert command(*arguments, "--overwrite") == 0
    assert frames_below(tmp_path / "out") == before
    assert cached.read_bytes() == whole
    assert cached.with_name(f"{cached.name}.damaged").read_bytes() == damage(whole)
    assert f"{cached.name}.damaged" in capfd.readouterr().err


def test_table_of_prompts(tmp_path, small):
    table = prompt_file(
        tmp_path, "prompt,seed,new_video_length,experiment", f"{RED},5,2,short", f"{BLUE},,,", name="prompts.csv"
    )
    assert command(*small, "-p", table, "--output_dir", tmp_path / "out") == 0
    records = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*/*.json")}
    assert {name: (record["seed"], record["frames"]) for name, record in records.items()} == {
        "short": (5, 2),
        "t2v": (321, 3),
    }


def test_one_bad_prompt_costs_one_video(tmp_path, small, capfd):
    """A folder is in the way of the first prompt's file; when it is gone, that video is the only one that is made."""
    arguments = [*small, "-p", prompt_file(tmp_path, RED, BLUE), "--output_dir", tmp_path / "out"]
    assert command(*arguments) == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/t2v/t2v.gif")}
    red = one(tmp_path, "out/a_red*/t2v/t2v.gif")
    red.unlink()
    red.mkdir()
    capfd.readouterr()
    assert command(*arguments, "--overwrite") == 1
    out, err = capfd.readouterr()
    assert "1 done, 0 skipped, 1 failed" in out
    for said, word in ((err, "error: "), (out, "failed: ")):
        (line,) = [line for line in said.splitlines() if word in line]
        assert all(part in line for part in (RED, "line 1", "t2v.gif"))
    red.rmdir()
    assert command(*arguments) == 0
    out, err = capfd.readouterr()
    assert "1 done, 1 skipped, 0 failed" in out
    assert BLUE in err
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*/t2v/t2v.gif")} == whole
    assert not list((tmp_path / "out").rglob("*partial*"))


def picture(path: Path, color: tuple[int, int, int]) -> Path:
    Image.new("RGB", (120, 90), color).save(path)
    return path


def test_a_picture_is_in_the_video_and_in_what_it_says_of_itself(tmp_path, visual_model):
    picture(tmp_path / "red;.png", (220, 20, 20))
    picture(tmp_path / "blue.png", (20, 20, 220))
    prompts = prompt_file(tmp_path, f"red;.png;{RED}", f"blue.png;{RED}")
    arguments = [*visual_model, "-l", 3, "-m", "i2v_TTqcache", "-p", prompts, "--output_dir"]
    assert command(*arguments, tmp_path / "out") == 0
    assert command(*arguments, tmp_path / "again") == 0
    frames = frames_below(tmp_path / "out")
    assert frames == frames_below(tmp_path / "again")
    assert len(set(frames.values())) == len(frames) == 6
    assert len(list((tmp_path / "out/latents").iterdir())) == 2
    assert len({path.read_bytes() for path in tmp_path.glob("out/*/*/origin.gif")}) == 2
    names = set()
    for path in (tmp_path / "out").glob("*/*/i2v_TTqcache_attn1.json"):
        image = json.loads(path.read_text())["image"]
        names.add(Path(image["path"]).name)
        assert image["digest"] == file_digest(image["path"])
        tile = iio.imread(path.with_suffix(".png"))[20, 24]
        assert tuple(tile) == Image.open(image["path"]).getpixel((5, 5))
    assert names == {"red;.png", "blue.png"}


def test_the_picture_is_felt_in_the_queue_too(tmp_path, visual_model):
    """With another picture's base clip in the place of its own, a video differs from both."""
    frames = {}
    for name, color in (("red", (220, 20, 20)), ("blue", (20, 20, 220))):
        picture(tmp_path / f"{name}.png", color)
        prompts = prompt_file(tmp_path, f"{name}.png;{RED}", name=f"{name}.txt")
        assert command(*visual_model, "-l", 3, "-m", "i2v", "-p", prompts, "--output_dir", tmp_path / name) == 0
        frames[name] = one(tmp_path, f"{name}/*/*/fifo/00000.png").read_bytes()
    red, blue = (one(tmp_path, f"{name}/latents/*") for name in ("red", "blue"))
    blue.write_bytes(red.read_bytes())
    again = ["-p", tmp_path / "blue.txt", "--overwrite"]
    assert command(*visual_model, "-l", 3, "-m", "i2v", *again, "--output_dir", tmp_path / "blue") == 0
    assert one(tmp_path, "blue/*/*/origin.gif").read_bytes() == one(tmp_path, "red/*/*/origin.gif").read_bytes()
    assert one(tmp_path, "blue/*/*/fifo/00000.png").read_bytes() not in frames.values()


def test_image_fit(tmp_path, visual_model):
    halves = np.zeros((40, 160, 3), np.uint8)
    halves[:, :80] = 255
    Image.fromarray(halves).save(tmp_path / "wide.png")
    prompts = prompt_file(tmp_path, f"wide.png;{RED}")
    for fit in ("crop", "pad"):
        flags = ["-m", "i2v", "--image_fit", fit, "-ex", fit]
        assert command(*visual_model, "-l", 3, *flags, "-p", prompts, "--output_dir", tmp_path) == 0
    assert one(tmp_path, "*/crop/origin.gif").read_bytes() != one(tmp_path, "*/pad/origin.gif").read_bytes()


def test_seeds_are_the_frames_that_they_should_be(tmp_path, visual_model):
    """The command's frames against a queue that is conditioned by hand."""
    prompts = prompt_file(tmp_path, RED)
    frames = {}
    for mode in ("t2v", "t2v_seed", "t2v_seed_ar"):
        assert command(*visual_model, "-l", 3, "-m", mode, "-p", prompts, "--output_dir", tmp_path) == 0
        frames[mode] = [iio.imread(path) for path in sorted(tmp_path.glob(f"*/{mode}/fifo/*.png"))]
    clip = load(read_sealed(one(tmp_path, "latents/*")))["latents"]  # one for all three
    options = parse_args([*map(str, visual_model), "-p", str(prompts)])
    model = load_network(ROOT / options.config, options.ckpt_path, device=torch.device("cpu"))
    noise = KeyedNoise(options.seed, RED, 0, (4, 4, 6), torch.device("cpu"))
    schedule = NoiseSchedule.of_model(model, fifo_spacing(8), eta=1.0)

    def emitted(pictures: dict[int, torch.Tensor], *, renewed: bool = False) -> Iterator[np.ndarray]:
        """The frames, with `pictures` (latents) taking their place in the context before the pass of that number."""
        denoise = GuidedDenoiser(model.unet, Conditioning.of_text(model, [(0, RED)], fps=8), 4.0)
        queue = LatentQueue.from_clip(clip, options.queue_plan, schedule, noise=noise)
        for number in range(8 - 4 + 3):
            if number in pictures:
                denoise = denoise.with_picture(EncodedPicture.of(model, model.decode(pictures[number])))
            queue = next(denoise_queue(denoise, schedule, queue, noise=noise))
            if queue.head_frame >= 0:
                if renewed:
                    pictures[number + 1] = queue.finished[:, :, 0]
                yield to_uint8(model.decode(queue.finished[:, :, 0])[0])
            queue = queue.shift(noise.draw("enqueue", [int(queue.frames[-1]) + 1], [8]))

    expected = {
        "t2v": emitted({}),
        "t2v_seed": emitted({0: clip[:, :, 0]}),
        "t2v_seed_ar": emitted({0: clip[:, :, 0]}, renewed=True),
    }
    for mode, made in expected.items():
        for ours, theirs in zip(made, frames[mode], strict=True):
            assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert not np.array_equal(frames["t2v"][0], frames["t2v_seed"][0])
    assert np.array_equal(frames["t2v_seed"][0], frames["t2v_seed_ar"][0])
    assert not np.array_equal(frames["t2v_seed"][2], frames["t2v_seed_ar"][2])  # after two passes it shows


@pytest.mark.parametrize(
    ("mode", "without", "flags"),
    [
        ("t2v_seed_TTqcache_unilatent", "t2v_seed_unilatent", []),
        ("t2v_seed_ar_unilatent", "t2v_unilatent", ["--no-lookahead_denoising"]),
        ("i2v_STqcache_attn2_weighted50", "i2v", ["--no-lookahead_denoising"]),
    ],
)
def test_pictures_go_with_everything_else(tmp_path, visual_model, mode, without, flags):
    picture(tmp_path / "red.png", (220, 20, 20))
    table = prompt_file(tmp_path, "prompt,image", f"{RED},red.png", name="prompts.csv")
    for name in (mode, without):
        arguments = ["-m", name, "-ex", name, "-p", table, "--output_dir", tmp_path, *flags]
        assert command(*visual_model, "-l", 3, *arguments) == 0
    with_it, without_it = (one(tmp_path, f"*/{name}/fifo/00002.png").read_bytes() for name in (mode, without))
    assert with_it != without_it


def test_one_table_serves_every_mode(tmp_path, visual_model):
    picture(tmp_path / "red.png", (220, 20, 20))
    table = prompt_file(tmp_path, "prompt,image", f"{RED},red.png", name="prompts.csv")
    for mode in ("i2v", "t2v"):
        assert command(*visual_model, "-l", 3, "-m", mode, "-p", table, "--output_dir", tmp_path / mode) == 0
    assert set(frames_below(tmp_path / "i2v").values()).isdisjoint(frames_below(tmp_path / "t2v").values())


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("nowhere.png;a", ["'nowhere.png'", "no such picture"]),
        ("just a prompt", ["';'"]),
        (";a prompt", ["no picture"]),
        ("red.png;", ["no prompt"]),
        ("text.png;a", ["'text.png'", "cannot be read"]),
        ("dot.png;a", ["'dot.png'", "1 x 1"]),
        ("long.png;a", ["'long.png'", "20000 x 16"]),
    ],
)
def test_bad_pictures_are_found_before_any_sampling(tmp_path, capfd, visual_model, second, expected):
    picture(tmp_path / "red.png", (220, 20, 20))
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    Image.new("L", (20_000, 16)).save(tmp_path / "long.png")
    prompts = prompt_file(tmp_path, f"red.png;{RED}", second)
    assert command(*visual_model, "-l", 3, "-m", "i2v", "-p", prompts, "--output_dir", tmp_path / "out") == 2
    error = capfd.readouterr().err.strip()
    assert "\n" not in error
    for part in ["--prompt_file", "line 2", *expected]:
        assert part in error
    assert not (tmp_path / "out").exists()


class Hostile:
    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


BAD = [
    (["-m", "i2v", "--config", "configs/inference_t2v_tiny.yaml"], ["--mode", "i2v", "no image", "inference_i2v_tiny"]),
    (["-p", "nowhere.txt"], ["--prompt_file", "nowhere.txt"]),
    (["-p", "{empty}"], ["--prompt_file", "empty.txt"]),
    (["-p", "{no_column}"], ["--prompt_file", "prompt"]),
    (["--ckpt_path", "{another}"], ["--ckpt_path", "another.ckpt", "missing"]),
    (["--ckpt_path", "{truncated}"], ["--ckpt_path", "truncated.ckpt"]),
    (["--ckpt_path", "{hostile}"], ["--ckpt_path", "hostile.ckpt"]),
    (["--ckpt_path", "nowhere.ckpt"], ["--ckpt_path", "nowhere.ckpt"]),
    (["--config", "{target}"], ["--config", "os.system", "allowed"]),
    (["--output_dir", "{file}/below"], ["--output_dir", "below"]),
    (["--unknown"], ["--unknown"]),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD, ids=lambda value: " ".join(value))
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, capfd, arguments, expected):
    tiny = ROOT / "videocrafter_models/tiny_t2v/model.ckpt"
    places = {name: tmp_path / f"{name}.{suffix}" for name, suffix in
              (("empty", "txt"), ("no_column", "csv"), ("another", "ckpt"), ("truncated", "ckpt"),
               ("hostile", "ckpt"), ("target", "yaml"), ("file", "txt"))}  # fmt: skip
    places["empty"].write_text("\n\n")
    places["no_column"].write_text("seed,image\n1,a.png\n")
    places["file"].write_text("a file, not a folder")
    torch.save({"state_dict": {"a": torch.zeros(3)}}, places["another"])
    places["truncated"].write_bytes(tiny.read_bytes()[:100_000])
    places["hostile"].write_bytes(pickle.dumps({"state_dict": Hostile(str(tmp_path / "was run"))}))
    text = (ROOT / "configs/inference_t2v_tiny.yaml").read_text()
    places["target"].write_text(text.replace("torch.nn.Identity", "os.system").replace(
        "lvdm.models.autoencoder.AutoencoderKL", "os.system"))  # fmt: skip
    given = [argument.format(**places) for argument in arguments]
    output = [] if "--output_dir" in given else ["--output_dir", tmp_path / "out"]
    assert command(*given, *output, "--device", "cpu") == 2
    error = capfd.readouterr().err.strip()
    assert "\n" not in error
    for part in expected:
        assert part in error
    assert not list(tmp_path.glob("out/*"))
    assert not (tmp_path / "was run").exists()


def test_a_device_that_is_not_there_is_one_line(tmp_path, capfd):
    assert command("--device", "cuda:99", "--output_dir", tmp_path / "out") == 2
    error = capfd.readouterr().err.strip()
    assert "--device 'cuda:99'" in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_debug_shows_where_it_happened(capfd):
    assert command("--debug", "--ckpt_path", "nowhere.ckpt") == 2
    error = capfd.readouterr().err
    assert "Traceback" in error
    assert "FileNotFoundError" in error


def test_prompts_on_the_command_line(tmp_path, tiny_model):
    """They make the videos of the same lines in a prompt file; equal ones are told apart."""
    file = prompt_file(tmp_path, RED, BLUE, RED)
    assert command(*tiny_model, "-l", 1, "-p", file, "--output_dir", tmp_path / "file") == 0
    words = ["--prompt", RED, "--prompt", BLUE, "--prompt", RED]
    assert command(*tiny_model, "-l", 1, *words, "--output_dir", tmp_path / "words") == 0
    assert len(frames_below(tmp_path / "words")) == 3
    assert frames_below(tmp_path / "words") == frames_below(tmp_path / "file")


def test_pictures_on_the_command_line(tmp_path, visual_model, capfd):
    """One image for all prompts, or one for each."""
    red, blue = picture(tmp_path / "red.png", (220, 20, 20)), picture(tmp_path / "blue.png", (20, 20, 220))
    flags = [*visual_model, "-l", 1, "-m", "i2v", "--prompt", RED, "--prompt", BLUE]
    assert command(*flags, "--image", red, "--output_dir", tmp_path / "one") == 0
    assert command(*flags, "--image", red, "--image", blue, "--output_dir", tmp_path / "each") == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "each").glob("*/*/*.json")]
    assert {record["prompt"]: Path(record["image"]["path"]).name for record in records} == {
        RED: "red.png",
        BLUE: "blue.png",
    }
    assert len(list((tmp_path / "one").glob("*/*/*.gif"))) == 4
    capfd.readouterr()
    for wrong, part in (([], "--image"), (["--image", red] * 3, "3 times"), (["--image", "no.png"], "no.png")):
        assert command(*flags, *wrong, "--output_dir", tmp_path / "wrong") == 2
        error = capfd.readouterr().err.strip()
        assert part in error
        assert "\n" not in error
    assert not (tmp_path / "wrong").exists()
