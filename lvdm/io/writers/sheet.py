"""Write a contact sheet: one PNG that shows a video at a glance."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lvdm.io.files import whole_file
from lvdm.io.writers.base import Writer, WriterState

MAX_TILES = 24
COLUMNS = 6
GAP = 2  # pixels
TILE_WIDTH = 256  # pixels; larger frames are scaled down to it


class ContactSheetWriter(Writer):
    """Draw every k-th frame with its number, at most MAX_TILES of them; k is the smallest power of two for that."""

    def __init__(self, path: Path, *, picture: np.ndarray | None = None, resume_from: WriterState | None = None):
        """Begin the sheet, or resume it.

        Args:
            path: The PNG.
            picture: (H, W, 3) uint8, the image that the video was made from; it is the first tile.
            resume_from: What `sync` returned, to resume there.
        """
        super().__init__(path, resume_from=resume_from)
        self.first = [] if picture is None else [_tile(picture, label="image")]
        self.tiles = [] if resume_from is None else [Image.fromarray(tile) for tile in resume_from["tiles"].numpy()]
        self.stride = 1 if resume_from is None else int(resume_from["stride"])

    def _write(self, frame: np.ndarray) -> None:
        if self.count % self.stride:
            return
        if len(self.first) + len(self.tiles) == MAX_TILES:
            self.tiles = self.tiles[::2]
            self.stride *= 2
        if self.count % self.stride == 0:
            self.tiles.append(_tile(frame, label=str(self.count)))

    def _sync(self) -> dict[str, Tensor]:
        tiles = np.stack(self.tiles) if self.tiles else np.zeros((0, 0, 0, 3), np.uint8)
        return {"tiles": torch.from_numpy(tiles), "stride": torch.tensor(self.stride)}

    def _finish(self) -> None:
        pass

    def _rename(self) -> None:
        tiles = self.first + self.tiles
        columns = min(COLUMNS, len(tiles))
        rows = -(-len(tiles) // columns)
        width, height = (side + GAP for side in tiles[0].size)
        sheet = Image.new("RGB", (columns * width - GAP, rows * height - GAP))
        for index, tile in enumerate(tiles):
            row, column = divmod(index, columns)
            sheet.paste(tile, (column * width, row * height))
        with whole_file(self.path) as whole:
            sheet.save(whole)


def _tile(frame: np.ndarray, *, label: str) -> Image.Image:
    tile = Image.fromarray(frame)
    if tile.width > TILE_WIDTH:
        tile = tile.resize((TILE_WIDTH, max(1, round(tile.height * TILE_WIDTH / tile.width))))
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default()
    left, top, right, bottom = draw.textbbox((2, 1), label, font=font)
    draw.rectangle((left - 2, top - 1, right + 1, bottom + 1), fill="black")
    draw.text((2, 1), label, fill="white", font=font)
    return tile
