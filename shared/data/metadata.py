"""Leaves metadata out of the bytes of an image file, so that an image whose pixels are whole is read whatever else its file holds.

Pillow refuses a file for a text chunk that unpacks to over a megabyte, a damaged EXIF block or a wrong checksum of a chunk that no pixel
depends on. Only files that it refuses come here. Pixels, palette, transparency and what a decoder needs for the colours stay as they are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
PNG_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
XMP_KEY = b"XML:com.adobe.xmp\0"
JPEG_NEEDED = {0xDB, 0xC4, 0xDD, 0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB}  # tables, restart interval, frames
JPEG_SCAN = 0xDA
JPEG_COLOURS = {0xE0: b"JFIF", 0xEE: b"Adobe"}  # tell a decoder whether the channels are YCbCr
JPEG_TURNED = {b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"}
JPEG_OTHERS = {*range(0xE0, 0xF0), 0xFE}  # application segments and comments
WEBP_NEEDED = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
WEBP_TURNED = {b"EXIF": 0x08, b"XMP ": 0x04}  # with their flags in the header
WEBP_KEPT_FLAGS = 0x12  # transparency and animation


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yields the file with less: first with the metadata that may say how the image is turned, then with none.

    It yields nothing for a format other than PNG, JPEG and WebP, or if the file cannot be taken apart.
    """
    for turned in (True, False):
        if data.startswith(PNG):
            yield _png(data, turned)
        elif data.startswith(b"\xff\xd8\xff"):
            yield _jpeg(data, turned)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            yield _webp(data, turned)


def _png(data: bytes, turned: bool) -> bytes:
    kept = [PNG]
    for kind, chunk in _png_chunks(data):
        if kind in PNG_NEEDED or (turned and (kind == b"eXIf" or (kind == b"iTXt" and chunk[8:].startswith(XMP_KEY)))):
            kept.append(chunk)
    return b"".join(kept) + PNG_END


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the chunks with their kinds up to the end of the image; goes on at the next chunk that is needed if a length is wrong."""
    at = len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind == b"IEND":
            return
        if kind in PNG_NEEDED or (kind.isalpha() and end <= len(data)):
            yield kind, data[at:end]
            at = end
        else:
            at = _next_needed(data, at + 4)


def _next_needed(data: bytes, start: int) -> int:
    """Returns where the next chunk that is needed begins and has the right checksum; the end of the data if there is none."""
    found = [at for kind in PNG_NEEDED for at in _positions(data, kind, start + 4)]
    for at in sorted(found):
        (length,) = struct.unpack_from(">I", data, at - 4)
        body = data[at : at + 4 + length]
        if data[at + 4 + length :][:4] == struct.pack(">I", zlib.crc32(body)):
            return at - 4
    return len(data)


def _positions(data: bytes, word: bytes, start: int) -> Iterator[int]:
    at = data.find(word, start)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


def _jpeg(data: bytes, turned: bool) -> bytes:
    kept, at = [data[:2]], 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):  # padding, or what a wrong length has left
            at += 1
            continue
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == JPEG_SCAN:
            return b"".join(kept) + data[at:]
        if marker in JPEG_NEEDED:
            kept.append(data[at:end])
        elif marker in JPEG_OTHERS:
            content = data[at + 4 : end]
            wanted = content.startswith(JPEG_COLOURS.get(marker, b"\0none")) or (
                turned and marker == 0xE1 and content.startswith(tuple(JPEG_TURNED))
            )
            whole = data[end : end + 1] == b"\xff"
            if wanted and whole:
                kept.append(data[at:end])
            if not whole:  # its length is wrong: the next segment is looked for
                end = _next_segment(data, at + 2)
        else:
            end = at + 2
        at = max(end, at + 2)
    return b"".join(kept)


def _next_segment(data: bytes, start: int) -> int:
    """Returns where a segment that is needed begins that is followed by another one; the end of the data if there is none."""
    for at in _positions(data, b"\xff", start):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1 : at + 2] and data[at + 1] in JPEG_NEEDED and data[end : end + 1] == b"\xff":
            return at
    return len(data)


def _webp(data: bytes, turned: bool) -> bytes:
    chunks, at, flags = [], 12, 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if kind in WEBP_NEEDED or kind == b"VP8X" or (turned and kind in WEBP_TURNED and len(body) == length):
            chunks.append((kind, body))
            flags |= WEBP_TURNED.get(kind, 0)
        at += 8 + length + length % 2
    written = []
    for kind, body in chunks:
        if kind == b"VP8X" and body:
            body = bytes([body[0] & WEBP_KEPT_FLAGS | flags]) + body[1:]
        written.append(struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2))
    inner = b"WEBP" + b"".join(written)
    return struct.pack("<4sI", b"RIFF", len(inner)) + inner
