from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from lvdm.cli.arguments import parse_args
from lvdm.io.files import check_writable
from lvdm.pipeline.mode import Mode
from lvdm.runtime.cpu import has_bf16_units

INFERENCE = {
    "ckpt_path": "videocrafter_models/tiny_t2v/model.ckpt",
    "prompt_file": "prompts/shapes.txt",
    "height": 64,
    "width": 96,
    "fps": 12,
    "output_fps": 9,
    "unconditional_guidance_scale": 7,
}


def model(target="lvdm.models.ddpm3d.LatentDiffusion", *, image_size=(40, 64)):
    """A model with sides in multiples of 8 * 4 pixels."""
    unet = {"temporal_length": 16, "channel_mult": [1, 2, 4]}
    first_stage = {"ddconfig": {"ch_mult": [1, 2, 4, 4]}}
    params = {"unet_config": {"params": unet}, "first_stage_config": {"params": first_stage}}
    return {"target": target, "params": {"image_size": list(image_size), **params}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with configs to choose from."""
    monkeypatch.chdir(tmp_path)
    configs = {
        "tiny": {"model": model(), "inference": INFERENCE},
        "official": {"model": model()},
        "image": {"model": model("lvdm.models.ddpm3d.LatentVisualDiffusion"), "inference": INFERENCE},
        "no_model": {"inference": INFERENCE},
        "no_unet": {"model": {"target": "a.LatentDiffusion", "params": {}}},
        "typo": {"model": model(), "inference": INFERENCE | {"heihgt": 64}},
        "wrong_type": {"model": model(), "inference": INFERENCE | {"fps": "many"}},
    }
    for name, config in configs.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(config))
    Path("broken.yaml").write_text("model: [\n  1,\n")
    Path("code.yaml").write_text("model: !!python/object/apply:os.system ['touch executed']\n")
    return tmp_path


def parse(line, config="tiny"):
    return parse_args(["--config", f"{config}.yaml", *line.split()])


def test_defaults(folder):
    options = parse("--device cpu")
    assert options.mode == Mode("t2v")
    assert (options.seed, options.new_video_length, options.eta) == (321, 100, 1.0)
    assert (options.video_length, options.num_partitions, options.steps) == (16, 4, 64)
    assert (options.lookahead_denoising, options.queue_scale, options.base_spacing) == (True, False, "fifo")
    assert (options.qcache_weight, options.window_batch) == (0.9, None)
    assert (options.num_processes, options.rank) == (1, 0)
    assert (options.experiment, options.formats) == ("t2v", ("gif",))
    assert (options.save_frames, options.save_queue, options.debug) == (False, False, False)
    assert (options.device, options.image_fit) == ("cpu", "crop")
    assert options.precision == ("bf16" if has_bf16_units() else "fp32")
    assert options.results_root == Path("results/videocraft_v2_fifo/random_noise")
    for key, value in INFERENCE.items():
        assert getattr(options, key) == (Path(value) if isinstance(value, str) else value)


def test_the_default_config_is_the_embedded_model_for_the_mode(folder):
    (folder / "configs").mkdir()
    Path("tiny.yaml").rename("configs/inference_t2v_tiny.yaml")
    Path("image.yaml").rename("configs/inference_i2v_tiny.yaml")
    assert parse_args([]).config == Path("configs/inference_t2v_tiny.yaml")
    for mode in ("i2v", "t2v_seed", "t2v_seed_ar_TTqcache"):
        assert parse_args(["-m", mode]).config == Path("configs/inference_i2v_tiny.yaml")


def test_every_flag_wins(folder):
    line = (
        "--ckpt_path c.ckpt --seed 5 --video_length 8 -n 3 --num_inference_steps 24 -p p.csv "
        "-m t2v_unilatent_STqcache -l 7 --num_processes 4 --rank 3 --height 96 --width 128 --save_frames --save_queue "
        "--fps 24 --unconditional_guidance_scale 3.5 --no-lookahead_denoising --debug -ex try.1 -e 0.5 "
        "--output_dir out --formats mp4 gif mp4 --output_fps 30 --qcache_weight 0.25 --queue_scale --device cpu "
        "--precision bf16 --window_batch 2 --base_spacing videocrafter --overwrite --save_every 3 --crf 30 "
        "--prompt_blend 4 --negative_prompt blurred"
    )
    options = parse(line)
    assert (options.ckpt_path, options.prompt_file, options.results_root) == (
        Path("c.ckpt"),
        Path("p.csv"),
        Path("out"),
    )
    assert (options.seed, options.video_length, options.num_partitions, options.steps) == (5, 8, 3, 24)
    assert str(options.mode) == "t2v_STqcache_attn1_unilatent"
    assert (options.new_video_length, options.num_processes, options.rank) == (7, 4, 3)
    assert (options.height, options.width, options.fps, options.output_fps) == (96, 128, 24, 30)
    assert (options.unconditional_guidance_scale, options.eta, options.qcache_weight) == (3.5, 0.5, 0.25)
    assert (options.lookahead_denoising, options.queue_scale, options.base_spacing) == (False, True, "videocrafter")
    assert (options.experiment, options.formats) == ("try.1", ("mp4", "gif"))
    assert (options.overwrite, options.save_every, options.crf) == (True, 3, 30)
    assert (options.prompt_blend, options.negative_prompt) == (4, "blurred")
    assert (options.save_frames, options.save_queue, options.debug) == (True, True, True)
    assert (options.precision, options.window_batch) == ("bf16", 2)
    assert parse(line.replace(" -n ", " --num_partitions ").replace(" -e ", " --eta ")) == options


def test_lookahead_can_be_said_either_way(folder):
    assert parse("-ld") == parse("--lookahead_denoising") == parse("")
    assert replace(parse("--no-lookahead_denoising"), lookahead_denoising=True) == parse("")


def test_use_mp4_means_the_format(folder):
    assert parse("--use_mp4") == parse("--formats mp4")


def test_official_configs_need_no_inference_section(folder):
    options = parse("--ckpt_path model.ckpt -p prompts.txt", "official")
    assert (options.height, options.width) == (320, 512)
    assert (options.fps, options.output_fps, options.unconditional_guidance_scale) == (8, 10, 12.0)


def test_the_weight_in_the_mode_wins(folder):
    assert parse("-m t2v_TTqcache_weighted70").qcache_weight == 0.7
    assert parse("-m t2v_TTqcache_weighted70 --qcache_weight 0.7").qcache_weight == 0.7
    assert parse("-m t2v_TTqcache --qcache_weight 0.3").qcache_weight == 0.3


def test_a_model_that_takes_images_may_be_asked_for_them(folder):
    assert parse("-m t2v_seed_ar", "image").mode.needs_image
    assert parse("-m i2v --image_fit pad", "image").image_fit == "pad"


def test_device_and_precision(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: {"cuda:0": (9, 0), "cuda:1": (7, 5)}[device]
    )
    resolved = {
        "": ("cuda:0", "bf16"),
        "--num_processes 4 --rank 3": ("cuda:1", "fp16"),
        "--device cuda:1 --precision fp32": ("cuda:1", "fp32"),
        "--device cuda --precision fp16": ("cuda:0", "fp16"),
        "--device cuda --num_processes 2 --rank 1": ("cuda:1", "fp16"),
        "--device cpu": ("cpu", "bf16" if has_bf16_units() else "fp32"),
    }
    for line, expected in resolved.items():
        options = parse(line)
        assert (options.device, options.precision) == expected
    with pytest.raises(ValueError, match="--device 'cuda:2': there are 2 CUDA devices here; .* N from 0 to 1"):
        parse("--device cuda:2")


def device_of_the_last_of(ranks, line, monkeypatch):
    """On a machine with 2 CUDA devices, one of several."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    of_torchrun = {"WORLD_SIZE": 8, "RANK": 7, "LOCAL_WORLD_SIZE": ranks, "LOCAL_RANK": ranks - 1}
    for name, value in of_torchrun.items():
        monkeypatch.setenv(name, str(value))
    return parse(f"{line} --precision fp32").device


@pytest.mark.parametrize(
    ("ranks", "line", "device"),
    [
        (2, "", "cuda:1"),
        (2, "--device cuda", "cuda:1"),
        (4, "--device cuda --parallel prompts", "cuda:1"),
        (3, "--parallel prompts", "cuda:0"),
        (2, "--device cuda:0 --parallel prompts", "cuda:0"),
        (1, "--device cuda:1", "cuda:1"),
        (3, "--device cpu", "cpu"),
    ],
)
def test_ranks_spread_over_the_devices_of_a_machine(folder, monkeypatch, ranks, line, device):
    assert device_of_the_last_of(ranks, line, monkeypatch) == device


@pytest.mark.parametrize(
    ("ranks", "line", "words"),
    [
        (3, "", "--parallel windows: 3 ranks .* 2 here; .* --parallel prompts"),
        (3, "--device cuda", "--parallel windows: 3 ranks .* 2 here"),
        (2, "--device cuda:1", "--device 'cuda:1' --parallel windows: 2 ranks .* use --device cuda"),
    ],
)
def test_ranks_that_share_windows_need_a_device_each(folder, monkeypatch, ranks, line, words):
    with pytest.raises(ValueError, match=words):
        device_of_the_last_of(ranks, line, monkeypatch)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--config nowhere.yaml", "--config 'nowhere.yaml' no such file"),
        ("--config broken.yaml", "--config 'broken.yaml' YAML"),
        ("--config .", "--config '.' directory"),
        ("--config code.yaml", "--config 'code.yaml' YAML"),
        ("--config no_model.yaml", "--config 'no_model.yaml' `model:`"),
        ("--config no_unet.yaml", "--config 'no_unet.yaml' ddconfig.ch_mult"),
        ("--config typo.yaml", "--config 'typo.yaml' heihgt height"),
        ("--config wrong_type.yaml", "--config 'wrong_type.yaml' inference.fps 'many'"),
        ("--config official.yaml --ckpt_path m.ckpt", "--prompt --prompt_file --config 'official.yaml'"),
        ("--config official.yaml -p p.txt", "--ckpt_path --config 'official.yaml'"),
        ("-m i2v", "--mode 'i2v' takes no image t2v"),
        ("-m t2v_seed_TTqcache", "--mode 't2v_seed_TTqcache_attn1' takes no image"),
        ("-m t2v_fast", "--mode 't2v_fast' unknown word 'fast' unilatent"),
        ("-n 0", "--num_partitions 0 at least 1"),
        ("--video_length 7", "--video_length 7 even 16"),
        ("--video_length 0", "--video_length 0 2"),
        ("--video_length -2", "--video_length -2 2"),
        ("--video_length 18", "--video_length 18 16 temporal_length"),
        ("--num_inference_steps 65", "--num_inference_steps 65 16*4 64"),
        ("-l 0", "--new_video_length 0 from 1"),
        ("-l 99999999999999999999", "--new_video_length from 1 --endless"),
        ("-n 63", "--num_partitions 63 at most 62 16*63 = 1008 1000"),
        ("--height 99999968", "--height 99999968 at most 4096"),
        ("--save_every 0", "--save_every 0 at least 1"),
        ("--prompt_blend -1", "--prompt_blend -1 at least 0"),
        ("--crf 52", "--crf 52 51"),
        (
            "--negative_prompt blurred --unconditional_guidance_scale 1",
            "--negative_prompt 'blurred' --unconditional_guidance_scale 1",
        ),
        ("--height 100", "--height 100 multiple 32 96 and 128"),
        ("--width 16", "--width 16 multiple 32 nearest is 32"),
        ("--width 0", "--width 0 multiple 32"),
        ("--height -64", "--height -64 positive multiple nearest is 32"),
        ("-e 1.5", "--eta 1.5 0 to 1"),
        ("-e nan", "--eta nan 0 to 1"),
        ("--unconditional_guidance_scale inf", "--unconditional_guidance_scale inf finite"),
        ("--unconditional_guidance_scale nan", "--unconditional_guidance_scale nan finite"),
        ("--qcache_weight 1.01", "--qcache_weight 1.01 0 to 1"),
        ("--qcache_weight nan", "--qcache_weight nan 0 to 1"),
        ("-m t2v_TTqcache_weighted90 --qcache_weight 0.8", "--qcache_weight 0.8 --mode 0.9"),
        ("--rank 1", "--rank 1 --num_processes 1"),
        ("--rank -1", "--rank -1 from 0"),
        ("--num_processes 0", "--num_processes 0 at least 1"),
        ("--seed -1", "--seed -1 from 0"),
        ("--fps 0", "--fps 0 from 1 to 1000"),
        ("--output_fps -3", "--output_fps -3 from 1"),
        ("--window_batch 0", "--window_batch 0 at least 1"),
        ("--compile --offload", "--compile --offload cannot be combined"),
        ("--device cpu --precision fp16", "--precision 'fp16' cpu fp32 bf16"),
        ("--device gpu", "--device 'gpu' cpu cuda"),
        ("--device cuda:99", "--device 'cuda:99'"),
        ("-ex ../up", "--experiment '../up'"),
        ("--image_fit pad", "--image_fit 'pad' i2v 't2v'"),
        ("-ex .", "--experiment '.'"),
    ],
)
def test_bad_values(folder, line, words):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        parse(line)
    message = str(caught.value)
    assert "\n" not in message
    for word in words.split():
        assert word in message
    assert not Path("executed").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent(folder):
    with pytest.raises(ValueError, match="--device 'cuda': there are 0 CUDA devices"):
        parse("--device cuda")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seed", "abc"], "--seed 'abc'"),
        (["--eta", "1\n2"], "--eta '1\\n2'"),
        (["--precision", "fp8"], "--precision 'fp8' fp32 bf16 fp16"),
        (["--image_fit", "zoom"], "--image_fit 'zoom' crop pad"),
        (["--formats", "gif", "webm"], "--formats 'webm' gif mp4"),
        (["--base_spacing", "linear"], "--base_spacing 'linear'"),
        (["--use_mp4", "--formats", "gif"], "--use_mp4 --formats"),
        (["--num_part", "3"], "--num_part 3"),
        (["--mode"], "--mode"),
        (["two\nlines"], "two lines"),
    ],
)
def test_words_that_argparse_cannot_read(folder, capsys, words, expected):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (what it says is looked at below)
        parse_args(["--config", "tiny.yaml", *words])
    assert capsys.readouterr() == ("", "")
    message = str(caught.value)
    assert "\n" not in message
    for word in expected.split():
        assert word in message


def test_an_output_folder_must_take_files(tmp_path):
    check_writable(tmp_path / "a" / "b", flag="--output_dir")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/self/nothing")):
        with pytest.raises(ValueError, match="--output_dir") as caught:
            check_writable(folder, flag="--output_dir")
        assert repr(str(folder)) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("words", "rows"), [("", None), ("--window_batch 3", 6)])
def test_a_window_is_a_row_without_guidance_and_two_with_it(folder, words, rows):
    assert parse(words).rows == rows
    assert parse(f"{words} --unconditional_guidance_scale 1").rows == (rows and rows // 2)


@pytest.mark.parametrize(
    "flag", ["--no-endless", "--no-save_frames", "--no-save_queue", "--no-overwrite", "--no-debug"]
)
def test_a_switch_that_is_off_by_itself_cannot_be_switched_off(folder, flag):
    with pytest.raises(ValueError, match=flag):
        parse(flag)
