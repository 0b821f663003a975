"""Train a model, or continue a training that was stopped.

python scripts/train.py --config configs/train/tiny_t2v/1_autoencoder.yaml

The stages of a model are the files of its folder, to be trained in the order of their numbers.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import torch

from lvdm.cli.command import Parser, at_least, with_error_lines
from lvdm.runtime.cpu import keep_freed_memory
from lvdm.training.config import Training
from lvdm.training.run import train


@with_error_lines
def main() -> int:
    """Train as the config and the flags say."""
    parser = Parser(__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="a file of configs/train/")
    parser.add_argument("--steps", type=at_least(1), metavar="N", help="number of steps (default: the config's)")
    parser.add_argument(
        "--threads", type=at_least(1), metavar="N", help="CPU threads of each process (default: torch's choice)"
    )
    parser.add_argument(
        "--accelerator", metavar="NAME", help="cpu, gpu, ... (default: the config's, or else the fastest there is)"
    )
    parser.add_argument(
        "--devices",
        type=at_least(1),
        metavar="N",
        help="GPUs, or processes on a CPU, that share every batch (default: the config's, or 1)",
    )
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    torch.set_flush_denormal(True)  # optimizer states decay into denormal numbers, which are slow on CPUs
    training = Training.from_yaml(arguments.config)
    if arguments.steps is not None:
        training = replace(training, optimization=replace(training.optimization, steps=arguments.steps))
    given = {name: getattr(arguments, name) for name in ("accelerator", "devices") if getattr(arguments, name)}
    training = replace(training, hardware=replace(training.hardware, **given))
    print(f"the model is in {train(training)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
