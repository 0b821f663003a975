"""Checkpoints of every format; files that are missing, wrong, cut short or hostile."""

import json
import os
import pickle

import pytest
import safetensors.torch
import torch
from helpers import DATA, ROOT
from omegaconf import OmegaConf

from lvdm.io.configs import read_config
from lvdm.models.checkpoint import Checkpoint, WrongCheckpointError, read_state_dict, save_half
from lvdm.models.loading import build_on_meta, fitting_configs, instantiate_from_config, load_network

TINY = ROOT / "configs/inference_t2v_tiny.yaml"


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return instantiate_from_config(read_config(TINY)["model"]).state_dict()


def test_shipped_configs_hold_the_official_parameters():
    official = json.loads((DATA / "official_params.json").read_text())
    assert len(official) == 3
    for name in official:
        assert read_config(ROOT / "configs" / f"{name}.yaml")["model"] == official[name]["model"]


def write(state: dict, form: str, path) -> None:
    if form == "safetensors":
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    elif form == "old zip-less file":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        content = {
            "bare": state,
            "state_dict": {"state_dict": state, "global_step": 7},
            "DeepSpeed": {"module": {f"_forward_module.{name}": tensor for name, tensor in state.items()}},
            "Lightning with OmegaConf": {
                "state_dict": state,
                "hyper_parameters": OmegaConf.create({"a": {"b": [1, "two", None, 0.5]}}),
            },
        }[form]
        torch.save(content, path)


@pytest.mark.parametrize(
    "form", ["bare", "state_dict", "DeepSpeed", "Lightning with OmegaConf", "old zip-less file", "safetensors"]
)
def test_every_format_reads_the_same(tiny_state, tmp_path, form):
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.ckpt")
    write(tiny_state, form, path)
    read = read_state_dict(path)
    assert read.keys() == tiny_state.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tiny_state.items())


def test_half_precision_round_trip(tiny_state, tmp_path):
    model = instantiate_from_config(read_config(TINY)["model"])
    save_half(model, tmp_path / "model.ckpt")
    loaded = load_network(TINY, tmp_path / "model.ckpt", device=torch.device("cpu"), unet_dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.unet.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in loaded.first_stage_model.parameters()} == {torch.float32}
    assert torch.equal(loaded.alphas_cumprod, model.alphas_cumprod)
    for name, tensor in model.first_stage_model.state_dict().items():
        torch.testing.assert_close(loaded.first_stage_model.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


def test_missing_file_says_where_it_is_published():
    with pytest.raises(
        FileNotFoundError, match=r"--ckpt_path .*base_512_v2/model.ckpt.*VideoCrafter2.*download_models"
    ):
        read_state_dict("videocrafter_models/base_512_v2/model.ckpt")
    with pytest.raises(FileNotFoundError, match=r"--ckpt_path 'nowhere.ckpt'.*download_models.py NAME"):
        read_state_dict("nowhere.ckpt")


def test_checkpoint_of_another_model_names_the_config_that_fits(tiny_state, tmp_path):
    torch.save(tiny_state, tmp_path / "tiny.ckpt")
    with pytest.raises(WrongCheckpointError) as caught:
        load_network(ROOT / "configs/inference_t2v_512_v2.0.yaml", tmp_path / "tiny.ckpt", device=torch.device("cpu"))
    message = str(caught.value)
    for part in ("--ckpt_path", "keys missing", "keys unexpected", "keys of another shape", "inference_t2v_tiny.yaml"):
        assert part in message
    assert "\n" not in message
    assert fitting_configs(Checkpoint({"a": torch.zeros(1)})) == []


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_truncated_files_are_said_to_be(tiny_state, tmp_path, kept):
    for name in ("model.ckpt", "model.safetensors"):
        path = tmp_path / name
        write(tiny_state, "safetensors" if name.endswith("safetensors") else "bare", path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ValueError, match="--ckpt_path") as caught:
            read_state_dict(path)
        assert "\n" not in str(caught.value)


class Hostile:
    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, plain_pickle):
    path, marker = tmp_path / "model.ckpt", tmp_path / "was run"
    content = {"state_dict": {"a": torch.zeros(1)}, "extra": Hostile(str(marker))}
    if plain_pickle:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="--ckpt_path"):
        read_state_dict(path)
    assert not marker.exists()


def test_schedule_is_computed_not_read(tmp_path):
    """A file in half precision has rounded betas; sampling must not."""
    model = instantiate_from_config(read_config(TINY)["model"])
    torch.save({name: tensor.bfloat16() for name, tensor in model.state_dict().items()}, tmp_path / "model.ckpt")
    loaded = load_network(TINY, tmp_path / "model.ckpt", device=torch.device("cpu"))
    assert torch.equal(loaded.alphas_cumprod, model.alphas_cumprod)


def test_safetensors_under_another_name_and_folders(tiny_state, tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "model.ckpt")
    assert torch.equal(read_state_dict(tmp_path / "model.ckpt")["a"], torch.zeros(2))
    with pytest.raises(ValueError, match="folder"):
        read_state_dict(tmp_path)


def test_files_without_weights(tmp_path):
    for content in ({"a": 1}, [torch.zeros(1)], {"state_dict": {}}):
        torch.save(content, tmp_path / "model.ckpt")
        with pytest.raises(ValueError, match="holds no weights"):
            read_state_dict(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {target: os.system, params: {command: ls}}", "'os.system'.*allowed are"),
        ("model: {target: torch.nn.Linear}", "allowed are"),
        ("model: {params: {}}", "target is None"),
        ("model: [1, 2", "not a YAML file"),
        ("model: ${nowhere}", "not a YAML file"),
        ("- 1", "the content is a list, expected a mapping"),
        ("inference: {}", "no section `model:`"),
        ("model: {target: lvdm.models.ddpm3d.LatentDiffusion, params: {strange: 1}}", "strange"),
        ("model: {target: lvdm.models.ddpm3d.LatentDiffusion, params: null}", "missing"),
        ("model: {target: lvdm.models.autoencoder.AutoencoderKL, params: {ddconfig: {ch: 0}}}", "ddconfig|missing"),
    ],
)
def test_bad_configs(tmp_path, text, expected):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=expected) as caught:
        build_on_meta(path)
    assert "--config" in str(caught.value)
    assert "\n" not in str(caught.value)
