"""Candidates one after the other, from files, folders, databases or generators; broken entries come with the reason, and end nothing."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ase import Atoms

from soapkrr.errors import InputError

#: Suffixes of extended XYZ and of ASE's databases; what else ASE reads, it reads.
XYZ, DATABASES = (".xyz", ".extxyz"), (".db",)


@dataclass(frozen=True)
class Candidate:
    """One entry of a source.

    Attributes
    ----------
    index : place in the source.  name : where it stands, ``file@place``.  atoms : the structure; None: it cannot be read.
    reason : why it cannot be read, ``""`` otherwise.
    """

    index: int
    name: str
    atoms: Atoms | None
    reason: str = ""

    @property
    def digest(self) -> str:
        """Equal for equal entries."""
        found = hashlib.sha256(f"{self.name}|{self.reason}".encode())
        if self.atoms is not None:
            for array in (self.atoms.numbers, self.atoms.positions, self.atoms.cell.array, self.atoms.pbc):
                found.update(array.tobytes())
        return f"sha:{found.hexdigest()[:24]}"


def stream(source: str | Path | Atoms | Iterable) -> Iterator[Candidate]:
    """Every entry of a source in order.

    Parameters
    ----------
    source : an extended XYZ file, an ASE database, another file that ASE reads, a folder of such files (in the order of their names,
        folders inside too), or an iterable of structures; ``FILE@0:50`` takes some structures of a file, as ASE does, and entries keep
        the places that they have in it.

    Raises
    ------
    InputError : there is no such file, or it cannot be opened at all.
    """
    if isinstance(source, Atoms):
        source = [source]
    if isinstance(source, (str, Path)):
        entries = _of_path(*_sliced(source))
    elif isinstance(source, Iterable):
        entries = _of_iterable(source)
    else:
        raise InputError(f"`candidates` must be a path or an iterable of ase.Atoms, received {type(source).__name__}.")
    return (Candidate(index, *entry) for index, entry in enumerate(entries))


def check_source(source) -> None:
    """Raise `InputError` for a source that can give nothing, and for a list too short to hold anything."""
    if isinstance(source, (str, Path)):
        path, some = _sliced(source)
        _check_path(path)
        if some is not None and path.is_dir():
            raise InputError(f"`candidates`: {path} is a folder; `@` takes structures of one file.")
    elif isinstance(source, (list, tuple)) and not source:
        raise InputError("`candidates` is empty: at least one structure is needed.")
    elif not isinstance(source, Iterable):
        raise InputError(f"`candidates` must be a path or an iterable of ase.Atoms, received {type(source).__name__}.")


def _sliced(source: str | Path) -> tuple[Path, slice | None]:
    """A path and which of its structures; None: all of them."""
    name, at, text = str(source).rpartition("@")
    if not at or Path(source).exists():
        return Path(source), None
    try:
        parts = [int(part) if part else None for part in text.split(":")]
        some = slice(parts[0], None if parts[0] == -1 else (parts[0] or 0) + 1) if len(parts) == 1 else slice(*parts)
        some.indices(0)
    except (TypeError, ValueError) as error:
        raise InputError(f"`candidates`: {source}: after @ stands a place or a slice, such as @0:50, @-1 or @::10.") from error
    return Path(name), some


def source_path(source) -> Path | None:
    """The file or folder of a source; None where it is none."""
    return _sliced(source)[0] if isinstance(source, (str, Path)) else None


def _some(entries: Iterator[tuple], some: slice | None) -> Iterator[tuple]:
    """(place, entry) of those that are wanted; slices that count from the end read all entries first."""
    counted = enumerate(entries)
    if some is None:
        return counted
    if all(part is None or part >= 0 for part in (some.start, some.stop)) and (some.step or 1) > 0:
        return islice(counted, some.start, some.stop, some.step)
    return iter(list(counted)[some])


def _check_path(path: Path) -> None:
    if not path.exists():
        raise InputError(f"`candidates`: there is no file or folder {path}.")
    if path.is_dir():
        if not any(_files(path)):
            raise InputError(f"`candidates`: there is no file in the folder {path}.")
        return
    if not path.is_file():
        raise InputError(f"`candidates`: {path} is a pipe or a device, not a file.")
    if path.stat().st_size == 0:
        raise InputError(f"`candidates`: {path} is empty.")
    if path.suffix.lower() in DATABASES:
        _connected(path)
        return
    try:
        with open(path, "rb") as file:
            start = file.readline(1 << 16)
    except OSError as error:
        raise InputError(f"`candidates`: cannot read {path}: {error.strerror or error}.") from error
    if path.suffix.lower() in XYZ and not start.strip().isdigit():
        raise InputError(
            f"`candidates`: {path} is no extended XYZ file: its first line must be the number of atoms, it is "
            f"{start[:40].decode(errors='replace')!r}."
        )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))


def _of_path(path: Path, some: slice | None) -> Iterator[tuple]:
    _check_path(path)
    files = _files(path) if path.is_dir() else [path]
    for file in files:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        entries = (
            _of_xyz(file) if file.suffix.lower() in XYZ else _of_database(file) if file.suffix.lower() in DATABASES else _of_other(file)
        )
        yield from ((f"{name}@{place}", *entry) for place, entry in _some(entries, some))


def _of_iterable(frames: Iterable) -> Iterator[tuple]:
    for place, atoms in enumerate(frames):
        if isinstance(atoms, Atoms):
            yield f"candidate@{place}", atoms
        else:
            yield f"candidate@{place}", None, f"expected an ase.Atoms object, received {type(atoms).__name__}"


def _of_xyz(path: Path) -> Iterator[tuple]:
    """Frames of an extended XYZ file; after a broken one reading goes on at the next line that can begin a frame."""
    from ase.io import read

    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline()
        while first:
            if not first.strip():
                first = file.readline()
                continue
            lines, first, problem = _frame(first, file)
            if problem:
                yield None, problem
                continue
            try:
                yield (read(io.StringIO("".join(lines)), format="extxyz"),)
            except Exception as error:  # ASE's reader raises whatever its parser trips over
                yield None, f"cannot be read: {type(error).__name__}: {error}"


def _frame(first: str, file) -> tuple[list[str], str, str]:
    """(lines of the frame that begins with ``first``, first line of the next, what is wrong with this one)."""
    if not first.strip().isdigit():
        line = file.readline()
        while line and not line.strip().isdigit():
            line = file.readline()
        return [], line, f"expected the number of atoms, found {first.strip()[:40]!r}"
    lines, n = [first, file.readline()], int(first)
    while len(lines) < n + 2:
        line = file.readline()
        if not line or line.strip().isdigit():
            return [], line, f"truncated: {n} atoms announced, {len(lines) - 2} found"
        lines.append(line)
    return lines, file.readline(), ""


def _connected(path: Path):
    from ase.db import connect

    try:
        db = connect(path, type="db", use_lock_file=False)
        db.count()
    except Exception as error:  # sqlite3.DatabaseError, OSError, or what ASE makes of them
        raise InputError(f"`candidates`: {path} is no database of ASE: {type(error).__name__}: {error}") from error
    return db


def _of_database(path: Path) -> Iterator[tuple]:
    """Rows by number, in pages: nothing stays open while they are worked on."""
    db = _connected(path)
    last, page = 0, True
    while page:
        page = list(db.select(f"id>{last}", limit=100, sort="id"))
        for row in page:
            last = row.id
            try:
                yield (row.toatoms(),)
            except Exception as error:  # a damaged row raises whatever its decoder trips over
                yield None, f"cannot be read: {type(error).__name__}: {error}"


def _of_other(path: Path) -> Iterator[tuple]:
    from ase.io import iread

    try:
        for atoms in iread(path):
            yield (atoms,)
    except Exception as error:  # ASE's readers raise whatever their parser trips over
        yield None, f"cannot be read: {type(error).__name__}: {error}"
