"""Every stage of training runs and resumes on a model of a few thousand weights, and starts from the one before."""

import csv
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, load_script, tiny_config, with_golden_weights
from torch.utils.data import default_collate

from lvdm.data.captions import HELD_OUT_SCENES, SCENES, TRAINING_SCENES, Scene
from lvdm.data.shapes import ShapeClips
from lvdm.data.videos import VideoFolder
from lvdm.io.configs import read_config
from lvdm.models.checkpoint import read_state_dict, save_half
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.models.loading import instantiate_from_config, load_network
from lvdm.training.config import Training
from lvdm.training.diffusion import contrast, without_temporal_layers
from lvdm.training.distillation import DistillationTraining
from lvdm.training.optimization import Optimization
from lvdm.training.run import read_dataset, start_from
from lvdm.training.trainable import freeze_all_but


def write_configs(folder: Path) -> Path:
    """A miniature of the embedded model, and training configs for it that write below `folder`."""
    for file, name in (("model", "t2v"), ("visual", "i2v")):
        (folder / f"{file}.yaml").write_text(yaml.safe_dump(tiny_config(name)))
    shared = {
        "model_config": str(folder / "model.yaml"),
        "data": {"kind": "shapes", "size": 8, "frames": 4, "height": 32, "width": 48},
        "optimization": {"steps": 3, "warmup": 1},
        "ema_decay": 0.5,  # visible in half precision after 3 steps
        "save_every": 2,
        "sample_every": 3,
        "hardware": {"accelerator": "cpu", "precision": "32-true"},
    }
    stages = {
        "autoencoder": {"stage": "autoencoder", "frames": 4},
        "frames": {"stage": "diffusion", "frames": 4, "objective": {"frames": 2}},
        "clips": {"stage": "diffusion", "frames": 4, "clips": 2},
        "vision": {"stage": "distillation", "frames": 4, "model_config": str(folder / "visual.yaml")},
        "pictures": {
            "stage": "diffusion",
            "frames": 4,
            "clips": 4,
            "objective": {"object_weight": 4.0, "even_contrast": 20.0},
            "model_config": str(folder / "visual.yaml"),
        },
        "turbo": {
            "stage": "queue_distillation",
            "clips": 2,
            "queue": {"timesteps": [999, 400], "width": 2, "substeps": 2},
            "model_config": str(folder / "visual.yaml"),
        },
    }
    previous = None
    for name, stage in stages.items():
        stage = (
            shared
            | stage
            | {"output": str(folder / name), "sample_captions": [SCENES[0].caption] if name == "frames" else []}
        )
        if previous is not None:
            stage["init_from"] = str(folder / previous / "model.ckpt")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(stage))
        previous = name
    return folder


pytestmark = pytest.mark.filterwarnings("ignore:::pytorch_lightning")  # advice on so short a training


def train_in_a_process(config: Path, *arguments: str) -> str:
    """Run the command as users do; return what it writes to stderr."""
    words = [sys.executable, "scripts/train.py", "--config", str(config), "--threads", "1", *arguments]
    finished = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stderr


@pytest.fixture
def train(monkeypatch, capfd):
    """The same in this process, which saves the imports."""
    script, threads = load_script("train"), torch.get_num_threads()

    def run(config: Path, *arguments: str) -> str:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(config), "--threads", "1", *arguments])
        with torch.enable_grad():
            assert script.main() == 0, capfd.readouterr().err
        return capfd.readouterr().err

    monkeypatch.chdir(ROOT)
    yield run
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_every_stage_trains_resumes_and_starts_from_the_one_before(tmp_path, train):
    write_configs(tmp_path)
    for name in ("autoencoder", "frames", "clips"):
        progress = (train_in_a_process if name == "autoencoder" else train)(tmp_path / f"{name}.yaml")
        assert "training: 0% 0/3 " in progress
        assert "training: 100% 3/3 " in progress
        assert (tmp_path / name / "samples" / "000003.png").is_file()
        assert (tmp_path / name / "log" / "version_0" / "metrics.csv").is_file()
    loaded = load_network(tmp_path / "model.yaml", tmp_path / "clips" / "model.ckpt", device=torch.device("cpu"))
    assert isinstance(loaded, LatentDiffusion)

    alone, frames, clips = (
        read_state_dict(tmp_path / name / "model.ckpt") for name in ("autoencoder", "frames", "clips")
    )
    assert set(alone) == {name for name in frames if name.startswith("first_stage_model.")}
    assert all(torch.equal(alone[name], frames[name]) for name in alone)
    temporal = [name for name in clips if "temopral_conv" in name and name.endswith("conv4.3.weight")]
    assert all(not frames[name].any() for name in temporal)  # untouched by the frames stage
    assert any(clips[name].any() for name in temporal)
    first_stage = [name for name in clips if name.startswith("first_stage_model")]
    assert all(torch.equal(frames[name], clips[name]) for name in first_stage)

    progress = train(tmp_path / "clips.yaml", "--steps", "5")
    assert "training: 60% 3/5 " in progress  # it resumes at step 3
    assert "training: 0% 0/5 " not in progress
    with open(tmp_path / "clips" / "log" / "version_1" / "metrics.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4"]
    assert torch.load(tmp_path / "clips" / "last.ckpt", weights_only=False)["global_step"] == 5
    before = read_state_dict(tmp_path / "clips" / "model.ckpt")
    train(tmp_path / "clips.yaml", "--steps", "5")  # nothing is left to do, and the averaged weights stay
    after = read_state_dict(tmp_path / "clips" / "model.ckpt")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("trainable", ["temporal", ["*.time_embed.*", "cond_stage_model.*ln_final.bias"]])
def test_only_the_chosen_weights_learn(tmp_path, train, trainable):
    write_configs(tmp_path)
    model = with_golden_weights(instantiate_from_config(read_config(tmp_path / "model.yaml")["model"]), "")
    save_half(model, tmp_path / "frames" / "model.ckpt")
    config = yaml.safe_load((tmp_path / "clips.yaml").read_text()) | {"trainable": trainable}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump(config))
    train(tmp_path / "some.yaml")
    before, after = (read_state_dict(tmp_path / name / "model.ckpt") for name in ("frames", "clips"))
    last = torch.load(tmp_path / "clips" / "last.ckpt", weights_only=False)
    assert set(before) == set(after) == {name.removeprefix("model.") for name in last["state_dict"]}
    temporal = re.compile(
        r"temopral_conv|init_attn|put_blocks\.\d\.2\.|middle_block\.2\."
    )  # by their places in the tiny U-Net
    others = re.compile(r"\.time_embed\.|^cond_stage_model.*ln_final\.bias")
    chosen = {name for name in before if (temporal if trainable == "temporal" else others).search(name)}
    assert {name for name in before if not torch.equal(before[name], after[name])} == chosen
    (optimizer,) = last["optimizer_states"]
    assert len(optimizer["param_groups"][0]["params"]) == len(chosen)


def test_frozen_weights_get_no_gradient_and_unmatched_patterns_are_named():
    model = instantiate_from_config(tiny_config("t2v")["model"])
    model.first_stage_model.requires_grad_(False)
    freeze_all_but(model, ["*.attn2.*", "cond_stage_model.*"])
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {
        name for name, _ in model.named_parameters() if ".attn2." in name or name.startswith("cond_stage_model.")
    }
    for patterns in (["cond_stage_model.*", "*.attn3.*"], ["*.attn3.*"], ["first_stage_model.*"]):
        with pytest.raises(ValueError, match=re.escape(f"trainable has {patterns[-1]!r}, which matches none")):
            freeze_all_but(model, patterns)
    with pytest.raises(ValueError, match="the model has no temporal layers"):
        freeze_all_but(model.first_stage_model.requires_grad_(True), "temporal")


def test_a_model_for_pictures_starts_from_one_for_text_and_a_student_from_that(tmp_path, train):
    write_configs(tmp_path)
    text_model = instantiate_from_config(read_config(tmp_path / "model.yaml")["model"])
    save_half(text_model, tmp_path / "clips" / "model.ckpt")
    for name in ("vision", "pictures"):
        train(tmp_path / f"{name}.yaml")
    before, seeing, after = (
        read_state_dict(tmp_path / name / "model.ckpt") for name in ("clips", "vision", "pictures")
    )
    assert set(before) < set(seeing) == set(after)
    assert all(torch.equal(before[name], seeing[name]) for name in before)  # only the encoder of pictures learns
    new = {name for name in seeing if "_ip." in name}
    assert new
    assert all(torch.equal(seeing[name], before[name.replace("_ip.", ".")]) for name in new)
    shared = [name for name in before if name.startswith(("first_stage_model.", "alphas"))]
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert not all(torch.equal(seeing[name], after[name]) for name in new)
    train(tmp_path / "turbo.yaml")
    student = read_state_dict(tmp_path / "turbo" / "model.ckpt")
    assert set(student) == set(after)
    assert {name.split(".")[0] for name in student if not torch.equal(student[name], after[name])} == {"model"}
    assert iio.imread(tmp_path / "turbo" / "samples" / "000003.png").shape[1] == (2 + 12) * 48  # base clip and queue
    other = {name: value for name, value in after.items() if not name.startswith("cond_stage_model.")}
    torch.save(other, tmp_path / "other.ckpt")
    model = instantiate_from_config(read_config(tmp_path / "visual.yaml")["model"])
    with pytest.raises(ValueError, match="keys missing: cond_stage_model"):
        start_from(model, tmp_path / "other.ckpt")


@torch.enable_grad()
def test_distillation_makes_image_tokens_match_those_of_captions():
    torch.manual_seed(0)
    model = instantiate_from_config(read_config(ROOT / "configs/inference_i2v_tiny.yaml")["model"])
    start_from(model, ROOT / "videocrafter_models/tiny_t2v/model.ckpt")
    module = DistillationTraining(model, optimization=Optimization(steps=100, warmup=1), blank=0.3)
    module.log = lambda *_, **__: None
    optimizer = module.configure_optimizers()["optimizer"]
    batch = default_collate([ShapeClips(4, frames=1)[number] for number in range(4)])
    for step in range(100):
        optimizer.zero_grad()
        module.training_step(batch, step).backward()
        optimizer.step()
    with torch.no_grad():
        seen = model.encode_pictures(torch.cat([batch["pictures"][:, 0], torch.zeros(1, 3, 64, 96)])).flatten(1)
        told = model.encode_text([*batch["caption"], ""])[:, :, :16].flatten(1)
    assert torch.cdist(seen, told).argmin(1).tolist() == [0, 1, 2, 3, 4]


def test_the_pictures_of_a_clip_are_its_first_frame_and_an_earlier_one():
    """The first is its first frame, the second the same scene some time before."""
    clip = ShapeClips(5, lead=2)[3]
    torch.testing.assert_close(clip["pictures"][0], clip["video"][:, 0])
    assert (clip["pictures"][1] - clip["pictures"][0]).abs().max() > 0.5
    later = ShapeClips(5, lead=96)[3]
    torch.testing.assert_close(later["video"], clip["video"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stage": "magic"}, "'magic'.*autoencoder"),
        ({"data": {"kind": "dreams"}}, "'dreams'.*shapes"),
        ({"batch": 3}, "the file has 'batch', allowed are model_config"),
        ({"optimization": {"speed": 1}}, "optimization has 'speed', allowed are steps"),
        ({"objective": 3}, "objective is 3, expected a mapping with"),
        ({"optimization": {}}, "optimization lacks 'steps'"),
        ({"trainable": "spatial"}, "trainable is 'spatial', allowed are 'all', 'temporal' or a list"),
        ({"trainable": []}, r"trainable is \[\], allowed are"),
        ({"trainable": "temporal", "clips": 0}, "trainable is 'temporal', but without clips"),
        ({"trainable": ["*"], "stage": "autoencoder"}, "trainable is .*, but stage 'autoencoder' has"),
    ],
)
def test_an_invalid_training_config_is_an_error_that_names_the_value(tmp_path, change, expected):
    write_configs(tmp_path)
    config = yaml.safe_load((tmp_path / "clips.yaml").read_text()) | change
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=expected):
        Training.from_yaml(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"whole": 2}, "whole is 2"),
        ({"emphasis": {"flying": 2}}, "flying"),
        ({"speed": 4}, "has 'speed', allowed are size"),
    ],
)
def test_an_invalid_data_section_is_an_error_that_names_the_value(change, expected):
    with pytest.raises(ValueError, match=expected):
        read_dataset({"kind": "shapes", "size": 4} | change)


@pytest.mark.parametrize("folder", sorted((ROOT / "configs/train").iterdir()), ids=lambda folder: folder.name)
def test_shipped_training_configs_are_valid_and_follow_one_another(folder):
    stages = [Training.from_yaml(path) for path in sorted(folder.glob("[0-9]*.yaml"))]
    assert stages
    for stage in stages:
        assert instantiate_from_config(read_config(ROOT / stage.model_config)["model"])
    for before, stage in pairwise(stages):
        assert stage.init_from == f"{before.output}/model.ckpt"


def test_a_fifth_of_the_scenes_is_held_out_and_every_word_pair_is_trained():
    assert len(SCENES) == 600
    assert len(HELD_OUT_SCENES) == 120
    assert not set(HELD_OUT_SCENES) & set(TRAINING_SCENES)
    pairs = {(scene.color, scene.shape) for scene in TRAINING_SCENES}
    assert len(pairs) == 20
    assert len({(scene.shape, scene.motion) for scene in TRAINING_SCENES}) == 24
    assert all(Scene.parse(scene.caption) == scene for scene in SCENES)
    assert all(Scene.parse(ShapeClips(50)[index]["caption"]) in TRAINING_SCENES for index in range(50))


def test_a_clip_depends_only_on_its_index_and_can_have_any_length():
    short, long = ShapeClips(20, frames=4), ShapeClips(20, frames=200)
    for index in (3, 17):
        torch.testing.assert_close(short[index]["video"], long[index]["video"][:, :4])
        covered = long[index]["mask"].sum((0, 2, 3))
        assert covered.min() > 0  # always in sight
        assert ShapeClips(20)[index]["caption"] == short[index]["caption"]


def test_whole_shapes_cross_only_the_sides_that_they_move_across():
    def lies_across(clip: dict) -> bool:
        columns, rows = clip["mask"][0].amax(1), clip["mask"][0].amax(2)  # (T, W), (T, H)
        over = ((columns, ("left", "right")), (rows, ("up", "down")))
        still = (sides for sides, words in over if not any(word in clip["caption"] for word in words))
        return any(bool((sides[:, 0] * sides[:, -1]).any()) for sides in still)

    anywhere, whole = (ShapeClips(100, seed=5, whole=share) for share in (0, 1))
    assert not any(map(lies_across, map(whole.__getitem__, range(100))))
    assert 40 <= sum(map(lies_across, map(anywhere.__getitem__, range(100)))) <= 60
    assert [anywhere[i]["caption"] for i in range(9)] == [whole[i]["caption"] for i in range(9)]
    assert torch.equal(anywhere[7]["video"], ShapeClips(60, seed=5)[7]["video"])


def test_contrast_is_the_squared_distance_of_object_and_background():
    mask = torch.zeros(2, 1, 3, 8, 12)
    mask[..., 2:5, 3:7] = 1
    objects = torch.tensor([[3.0, 0, 0, -4], [0, 1, 2, 0]])[..., None, None, None]
    background = torch.tensor([0.5, 0, -1, 2])[..., None, None, None]
    latents = background + mask * objects
    assert contrast(latents, mask).flatten().tolist() == pytest.approx([25, 5])


def test_without_temporal_layers_frames_are_independent():
    torch.manual_seed(0)
    unet = instantiate_from_config(read_config(ROOT / "configs/inference_t2v_tiny.yaml")["model"]).unet.eval()
    for parameter in unet.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    x, timesteps = torch.randn(1, 4, 3, 8, 12), torch.tensor([[10, 500, 900]])
    context, fps = torch.randn(1, 1, 77, 64), torch.tensor([8])
    keys = list(unet.state_dict())
    with without_temporal_layers(unet):
        together = unet(x, timesteps, context, fps)
        alone = [unet(x[:, :, i : i + 1], timesteps[:, i : i + 1], context, fps) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, dim=2), atol=1e-4, rtol=1e-4)
    assert list(unet.state_dict()) == keys
    assert (unet(x, timesteps, context, fps) - together).abs().max() > 1e-3


def test_a_folder_of_videos_is_read_with_captions(tmp_path):
    frames = np.zeros((6, 40, 80, 3), np.uint8)
    frames[:, :, 30:50] = 255  # a white bar that the centre cut keeps
    frames[:, 0, 0, 0] = range(0, 240, 40)  # a GIF holds equal frames only once
    iio.imwrite(tmp_path / "a.gif", frames)
    (tmp_path / "a.txt").write_text("a white bar\n")
    clip = VideoFolder(str(tmp_path), frames=3, height=32, width=32, stride=2)[0]
    assert clip["video"].shape == (3, 3, 32, 32)
    assert clip["caption"] == "a white bar"
    assert clip["video"][:, :, :, 16].min() > 0.9
    assert clip["video"][:, :, :, 0].max() < -0.9
    with pytest.raises(ValueError, match="6 frames"):
        VideoFolder(str(tmp_path), frames=7)[0]
    (tmp_path / "a.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.txt"):
        VideoFolder(str(tmp_path))[0]
    with pytest.raises(FileNotFoundError, match="no video"):
        VideoFolder(str(tmp_path / "nowhere"))[0]
