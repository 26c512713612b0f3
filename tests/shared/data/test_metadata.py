"""Tests that images whose pixels are whole are read with the same pixels, whatever else their files hold."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import PngImagePlugin

from shared.data.canonical import canonical, check_header
from shared.data.imageset import decode
from shared.data.metadata import without_metadata
from shared.data.problems import BadImage
from tests.support.image_files import (
    BIG_TEXT,
    CLEAN,
    DAMAGE,
    ICC,
    SIDE,
    XMP,
    chunk,
    exif,
    insert_jpeg,
    insert_png,
    insert_webp,
    segment,
)

NAMED = [(clean, damage) for clean in CLEAN for damage in DAMAGE[clean.split()[0]]]


def read(folder: Path, data: bytes) -> bytes:
    path = folder / "image"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        assert check_header(path) == (SIDE, SIDE)
        found = canonical(path, SIDE, "squash")
        decode(found.data, SIDE, "image")  # what is stored is read by all later stages
        return found.digest


@pytest.mark.parametrize(("clean", "damage"), NAMED)
def test_damaged_metadata_change_no_pixel(tmp_path: Path, clean: str, damage: str) -> None:
    data = DAMAGE[clean.split()[0]][damage](CLEAN[clean])
    assert read(tmp_path, data) == read(tmp_path, CLEAN[clean])


def fuzzed(clean: str, number: int) -> Iterator[bytes]:
    """Yields files with metadata of every kind, in which some bytes of these are changed at random."""
    rng = random.Random(f"{clean} {number}")
    data, kind = CLEAN[clean], clean.split()[0]

    def shaken(body: bytes) -> bytes:
        changed = bytearray(body)
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed[: rng.randint(len(changed) // 2, len(changed))])

    texts = [exif(), XMP, ICC, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\4abcd", b"parameters\0a cat"]
    bodies = [shaken(rng.choice(texts)) for _ in range(rng.randint(1, 3))]
    if kind == "PNG":
        kinds = [b"eXIf", b"iTXt", b"iCCP", b"tEXt", b"zTXt", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME", b"prVt", b"acTL", b"bKGD"]  # fmt: skip
        chunks = [chunk(rng.choice(kinds), body, rng.choice([None, 0])) for body in bodies]
        yield insert_png(data, *chunks, last=rng.random() < 0.3)
    elif kind == "JPEG":
        starts = [b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0\1\1", b"MPF\0", b"FPXR\0", b"Photoshop 3.0\0", b""]  # fmt: skip
        markers = [0xE1, 0xE1, 0xE2, 0xE2, 0xE2, 0xED, 0xE7, 0xFE]
        yield insert_jpeg(data, *[segment(rng.choice(markers), rng.choice(starts) + body) for body in bodies])
    else:
        yield insert_webp(data, *[(rng.choice([b"EXIF", b"XMP ", b"ABCD"]), body) for body in bodies])


@pytest.mark.parametrize("clean", CLEAN)
def test_metadata_that_were_changed_at_random_change_no_pixel(tmp_path: Path, clean: str) -> None:
    expected = read(tmp_path, CLEAN[clean])
    for number in range(25):
        for data in fuzzed(clean, number):
            assert read(tmp_path, data) == expected, number


def test_the_turn_is_kept_if_it_can_be_read(tmp_path: Path) -> None:
    turned = read(tmp_path, insert_jpeg(CLEAN["JPEG RGB"], segment(0xE1, exif(3))))
    assert turned != read(tmp_path, CLEAN["JPEG RGB"])
    png = insert_png(CLEAN["PNG RGB"], chunk(b"eXIf", exif(3)[6:]))
    upside_down = read(tmp_path, png)
    assert upside_down != read(tmp_path, CLEAN["PNG RGB"])
    assert read(tmp_path, insert_png(png, chunk(b"zTXt", b"parameters\0\0" + BIG_TEXT))) == upside_down
    assert read(tmp_path, insert_png(png, chunk(b"tEXt", b"Software\0x", 0))) == upside_down


def test_files_that_are_read_today_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(data := insert_png(CLEAN["PNG RGB"], chunk(b"tEXt", b"Software\0x")))
    found = canonical(path, SIDE, "squash")
    assert (found.data, found.notes) == (data, ())
    path.write_bytes(insert_png(data, chunk(b"tEXt", b"Software\0x", 0)))
    found = canonical(path, SIDE, "squash")
    assert found.notes == ("damaged metadata were skipped",)
    assert b"tEXt" not in found.data


def test_damaged_pixels_are_still_refused(tmp_path: Path) -> None:
    for clean, data in CLEAN.items():
        path = tmp_path / clean
        half = data[: len(data) // 2]
        path.write_bytes(half)
        with pytest.raises(BadImage):
            canonical(path, SIDE, "squash")
    body = bytearray(CLEAN["PNG RGB"])
    body[-20] ^= 0xFF  # of the pixels
    (tmp_path / "pixels").write_bytes(body)
    with pytest.raises(BadImage):
        canonical(tmp_path / "pixels", SIDE, "squash")


def test_no_limit_of_pillow_is_raised(tmp_path: Path) -> None:
    limits = (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    read(tmp_path, insert_png(CLEAN["PNG RGB"], chunk(b"zTXt", b"parameters\0\0" + BIG_TEXT)))
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


@pytest.mark.parametrize("start", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"])
def test_any_bytes_are_taken_apart(start: bytes) -> None:
    rng = random.Random(0)
    for length in range(200):
        list(without_metadata(start + rng.randbytes(length)))
