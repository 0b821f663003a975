"""Pictures of every kind and size, and files that are not pictures."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from lvdm.io.images import FITS, MAX_PIXELS, MAX_SIDE, Picture, as_tensor
from lvdm.io.mp4 import run_ffmpeg

RED, BLUE = (200, 30, 40), (20, 40, 210)


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Return a picture with a red left and a blue right half."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, BLUE
    return Image.fromarray(pixels)


def pixel(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    return image.getpixel((int(x * image.width), int(y * image.height)))


def near(color, expected, tolerance=12) -> bool:
    return bool(np.abs(np.asarray(color, float) - np.asarray(expected)).max() <= tolerance)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp"])
def test_formats(tmp_path, suffix):
    halves().save(tmp_path / f"picture.{suffix}", quality=95)
    image = Picture.find(f"picture.{suffix}", folder=tmp_path).open()
    assert image.mode == "RGB"
    assert image.size == (60, 40)
    assert near(pixel(image, 0.2, 0.5), RED)
    assert near(pixel(image, 0.8, 0.5), BLUE)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "gif"])
def test_first_frame_of_a_video(tmp_path, suffix):
    frames = np.stack([np.asarray(halves(64, 48)), np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64, 3), np.uint8)])
    iio.imwrite(tmp_path / f"clip.{suffix}", frames)
    assert near(pixel(Picture.find(f"clip.{suffix}", folder=tmp_path).open(), 0.2, 0.5), RED, 40)  # chroma is coarse


@pytest.mark.parametrize("name", ["clip", "clip.png", "clip.m4v", "a:b%03d.mp4"])
def test_videos_are_known_by_their_content(tmp_path, monkeypatch, name):
    iio.imwrite(tmp_path / "clip.mp4", np.asarray(halves(64, 48))[None].repeat(3, 0))
    (tmp_path / "clip.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert near(pixel(Picture.find(name, folder=Path()).open(), 0.2, 0.5), RED, 40)


def test_a_video_of_a_turned_phone_is_upright_and_nothing_is_said(tmp_path, caplog):
    iio.imwrite(tmp_path / "lying.mp4", np.asarray(halves(64, 48))[None].repeat(3, 0))
    turned = ["-display_rotation", "90", "-i", f"{tmp_path}/lying.mp4", "-c", "copy", f"{tmp_path}/turned.mp4"]
    run_ffmpeg(turned)
    image = Picture.find("turned.mp4", folder=tmp_path).open()
    assert image.size == (48, 64)
    assert near(pixel(image, 0.5, 0.2), BLUE, 40)
    assert near(pixel(image, 0.5, 0.8), RED, 40)
    assert not caplog.records


def test_upright_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    halves().save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = Picture.find("turned.jpg", folder=tmp_path).open()
    assert image.size == (40, 60)
    assert near(pixel(image, 0.5, 0.2), RED)
    assert near(pixel(image, 0.5, 0.8), BLUE)


def test_transparency_is_white(tmp_path):
    clear = halves().convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), [30, 30], axis=1).repeat(40, 0)))
    clear.save(tmp_path / "alpha.png")
    palette = halves().quantize(4)
    palette.info["transparency"] = palette.getpixel((2, 2))
    palette.save(tmp_path / "palette.png")
    for name in ("alpha.png", "palette.png"):
        image = Picture.find(name, folder=tmp_path).open()
        assert pixel(image, 0.2, 0.5) == (255, 255, 255)
        assert near(pixel(image, 0.8, 0.5), BLUE, 2)


def test_grey_of_eight_and_sixteen_bits(tmp_path):
    Image.new("L", (20, 20), 100).save(tmp_path / "8.png")
    Image.fromarray(np.full((20, 20), 100 * 257, np.uint16)).save(tmp_path / "16.png")
    for name in ("8.png", "16.png"):
        assert pixel(Picture.find(name, folder=tmp_path).open(), 0.5, 0.5) == (100, 100, 100)


@pytest.mark.parametrize("fit", FITS)
def test_fits(tmp_path, fit):
    halves(160, 40).save(tmp_path / "wide.png")
    pixels = Picture.find("wide.png", folder=tmp_path).read(64, 96, fit=fit)
    assert pixels.shape == (64, 96, 3)
    assert pixels.dtype == np.uint8
    assert near(pixels[32, 4], RED)
    assert near(pixels[32, -5], BLUE)
    assert near(pixels[2, 4], (0, 0, 0) if fit == "pad" else RED)


def test_crop_keeps_the_centre_and_stretch_everything(tmp_path):
    pixels = np.zeros((40, 160, 3), np.uint8)
    pixels[:, 60:100] = RED
    Image.fromarray(pixels).save(tmp_path / "band.png")
    picture = Picture.find("band.png", folder=tmp_path)
    shares = {fit: (picture.read(64, 96, fit=fit)[..., 0] > 100).mean() for fit in ("crop", "stretch")}
    assert shares["crop"] == pytest.approx(40 / 60, abs=0.02)
    assert shares["stretch"] == pytest.approx(40 / 160, abs=0.02)


@pytest.mark.parametrize("size", [(4000, 16), (16, 4000)])
@pytest.mark.parametrize("fit", FITS)
def test_very_long_pictures_stay_visible(tmp_path, size, fit):
    Image.new("RGB", size, RED).save(tmp_path / "long.png")
    pixels = Picture.find("long.png", folder=tmp_path).read(64, 96, fit=fit)
    assert near(pixels.reshape(-1, 3).max(0), RED)


def test_own_size_is_exact(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    for fit in FITS:
        assert np.array_equal(Picture.find("noise.png", folder=tmp_path).read(64, 96, fit=fit), noise)
    tensor = as_tensor(noise)[None]
    assert tensor.shape == (1, 3, 64, 96)
    assert torch.equal(((tensor[0] + 1) * 127.5).round().byte().permute(1, 2, 0), torch.from_numpy(noise))


def test_a_picture_that_changes_is_refused(tmp_path):
    halves().save(tmp_path / "a.png")
    picture = Picture.find("a.png", folder=tmp_path)
    halves(62).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png.* was changed"):
        picture.read(64, 96, fit="crop")


def test_a_picture_beside_the_prompt_file_comes_first(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    Image.new("RGB", (20, 20), RED).save(tmp_path / "a.png")
    Image.new("RGB", (20, 20), RED).save(tmp_path / "only.png")
    Image.new("RGB", (20, 20), BLUE).save(tmp_path / "here/a.png")
    monkeypatch.chdir(tmp_path)
    assert pixel(Picture.find("a.png", folder=tmp_path / "here").open(), 0.5, 0.5) == BLUE
    assert pixel(Picture.find("only.png", folder=tmp_path / "here").open(), 0.5, 0.5) == RED
    assert Picture.find(str(tmp_path / "a.png"), folder=tmp_path / "here").path == tmp_path / "a.png"


def test_the_digest_is_of_the_file(tmp_path):
    halves().save(tmp_path / "a.png")
    halves().save(tmp_path / "b.png")
    halves(62).save(tmp_path / "c.png")
    a, b, c = (Picture.find(f"{name}.png", folder=tmp_path).digest for name in "abc")
    assert a == b != c


def test_a_place_is_named_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, folder in (("a.png", Path()), (str(tmp_path / "a.png"), tmp_path / "here")):
        with pytest.raises(ValueError, match="no such picture") as raised:
            Picture.find(name, folder=folder)
        assert str(raised.value).endswith(f"; looked for {name}")


def bad_files(folder) -> None:
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (20_000, 20)).save(folder / "long.png")
    Image.new("L", (12_000, 12_000)).save(folder / "large.png")
    for name in ("text.png", "text.mp4", "text"):
        (folder / name).write_text("this is a text\n" * 20)
    (folder / "half.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(60))
    (folder / "empty.jpg").touch()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    for suffix in ("png", "jpg", "webp", "gif"):
        noise.save(folder / f"cut.{suffix}")
        (folder / f"cut.{suffix}").write_bytes((folder / f"cut.{suffix}").read_bytes()[:900])
    noise.save(folder / "program.eps")  # which Pillow would have Ghostscript run
    (folder / "folder.png").mkdir()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.png", ["no such picture"]),
        ("a" * 400, ["too long"]),
        ("folder.png", ["folder.png is no file"]),
        ("dot.png", ["1 x 1", "16"]),
        ("long.png", ["20000 x 20", str(MAX_SIDE)]),
        ("large.png", ["12000 x 12000", f"{MAX_PIXELS:,}"]),
        ("text.png", ["cannot be read", "PNG"]),
        ("text.mp4", ["cannot be read", "video"]),
        ("text", ["cannot be read"]),
        ("half.mp4", ["cannot be read"]),
        ("empty.jpg", ["cannot be read"]),
        ("program.eps", ["cannot be read"]),
        *((f"cut.{suffix}", ["cannot be read"]) for suffix in ("png", "jpg", "webp", "gif")),
    ],
)
def test_files_that_are_not_pictures(tmp_path, name, words):
    bad_files(tmp_path)
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        Picture.find(name, folder=tmp_path)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 300 + 2 * len(name) + 2 * len(str(tmp_path))
    for word in [repr(name if len(name) <= 200 else f"{name[:197]}..."), *words]:
        assert word in message


def test_damaged_exif_does_not_hide_a_picture(tmp_path):
    """Pillow reads the orientation here, but cannot write the rest of the EXIF again."""
    halves().save(tmp_path / "plain.jpg", quality=95)
    payload = (
        b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x1a\x01\x63\0" + b"\xff" * 12
    )
    data = (tmp_path / "plain.jpg").read_bytes()
    marked = data[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + data[2:]
    (tmp_path / "damaged.jpg").write_bytes(marked)
    assert Picture.find("damaged.jpg", folder=tmp_path).open().size == (40, 60)


def test_a_decompression_bomb_is_not_unpacked(tmp_path):
    """A small file that claims to be 16,000 x 16,000 pixels: refused from its header."""
    Image.new("1", (16_000, 16_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=f"more than {MAX_PIXELS:,} pixels"):
        Picture.find("bomb.png", folder=tmp_path)
