"""Output files that grow by one structure after the other: whatever ends the work, what is in them can be read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


class TextFile:
    """Records of text, each written at once; `sort` puts them in another order.

    Parameters
    ----------
    path : the file.  head : text before the records; None: go on with a file that is there.
    """

    def __init__(self, path: Path, head: str | None = ""):
        self.path, self.spans = path, []
        self._file = open(path, "ab" if head is None else "wb", buffering=0)
        self.start = self._file.write((head or "").encode())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()

    def add(self, text: str) -> None:
        """Append a record."""
        data = text.encode()
        self._file.write(data)
        self.spans.append(len(data))

    def sort(self, order: Iterable[int]) -> None:
        """Rewrite the file, whole or not at all, with its records in this order."""
        from soapkrr.modelfile import write_whole

        data = self.path.read_bytes()
        ends = [self.start]
        for length in self.spans:
            ends.append(ends[-1] + length)
        parts = [data[: self.start], *(data[ends[k] : ends[k + 1]] for k in order)]
        write_whole(self.path, lambda file: file.write(b"".join(parts)))


def extended_xyz(atoms) -> str:
    """One structure as extended XYZ."""
    from soapkrr import exchange

    return exchange.extended_xyz(atoms)


def complete_records(path: Path) -> int:
    """Bytes of the complete structures at the start of an extended XYZ file."""
    end = 0
    with open(path, "rb") as file:
        while (first := file.readline()).strip().isdigit():
            lines = [file.readline() for _ in range(int(first) + 1)]
            if not lines[-1].endswith(b"\n"):
                break
            end = file.tell()
    return end


def drop_rest(path: Path, size: int) -> None:
    """Cut off what was not written to its end."""
    os.truncate(path, size)
