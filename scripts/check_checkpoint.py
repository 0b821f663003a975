"""Check whether a checkpoint fits a config: `python scripts/check_checkpoint.py CKPT --config configs/....yaml`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

from lvdm.cli.command import Parser, with_error_lines
from lvdm.models.checkpoint import Differences, read_state_dict
from lvdm.models.loading import build_on_meta, fitting_config
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
    state = read_state_dict(path)
    elements = sum(tensor.numel() for tensor in state.values())
    print(f"{path}: {len(state)} keys, {elements:,} elements")
    if arguments.config is None:
        fitting = fitting_config(state)
        print(f"fits {fitting}" if fitting else "fits none of the shipped configs")
        return 0 if fitting else 1
    differences = Differences.between(build_on_meta(arguments.config).state_dict(), state)
    print(f"does not fit {arguments.config}: {differences}" if differences else f"fits {arguments.config}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
