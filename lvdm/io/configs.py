"""Read YAML files as plain dicts and lists."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lvdm.runtime.errors import one_line


def read_config(path: str | Path) -> dict[str, Any]:
    """Return a YAML file as plain dicts and lists; a FileNotFoundError or ValueError names --config and the file."""
    return read_yaml(path, where=f"--config {str(path)!r}")


def read_yaml(path: str | Path, *, where: str) -> dict[str, Any]:
    """Return a YAML file as plain dicts and lists; a FileNotFoundError or ValueError begins with `where`."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{where}: there is no such file") from None
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = one_line(error)
        raise ValueError(f"{where}: not a YAML file that can be read ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where}: the content is a {type(content).__name__}, expected a mapping of keys to values")
    return content
