"""Train a model or resume: `python scripts/train.py --config configs/train/tiny_t2v/1_autoencoder.yaml`."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import torch

from lvdm.cli.command import Parser, says_errors
from lvdm.runtime.cpu import keep_freed_memory
from lvdm.training.run import Training, train


@says_errors
def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--config", required=True, help="a configs/train/<model>/<stage>.yaml")
    parser.add_argument("--steps", type=int, help="train for so many steps instead of the config's")
    parser.add_argument("--threads", type=int, help="CPU threads of each process (default: torch's own choice)")
    parser.add_argument("--accelerator", help="cpu, gpu, ... (default: auto)")
    parser.add_argument("--devices", type=int, help="GPUs, or on a CPU processes, that share every batch (default: 1)")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    torch.set_flush_denormal(True)  # optimizer states decay into denormal numbers, which CPUs handle slowly
    training = Training.from_yaml(arguments.config)
    if arguments.steps is not None:
        training = replace(training, optimization=replace(training.optimization, steps=arguments.steps))
    given = {name: getattr(arguments, name) for name in ("accelerator", "devices") if getattr(arguments, name)}
    training = replace(training, hardware=replace(training.hardware, **given))
    print(f"the model is in {train(training)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
