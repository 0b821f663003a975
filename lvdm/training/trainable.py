"""Choose which weights of a model learn; the others stay as they are."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from lvdm.modules.attention import TemporalTransformer
from lvdm.modules.networks.blocks import TemporalConvBlock

Trainable = str | Sequence[str]


def check_trainable(trainable: Trainable) -> None:
    """Raise ValueError unless `trainable` is "all", "temporal" or a list of name patterns."""
    patterns = isinstance(trainable, Sequence) and not isinstance(trainable, str)
    if trainable in ("all", "temporal") or (patterns and trainable and all(isinstance(p, str) for p in trainable)):
        return
    raise ValueError(
        f"trainable is {trainable!r}, allowed are 'all', 'temporal' or a list of patterns of weights' names"
    )


def freeze_all_but(model: nn.Module, trainable: Trainable) -> None:
    """Freeze the weights of `model` that `trainable` does not choose; those that are frozen already stay frozen.

    Args:
        trainable: "all"; "temporal", the temporal transformers and convolutions, as Video LDM (arXiv 2304.08818)
            trains them into a model of pictures; or patterns of names, such as "*attn2*".

    Raises:
        ValueError: `trainable` has no such form, or a part of it chooses none of the weights that may learn.
    """
    check_trainable(trainable)
    if trainable == "all":
        return
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if trainable == "temporal":
        chosen = temporal_weights(model) & learning.keys()
        if not chosen:
            raise ValueError("trainable is 'temporal', but the model has no temporal layers")
    else:
        matched = {pattern: {name for name in learning if fnmatchcase(name, pattern)} for pattern in trainable}
        for pattern, names in matched.items():
            if not names:
                raise ValueError(f"trainable has {pattern!r}, which matches none of the weights that this stage trains")
        chosen = set.union(*matched.values())
    for name, weight in learning.items():
        weight.requires_grad_(name in chosen)


def temporal_weights(model: nn.Module) -> set[str]:
    """Return the names of the weights of all temporal layers of `model`."""
    return {
        f"{prefix}.{name}"
        for prefix, layer in model.named_modules()
        if isinstance(layer, TemporalTransformer | TemporalConvBlock)
        for name, _ in layer.named_parameters()
    }
