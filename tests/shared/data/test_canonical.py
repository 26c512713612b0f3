from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from shared.config.dataset import FolderSource, Source
from shared.data.canonical import FORMATS, Reading, canonical, check_header
from shared.data.imageset import decode
from shared.data.leaks import COLOUR_LEVELS
from shared.data.problems import BadImage

RESOLUTION = 32


def scene(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Returns a smooth picture: the left half is red, the right half blue, and there is a bright spot in the upper left."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 200, 200
    pixels[: height // 4, : width // 4] = 255
    return Image.fromarray(pixels)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path, fit: Any = "squash", box: tuple[int, int, int, int] | None = None) -> np.ndarray[Any, Any]:
    return decode(canonical(path, RESOLUTION, fit, box).data, RESOLUTION, path.name).astype(int)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "L", "LA", "P", "1"])
def test_modes_of_eight_bits_become_rgb(tmp_path: Path, mode: str) -> None:
    image = scene().convert(mode)
    path = saved(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), image)
    expected = np.asarray(
        scene().convert("L" if mode in {"L", "LA", "1"} else "RGB").convert("RGB").resize((32, 32)), int
    )
    found = pixels(path)
    assert found.shape == (32, 32, 3)
    if mode != "1":
        assert np.abs(found - expected).mean() < 8


def deep(path: Path, values: np.ndarray[Any, Any], **options: Any) -> Path:
    return saved(path, Image.fromarray(values), **options)


GREY = np.add.outer(np.arange(40), np.arange(40) * 2.0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.png", (GREY * 500).astype(np.uint16)),
        ("a.tif", (GREY * 500).astype(np.uint16)),
        ("a.tif", (GREY * 9e5).astype(np.int32)),
        ("a.tif", (GREY / 999 - 7).astype(np.float32)),
        ("a.pgm", (GREY * 500).astype(np.uint16)),
    ],
)
def test_deep_grey_is_spread_by_its_percentiles(tmp_path: Path, name: str, values: np.ndarray[Any, Any]) -> None:
    path = deep(tmp_path / name, values)
    assert check_header(path) == (40, 40)
    found = canonical(path, 40, "squash")
    low, high = np.percentile(GREY, [0.5, 99.5])
    expected = ((GREY - low) / (high - low)).clip(0, 1) * 255
    assert np.abs(decode(found.data, 40, name)[..., 0] - expected).max() <= 1.5
    assert "percentiles 0.5 and 99.5" in found.notes[0]


def test_deep_grey_has_a_window(tmp_path: Path) -> None:
    values = np.array([[0, 1000], [2000, 65_535]], np.uint16).repeat(20, 0).repeat(20, 1)
    found = canonical(deep(tmp_path / "a.png", values), 40, "squash", reading=Reading(window=(1000, 3000)))
    grey = decode(found.data, 40, "a")[::20, ::20, 0]
    assert grey.tolist() == [[0, 0], [128, 255]]
    assert found.notes == ("grey of more than 8 bits: the values 1000 and 3000 became black and white",)
    endless = np.where(GREY > 100, np.inf, GREY).astype(np.float32)
    endless[0, 0] = np.nan
    flat = np.full((40, 40), 7, np.uint16)
    for name, odd in (("b.tif", endless), ("c.png", flat)):
        assert canonical(deep(tmp_path / name, odd), 40, "squash").data


def test_deep_grey_is_turned_by_its_exif_data(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    plain = canonical(deep(tmp_path / "a.png", (GREY * 500).astype(np.uint16)), 40, "squash")
    turned = canonical(deep(tmp_path / "b.png", (GREY * 500).astype(np.uint16), exif=exif), 40, "squash")
    assert (decode(turned.data, 40, "b") == decode(plain.data, 40, "a")[::-1, ::-1]).all()


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first_is_taken(tmp_path: Path, name: str) -> None:
    options = {"save_all": True, "append_images": [scene().rotate(180)]}
    options |= {"lossless": True} if name == "a.webp" else {}
    moving = canonical(saved(tmp_path / name, scene(), **options), RESOLUTION, "squash")
    still = canonical(saved(tmp_path / "still.png", scene()), RESOLUTION, "squash")
    assert np.abs(decode(moving.data, 32, name).astype(int) - decode(still.data, 32, name)).mean() < 3
    assert moving.notes == ("several frames: the first one was taken",)


def test_cmyk_with_a_profile_is_read(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = canonical(saved(tmp_path / "a.jpg", scene().convert("CMYK")), RESOLUTION, "squash")
    profiled = canonical(saved(tmp_path / "b.jpg", scene().convert("CMYK"), icc_profile=profile), RESOLUTION, "squash")
    assert profiled.digest == plain.digest


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow was built without AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    assert pixels(saved(tmp_path / "a.avif", scene()))[2, 2].min() > 190


def test_the_limit_of_pixels_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = saved(tmp_path / "a.png", Image.new("1", (9_000, 8_000)))
    with pytest.raises(BadImage, match=r"has 9000 x 8000 pixels, must have at most 67108864 .* set dataset.megapixels"):
        check_header(large)
    dataset = FolderSource(source="folder", root="x", megapixels=72)
    assert check_header(large, Reading.of(dataset)) == (9_000, 8_000)
    assert canonical(large, RESOLUTION, "squash", reading=Reading.of(dataset)).data
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000_000)  # 72 million are more than twice as many
    with pytest.raises(BadImage, match=r"set dataset\.megapixels higher"):
        check_header(large, Reading.of(dataset))
    with Reading.of(dataset).limiting():
        assert check_header(large, Reading.of(dataset))
    assert Image.MAX_IMAGE_PIXELS == 30_000_000


def test_alpha_is_set_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert (pixels(saved(tmp_path / "a.png", image)) == 255).all()
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([10, 20, 30])
    assert (pixels(saved(tmp_path / "b.png", palette, transparency=0)) == 255).all()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the tag asks to turn the image by 90 degrees clockwise
    path = saved(tmp_path / "a.jpg", scene(), exif=exif)
    assert pixels(path)[2, -3].min() > 200  # the bright spot moved from the upper left to the upper right


def test_a_file_in_canonical_form_keeps_its_bytes(tmp_path: Path) -> None:
    png = saved(tmp_path / "a.png", scene(32, 32), compress_level=1)
    assert canonical(png, 32, "squash").data == png.read_bytes()
    jpeg = saved(tmp_path / "a.jpg", scene(160, 160), quality=70)
    assert canonical(jpeg, 160, "squash").data == jpeg.read_bytes()
    small_jpeg = saved(tmp_path / "b.jpg", scene(32, 32))
    assert canonical(small_jpeg, 32, "squash").data[:4] == b"\x89PNG"
    assert canonical(png, 160, "squash").data[:2] == b"\xff\xd8"


def test_fit(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", scene(80, 40))
    squashed, cropped, padded = (pixels(path, fit) for fit in ("squash", "crop", "pad"))
    assert squashed[2, 2].min() > 200  # the spot stays whole
    assert cropped[2, 2].min() < 100  # the left quarter with the spot is cut away
    assert padded[10, 2].min() > 200  # the spot begins where the picture does, below the border
    assert len(np.unique(padded[:7].reshape(-1, 3), axis=0)) == 1


def test_a_long_thin_image_is_no_bomb(tmp_path: Path) -> None:
    assert pixels(saved(tmp_path / "a.png", Image.new("L", (60_000, 1), 90)), "pad").shape == (32, 32, 3)


def test_box(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", scene())
    assert (pixels(path, box=(0, 0, 15, 10)) == 255).all()
    assert pixels(path, box=(30, 0, 9999, 9999))[..., 2].min() > 190
    with pytest.raises(BadImage, match="lies outside its 60 x 40 pixels"):
        canonical(path, RESOLUTION, "squash", (70, 0, 90, 10))


def reason(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        with pytest.raises(BadImage) as caught:
            canonical(path, RESOLUTION, "squash")
    assert str(caught.value)
    return caught.value.reason


def test_what_cannot_be_used_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved(tmp_path / "whole.jpg", scene(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image at all")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    lab = saved(tmp_path / "lab.tif", Image.new("LAB", (9, 9)))
    nothing = saved(tmp_path / "nothing.tif", Image.fromarray(np.full((9, 9), np.nan, np.float32)))
    assert {
        path: reason(tmp_path / path) for path in ("nowhere.jpg", "cut.jpg", "text.jpg", "empty.jpg", "script.png")
    } == {
        "nowhere.jpg": "missing file",
        "cut.jpg": "truncated",
        "text.jpg": "not an image",
        "empty.jpg": "empty file",
        "script.png": "not an image",
    }
    assert [reason(path) for path in (tmp_path / "folder.jpg", tmp_path / "pipe.jpg")] == ["not a file"] * 2
    assert [reason(path) for path in (lab, nothing)] == ["wrong mode", "no values"]
    assert reason(saved(tmp_path / "bomb.png", Image.new("1", (16_000, 16_000)))) == "image bomb"
    assert reason(saved(tmp_path / "larger.png", Image.new("1", (9_000, 9_000)))) == "image bomb"


def test_what_tells_images_from_one_another(tmp_path: Path) -> None:
    # finer structures are weaker, as in photographs, so that none of the hash's 16 x 16 frequencies is left to chance
    spectrum = np.fft.rfft2(np.random.default_rng(0).standard_normal((3, 160, 160)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(160), np.fft.rfftfreq(160), indexing="ij"))
    field = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / 160))
    spread = (field - field.min()) / (field.max() - field.min())
    photo = Image.fromarray((spread.transpose(1, 2, 0) * 255).astype(np.uint8))
    png = canonical(saved(tmp_path / "a.png", photo), 64, "squash")
    bmp = canonical(saved(tmp_path / "a.bmp", photo), 64, "squash")
    jpeg = canonical(saved(tmp_path / "a.jpg", photo, quality=70), 64, "squash")
    other = canonical(saved(tmp_path / "b.png", photo.rotate(90)), 64, "squash")
    assert png.digest == bmp.digest
    assert png.digest != jpeg.digest
    bits = [int(np.bitwise_count(png.perceptual ^ c.perceptual).sum()) for c in (jpeg, other)]
    assert bits[0] <= Source().leak_distance
    assert bits[1] > 60
    assert np.abs(png.colours.astype(int) - jpeg.colours).mean() <= COLOUR_LEVELS
    assert png.colours.shape == (48,)


SEEDS = [(lambda b, f: (scene(20, 20).save(b, f), b.getvalue())[1])(io.BytesIO(), f) for f in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 2000),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "image"
    path.write_bytes(bytes(data[: max(cut, 1)]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            assert canonical(path, 16, "pad").data
        except BadImage as error:
            assert error.reason
