"""Keeps encoded images in a file on the local disk, mapped into memory, so that a set may be larger than the memory."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO, Any, overload

import numpy as np
from numpy.typing import NDArray


class EncodedImages(Sequence[bytes]):
    """Holds n encoded images, which are read from the disk when they are asked for; parts and joined sets share their files.

    The files have no names, so they are gone with the process, however it ends. They are in the folder for temporary files.
    """

    def __init__(
        self,
        files: tuple[mmap.mmap | bytes, ...],
        file: NDArray[np.int32],
        ends: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        """Takes the mapped files, the number of each image's file, `[n]`, and the bytes at which it starts and stops, `[n]` each."""
        self._files, self._file, (self._start, self._stop) = files, file, ends

    @classmethod
    def of(cls, images: Iterable[bytes]) -> EncodedImages:
        """Writes images, unless they are written already; they may be made meanwhile. Raises OSError if the disk is full."""
        if isinstance(images, EncodedImages):
            return images
        with EncodedWriter() as writer:
            for image in images:
                writer.add(image)
            return writer.finish()

    def take(self, rows: NDArray[np.int64]) -> EncodedImages:
        """Returns the images at these positions, in this order."""
        return EncodedImages(self._files, self._file[rows], (self._start[rows], self._stop[rows]))

    def joined(self, other: EncodedImages) -> EncodedImages:
        """Returns these images and those of `other` after them."""
        return EncodedImages(
            self._files + other._files,
            np.concatenate([self._file, other._file + np.int32(len(self._files))]),
            (np.concatenate([self._start, other._start]), np.concatenate([self._stop, other._stop])),
        )

    def __len__(self) -> int:
        return len(self._file)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> EncodedImages: ...
    def __getitem__(self, index: int | slice) -> bytes | EncodedImages:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        content: bytes = self._files[self._file[index]][self._start[index] : self._stop[index]]
        return content

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets another process have them, which writes a file of its own."""
        return EncodedImages.of, (list(self),)


class EncodedWriter:
    """Writes the file of an EncodedImages, one image after the other."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._ends = [0]

    def add(self, image: bytes) -> None:
        """Appends an image; raises OSError if the disk is full."""
        self._file.write(image)
        self._ends.append(self._ends[-1] + len(image))

    def finish(self) -> EncodedImages:
        """Returns the images that were added."""
        self._file.flush()
        # an empty file cannot be mapped
        content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if self._ends[-1] else b""
        ends = np.array(self._ends, np.int64)
        return EncodedImages((content,), np.zeros(len(ends) - 1, np.int32), (ends[:-1], ends[1:]))

    def __enter__(self) -> EncodedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # what is mapped stays
