"""Measure how well journeys are read, as rendered and after an autoencoder, and how long each step takes.

python scripts/certify_journeys.py [--clips 200] [--size 128x192]
python scripts/certify_journeys.py --checkpoint videocrafter_models/tiny/autoencoder.ckpt
python scripts/certify_journeys.py --sheet results/showcase/journeys/rendered.png       24 scenes in one picture
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import numpy as np
import torch
from PIL import Image

from lvdm.cli.command import Parser, at_least, with_error_lines
from lvdm.data.journey_reader import WINDOW
from lvdm.data.journeys.random_scenes import SPLITS
from lvdm.evaluation.journey_certificate import WORDS, Certificate, certify, load_autoencoder, scene_sheet
from lvdm.io.files import check_writable
from lvdm.runtime.progress import print_above

SMALLEST = 16  # pixels of a side


def print_result(result: Certificate) -> None:
    """Print the table of words that are read right, the CPU time per frame of each step, and the autoencoder's PSNR."""
    print(f"| right, % | n | {' | '.join(WORDS)} | all |\n{'|---' * (len(WORDS) + 3)}|")
    for name, tally in (("rendered", result.rendered), ("through the autoencoder", result.restored)):
        if tally.right:
            print(f"| {name} | {len(tally.right)} | {' | '.join(f'{100 * share:.1f}' for share in tally.shares())} |")
    frames = WINDOW * len(result.rendered.right)
    decoding = {"decoding": result.restored.seconds.get("decoding", 0.0)}
    for step, seconds in (result.rendered.seconds | decoding).items():
        print(f"{step}: {1000 * seconds / frames:.1f} ms of CPU time a frame")
    if result.psnr:
        low = np.quantile(result.psnr, 0.1)
        print(f"PSNR: {np.mean(result.psnr):.2f} dB, a tenth of the frames below {low:.2f} dB")


@with_error_lines
def main() -> int:
    """Read the flags, then measure or write the picture."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--clips", type=at_least(1), default=200, help="number of clips of 16 frames (default: %(default)s)"
    )
    parser.add_argument(
        "--size", default="128x192", metavar="HxW", help="height and width in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--scenes",
        choices=list(SPLITS),
        default="held_out",
        help="split that the words come from (default: %(default)s)",
    )
    parser.add_argument(
        "--config",
        default="configs/train/tiny/model.yaml",
        metavar="FILE.yaml",
        help="model that --checkpoint is of (default: %(default)s)",
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE.ckpt", help="autoencoder to send the clips through (default: none)"
    )
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="only write a picture of 24 scenes to this file")
    parser.add_argument("--threads", type=at_least(1), default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args()
    height, _, width = args.size.partition("x")
    if not (height.isdecimal() and width.isdecimal() and min(int(height), int(width)) >= SMALLEST):
        raise ValueError(f"--size {args.size!r}: expected HEIGHTxWIDTH from {SMALLEST} pixels, such as 128x192")
    if args.sheet:
        check_writable(args.sheet.parent, flag="--sheet")
        sheet = Image.fromarray(scene_sheet(int(height), int(width)))
        sheet.quantize(256, dither=Image.Dither.NONE).save(args.sheet, optimize=True)
        return 0
    torch.set_num_threads(args.threads)
    autoencoder = load_autoencoder(args.config, args.checkpoint) if args.checkpoint else None
    size = (int(height), int(width))
    print_result(certify(args.clips, args.scenes, size, autoencoder, report=lambda mistake: print_above(str(mistake))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
