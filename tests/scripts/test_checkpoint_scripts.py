"""What scripts/check_checkpoint.py tells of a file, and scripts/download_models.py of a model."""

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import DATA, ROOT, load_script

from lvdm.models.published import PUBLISHED

README = (ROOT / "README.md").read_text(encoding="utf-8")


def keys(name: str) -> dict[str, list[int]]:
    return json.loads((DATA / "checkpoint_keys" / f"{name}.json").read_text())


def write(path: Path, shapes: dict[str, list[int]], scale: float = 0.7) -> Path:
    """Write a file that has the names and shapes of a checkpoint, and one number for all of each tensor."""
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    if "scale_arr" in state:
        state["scale_arr"] = torch.full(shapes["scale_arr"], scale)
    torch.save({"state_dict": state}, path)
    return path


def told(monkeypatch, capsys, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["check_checkpoint.py", *map(str, words)])
    status = load_script("check_checkpoint").main()
    return status, capsys.readouterr().out


def test_each_kind_of_file_is_told(tmp_path, monkeypatch, capsys):
    turbo = {name.removeprefix("model.diffusion_model."): shape for name, shape in keys("t2v_turbo_v2").items()}
    order = json.loads((DATA / "checkpoint_keys/t2v_turbo_v1_unet_lora_order.json").read_text())
    factors = [torch.zeros(()).expand(shape) for _, _, up, down in order for shape in (up, down)]
    torch.save(factors, tmp_path / "unet_lora.pt")
    unet = {name: shape for name, shape in turbo.items() if not name.startswith(("first_stage", "cond_stage"))}
    unet = {name: shape for name, shape in unet.items() if "." in name}
    files = {
        write(tmp_path / "512.ckpt", keys("dynamicrafter_512")): (
            "2520 keys, 2,609,142,405 elements\n"
            "fits configs/inference_dynamicrafter_512.yaml and configs/inference_dynamicrafter_512_interp.yaml\n"
            "(names and shapes of its tensors are the same for these)\n"
        ),
        write(tmp_path / "unet_mg.pt", unet): (
            "a part of a model, --base_ckpt_path has the rest\nfits configs/inference_t2v_turbo_v2.yaml\n"
        ),
        tmp_path / "unet_lora.pt": (
            "a LoRA of 1150 factors, 117,142,176 elements; --base_ckpt_path has the rest\n"
            "fits configs/inference_t2v_turbo_v1.yaml\n"
        ),
    }
    for path, expected in files.items():
        status, out = told(monkeypatch, capsys, path)
        assert status == 0
        assert out.endswith(expected)
    wide = write(tmp_path / "1024.ckpt", keys("dynamicrafter_1024"), 0.3)
    status, out = told(monkeypatch, capsys, wide, "--config", ROOT / "configs/inference_dynamicrafter_512.yaml")
    assert status == 1
    assert "1 keys of other values: scale_arr (ends at 0.3 in the file, 0.7 in the model)" in out


def test_the_table_of_the_readme_has_every_published_model():
    table = README[README.index("## The official models") : README.index("## Flags and devices")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    of_name = {row[2].strip("`"): row for row in rows[1:]}
    for name, model in PUBLISHED.items():
        row = of_name["the same and `_pruned"] if name.endswith("_pruned") else of_name[name]
        assert row[3:] == [model.size, model.licence]
        assert model.repository in row[0] or model.repository.removesuffix("_512").removesuffix("_1024") in table
        if not name.endswith("_pruned"):
            assert f"configs/inference_{row[1].strip('`')}" == model.config
        assert (ROOT / model.config).is_file()


@pytest.mark.parametrize("name", ["t2v_turbo_v1", "base_512_v2"])
def test_downloading_says_size_and_licence_and_what_else_is_needed(name, tmp_path, monkeypatch, capsys):
    script = load_script("download_models")
    model = PUBLISHED[name]
    monkeypatch.setattr(script, "__file__", str(tmp_path / "scripts/download_models.py"))
    target = tmp_path / model.path

    def download(repository: str, filename: str, *, local_dir: Path) -> str:
        assert (repository, local_dir / filename) == (model.repository, target)
        local_dir.mkdir(parents=True)
        target.write_bytes(b"")
        return str(target)

    monkeypatch.setattr(script, "hf_hub_download", download)
    monkeypatch.setattr(sys, "argv", ["download_models.py", name])
    assert script.main() == 0
    out = capsys.readouterr().out
    assert f"{model.size}; licence: {model.licence}" in out
    assert f"for --config {model.config}" in out
    assert ("download_models.py base_512_v2" in out) == (name == "t2v_turbo_v1")
    assert script.main() == 0
    assert "is already there" in capsys.readouterr().out
