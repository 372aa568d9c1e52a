"""Arrays that wait on a disk between two passes over data."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Hashable
from io import BufferedRandom
from threading import Lock

import numpy as np

logger = logging.getLogger(__name__)

#: Part of the free space of the disk that is used at most.
PART = 0.5


class Scratch:
    """Arrays of 64-bit floats in a nameless file of the system's temporary folder (``TMPDIR``), gone with this object.

    Where the disk has too little space, or fails, all of them are let go: what was put here can be made again.
    """

    def __init__(self):
        self._lock, self._end, self._room = Lock(), 0, 0.0
        self._where: dict[Hashable, tuple[int, tuple]] = {}
        self._file: BufferedRandom | None = None
        try:
            self._room = PART * shutil.disk_usage(tempfile.gettempdir()).free
            self._file = tempfile.TemporaryFile()
        except OSError as error:
            self._drop(error)
        else:
            self._close = weakref.finalize(self, self._file.close)

    def put(self, key: Hashable, array: np.ndarray) -> None:
        """Keep an array under a name, until the object goes or the disk is full."""
        content = np.ascontiguousarray(array, dtype=np.float64)
        with self._lock:
            if self._file is None:
                return
            try:
                if self._end + content.nbytes > self._room:
                    raise OSError(f"{self._end + content.nbytes:,} bytes, of which there is room for {self._room:,.0f}")
                self._file.seek(self._end)
                self._file.write(_bytes(content))
                self._file.flush()
            except OSError as error:
                self._drop(error)
                return
            self._where[key] = self._end, content.shape
            self._end += content.nbytes

    def get(self, key: Hashable) -> np.ndarray | None:
        """The array of that name; None where it was not kept."""
        with self._lock:
            if self._file is None or key not in self._where:
                return None
            place, shape = self._where[key]
            out = np.empty(shape)
            try:
                self._file.seek(place)
                if self._file.readinto(_bytes(out)) < out.nbytes:
                    raise OSError("the file was cut short")
            except OSError as error:
                self._drop(error)
                return None
            return out

    def _drop(self, reason: OSError) -> None:
        logger.info("nothing is kept between two passes over the data: %s", reason)
        self._where, self._file = {}, None


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
