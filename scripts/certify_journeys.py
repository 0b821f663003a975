"""Measure how well journeys are read, as rendered and after an autoencoder, and how long each step takes.

python scripts/certify_journeys.py [--clips 200] [--size 128x192]
python scripts/certify_journeys.py --checkpoint videocrafter_models/tiny/autoencoder.ckpt
python scripts/certify_journeys.py --sheet results/showcase/journeys/rendered.png       24 scenes in one picture
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import numpy as np
import torch
from PIL import Image

from lvdm.cli.command import Parser, says_errors
from lvdm.data.journey_reader import WINDOW, read_clip, score
from lvdm.data.journeys.random_scenes import SPLITS, random_look, random_scene, varied_words
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import Scene
from lvdm.io.configs import read_config
from lvdm.io.images import as_tensor
from lvdm.models.autoencoder import AutoencoderKL
from lvdm.models.checkpoint import read_state_dict
from lvdm.models.loading import instantiate_from_config

WORDS = ("subject", "color", "second", "facing", "direction", "pace", "place", "time")


@dataclass
class Tally:
    """The results of reading clips.

    Attributes:
        right: for each clip, whether each word was read right.
        seconds: CPU time of each step, all clips together.
    """

    right: list[dict[str, bool]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def add_time(self, step: str, begin: float) -> None:
        """Add the CPU time since `begin`, a time.process_time(), to that of a step."""
        self.seconds[step] = self.seconds.get(step, 0.0) + time.process_time() - begin


def random_clips(count: int, split: str, height: int, width: int, tally: Tally) -> Iterator[tuple[Scene, np.ndarray]]:
    """Yield random scenes with 16 frames (16, H, W, 3) uint8 of each; the same ones at every call.

    Args:
        count: number of scenes.
        split: "training", "held_out" or "all".
        height, width: pixels.
        tally: gets the time of rendering.
    """
    random = Random("certificate")
    for _ in range(count):
        scene, first = random_scene(random, split), random.randrange(10**6)
        begin = time.process_time()
        frames = render(scene, first, WINDOW, height=height, width=width).frames
        tally.add_time("rendering", begin)
        yield scene, frames


def read_and_tally(scene: Scene, frames: np.ndarray, tally: Tally) -> None:
    """Read the frames (T, H, W, 3) of a scene, add the result to `tally`, and print the words that were read wrong."""
    begin = time.process_time()
    reading = read_clip(frames)
    tally.add_time("reading", begin)
    right = score(reading, scene.words, scene.look.second)
    tally.right.append(right)
    if wrong := [name for name, is_right in right.items() if not is_right]:
        print(f"wrong in {', '.join(wrong)}: {scene.words}, {scene.look.second}\n  read as {reading}", flush=True)


def load_autoencoder(config: str, checkpoint: str) -> AutoencoderKL:
    """Return the autoencoder of a model's configuration with the weights of a checkpoint.

    Args:
        config: YAML file of the model.
        checkpoint: weights of an autoencoder or of a whole model.

    Raises:
        ValueError: the checkpoint has no autoencoder.
    """
    autoencoder = instantiate_from_config(read_config(config)["model"]["params"]["first_stage_config"])
    prefix = "first_stage_model."
    state = {name: value.float() for name, value in read_state_dict(checkpoint).items() if name.startswith(prefix)}
    if not state:
        raise ValueError(
            f"--checkpoint {checkpoint}: no weight's name begins with {prefix!r}, expected those of an autoencoder"
        )
    autoencoder.load_state_dict({name.removeprefix(prefix): value for name, value in state.items()})
    return autoencoder.eval()


@torch.inference_mode()
def encode_and_decode(autoencoder: AutoencoderKL, frames: np.ndarray, tally: Tally) -> np.ndarray:
    """Encode and decode frames (T, H, W, 3) uint8 one by one; the time of decoding is added to `tally`."""
    pictures = as_tensor(frames)
    restored = []
    for picture in pictures.split(1):
        latents = autoencoder.encode(picture).mean
        begin = time.process_time()
        restored.append(autoencoder.decode(latents))
        tally.add_time("decoding", begin)
    shown = ((torch.cat(restored).clamp(-1, 1) + 1) * 127.5).round().byte()
    return shown.permute(0, 2, 3, 1).numpy()


def psnr(frames: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Return the PSNR (T,) in dB of `restored` compared with `frames`, both (T, H, W, 3) uint8."""
    error = ((frames.astype(np.float32) - restored) ** 2).mean((1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-3))


def print_line(name: str, tally: Tally) -> None:
    """Print a line of the table: the percentages of clips in which each word, and every word, is read right."""
    shares = [np.mean([right[word] for right in tally.right if word in right]) for word in WORDS]
    everything = np.mean([all(right.values()) for right in tally.right])
    print(f"| {name} | {len(tally.right)} | {' | '.join(f'{100 * share:.1f}' for share in (*shares, everything))} |")


def certify(count: int, split: str, size: Sequence[int], autoencoder: AutoencoderKL | None) -> None:
    """Print the table of words that are read right, the CPU time per frame of each step, and the autoencoder's PSNR.

    Args:
        count: number of clips.
        split: "training", "held_out" or "all".
        size: height and width in pixels.
        autoencoder: the autoencoder through which clips are read a second time; None reads them once.
    """
    rendered, restored, ratios = Tally(), Tally(), []
    for scene, frames in random_clips(count, split, *size, rendered):
        read_and_tally(scene, frames, rendered)
        if autoencoder is not None:
            again = encode_and_decode(autoencoder, frames, restored)
            ratios.append(psnr(frames, again))
            read_and_tally(scene, again, restored)
    print(f"| right, % | n | {' | '.join(WORDS)} | all |\n{'|---' * (len(WORDS) + 3)}|")
    tallies = {"rendered": rendered} | ({} if autoencoder is None else {"through the autoencoder": restored})
    for name, tally in tallies.items():
        print_line(name, tally)
    frames = WINDOW * count
    for step, seconds in (rendered.seconds | {"decoding": restored.seconds.get("decoding", 0.0)}).items():
        print(f"{step}: {1000 * seconds / frames:.1f} ms of CPU time a frame")
    if ratios:
        values = np.concatenate(ratios)
        print(f"PSNR: {values.mean():.2f} dB, a tenth of the frames below {np.quantile(values, 0.1):.2f} dB")


def write_sheet(path: Path, height: int, width: int) -> None:
    """Write a PNG of 24 scenes of `height` x `width` pixels, six in a row, with a palette of 256 colours."""
    random = Random("sheet")
    cells = []
    for words in varied_words(24, "all"):
        scene = Scene(words, random_look(random, words), seed=random.randrange(1 << 32))
        cells.append(render(scene, random.randrange(10**6), 1, height=height, width=width).frames[0])
    sheet = np.concatenate([np.concatenate(cells[first : first + 6], 1) for first in range(0, 24, 6)])
    Image.fromarray(sheet).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


@says_errors
def main() -> int:
    """Read the flags, then measure or write the picture."""
    parser = Parser(__doc__)
    parser.add_argument("--clips", type=int, default=200, help="number of clips of 16 frames (default: %(default)s)")
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
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args()
    if args.clips < 1:
        raise ValueError(f"--clips {args.clips}: expected at least 1 clip")
    height, _, width = args.size.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"--size {args.size!r}: expected HEIGHTxWIDTH in pixels, such as 128x192")
    if args.sheet:
        write_sheet(args.sheet, int(height), int(width))
        return 0
    torch.set_num_threads(args.threads)
    autoencoder = load_autoencoder(args.config, args.checkpoint) if args.checkpoint else None
    certify(args.clips, args.scenes, (int(height), int(width)), autoencoder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
