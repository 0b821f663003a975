"""Checkpoints of the whole family: their keys, their formats, and what a file is told from."""

import json
import re
import zlib
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from helpers import DATA, ROOT, assert_agrees, family, family_json, tiny_config, with_golden_weights
from torch import Tensor, nn

from lvdm.models import loading
from lvdm.models.checkpoint import Checkpoint, WrongCheckpointError, read_checkpoint
from lvdm.models.loading import build_on_meta, differences_of, fitting_configs, instantiate_from_config, load_network
from lvdm.models.lora import adapted_layers, lora_differences, merge_lora
from lvdm.models.published import PUBLISHED
from lvdm.modules.networks.openaimodel3d import UNetModel

CPU = torch.device("cpu")
KEYS = {
    "t2v_512_v2.0": "t2v_512_v2",
    "t2v_1024_v1.0": "t2v_1024_v1",
    "i2v_512_v1.0": "i2v_512_v1",
    "t2v_turbo_v1": "t2v_turbo_v1",
    "t2v_turbo_v2": "t2v_turbo_v2",
    "dynamicrafter_256": "dynamicrafter_256",
    "dynamicrafter_512": "dynamicrafter_512",
    "dynamicrafter_1024": "dynamicrafter_1024",
    "dynamicrafter_512_interp": "dynamicrafter_512",
}
ALIKE = {"dynamicrafter_512", "dynamicrafter_512_interp"}  # nothing in a file tells these two apart
UNET = "model.diffusion_model."


@cache
def model_of(config: str | Path) -> nn.Module:
    path = config if isinstance(config, Path) else ROOT / f"configs/inference_{config}.yaml"
    return build_on_meta(path)


@cache
def published(config: str) -> dict[str, Tensor]:
    """What a published file of a model has: names and shapes without values, but for the table of scales."""
    shapes = json.loads((DATA / "checkpoint_keys" / f"{KEYS[config]}.json").read_text())
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    scale = {"dynamicrafter_1024": 0.3, "t2v_1024_v1.0": 0.3}.get(config, 0.7)
    return state | ({"scale_arr": torch.full(shapes["scale_arr"], scale)} if "scale_arr" in shapes else {})


@pytest.mark.parametrize("config", KEYS)
def test_models_have_the_published_keys_in_order(config):
    names = json.loads((DATA / "checkpoint_keys" / f"{KEYS[config]}.json").read_text())
    state = model_of(config).state_dict()
    assert [(name, list(tensor.shape)) for name, tensor in state.items()] == list(names.items())
    assert all(tensor.is_meta for tensor in state.values())


def test_videocrafter1_for_text_is_the_large_one_without_frame_rate_and_scale():
    """There is no list of its keys: it is what its own YAML file says."""
    large = json.loads((DATA / "checkpoint_keys/t2v_1024_v1.json").read_text())
    rest = {name: shape for name, shape in large.items() if "fps_embedding" not in name and name != "scale_arr"}
    state = model_of("t2v_512_v1.0").state_dict()
    assert [(name, list(tensor.shape)) for name, tensor in state.items()] == list(rest.items())


def test_each_file_of_the_family_is_told_from_all_others(monkeypatch):
    monkeypatch.setattr(loading, "build_on_meta", model_of)
    for config in KEYS:
        fitting = {path.stem.removeprefix("inference_") for path in fitting_configs(Checkpoint(published(config)))}
        assert fitting == (ALIKE if config in ALIKE else {config})
    for theirs, ours in product(KEYS, KEYS):
        fits = theirs == ours or {theirs, ours} == ALIKE
        assert bool(differences_of(model_of(ours), Checkpoint(published(theirs)))) != fits, (theirs, ours)


def test_parts_of_a_model_are_told_as_well(monkeypatch):
    """A U-Net alone, a file without encoders, and the list of a LoRA; but not an autoencoder alone."""
    monkeypatch.setattr(loading, "build_on_meta", model_of)
    bare = {name.removeprefix(UNET): tensor for name, tensor in published("t2v_turbo_v2").items() if UNET in name}
    pruned = {
        name: tensor
        for name, tensor in published("dynamicrafter_1024").items()
        if not name.startswith(("cond_stage_model.", "embedder."))
    }
    assert len(pruned) == 1828
    order = json.loads((DATA / "checkpoint_keys/t2v_turbo_v1_unet_lora_order.json").read_text())
    factors = [torch.empty(shape, device="meta") for _, _, up, down in order for shape in (up, down)]
    assert len(factors) == 1150
    assert [name for name, *_ in order] == [name for name, _ in adapted_layers(model_of("t2v_turbo_v1").unet)]
    files = {
        "t2v_turbo_v2": Checkpoint({f"{UNET}{name}": tensor for name, tensor in bare.items()}),
        "dynamicrafter_1024": Checkpoint(pruned),
        "t2v_turbo_v1": Checkpoint({}, tuple(factors)),
    }
    for config, checkpoint in files.items():
        assert checkpoint.partial
        assert [path.stem for path in fitting_configs(checkpoint)] == [f"inference_{config}"]
    autoencoder = {name: tensor for name, tensor in published("t2v_512_v2.0").items() if "first_stage" in name}
    assert fitting_configs(Checkpoint(autoencoder)) == []
    for wrong in (factors[:-2], factors[:-1], [*factors, *factors[:2]], [*factors[2:], *factors[:2]]):
        assert lora_differences(model_of("t2v_turbo_v1").unet, wrong)


def rule(name: str, shape: list[int]) -> Tensor:
    """What the reference vectors have under a name: REFERENCE section 7."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy((generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))


def test_a_merged_lora_computes_what_the_original_does():
    vectors = family("t2v_turbo_v1_lora.npz")
    unet = UNetModel(**family_json(str(vectors["config"]))["unet_config"]["params"])
    unet = with_golden_weights(unet, UNET)
    order = family_json("small_t2v_turbo_v1_unet_lora_order.json")
    assert [name for name, *_ in order] == [name for name, _ in adapted_layers(unet)]
    shapes = [shape for _, _, up, down in order for shape in (up, down)]
    factors = [rule(f"unet_lora.{number}", shape) for number, shape in enumerate(shapes)]
    assert not lora_differences(unet, factors)
    arguments = (
        vectors["x"],
        vectors["timestep"][:, None].expand(-1, 16),
        vectors["text"][:, None],
        vectors["fps"].reshape(1),
        vectors["w"],
    )
    assert_agrees(unet(*arguments), vectors["output_plain"], 2e-5)
    merge_lora(unet, factors, device=CPU, dtype=torch.float32)
    assert_agrees(unet(*arguments), vectors["output"], 2e-5)


def write_config(folder: Path, name: str, config: dict) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def turbo(tmp_path) -> tuple[Path, Path, dict[str, Tensor]]:
    """The config of a small T2V-Turbo, the checkpoint of the model that it comes from, and its own weights."""
    base = with_golden_weights(instantiate_from_config(tiny_config("t2v")["model"]), "")
    torch.save({"state_dict": base.state_dict()}, tmp_path / "base.ckpt")
    config = tiny_config("t2v")
    config["model"]["params"]["unet_config"]["params"] |= {"time_cond_proj_dim": 16}
    own = with_golden_weights(instantiate_from_config(config["model"]), "")
    own.unet.time_embed[0].weight.data += 1
    return write_config(tmp_path, "turbo", config), tmp_path / "base.ckpt", own.state_dict()


def assert_same(model: nn.Module, state: dict[str, Tensor]) -> None:
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(loaded[name].float(), tensor.float(), atol=2e-3, rtol=2e-3, msg=name)


@pytest.mark.parametrize("form", ["merged", "DeepSpeed", "bare"])
def test_turbo_is_put_together_of_two_files(turbo, tmp_path, form):
    config, base, state = turbo
    bare = {name.removeprefix(UNET): tensor for name, tensor in state.items() if name.startswith(UNET)}
    content = {
        "merged": {"state_dict": state},
        "DeepSpeed": {"module": {f"_forward_module.{name}": tensor for name, tensor in state.items()}},
        "bare": bare,
    }[form]
    torch.save(content, tmp_path / "unet.pt")
    assert_same(load_network(config, tmp_path / "unet.pt", base, device=CPU), state)
    if form == "bare":
        with pytest.raises(ValueError, match=r"--base_ckpt_path is missing: .*unet.pt' has only model; give"):
            load_network(config, tmp_path / "unet.pt", device=CPU)
        with pytest.raises(FileNotFoundError, match=r"--base_ckpt_path '.*nowhere.ckpt': there is no such file"):
            load_network(config, tmp_path / "unet.pt", tmp_path / "nowhere.ckpt", device=CPU)
        with pytest.raises(WrongCheckpointError, match=r"--base_ckpt_path '.*unet.pt': lacks what is needed: \d+ keys"):
            load_network(config, tmp_path / "unet.pt", tmp_path / "unet.pt", device=CPU)
    else:  # a file that is complete needs no base
        assert_same(load_network(config, tmp_path / "unet.pt", tmp_path / "nowhere.ckpt", device=CPU), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lora_is_merged_at_load(turbo, tmp_path, dtype):
    config, base, _ = turbo
    unmerged = torch.load(base, weights_only=True)["state_dict"]
    layers = adapted_layers(build_on_meta(config).unet)
    factors = []
    for number, (_, layer) in enumerate(layers):
        out, *inputs = layer.weight.shape
        rank = min(4, out)
        shapes = {"up": [out, rank, *[1] * (len(inputs) - 1)], "down": [rank, *inputs]}
        factors += [rule(f"{number} {kind}", shape) for kind, shape in shapes.items()]
    torch.save(factors, tmp_path / "lora.pt")
    loaded = load_network(config, tmp_path / "lora.pt", base, device=CPU, unet_dtype=dtype).unet.state_dict()
    for number, (name, layer) in enumerate(layers):
        up, down = factors[2 * number : 2 * number + 2]
        before = unmerged.get(f"{UNET}{name}.weight", torch.zeros(layer.weight.shape))
        expected = before + torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)).view(layer.weight.shape)
        torch.testing.assert_close(loaded[f"{name}.weight"], expected.to(dtype), msg=name)
    assert torch.equal(loaded["out.2.bias"], unmerged[f"{UNET}out.2.bias"].to(dtype))
    torch.save(factors[:-2], tmp_path / "short.pt")
    with pytest.raises(WrongCheckpointError, match=r"does not fit --config .*1 keys missing: out.2"):
        load_network(config, tmp_path / "short.pt", base, device=CPU)


@pytest.fixture
def crafter(tmp_path) -> tuple[Path, dict[str, Tensor]]:
    """The config of a small DynamiCrafter, and its weights."""
    config = tiny_config("dynamicrafter")
    model = with_golden_weights(instantiate_from_config(config["model"]), "")
    return write_config(tmp_path, "crafter", config), model.state_dict()


@pytest.mark.parametrize("form", ["state_dict", "DeepSpeed", "framestride_embed", "pruned"])
def test_every_format_of_dynamicrafter(crafter, tmp_path, form):
    config, state = crafter
    renamed = {name.replace("fps_embedding", "framestride_embed"): tensor for name, tensor in state.items()}
    content = {
        "state_dict": {"state_dict": state},
        "DeepSpeed": {"module": {f"_forward_module.{name}": tensor for name, tensor in state.items()}},
        "framestride_embed": {"state_dict": renamed},
    }
    if form != "pruned":
        torch.save(content[form], tmp_path / "model.ckpt")
        assert_same(load_network(config, tmp_path / "model.ckpt", device=CPU), state)
        return
    torch.save(state, tmp_path / "encoders.ckpt")
    kept = {name: tensor.half() for name, tensor in state.items() if not name.startswith(("cond_stage", "embedder"))}
    safetensors.torch.save_file(kept, tmp_path / "pruned.safetensors")
    loaded = load_network(config, tmp_path / "pruned.safetensors", tmp_path / "encoders.ckpt", device=CPU)
    assert_same(loaded, state)
    assert torch.equal(loaded.alphas_cumprod, state["alphas_cumprod"])  # not rounded to half precision
    assert torch.equal(loaded.scale_arr, state["scale_arr"])


def test_the_size_of_dynamicrafter_is_told_by_its_scales(crafter, tmp_path):
    config, state = crafter
    torch.save(state | {"scale_arr": torch.full_like(state["scale_arr"], 0.3)}, tmp_path / "model.ckpt")
    expected = re.escape("1 keys of other values: scale_arr (ends at 0.3 in the file, 0.7 in the model)")
    with pytest.raises(WrongCheckpointError, match=expected):
        load_network(config, tmp_path / "model.ckpt", device=CPU)


def test_a_file_that_fits_two_configs_is_said_to_fit_both(tmp_path):
    """One number stands for all of a tensor, so that the file of 10 GB has 2 MB."""
    small = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in published("dynamicrafter_512").items()}
    torch.save(small | {"scale_arr": published("dynamicrafter_512")["scale_arr"]}, tmp_path / "model.ckpt")
    assert not read_checkpoint(tmp_path / "model.ckpt").partial
    with pytest.raises(WrongCheckpointError) as caught:
        load_network(ROOT / "configs/inference_t2v_turbo_v2.yaml", tmp_path / "model.ckpt", device=CPU)
    configs = "configs/inference_dynamicrafter_512.yaml or configs/inference_dynamicrafter_512_interp.yaml"
    assert f"; it fits --config {configs}, which names and shapes do not tell apart" in str(caught.value)


def test_published_models_name_configs_and_files_that_those_expect():
    for model in PUBLISHED.values():
        inference = yaml.safe_load((ROOT / model.config).read_text())["inference"]
        if model.filename.endswith("safetensors") or model.config.endswith("v1.0.yaml"):
            continue
        assert inference["ckpt_path"] == model.path
        if model.needs:
            assert inference["base_ckpt_path"] == PUBLISHED[model.needs].path
