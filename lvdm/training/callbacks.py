"""Callbacks of the trainer: sample sheets, random seeds, progress."""

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from imageio.v3 import imwrite
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from lvdm.io.images import to_uint8
from lvdm.runtime.progress import progress_bar


class SampleSheets(Callback):
    """Write the picture that `draw` makes with the module to `folder`, every `every` steps."""

    def __init__(self, draw: Callable[[pl.LightningModule], Tensor], *, folder: Path, every: int):
        self.draw = draw
        self.folder = folder
        self.every = every

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        """Write a sheet if it is due, on the first process."""
        if not trainer.is_global_zero or trainer.global_step % self.every:
            return
        module.eval()
        sheet = self.draw(module)
        module.train()
        self.folder.mkdir(parents=True, exist_ok=True)
        imwrite(self.folder / f"{trainer.global_step:06d}.png", to_uint8(sheet))


class RankSeed(Callback):
    """Seed every process differently, and a resumed run differently from the one that was stopped."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Seed by process and by the step that the training begins with."""
        torch.manual_seed(self.seed + 100_003 * trainer.global_rank + trainer.global_step)


class TrainingProgress(Callback):
    """Show steps, remaining time and the logged losses on stderr: a bar, or lines where stderr is not a terminal."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Show the bar, from the step that the training begins with."""
        self.bar = progress_bar(
            desc="training",
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            leave=True,
            disabled=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        """Count a step, and show the losses that the module logged."""
        losses = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        self.bar.set_postfix(losses, refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, if there is one, so that the error stands below it."""
        if hasattr(self, "bar"):
            self.bar.close()
