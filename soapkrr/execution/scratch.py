"""Arrays that wait on a disk between two passes over data."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Hashable
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
        self._lock, self._where, self._end = Lock(), {}, 0
        try:
            self._file = tempfile.TemporaryFile()
            self._room = PART * shutil.disk_usage(tempfile.gettempdir()).free
        except OSError as error:
            self._drop(error)

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
                self._file.write(content.data)
                self._file.flush()
            except OSError as error:
                self._drop(error)
                return
            self._where[key] = self._end, content.shape
            self._end += content.nbytes

    def get(self, key: Hashable) -> np.ndarray | None:
        """The array of that name; None where it was not kept."""
        with self._lock:
            if key not in self._where:
                return None
            place, shape = self._where[key]
            out = np.empty(shape)
            self._file.seek(place)
            if self._file.readinto(out.data.cast("B")) < out.nbytes:
                self._drop("it was cut short")
                return None
            return out

    def _drop(self, reason) -> None:
        logger.info("nothing is kept in %s: %s", tempfile.gettempdir(), reason)
        self._where, self._file, self._room = {}, None, 0.0
