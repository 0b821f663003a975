"""Know the published models: where they are, how large, under which licence, and where this program expects them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """Name a model on Hugging Face and the path where this program expects it.

    Args:
        repository, filename: where it is.
        path: where this program expects it, relative to the repository's root.
        config: the config that it fits.
        size: of the file.
        licence: that its page states.
        needs: another published model that it is a part of, or lacks parts of.
    """

    repository: str
    filename: str
    path: str
    config: str
    size: str
    licence: str
    needs: str | None = None


def _at(
    name: str,
    repository: str,
    config: str,
    size: str,
    licence: str,
    *,
    filename: str = "model.ckpt",
    needs: str | None = None,
) -> tuple[str, Published]:
    path = f"videocrafter_models/{name}/{filename}"
    return name, Published(repository, filename, path, f"configs/inference_{config}.yaml", size, licence, needs)


def _pruned(model: str) -> tuple[str, Published]:
    filename = f"dynamicrafter_{model}_fp16_pruned.safetensors"
    licence, needs = "none looked up", "Image2Video_512"
    name, config = f"dynamicrafter_{model}_pruned", f"dynamicrafter_{model}"
    return _at(name, "Kijai/DynamiCrafter_pruned", config, "3.1 GB", licence, filename=filename, needs=needs)


OF_CODE = "none looked up; code Apache 2.0"
PUBLISHED = dict(
    (
        _at("base_512_v2", "VideoCrafter/VideoCrafter2", "t2v_512_v2.0", "7.4 GB", "Apache 2.0"),
        _at("base_512_v1", "VideoCrafter/Text2Video-512", "t2v_512_v1.0", "about 6.3 GB", "none looked up"),
        _at("base_1024_v1", "VideoCrafter/Text2Video-1024", "t2v_1024_v1.0", "6.3 GB", "none stated"),
        _at("Image2Video_512", "VideoCrafter/Image2Video-512", "i2v_512_v1.0", "5.2 GB", "none stated"),
        _at(
            "t2v_turbo_v1", "jiachenli-ucsb/T2V-Turbo-VC2", "t2v_turbo_v1", "0.5 GB", "CC BY 4.0",
            filename="unet_lora.pt", needs="base_512_v2",
        ),
        _at(
            "t2v_turbo_v2", "jiachenli-ucsb/T2V-Turbo-v2", "t2v_turbo_v2", "5.7 GB", "Apache 2.0",
            filename="unet_mg.pt", needs="base_512_v2",
        ),
        _at("dynamicrafter_256", "Doubiiu/DynamiCrafter", "dynamicrafter_256", "10.4 GB", OF_CODE),
        _at("dynamicrafter_512", "Doubiiu/DynamiCrafter_512", "dynamicrafter_512", "10.4 GB", OF_CODE),
        _at("dynamicrafter_1024", "Doubiiu/DynamiCrafter_1024", "dynamicrafter_1024", "10.4 GB", OF_CODE),
        _at(
            "dynamicrafter_512_interp", "Doubiiu/DynamiCrafter_512_Interp", "dynamicrafter_512_interp", "10.4 GB",
            OF_CODE,
        ),
        *map(_pruned, ("512", "1024", "512_interp")),
    )
)  # fmt: skip


def where_to_get(path: Path) -> str:
    """Say where the published checkpoint that is expected at `path` can be had; or how to get any, if none is."""
    for name, model in PUBLISHED.items():
        if path.parts[-2:] == Path(model.path).parts[-2:]:
            return (
                f"it is published at https://huggingface.co/{model.repository} ({model.filename}), and "
                f"'python scripts/download_models.py {name}' fetches it to {model.path}"
            )
    return f"'python scripts/download_models.py NAME' fetches a published one ({', '.join(PUBLISHED)})"
