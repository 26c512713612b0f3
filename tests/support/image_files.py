"""Makes image files in memory: clean ones, and such whose pixels are whole and whose metadata are damaged in a known way."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24


def picture(mode: str) -> Image.Image:
    grid = np.add.outer(np.arange(SIDE) * 5, np.arange(SIDE) * 4)
    rgb = np.stack([grid, grid[::-1], grid.T], -1).astype(np.uint8)
    image = Image.fromarray(rgb)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(grid.astype(np.uint8)))
        return image
    return image.convert(mode)


def grey_folders(root: Path, **counts: int) -> Path:
    """Writes class folders of noisy images of 32 pixels, `light`, `grey` or `dark` as their class says, and returns the root."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 90, (32, 32, 3)) + {"light": 150, "grey": 80, "dark": 0}[name]
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number:02d}.png")
    return root


def encoded(mode: str, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, format, **options)
    return buffer.getvalue()


def cmyk_profile() -> bytes:
    """Returns a profile of a printer whose magenta with yellow is the colour L*a*b* 50, 60, 40, which the formula takes for (255, 0, 0)."""

    def lab(lightness: int, a: int, b: int) -> bytes:
        return bytes([round(lightness * 255 / 100), a + 128, b + 128])

    def look(inks: int) -> bytes:
        """Returns the colour of full inks, one bit each: cyan, magenta, yellow, black."""
        return {0: lab(100, 0, 0), 0b0110: lab(50, 60, 40)}.get(inks, lab(0 if inks & 1 else 50, 0, 0))

    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + b"".join(map(look, range(16))) + identity * 3
    )
    table += bytes(-len(table) % 4)
    light = struct.pack(">3i", 63190, 65536, 54061)  # D50
    white = b"XYZ " + bytes(4) + light
    begin = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"A2B0", begin, len(table), b"wtpt", begin + len(table), len(white))
    size = begin + len(table) + len(white)
    kinds = struct.pack(">I4sI4s4s4s", size, b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head = kinds + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + light
    return head + bytes(128 - len(head)) + tags + table + white


CLEAN = {
    "PNG RGB": encoded("RGB", "PNG"),
    "PNG RGBA": encoded("RGBA", "PNG"),
    "PNG palette": encoded("P", "PNG", transparency=3),
    "PNG grey": encoded("L", "PNG"),
    "PNG one bit": encoded("1", "PNG"),
    "JPEG RGB": encoded("RGB", "JPEG"),
    "JPEG progressive": encoded("RGB", "JPEG", progressive=True),
    "JPEG restarts": encoded("RGB", "JPEG", restart_marker_rows=1),
    "JPEG grey": encoded("L", "JPEG"),
    "JPEG CMYK": encoded("CMYK", "JPEG"),
    "WEBP RGB": encoded("RGB", "WEBP"),
    "WEBP RGBA": encoded("RGBA", "WEBP", lossless=True),
}


def exif(turned: int | None = None) -> bytes:
    tags = Image.Exif()
    tags[0x010E], tags[0x0131] = "a description", "a program"
    if turned is not None:
        tags[0x0112] = turned
    return tags.tobytes()


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    value = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", value)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def insert_png(data: bytes, *chunks: bytes, last: bool = False) -> bytes:
    """Returns the file with chunks behind its header, or behind its pixels."""
    at = len(data) - 12 if last else 33
    return data[:at] + b"".join(chunks) + data[at:]


def insert_jpeg(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def insert_webp(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Returns the file in the extended form, with chunks behind its pixels."""
    inner = data[12:]
    if not inner.startswith(b"VP8X"):
        flags = 0x0C | (0x10 if inner.startswith(b"VP8L") else 0)
        size = struct.pack("<I", SIDE - 1)[:3]
        inner = b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + size + size + inner
    for kind, body in chunks:
        inner += kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(inner) + 4) + b"WEBP" + inner


BIG_TEXT = zlib.compress(b"a cat, masterpiece, " * 200_000)  # 4 MB, as tools for Stable Diffusion write it
LONG_TEXT = zlib.compress(b"x" * 900_000)  # which Pillow takes one by one, and not 80 of them
ICC = b"name\0\0" + zlib.compress(b"no profile at all" * 9)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Software="x"/></rdf:RDF></x:xmpmeta>'
PNG_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "eXIf that is none": lambda d: insert_png(d, chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff nonsense")),
    "an empty eXIf": lambda d: insert_png(d, chunk(b"eXIf", b"")),
    "zTXt over a megabyte": lambda d: insert_png(d, chunk(b"zTXt", b"parameters\0\0" + BIG_TEXT)),
    "zTXt behind the pixels": lambda d: insert_png(d, chunk(b"zTXt", b"parameters\0\0" + BIG_TEXT), last=True),
    "zTXt that is not compressed": lambda d: insert_png(d, chunk(b"zTXt", b"parameters\0\0nonsense")),
    "zTXt of an unknown method": lambda d: insert_png(d, chunk(b"zTXt", b"parameters\0\x07nonsense")),
    "iTXt over a megabyte": lambda d: insert_png(d, chunk(b"iTXt", b"workflow\0\x01\0\0\0" + BIG_TEXT)),
    "many texts": lambda d: insert_png(d, *[chunk(b"zTXt", b"k%d\0\0" % i + LONG_TEXT) for i in range(80)]),
    "an ICC profile that is none": lambda d: insert_png(d, chunk(b"iCCP", ICC)),
    "an ICC profile of an unknown method": lambda d: insert_png(d, chunk(b"iCCP", b"name\0\x09nonsense")),
    "an ICC profile that is cut off": lambda d: insert_png(d, chunk(b"iCCP", ICC[:14])),
    "a short gAMA": lambda d: insert_png(d, chunk(b"gAMA", b"\0")),
    "a short pHYs": lambda d: insert_png(d, chunk(b"pHYs", b"\0")),
    "a short cHRM": lambda d: insert_png(d, chunk(b"cHRM", b"\0\0\0")),
    "an empty sRGB": lambda d: insert_png(d, chunk(b"sRGB", b"")),
    "a wrong checksum of a text": lambda d: insert_png(d, chunk(b"tEXt", b"Software\0x", 0)),
    "a wrong checksum of an EXIF block": lambda d: insert_png(d, chunk(b"eXIf", exif(), 0)),
    "a wrong checksum of a date": lambda d: insert_png(d, chunk(b"tIME", b"\x07\xea\1\1\1\1\1", 7)),
    "a wrong checksum of an unknown chunk": lambda d: insert_png(d, chunk(b"prVt", b"x" * 40, 7)),
    "a length over the end": lambda d: insert_png(d, b"\x7f\xff\xff\xfftEXtSoftware\0x\0\0\0\0"),
    "a length that is too short": lambda d: insert_png(d, b"\0\0\0\x02tEXtSoftware\0x\0\0\0\0"),
    "a damaged kind of chunk": lambda d: insert_png(d, chunk(b"t\xffXt", b"Software\0x")),
    "a text that is cut off behind the pixels": lambda d: d[:-12] + b"\0\0\xff\0tEXtSoftware",
    "no end": lambda d: d[:-12],
    "a damaged end": lambda d: d[:-4] + b"\0\0\0\0",
    "junk behind the end": lambda d: d + b"\0junk" * 99,
    "a damaged animation": lambda d: insert_png(d, chunk(b"acTL", b"\0")),
    "XMP that is none": lambda d: insert_png(d, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff\xfe<<<")),
    "XMP and a broken text": lambda d: insert_png(
        d, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), chunk(b"tEXt", b"a\0b", 0)
    ),
}
JPEG_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "EXIF that is none": lambda d: insert_jpeg(d, segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")),
    "EXIF that is cut off": lambda d: insert_jpeg(d, segment(0xE1, exif()[:19])),
    "EXIF twice": lambda d: insert_jpeg(d, segment(0xE1, exif()), segment(0xE1, exif())),
    "an empty EXIF": lambda d: insert_jpeg(d, segment(0xE1, b"Exif\0\0")),
    "an empty APP1": lambda d: insert_jpeg(d, segment(0xE1, b"")),
    "an ICC profile that is none": lambda d: insert_jpeg(d, segment(0xE2, b"ICC_PROFILE\0\1\1nonsense")),
    "half of an ICC profile": lambda d: insert_jpeg(d, segment(0xE2, b"ICC_PROFILE\0\1\4nonsense")),
    "an ICC profile without number": lambda d: insert_jpeg(d, segment(0xE2, b"ICC_PROFILE\0")),
    "MPF that is none": lambda d: insert_jpeg(d, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")),
    "MPF of frames that are not there": lambda d: insert_jpeg(
        d, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\2\0\0\0\0\0\0\0")
    ),
    "IPTC that is cut off": lambda d: insert_jpeg(d, segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10ab")),
    "IPTC with a name that is too long": lambda d: insert_jpeg(d, segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff")),
    "IPTC resolution that is short": lambda d: insert_jpeg(d, segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\1a\0")),
    "XMP that is none": lambda d: insert_jpeg(d, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<<<")),
    "FlashPix that is none": lambda d: insert_jpeg(d, segment(0xE2, b"FPXR\0nonsense")),
    "a long comment": lambda d: insert_jpeg(d, segment(0xFE, b"x" * 60_000)),
    "a segment of no length": lambda d: insert_jpeg(d, b"\xff\xe5\0\0"),
    "a segment of length one": lambda d: insert_jpeg(d, b"\xff\xe5\0\1"),
    "padding before a segment": lambda d: insert_jpeg(d, b"\xff\xff\xff\xff" + segment(0xE4, b"x")[1:]),
    "a segment that is longer than it says": lambda d: insert_jpeg(d, segment(0xE5, b"abc") + b"and more"),
    "junk behind the end": lambda d: d + b"\xff\xd9junk" * 99,
    "a second picture behind the end": lambda d: d + CLEAN["JPEG grey"],
}  # fmt: skip
WEBP_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "EXIF that is none": lambda d: insert_webp(d, (b"EXIF", b"MM\0*\xff\xff\xff\xff nonsense")),
    "an empty EXIF": lambda d: insert_webp(d, (b"EXIF", b"")),
    "XMP that is none": lambda d: insert_webp(d, (b"XMP ", b"\xff\xfe<<<")),
    "an unknown chunk": lambda d: insert_webp(d, (b"ABCD", b"x" * 31)),
    "a chunk that is cut off": lambda d: insert_webp(d, (b"EXIF", exif()))[:-9],
    "a length over the end": lambda d: insert_webp(d) + b"EXIF\xff\xff\0\0abc",
    "an ICC profile behind the pixels": lambda d: insert_webp(d, (b"ICCP", b"nonsense")),
    "junk behind the end": lambda d: d + b"junk" * 99,
}
DAMAGE = {"PNG": PNG_DAMAGE, "JPEG": JPEG_DAMAGE, "WEBP": WEBP_DAMAGE}
