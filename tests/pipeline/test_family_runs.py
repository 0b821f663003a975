"""The real command with models like DynamiCrafter and T2V-Turbo, of random weights."""

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from helpers import (
    RED,
    command,
    one,
    png_frames,
    stopped_after,
    tiny_config,
    with_golden_weights,
    write_pictures,
    write_tiny_model,
)
from safetensors.torch import load_file, save_file

from lvdm import Options, generate, load_model
from lvdm.diffusion.schedule import CONSISTENCY
from lvdm.io.prompts import prompts_from_words
from lvdm.models.loading import instantiate_from_config
from lvdm.pipeline.conditions import condition
from lvdm.pipeline.resolve import resolved
from lvdm.pipeline.run import Run, loaded_model


@pytest.fixture(scope="module")
def crafter(tmp_path_factory) -> list[str | Path]:
    """Flags of a small DynamiCrafter that animates a picture."""
    folder = tmp_path_factory.mktemp("crafter")
    flags = write_tiny_model(folder, "dynamicrafter")
    picture_of(folder / "red.png", (220, 20, 20))
    picture_of(folder / "blue.png", (20, 20, 220))
    return [*flags, "--prompt", RED, "--image", folder / "red.png"]


def picture_of(path: Path, color: tuple[int, int, int]) -> None:
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[8:24, 12:36] = color
    iio.imwrite(path, picture)


def frames_of(folder: Path, experiment: str) -> np.ndarray:
    return png_frames(folder, f"*/{experiment}/fifo/*.png")


@pytest.mark.parametrize(("plan", "mode"), [("fifo", "i2v_ar"), ("autoregressive:2", "i2v")])
def test_forty_frames_of_a_picture(tmp_path, crafter, plan, mode, monkeypatch):
    """In one go; stopped by signals anywhere; and made longer twice."""
    flags = [*crafter, "-m", mode, "--plan", plan, "--save_every", 3, "--output_dir"]
    assert command(*flags, tmp_path / "straight", "-l", 40) == 0
    straight = frames_of(tmp_path / "straight", mode)
    assert straight.shape == (40, 32, 48, 3)
    statuses = []
    while not statuses or statuses[-1] == 143:
        with stopped_after(monkeypatch, 31):
            statuses.append(command(*flags, tmp_path / "stopped", "-l", 40))
    assert len(statuses) > 1
    assert statuses[-1] == 0
    assert np.array_equal(frames_of(tmp_path / "stopped", mode), straight)
    for frames in (5, 40):
        assert command(*flags, tmp_path / "longer", "-l", frames) == 0
    assert np.array_equal(frames_of(tmp_path / "longer", mode), straight)


def test_picture_and_its_renewal_are_felt(tmp_path, crafter):
    """As tokens and as latent; i2v keeps the picture, i2v_ar takes the newest frame."""
    blue = [*crafter[:-1], crafter[-1].with_name("blue.png")]
    for name, flags in (("i2v", crafter), ("i2v_ar", crafter), ("blue", blue)):
        mode = "i2v" if name == "blue" else name
        assert command(*flags, "-m", mode, "-ex", name, "-l", 8, "--output_dir", tmp_path / name) == 0
    red, renewed, blue = (frames_of(tmp_path / name, name) for name in ("i2v", "i2v_ar", "blue"))
    assert np.array_equal(red[0], renewed[0])
    assert not np.array_equal(red[4], renewed[4])
    assert not np.array_equal(red[0], blue[0])


def test_latent_and_tokens_stand_where_they_should(crafter):
    options = resolved(
        Options(mode="i2v", config=crafter[1], precision="fp32", device="cpu", video_length=4, num_partitions=2)
    )
    run = Run(loaded_model(options), options)
    (prompt,) = prompts_from_words([RED], [crafter[-1]], with_pictures=True)
    conditioning = condition(run, prompt, options).denoiser.conditioning
    pixels = torch.from_numpy(iio.imread(crafter[-1])).permute(2, 0, 1)[None] / 127.5 - 1
    x = torch.randn(2, 4, 4, 4, 6)
    beside = conditioning.beside(x)
    assert torch.equal(beside[:, :4], x)
    expected = run.model.first_stage_model.encode(pixels).mean * run.model.scale_factor
    torch.testing.assert_close(beside[:, 4:], expected[:, :, None].expand(2, -1, 4, -1, -1))
    context = conditioning.at(torch.arange(8).view(2, 4))
    tokens = run.model.image_proj_model(run.model.embedder(pixels))
    for schedule in (run.clip_schedule(), run.queue_schedule()):  # scales are always used, and end at 1
        assert (schedule.scales[0].item(), round(schedule.scales[-1].item(), 6)) == (1, 0.7)
        assert schedule.alphas[-1] == 0
    assert run.clip_schedule().timesteps.tolist() == [124, 249, 374, 499, 624, 749, 874, 999]
    assert run.queue_schedule().timesteps[0] == 0
    for position in range(4):
        torch.testing.assert_close(context[1, position, 77:], tokens[0, 16 * position : 16 * position + 16])


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["-m", "t2v"], "--mode 't2v': this model makes nothing without a picture"),
        (["-m", "t2v_seed"], "--mode 't2v_seed': this model makes nothing without a picture"),
        (["-m", "t2v_seed_ar"], "allowed with it: i2v and i2v_ar, and with --continue_from t2v_seed and t2v_seed_ar"),
        (
            ["-m", "i2v", "--picture_end", "PICTURE"],
            "has no meaning in a queue; give --plan full --new_video_length 4 (3",
        ),
        (["-m", "i2v", "--picture_end", "PICTURE", "--plan", "full", "-l", "5"], "has no meaning in a queue"),
        (["-m", "i2v", "--picture_end", "PICTURE", "--plan", "full", "--endless"], "has no meaning in a queue"),
        (
            ["-m", "i2v", "--picture_end", "nowhere.png", "--plan", "full", "-l", "4"],
            "--picture_end 'nowhere.png': there is",
        ),
        (["-m", "i2v", "--distilled_guidance", "7.5"], "--distilled_guidance 7.5: the U-Net of --config"),
        (["-m", "i2v", "--motion_guidance", "0.1"], "--motion_guidance 0.1: the U-Net of --config"),
    ],
)
def test_what_has_no_meaning_is_refused_in_a_sentence(tmp_path, crafter, flags, fault, capfd):
    flags = [crafter[-1] if flag == "PICTURE" else flag for flag in flags]
    given = crafter if flags[1] == "i2v" else crafter[:-2]
    assert command(*given, *flags, "--output_dir", tmp_path) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert fault in line


def test_other_models_take_no_last_picture(tmp_path, visual_model, crafter, capfd):
    flags = [
        "-m",
        "i2v",
        "--prompt",
        RED,
        "--image",
        crafter[-1],
        "--picture_end",
        crafter[-1],
        "--plan",
        "full",
        "-l",
        4,
    ]
    assert command(*visual_model, *flags, "--output_dir", tmp_path) == 2
    assert "needs a model that takes a picture's latent" in capfd.readouterr().err


def test_a_clip_between_two_pictures(tmp_path, crafter):
    """The last picture's latent stands beside the last frame; with the same picture it is a loop of one frame less."""
    blue = crafter[-1].with_name("blue.png")
    flags = [*crafter, "-m", "i2v", "--plan", "full", "--output_dir", tmp_path]
    for name, end, frames in (("plain", None, 4), ("between", blue, 4), ("loop", crafter[-1], 3)):
        more = [] if end is None else ["--picture_end", end]
        assert command(*flags, "-ex", name, "-l", frames, *more) == 0
        assert len(frames_of(tmp_path, name)) == frames
    assert not np.array_equal(frames_of(tmp_path, "plain"), frames_of(tmp_path, "between"))
    assert not np.array_equal(frames_of(tmp_path, "loop"), frames_of(tmp_path, "between")[:3])
    record = json.loads(one(tmp_path, "*/loop/loop.json").read_text())
    assert len(record["settings"]["--picture_end (its content)"]) == 64


def test_a_model_for_two_pictures_wants_both(tmp_path, crafter, capfd):
    config = yaml.safe_load(crafter[1].read_text())
    config["model"]["params"]["interp_mode"] = True
    (tmp_path / "interp.yaml").write_text(yaml.safe_dump(config))
    flags = [*crafter, "-m", "i2v", "--config", tmp_path / "interp.yaml", "--plan", "full", "-l", 4]
    assert command(*flags, "--output_dir", tmp_path) == 2
    assert "--picture_end is missing" in capfd.readouterr().err
    assert command(*flags, "--picture_end", crafter[-1], "--output_dir", tmp_path) == 0


@pytest.mark.parametrize("mode", ["t2v_seed", "t2v_seed_ar"])
def test_going_on_from_a_video_needs_no_other_picture(tmp_path, crafter, mode):
    source = write_pictures(tmp_path / "source", [np.full((32, 48, 3), 40 * shade, np.uint8) for shade in range(6)])
    flags = [*crafter[:-2], "-m", mode, "--continue_from", source, "--no-keep_source", "-l", 5]
    assert command(*flags, "--output_dir", tmp_path) == 0
    assert len(frames_of(tmp_path, mode)) == 5


@pytest.fixture(scope="module")
def turbo(tmp_path_factory) -> list[str | Path]:
    """Flags of a small T2V-Turbo v2: its U-Net alone, and the model that it comes from."""
    folder = tmp_path_factory.mktemp("turbo")
    config = tiny_config("t2v")
    params = config["model"]["params"]
    params |= {"parameterization": "eps", "use_scale": True}
    base = with_golden_weights(instantiate_from_config(config["model"]), "")
    save_file(base.state_dict(), folder / "base.safetensors")
    params["unet_config"]["params"] |= {"time_cond_proj_dim": 256, "motion_cond_proj_dim": 256}
    unet = with_golden_weights(instantiate_from_config(config["model"]), "").unet
    torch.save(unet.state_dict(), folder / "unet.pt")
    official = yaml.safe_load((Path(__file__).parents[2] / "configs/inference_t2v_turbo_v2.yaml").read_text())
    paths = {"ckpt_path": str(folder / "unet.pt"), "base_ckpt_path": str(folder / "base.safetensors")}
    config["inference"] = official["inference"] | paths | {"height": 32, "width": 48, "plan": "plateau:2"}
    (folder / "turbo.yaml").write_text(yaml.safe_dump(config))
    flags = ["--config", folder / "turbo.yaml", "--precision", "fp32", "--save_frames", "--device", "cpu"]
    return [*flags, "--video_length", "4", "--prompt", RED]


def test_turbo_makes_a_video_of_two_files(tmp_path, turbo):
    """Four levels, two frames at each, no guidance; resumed it is the same; scales and context level are felt."""
    assert command(*turbo, "-l", 9, "--output_dir", tmp_path / "a") == 0
    frames = frames_of(tmp_path / "a", "t2v")
    for length in (4, 9):
        assert command(*turbo, "-l", length, "--output_dir", tmp_path / "b") == 0
    assert np.array_equal(frames_of(tmp_path / "b", "t2v"), frames)
    record = json.loads(one(tmp_path / "a", "*/t2v/t2v.json").read_text())
    assert record["options"]["timesteps"] == [999, 749, 499, 249]
    assert record["options"]["eta"] == CONSISTENCY
    assert record["options"]["lookahead_denoising"] is False
    assert record["settings"]["--distilled_guidance"] == 7.5
    assert len(record["settings"]["--base_ckpt_path (its content)"]) == 64
    for name, flags in (
        ("w", ["--distilled_guidance", 6]),
        ("m", ["--motion_guidance", 5]),
        ("share", ["--motion_guidance", 5, "--motion_share", 0.9]),
        ("seen", ["--lookahead_denoising"]),
        ("seen clean", ["--lookahead_denoising", "--context_level", 0]),
        ("fifo", ["--plan", "fifo", "-n", 1]),
    ):
        assert command(*turbo, "-l", 9, *flags, "--output_dir", tmp_path / name) == 0
        assert not np.array_equal(frames_of(tmp_path / name, "t2v"), frames), name
    assert not np.array_equal(*(frames_of(tmp_path / name, "t2v") for name in ("m", "share")))
    assert not np.array_equal(*(frames_of(tmp_path / name, "t2v") for name in ("seen", "seen clean")))


def test_turbo_from_python_and_a_complete_file(tmp_path, turbo):
    """The base is part of what the video is made of only where it is needed."""
    model = load_model(turbo[1], precision="fp32", device="cpu")
    schedule = Run(model.network, model.options).queue_schedule()
    assert schedule.boundary
    assert (schedule.scales == 1).all()  # not those of the model that it comes from
    (frame,) = generate(model, RED, frames=1, options=Options(video_length=4))
    assert command(*turbo, "-l", 1, "--output_dir", tmp_path / "a") == 0
    assert np.array_equal(frames_of(tmp_path / "a", "t2v")[0], frame)
    folder = Path(turbo[1]).parent
    unet = torch.load(folder / "unet.pt", weights_only=True)
    whole = load_file(folder / "base.safetensors") | {
        f"model.diffusion_model.{name}": each for name, each in unet.items()
    }
    save_file(whole, tmp_path / "whole.safetensors")
    flags = ["--ckpt_path", tmp_path / "whole.safetensors", "--base_ckpt_path", tmp_path / "nowhere.ckpt"]
    assert command(*turbo, "-l", 1, *flags, "--output_dir", tmp_path / "b") == 0
    assert np.array_equal(frames_of(tmp_path / "b", "t2v")[0], frame)
    assert (
        json.loads(one(tmp_path / "b", "*/t2v/t2v.json").read_text())["settings"]["--base_ckpt_path (its content)"]
        is None
    )


def test_a_missing_scale_is_said(tmp_path, turbo, capfd):
    config = yaml.safe_load(Path(turbo[1]).read_text())
    del config["inference"]["distilled_guidance"]
    (tmp_path / "turbo.yaml").write_text(yaml.safe_dump(config))
    assert command(*turbo, "--config", tmp_path / "turbo.yaml", "-l", 1, "--output_dir", tmp_path) == 2
    assert "--distilled_guidance is missing" in capfd.readouterr().err
