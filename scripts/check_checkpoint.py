"""Tell which model a checkpoint is of, or whether it fits a config: `python scripts/check_checkpoint.py CKPT`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

from lvdm.cli.command import Parser, with_error_lines
from lvdm.models.checkpoint import Checkpoint, read_checkpoint
from lvdm.models.loading import build_on_meta, differences_of, fitting_configs
from lvdm.runtime.progress import print_above


@with_error_lines
def main() -> int:
    """Say what the checkpoint fits; return 1 if it does not fit."""
    parser = Parser(__doc__)
    parser.add_argument("ckpt_path", metavar="CKPT", help="the checkpoint")
    parser.add_argument("--config", metavar="FILE", help="an inference YAML (default: find the shipped one that fits)")
    arguments = parser.parse_args()
    path = Path(arguments.ckpt_path)
    if path.is_file():
        print_above(f"reading {path}, {path.stat().st_size / 1e9:.1f} GB")
    checkpoint = read_checkpoint(path)
    print(f"{path}: {content_of(checkpoint)}")
    if arguments.config is None:
        fitting = fitting_configs(checkpoint)
        print(f"fits {' and '.join(map(str, fitting))}" if fitting else "fits none of the shipped configs")
        if len(fitting) > 1:
            print("(names and shapes of its tensors are the same for these)")
        return 0 if fitting else 1
    differences = differences_of(build_on_meta(arguments.config), checkpoint)
    print(f"does not fit {arguments.config}: {differences}" if differences else f"fits {arguments.config}")
    return 1 if differences else 0


def content_of(checkpoint: Checkpoint) -> str:
    """Say how many tensors and numbers a checkpoint has, and of what."""
    if checkpoint.factors:
        elements = sum(factor.numel() for factor in checkpoint.factors)
        return f"a LoRA of {len(checkpoint.factors)} factors, {elements:,} elements; --base_ckpt_path has the rest"
    elements = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    counted = f"{len(checkpoint.tensors)} keys, {elements:,} elements"
    return f"{counted}; a part of a model, --base_ckpt_path has the rest" if checkpoint.partial else counted


if __name__ == "__main__":
    sys.exit(main())
