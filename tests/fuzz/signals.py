"""SIGINT and SIGTERM at random times in commands that write: nothing half written or left over, every finished row kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.db import connect
from ase.io import read, write
from harness import RIGHT, UNCHECKED, Attempt, Wrong
from small import OPTIONS, crystals, small_gp

from soapkrr import cli

#: Commands and what they write.
COMMANDS = {
    "fit": ("new.soapkrr", ["fit", "train.xyz", *OPTIONS]),
    "relax": ("new.xyz", ["relax", "m.soapkrr", "some.xyz", "--fmax", "0.001", "--steps", "20"]),
    "predict table": ("new.csv", ["predict", "m.soapkrr", "many.xyz"]),
    "predict structures": ("new.xyz", ["predict", "m.soapkrr", "many.xyz", "--sort", "energy"]),
    "predict database": ("new.db", ["predict", "m.soapkrr", "some.xyz", "--sort", "energy"]),
}

#: Seconds after which a command counts as hanging.
PATIENCE = 60.0

#: Every so manieth round of commands is run by new interpreters.
ANEW = 16

#: Exit codes after a signal: said by the command, or Python's own before the command has begun.
CODES = {signal.SIGINT: (130, -signal.SIGINT, 1), signal.SIGTERM: (143, -signal.SIGTERM)}


class Workshop:
    """A folder with a model and structures, and the outputs of commands that nobody interrupts, with the times these take."""

    def __init__(self, folder: Path):
        self.folder, self.n = Path(folder), 0
        self.folder.mkdir(exist_ok=True)
        frames = crystals(8)
        small_gp(threads=1).fit(frames[:6]).save(self.folder / "m.soapkrr")
        write(self.folder / "train.xyz", frames[:6])
        write(self.folder / "many.xyz", [atoms.copy() for atoms in crystals(30, seed=3) * 10])
        write(self.folder / "some.xyz", [atoms.copy() for atoms in crystals(8, seed=3)])
        self.whole, self.seconds = {}, {}
        for name in COMMANDS:
            self.finished(name, None, 0)  # loads what the next one finds loaded
            start = time.perf_counter()
            code, _, output = self.finished(name, None, 0)
            self.seconds[name] = time.perf_counter() - start
            if code not in (0, 1):
                raise Wrong(f"{name} fails by itself")
            self.whole[name] = output.read_bytes()
        start = time.perf_counter()
        self.finished("fit", None, 0, anew=True)
        self.imports = time.perf_counter() - start

    def finished(self, name: str, number: int | None, delay: float, anew: bool = False) -> tuple[int, str, Path]:
        """(exit code, standard error, output) of a command in a folder of its own that gets a signal after so many seconds.

        The process is a child of this one, which has imported everything; with ``anew`` a new interpreter.
        """
        self.n += 1
        output, command = COMMANDS[name]
        own = self.folder / f"run{self.n}"
        own.mkdir()
        line, said = [*command, "-o", str(own / output), "--threads", "1", "--quiet"], self.folder / "said"
        pid = self._started(line, said) if anew else self._forked(line, said)
        if number is not None:
            time.sleep(delay)
            os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise Wrong(f"{name} goes on for {PATIENCE:g} s after signal {number}")
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(ended[1]), said.read_text(errors="replace"), own / output

    def _started(self, line: list[str], said: Path) -> int:
        with open(said, "wb") as file:
            command = [sys.executable, "-W", "ignore", "-m", "soapkrr.cli", *line]
            process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=file)
        process.returncode = 0  # it is waited for by its id
        return process.pid

    def _forked(self, line: list[str], said: Path) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            for number in CODES:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.chdir(self.folder)
            code = cli.main(line)
            sys.stderr.flush()
        finally:
            os._exit(code)


def attempts(n: int, seed: int, folder: Path) -> Iterator[Attempt]:
    """n commands that get a signal, every command in turn."""
    shop, names = Workshop(folder), list(COMMANDS)
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        name, number = names[k % len(names)], [signal.SIGINT, signal.SIGTERM][rng.integers(2)]
        anew = k % (4 * ANEW) < len(names)
        # Of a new interpreter, most of the time goes to imports.
        delay = shop.seconds[name] * rng.uniform(0, 1.1) + (shop.imports * rng.uniform(0, 1) if anew else 0.0)
        shown = f"{name} {seed}/{k}: {number.name} after {delay:.2f} s"
        yield Attempt(f"{name}, {number.name}", shown, acted(shop, name, number, delay, anew), judged(shop, name, number))


def acted(shop: Workshop, name: str, number, delay: float, anew: bool):
    return lambda: shop.finished(name, number, delay, anew)


def judged(shop: Workshop, name: str, number):
    def judge(value):
        code, err, output = value
        left = sorted(path.name for path in output.parent.iterdir())
        content = output.read_bytes() if output.exists() else b""
        for path in list(output.parent.iterdir()):
            path.unlink()
        output.parent.rmdir()
        if left not in ([], [output.name]):
            raise Wrong(f"left over: {left}; exit code {code}: {err}")
        if code in (0, 1) and content:
            return _whole(shop, name, content)
        if code not in CODES[number]:
            raise Wrong(f"exit code {code}: {err}")
        if "Traceback" in err and "soapkrr" in err:
            raise Wrong(f"a traceback: {err}")
        return _part(shop, name, content, err)

    return judge


def _whole(shop: Workshop, name: str, content: bytes) -> str:
    """The signal came too late; of a fit the date is another."""
    if name == "predict database":
        _rows(content, shop.folder / "part.db", 8)
    elif name != "fit" and content != shop.whole[name]:
        raise Wrong("done, but with another output")
    return UNCHECKED


def _part(shop: Workshop, name: str, content: bytes, err: str) -> str:
    if name == "fit":
        if content:
            _load(content, shop.folder / "written.soapkrr")
        return RIGHT
    if "database" in name:
        _rows(content, shop.folder / "part.db")
        return RIGHT
    if not content.endswith(b"\n") and content:
        raise Wrong("the last row is half written")
    if "structures" in name:
        _ids(content, shop.folder / "part.xyz")
    elif not shop.whole[name].startswith(content):
        raise Wrong("rows differ from those of a run that nobody interrupted")
    return RIGHT


def _load(content: bytes, path: Path) -> None:
    """A model that was written before the signal came is whole."""
    import soapkrr

    path.write_bytes(content)
    soapkrr.load(path)


def _ids(content: bytes, path: Path) -> None:
    """Rows are those of the first structures, each once, whether they were sorted already or not."""
    path.write_bytes(content)
    rows = [atoms.info["row"] for atoms in read(path, ":")] if content else []
    if sorted(rows) != list(range(len(rows))):
        raise Wrong(f"rows {rows[:10]} ... are not those of the first structures")


def _rows(content: bytes, path: Path, n: int | None = None) -> None:
    """A database whose rows, n where that is known, are those of the first structures."""
    path.write_bytes(content)
    rows = sorted(row.row for row in connect(path, use_lock_file=False).select()) if content else []
    if rows != list(range(len(rows))) or n not in (None, len(rows)):
        raise Wrong(f"the database holds rows {rows}")
