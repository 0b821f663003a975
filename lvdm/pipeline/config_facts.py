"""Read what settings depend on from a model's config: its shape, and the defaults that it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvdm.diffusion.schedule import LEVEL_KINDS
from lvdm.io.configs import read_config
from lvdm.pipeline.options import Options
from lvdm.pipeline.settings import settings_of, value_type
from lvdm.runtime.errors import shortened

# Settings that a distilled U-Net is told, with the parameters of the U-Net that say so.
DISTILLED = {"distilled_guidance": "time_cond_proj_dim", "motion_guidance": "motion_cond_proj_dim"}
INFERENCE = {name: setting for name, setting in settings_of(Options).items() if setting.from_config}


@dataclass(frozen=True)
class ConfigFacts:
    """Hold the part of a model's config that settings depend on.

    Args:
        target: class of the model.
        temporal_length: frames that it was trained on.
        size_factor: sides in pixels are multiples of this.
        defaults: of the settings that depend on the model, by their names.
        said: which of these the config says.
        trained_levels: which LEVEL_KINDS of noise levels clips of its training had.
        needs_picture: whether its U-Net takes the latent of a picture, so that nothing can be made without one.
        told_stride: whether it is told the stride between frames instead of a frame rate.
        between_pictures: whether it makes the frames between two pictures.
        told: which of DISTILLED its U-Net is told.
    """

    target: str
    temporal_length: int
    size_factor: int
    defaults: Mapping[str, Any]
    said: frozenset[str]
    trained_levels: tuple[str, ...]
    needs_picture: bool
    told_stride: bool
    between_pictures: bool
    told: frozenset[str]


def config_facts(path: Path) -> ConfigFacts:
    """Read what settings depend on from a model's config; ValueError or FileNotFoundError name --config and the key."""
    where = f"--config {str(path)!r}"
    config = read_config(path)
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{where}: there is no section `model:`")
    unet = "model.params.unet_config.params"
    ddconfig = "model.params.first_stage_config.params.ddconfig"
    vae_factor = 2 ** (len(_lookup(config, f"{ddconfig}.ch_mult", list, where)) - 1)
    unet_factor = 2 ** (len(_lookup(config, f"{unet}.channel_mult", list, where)) - 1)
    temporal_length = _lookup(config, f"{unet}.temporal_length", int, where)
    inference, params = _inference(config, vae_factor, where), config["model"]["params"]
    layers = params["unet_config"]["params"]
    needs_picture = layers.get("in_channels", 4) > params.get("channels", 4)
    fallbacks = {name: setting.fallback for name, setting in INFERENCE.items() if setting.fallback is not None}
    return ConfigFacts(
        target=_lookup(config, "model.target", str, where),
        temporal_length=temporal_length,
        size_factor=vae_factor * unet_factor,
        defaults=fallbacks | {"video_length": temporal_length} | inference,
        said=frozenset(inference),
        trained_levels=_trained_levels(config, where),
        needs_picture=needs_picture,
        told_stride=needs_picture and params.get("fps_condition_type", "fs") == "fs",
        between_pictures=bool(params.get("interp_mode")),
        told=frozenset(name for name, parameter in DISTILLED.items() if layers.get(parameter) is not None),
    )


def _trained_levels(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the kinds of noise levels that the config says; none if it says nothing."""
    if "trained_levels" not in config:
        return ()
    kinds = _lookup(config, "trained_levels", list, where)
    if unknown := [kind for kind in kinds if kind not in LEVEL_KINDS]:
        raise ValueError(f"{where}: trained_levels has {unknown[0]!r}; allowed are {', '.join(LEVEL_KINDS)}")
    return tuple(kinds)


def _inference(config: Mapping[str, Any], vae_factor: int, where: str) -> dict[str, Any]:
    """Return what the `inference:` section says, and the size in pixels that is known without it."""
    section = config.get("inference") or {}
    if not isinstance(section, dict):
        given = shortened(repr(section))
        raise ValueError(f"{where}: inference is {given}, expected keys among {', '.join(INFERENCE)}")
    if unknown := section.keys() - INFERENCE.keys():
        unknown = shortened(", ".join(sorted(map(str, unknown))))
        raise ValueError(f"{where}: inference has the unknown {unknown}; allowed are {', '.join(INFERENCE)}")
    image_size = config["model"]["params"].get("image_size")  # of latents; all that official configs say
    sides = {}
    if isinstance(image_size, list) and list(map(type, image_size)) == [int, int]:
        sides = {"height": vae_factor * image_size[0], "width": vae_factor * image_size[1]}
    return sides | {key: _setting_in(config, key, where) for key in section}


def _setting_in(config: Mapping[str, Any], key: str, where: str) -> Any:
    """Return the value that the `inference:` section gives a setting, with the type that Options wants."""
    kind, setting, place = value_type(Options, key), INFERENCE[key], f"inference.{key}"
    if config["inference"][key] in setting.words:
        return config["inference"][key]
    if setting.separator:
        values = _lookup(config, place, list, where)
        if any(type(value) is not kind for value in values):
            raise ValueError(f"{where}: {place} is {values!r}, expected a list of {kind.__name__}")
        return tuple(values)
    return kind(_lookup(config, place, str if kind is Path else kind, where))


def _lookup(config: Any, key: str, kind: type, where: str) -> Any:
    """Return the value at a dotted key, of the type `kind` (an int will do for a float); else ValueError."""
    value = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not fits or value == []:
        expected = "a list that is not empty" if kind is list else kind.__name__
        raise ValueError(f"{where}: {key} is {shortened(repr(value))}, expected {expected}")
    return value
