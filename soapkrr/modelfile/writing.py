"""Files written whole or not at all: beside their place, to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from soapkrr.errors import InputError


def check_writable(path: str | os.PathLike) -> Path:
    """The path, once it is certain that a file can be written there."""
    path = Path(path)
    target, mode = _target(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise InputError(f"cannot write {path}: it is a directory.")
    if mode is not None and not stat.S_ISREG(mode):
        raise InputError(f"cannot write {path}: it is not a regular file.")
    if not target.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {target.parent} does not exist.")
    try:
        with _temporary(target.parent, 0o600):
            return path
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}.") from error


def write_whole(path: str | os.PathLike, write: Callable) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, bring it to the disk and rename it: never a half-written file.

    A symbolic link stays and its target is written; a replaced file hands on its mode. Whatever fails leaves the old file and no other,
    and so does the signal SIGTERM.

    Raises
    ------
    InputError : a file cannot be written there.
    OSError : the disk is full, or fails; ``filename`` is ``path``.
    """
    path = check_writable(path)
    target, mode = _target(path)
    try:
        with _temporary(target.parent, 0o666) as (temporary, file):
            write(file)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def _target(path: Path) -> tuple[Path, int | None]:
    """The file that is written, symbolic links followed, and its mode; None where there is none yet."""
    try:
        return Path(os.path.realpath(path)) if path.is_symlink() else path, os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Path(os.path.realpath(path)) if path.is_symlink() else path, None
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def _temporary(folder: Path, mode: int) -> Iterator:
    """(path, open file) of a new file in a folder, which is gone afterwards."""
    path = folder / f".soapkrr-{secrets.token_hex(8)}.tmp"
    with _gone_when_terminated(path):
        try:
            with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode), "w+b") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _gone_when_terminated(path: Path) -> Iterator[None]:
    """SIGTERM removes a file before it ends the process, where nobody else handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number, frame):
        path.unlink(missing_ok=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system lets folders be opened and does so."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
