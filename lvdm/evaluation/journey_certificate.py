"""Test the reader of journeys on rendered clips, whose words are known, as they are and after an autoencoder."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch

from lvdm.data.journey_reader import WINDOW, Reading, read_clip, score
from lvdm.data.journeys.random_scenes import random_look, random_scene, varied_words
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import Scene
from lvdm.io.configs import read_config
from lvdm.io.images import as_tensor
from lvdm.models.autoencoder import AutoencoderKL
from lvdm.models.checkpoint import WrongCheckpointError, load_strictly, read_state_dict
from lvdm.models.loading import instantiate_from_config
from lvdm.runtime.progress import progress_bar

WORDS = ("subject", "color", "second", "facing", "direction", "pace", "place", "time")  # the columns of the table
AUTOENCODER = "first_stage_model."  # how the names of its weights begin
SHEET_ROWS, SHEET_COLUMNS = 4, 6


@dataclass(frozen=True)
class Mistake:
    """Hold a clip that was read wrong: its scene, the reading, and the words that differ."""

    scene: Scene
    reading: Reading
    words: tuple[str, ...]

    def __str__(self) -> str:
        said = f"{self.scene.words}, {self.scene.look.second}"
        return f"wrong in {', '.join(self.words)}: {said}\n  read as {self.reading}"


@dataclass
class Tally:
    """Add up the results of reading clips.

    Args:
        right: for each clip, whether each word was read right.
        seconds: CPU time of each step, all clips together.
    """

    right: list[Mapping[str, bool]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def add_time(self, step: str, begin: float) -> None:
        """Add the CPU time since `begin`, a time.process_time(), to that of a step."""
        self.seconds[step] = self.seconds.get(step, 0.0) + time.process_time() - begin

    def read(self, scene: Scene, frames: np.ndarray) -> Mistake | None:
        """Read the frames (T, H, W, 3) of a scene and add the result; return what was read wrong, if anything."""
        begin = time.process_time()
        reading = read_clip(frames)
        self.add_time("reading", begin)
        right = score(reading, scene.words, scene.look.second)
        self.right.append(right)
        wrong = tuple(name for name, is_right in right.items() if not is_right)
        return Mistake(scene, reading, wrong) if wrong else None

    def shares(self) -> list[float]:
        """Return the share of clips in which each of WORDS is read right, then that in which every word is."""
        of_words = [np.mean([right[word] for right in self.right if word in right]) for word in WORDS]
        return [*of_words, np.mean([all(right.values()) for right in self.right])]


@dataclass
class Certificate:
    """Hold how well clips were read.

    Args:
        rendered: the clips as they are.
        restored: the same clips after the autoencoder; empty without one.
        psnr: in dB, of every frame after the autoencoder.
    """

    rendered: Tally = field(default_factory=Tally)
    restored: Tally = field(default_factory=Tally)
    psnr: list[float] = field(default_factory=list)


def certify(
    count: int,
    split: str,
    size: Sequence[int],
    autoencoder: AutoencoderKL | None,
    *,
    report: Callable[[Mistake], None],
) -> Certificate:
    """Read rendered clips, and measure the CPU time of each step.

    Args:
        count: number of clips.
        split: "training", "held_out" or "all".
        size: height and width in pixels.
        autoencoder: through which clips are read a second time; None reads them once.
        report: gets each clip that was read wrong, at once.
    """
    result = Certificate()
    clips = random_clips(count, split, *size, result.rendered)
    for scene, frames in progress_bar(clips, desc="clips", total=count, unit="clip"):
        if mistake := result.rendered.read(scene, frames):
            report(mistake)
        if autoencoder is not None:
            restored = encode_and_decode(autoencoder, frames, result.restored)
            result.psnr += psnr(frames, restored).tolist()
            if mistake := result.restored.read(scene, restored):
                report(mistake)
    return result


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


def load_autoencoder(config: str, checkpoint: str) -> AutoencoderKL:
    """Return the autoencoder of a model's configuration with the weights of a checkpoint.

    Args:
        config: YAML file of the model.
        checkpoint: weights of an autoencoder or of a whole model.

    Raises:
        ValueError, FileNotFoundError: a file is not there or is another one; the message names --config or
            --checkpoint.
    """
    where = f"--checkpoint {checkpoint!r}"
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"{where}: there is no such file")
    try:
        first_stage = read_config(config)["model"]["params"]["first_stage_config"]
    except (KeyError, TypeError):
        raise ValueError(f"--config {config!r}: there is no model.params.first_stage_config") from None
    autoencoder = instantiate_from_config(first_stage)
    weights = read_state_dict(checkpoint)
    state = {
        name.removeprefix(AUTOENCODER): value.float() for name, value in weights.items() if name.startswith(AUTOENCODER)
    }
    if not state:
        raise ValueError(f"{where}: no weight's name begins with {AUTOENCODER!r}, expected those of an autoencoder")
    try:
        load_strictly(autoencoder, state)
    except WrongCheckpointError as error:
        raise WrongCheckpointError(f"{where}: does not fit --config {config!r}: {error}") from error
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


def scene_sheet(height: int, width: int) -> np.ndarray:
    """Return 24 scenes of `height` x `width` pixels, six in a row, as one picture (4 height, 6 width, 3) uint8."""
    random = Random("sheet")
    cells = []
    for words in varied_words(SHEET_ROWS * SHEET_COLUMNS, "all"):
        scene = Scene(words, random_look(random, words), seed=random.randrange(1 << 32))
        cells.append(render(scene, random.randrange(10**6), 1, height=height, width=width).frames[0])
    rows = (cells[row * SHEET_COLUMNS : (row + 1) * SHEET_COLUMNS] for row in range(SHEET_ROWS))
    return np.concatenate([np.concatenate(row, 1) for row in rows])
