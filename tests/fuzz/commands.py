"""Command lines with something wrong in them: options, values, files, places to write; what a command makes of each.

Every command ends with one line and exit code 2, or does its work; it never prints a traceback, leaves nothing half written, and no
temporary file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from ase.io import read, write
from harness import REFUSED, RIGHT, Attempt, Wrong
from small import OPTIONS, crystals, small_gp

from soapkrr import cli, load

#: Values that few options can take.
VALUES = [
    "", " ", "nan", "inf", "-inf", "-1", "0", "0.0", "1e308", "1e-320", "-1e-5", "abc", "99999999999999999999", "1e9", "1,2", "=", ":", ",",
    "Si=", "=1", "Xx=1", "Ar=nan", "Ar=1,Ar=2", "Ar=1", "None", "²", "١", "1_000", "0x10", "é", "--", "-", "*", "../..", "Ar", "Ne", "1.5",
    "true", "liquid:forces=0.1", "liquid:forces=-1", ":forces=1", "liquid:", "energy", "forces", "config_type", "1GB", "1kB", "-1GB",
    "1e99TB", "2", "3", "0.5", "4", "0.01", "5.0",
]  # fmt: skip

#: Contents of structure files.
CRYSTAL = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"'
CONTENTS = {
    "empty": b"",
    "one line": b"1\n",
    "no atoms": b"0\n\n",
    "huge count": b"1000000000000\ncomment\nAr 0 0 0\n",
    "text": b"hello\nworld\n",
    "negative count": b"-4\n\nAr 0 0 0\n",
    "too few lines": b"4\n\nAr 0 0 0\n",
    "random bytes": bytes(range(256)) * 20,
    "zeros": bytes(10_000),
    "nan positions": b"1\n\nAr nan 0 0\n",
    "text positions": b"1\n\nAr a b c\n",
    "no element": b"1\n\nQq 0 0 0\n",
    "byte order mark": b"\xef\xbb\xbf1\n\nAr 0 0 0\n",
    "latin": "1\nKönig\nAr 0 0 0\n".encode("latin-1"),
    "bad cell": f"1\n{CRYSTAL.replace('4 0 0 0 4', '4 0 0 a 4')}\nAr 0 0 0\n".encode(),
    "flat cell": f"1\n{CRYSTAL.replace('0 0 4', '0 0 0')}\nAr 0 0 0\n".encode(),
    "energy of text": f"1\n{CRYSTAL} energy=abc\nAr 0 0 0\n".encode(),
    "nan energy": f"1\n{CRYSTAL} energy=nan\nAr 0 0 0\n".encode(),
    "a zip": b"PK\x05\x06" + bytes(18),
    "json": b"{}",
    "json list": b"[1, 2]",
    "columns": f"1\n{CRYSTAL.replace('pos:R:3', 'pos:R:999999')}\nAr 0 0 0\n".encode(),
    "long line": b"1\n" + b"x" * 10**6 + b"\nAr 0 0 0\n",
    "carriage returns": f"1\r\n{CRYSTAL} energy=1\r\nAr 0 0 0\r\n".encode(),
    "unclosed quote": b'1\nLattice="1 0 0\nAr 0 0 0\n',
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
    "cif": b"data_x\n_cell_length_a 1\n",
    "coincident": b"2\n\nAr 0 0 0\nAr 0 0 0\n",
}

SUFFIXES = ["", ".xyz", ".extxyz", ".traj", ".cif", ".vasp", ".db", ".json", ".pdb", ".soapkrr", ".csv", ".npz", ".html"]


class Workshop:
    """A folder with a model, structures, and everything that is no file of either; commands run in it."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        frames = crystals(8)
        small_gp(threads=1).fit(frames[:6]).save(self.folder / "m.soapkrr")
        write(self.folder / "train.xyz", frames[:6])
        write(self.folder / "test.xyz", frames[6:])
        write(self.folder / "bare.xyz", [atoms.copy() for atoms in frames[6:]])
        (self.folder / "folder").mkdir(exist_ok=True)
        self.given = set(os.listdir(self.folder))

    def clean(self) -> None:
        """Remove what commands left."""
        for name in set(os.listdir(self.folder)) - self.given:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def left(self) -> set[str]:
        return set(os.listdir(self.folder)) - self.given


#: A command line of each kind that works, without what follows its files.
SOUND = {
    "check": ["check", "train.xyz", "--threads", "1", "--quiet"],
    "check of a model": ["check", "m.soapkrr", "test.xyz", "--html", "new.html", "--threads", "1", "--quiet"],
    "fit": ["fit", "train.xyz", "-o", "new.soapkrr", *OPTIONS, "--threads", "1", "--quiet"],
    "evaluate": ["evaluate", "m.soapkrr", "test.xyz", "--threads", "1", "--quiet", "--uncertainty", "energy"],
    "predict": ["predict", "m.soapkrr", "bare.xyz", "-o", "new.csv", "--threads", "1", "--quiet"],
    "relax": ["relax", "m.soapkrr", "bare.xyz", "-o", "new.xyz", "--fmax", "0.1", "--steps", "5", "--threads", "1", "--quiet"],
    "screen": ["screen", "m.soapkrr", "bare.xyz", "-o", "new.db", "--threads", "1", "--quiet"],
    "compress": ["compress", "m.soapkrr", "-o", "new.soapkrr", "--tolerance", "0.5", "--threads", "1", "--quiet"],
    "info": ["info", "m.soapkrr"],
}


def output_place(line: list[str]) -> int | None:
    """Where a line names the file that it writes; None where it does not."""
    return next((k + 1 for k, word in enumerate(line[:-1]) if word in ("-o", "--html")), None)


@cache
def options() -> dict[str, list[tuple[str, bool]]]:
    """{command: [(option, whether it takes a value)]}, read off the parser: new options are tried as soon as they are there."""
    commands = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    return {
        name: [(a.option_strings[-1], a.nargs != 0) for a in sub._actions if a.option_strings and "--help" not in a.option_strings]
        for name, sub in commands.items()
        if any(name == line[0] for line in SOUND.values())
    }


def command_of(rng) -> list[str]:
    return list(SOUND[str(rng.choice(list(SOUND)))])


def sound(rng, shop):
    """A choice of options of which each is right; the one maker whose commands must succeed."""
    name = str(rng.choice(list(SOUND)))
    more = {"fit": [["--zbl"], ["--cv", "2"], ["--test", "test.xyz"], ["--by", "config_type"][:0], ["--json"], ["--plan"]]}
    more |= {"evaluate": [["--json"], ["--device", "auto"], ["--memory-limit", "1GB"]], "info": [["--json"], ["--verify"]]}
    more |= {"predict": [["--json"], ["--forces-std"], ["--sort", "energy"]], "relax": [["--cell"], ["--json"], ["--optimizer", "fire"]]}
    more |= {"screen": [["--json"], ["--next", "1"], ["--rank", "probability", "--best", "1"], ["--fmax", "1"]]}
    more |= {"compress": [["--json"], ["--memory-limit", "1GB"]]}
    more |= {"check": [["--quick"], ["--json"]], "check of a model": [["--json"], ["--memory-limit", "1GB"]]}
    chosen = rng.choice(len(more[name]), rng.integers(0, 3), replace=False)
    return [*SOUND[name], *(word for k in chosen for word in more[name][k])]


def value_of_an_option(rng, shop):
    line = command_of(rng)
    option = str(rng.choice([o for o, takes in options()[line[0]] if takes and o not in ("-o", "--output")] or ["--model"]))
    return [
        *line,
        f"{option}={rng.choice(VALUES)}" if rng.random() < 0.7 else option,
        *([str(rng.choice(VALUES))] if rng.random() < 0.3 else []),
    ]


def two_options(rng, shop):
    line = command_of(rng)
    for option, takes in (options()[line[0]][k] for k in rng.choice(len(options()[line[0]]), 2)):
        line += [] if option in ("-o", "--output") else [f"{option}={rng.choice(VALUES)}" if takes else option]
    return line


def mistyped_option(rng, shop):
    line = command_of(rng)
    option = str(rng.choice([o for o, _ in options()[line[0]] if len(o) > 4] or ["--verify"]))
    k = int(rng.integers(3, len(option)))
    changed = [
        option[:k] + option[k + 1 :],
        option[:k] + "x" + option[k:],
        option.upper(),
        option[1:],
        option.replace("-", "_"),
        "-" + option,
    ]
    return [*line, changed[rng.integers(len(changed))], str(rng.choice(VALUES))]


def words_shuffled(rng, shop):
    line = command_of(rng)
    return [str(word) for word in rng.permutation(line)] if rng.random() < 0.3 else [line[0], *(str(w) for w in rng.permutation(line[1:]))]


def words_missing_or_doubled(rng, shop):
    line = command_of(rng)
    k = int(rng.integers(len(line)))
    return line[:k] + line[k + 1 :] if rng.random() < 0.5 else line[:k] + [line[k]] * int(rng.integers(2, 4)) + line[k + 1 :]


def files_swapped(rng, shop):
    line = command_of(rng)
    places = [k for k, word in enumerate(line) if "." in word and not word.replace(".", "").isdigit()]
    line[places[0]], line[places[-1]] = line[places[-1]], line[places[0]]
    return line


def replaced(rng, name_of_a_file, inputs=True):
    """A command with this file in place of one of its inputs, or of its output."""
    line = command_of(rng)
    if not inputs:
        line = list(SOUND[("check of a model", "fit", "predict", "relax", "screen")[rng.integers(5)]])
        line[output_place(line)] = name_of_a_file
        return line
    places = [k for k, word in enumerate(line) if word in ("m.soapkrr", "train.xyz", "test.xyz", "bare.xyz")]
    line[places[rng.integers(len(places))]] = name_of_a_file
    return line


def missing_file(rng, shop):
    names = [
        "none.xyz",
        "none",
        "folder/none.xyz",
        "none/none.xyz",
        "",
        " ",
        "\n",
        "train.xyz@",
        "train.xyz@9:",
        "train.xyz@a",
        "x" * 300,
        "~",
        "*.xyz",
    ]
    names += [
        "train.xyz@-1",
        "train.xyz@:0",
        "train.xyz@::-1",
        "train.xyz@1:2:0",
        "@",
        "@0",
        "-",
        "m.soapkrr@0",
        "train.xyz@0@0",
        "http://localhost/x",
    ]
    return replaced(rng, str(rng.choice(names)))


def no_regular_file(rng, shop):
    name = f"odd{rng.choice(['.xyz', '.soapkrr', '', '.traj', '.db'])}"
    kind = rng.integers(6)
    path = shop.folder / name
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("nowhere")
    elif kind == 2:
        path.symlink_to(name)
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        return replaced(rng, str(rng.choice(["/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/"])))
    else:
        path.write_bytes(b"")
        path.chmod(0)
    return replaced(rng, name, inputs=rng.random() < 0.6)


def content_of_a_file(rng, shop):
    kind, suffix = str(rng.choice(list(CONTENTS))), str(rng.choice(SUFFIXES))
    (shop.folder / f"odd{suffix}").write_bytes(CONTENTS[kind])
    return replaced(rng, f"odd{suffix}")


def damaged_structures(rng, shop):
    """A sound file with a line lost, doubled or cut, or some bytes changed."""
    content = (shop.folder / str(rng.choice(["train.xyz", "test.xyz", "bare.xyz"]))).read_bytes()
    lines, kind = content.splitlines(keepends=True), rng.integers(6)
    k = int(rng.integers(len(lines)))
    if kind == 0:
        content = b"".join(lines[:k] + lines[k + 1 :])
    elif kind == 1:
        content = b"".join(lines[:k] + [lines[k]] + lines[k:])
    elif kind == 2:
        content = content[: rng.integers(len(content))]
    else:
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 5):
            changed[place] = rng.integers(256) if kind == 3 else rng.choice(list(b"0123456789-.e TFAr\n"))
        content = bytes(changed)
    (shop.folder / "odd.xyz").write_bytes(content)
    return replaced(rng, "odd.xyz")


def place_to_write(rng, shop):
    names = [
        "folder",
        "none/new.soapkrr",
        "train.xyz",
        "m.soapkrr",
        "bare.xyz",
        "/dev/full",
        "/dev/null",
        "/",
        "",
        ".",
        "..",
        "x" * 300,
        "new",
    ]
    names += [
        "new.txt",
        "new.xyz",
        "new.db",
        "new.csv",
        "new.soapkrr",
        "folder/new.csv",
        "/proc/new.csv",
        "\n.csv",
        "new.XYZ",
        "é.csv",
    ]
    return replaced(rng, str(rng.choice(names)), inputs=False)


def no_command(rng, shop):
    lines = [
        [],
        ["-h"],
        ["--version"],
        ["fitt"],
        ["--json"],
        ["fit"],
        ["info"],
        ["fit", "--help"],
        ["--", "fit"],
        [""],
        ["info", "m.soapkrr", "x"],
    ]
    lines += [
        ["evaluate", "m.soapkrr"],
        ["relax"],
        ["predict", "m.soapkrr"],
        ["FIT", "train.xyz"],
        ["-x"],
        ["info", "--model=m.soapkrr"],
        ["é"],
    ]
    return lines[rng.integers(len(lines))]


MAKERS = {
    make.__name__.replace("_", " "): make
    for make in (
        sound, value_of_an_option, two_options, mistyped_option, words_shuffled, words_missing_or_doubled, files_swapped, missing_file,
        no_regular_file, content_of_a_file, damaged_structures, place_to_write, no_command,
    )
}  # fmt: skip


def attempts(n: int, seed: int, folder: Path) -> Iterator[Attempt]:
    """n command lines, every kind in turn."""
    shop, kinds = Workshop(folder), list(MAKERS.items())
    for k in range(n):
        name, make = kinds[k % len(kinds)]
        shop.clean()
        line = make(np.random.default_rng([seed, k]), shop)
        shown = " ".join(repr(word[:40]) if not word.strip() or " " in word else word[:60] for word in line)
        yield Attempt(name, f"{name} {seed}/{k}: soapkrr {shown}", ran(shop, line), judged(shop, name, line))
    shop.clean()


def ran(shop: Workshop, line: list[str]):
    def action():
        before, odd = os.getcwd(), {name for name in shop.left()}
        inputs = {name: (shop.folder / name).read_bytes() for name in shop.given if (shop.folder / name).is_file()}
        out, err = io.StringIO(), io.StringIO()
        os.chdir(shop.folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = cli.main(line)
                except SystemExit as exit:
                    code = exit.code
        finally:
            os.chdir(before)
        return code or 0, out.getvalue(), err.getvalue(), odd, inputs

    return action


def judged(shop: Workshop, kind: str, line: list[str]):
    def judge(value):
        code, out, err, odd, inputs = value
        try:
            return _judged(shop, kind, line, code, out, err, odd, inputs)
        finally:
            for name, content in inputs.items():
                if (shop.folder / name).read_bytes() != content:
                    (shop.folder / name).write_bytes(content)

    return judge


def _judged(shop, kind, line, code, out, err, odd, inputs) -> str:
    place = output_place(line)
    written = [] if place is None or code == 2 else [line[place]]
    if changed := [name for name, content in inputs.items() if (shop.folder / name).read_bytes() != content and name not in written]:
        raise Wrong(f"{changed} was changed; exit code {code}: {err}")
    if "Traceback" in err or code not in (0, 1, 2):
        raise Wrong(f"exit code {code}: {err}")
    left = shop.left() - odd
    if hidden := [name for name in left if name.startswith(".") or name.endswith((".tmp", "-journal", ".lock"))]:
        raise Wrong(f"left over: {hidden}; exit code {code}: {err}")
    if code == 2:
        if (
            out
            or [text for text in err.splitlines() if not text.startswith("soapkrr: ")]
            or err.count("\nsoapkrr: error: ") + err.startswith("soapkrr: error: ") != 1
        ):
            raise Wrong(f"exit code 2 without one line of error: {out!r} {err!r}")
        if kind == "sound" or left:
            raise Wrong(f"refused, and left {left}: {err}")
        return REFUSED
    if code == 1 and line[0] not in ("check", "relax", "predict", "screen"):
        raise Wrong(f"exit code 1: {err}")
    return _judged_output(shop, line, left)


def _judged_output(shop, line, left) -> str:
    """What was written is whole."""
    for name in left:
        path = shop.folder / name
        if path.suffix == ".soapkrr":
            load(path)
        if path.suffix in (".xyz", ".extxyz") and line[0] in ("relax", "predict") and not read(path, ":"):
            raise Wrong(f"{name} holds no structure")
    return RIGHT
