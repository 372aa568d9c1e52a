"""Damaged model files by the dozen: flipped bits, members rewritten, doubled, swapped or missing, bombs; the same for the same seed.

Checksums of the zip are right except where bits are flipped or the file is cut; digests in the header are those of the undamaged file.
"""

from __future__ import annotations

import io
import json
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import stored_models
from harness import REFUSED, RIGHT, Attempt, Wrong

import soapkrr
from soapkrr import InputError

#: Memory beside three times the file: what Python takes for a zip and the errors.
SPARE = 2**20

HEADER = "model.json"


def mutants(path, n: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield n (name, content of a file), every kind in turn."""
    rng, content = np.random.default_rng(seed), Path(path).read_bytes()
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    kinds = list(KINDS.items())
    for k in range(n):
        name, make = kinds[k % len(kinds)]
        yield f"{name} {seed}/{k}", make(rng, content, dict(members))


def packed(members, method=zipfile.ZIP_STORED) -> bytes:
    """A zip of (name, bytes), of no date."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as file:
        warnings.simplefilter("ignore")  # a name that occurs twice
        for name, content in members:
            file.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def some_array(rng, members) -> str:
    """Name of a member that holds an array."""
    return str(rng.choice(sorted(name for name in members if name != HEADER)))


def unpacked(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def with_flipped_bits(rng, content: bytes, most: int = 4) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, most)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def bits_of_the_file(rng, content, members):
    return with_flipped_bits(rng, content)


def bits_of_the_header(rng, content, members):
    return packed((members | {HEADER: with_flipped_bits(rng, members[HEADER])}).items())


def bits_of_an_array(rng, content, members):
    name = some_array(rng, members)
    return packed((members | {name: with_flipped_bits(rng, members[name])}).items())


def other_numbers(rng, content, members):
    """One number, or all of them."""
    name = some_array(rng, members)
    array = unpacked(members[name]).copy()
    if array.size and rng.random() < 0.5:
        array.flat[rng.integers(array.size)] = rng.choice([0, 1, -1, 2, np.nan, np.inf, 1e300]) if array.dtype.kind == "f" else 1
    elif array.dtype.kind == "f":
        array *= rng.choice([-1, 1 + 1e-12, 2, 1e-300])
    return packed((members | {name: npy(array)}).items())


def other_shape(rng, content, members):
    name = some_array(rng, members)
    array = unpacked(members[name])
    changed = [array[:-1], array.ravel(), array[None], array.T, np.concatenate([array, array]), np.asfortranarray(array), array[:0]]
    return packed((members | {name: npy(changed[rng.integers(len(changed))])}).items())


def other_type(rng, content, members):
    name = some_array(rng, members)
    dtype = rng.choice(["<f4", ">f8", "<i8", "<i2", "<c16", "|b1", "|S8", "<U4", "<f2"])
    return packed((members | {name: npy(unpacked(members[name]).real.astype(dtype))}).items())


def member_twice(rng, content, members):
    name = str(rng.choice(sorted(members)))
    return packed([*members.items(), (name, with_flipped_bits(rng, members[name]))])


def member_missing(rng, content, members):
    del members[str(rng.choice(sorted(members)))]
    return packed(members.items())


def members_swapped(rng, content, members):
    a, b = rng.permutation(sorted(members))[:2]
    return packed((members | {str(a): members[b], str(b): members[a]}).items())


def member_more(rng, content, members):
    return packed([*members.items(), (str(rng.choice(["more.npy", "../m.npy", "/etc/m", "model.json/"])), b"more")])


def header_entry(rng, content, members):
    """One number, text, list or mapping anywhere in the header becomes another."""
    header = json.loads(members[HEADER])
    parts = list(places(header))
    holder, key = parts[rng.integers(len(parts))]
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    else:
        old, others = holder[key], [None, -1, 0, 1e300, 1e9, float("nan"), True, "text", [], {}, {"array": "state"}, {"type": "ZBL"}]
        others += [2 * old, -old] if isinstance(old, (int, float)) else [old[:-1]] if isinstance(old, (str, list)) else []
        holder[key] = others[rng.integers(len(others))]
    return packed((members | {HEADER: json.dumps(header).encode()}).items())


def places(value) -> Iterator[tuple]:
    """(holder, key) of everything inside lists and mappings."""
    for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(part, (dict, list)):
            yield from places(part)


def cut(rng, content, members):
    return content[: rng.integers(len(content))]


def with_a_hole(rng, content, members):
    a, b = np.sort(rng.integers(0, len(content), 2))
    return content[:a] + content[b:] if rng.random() < 0.5 else content[:a] + bytes(b - a) + content[b:]


def compressed(rng, content, members):
    """Members, one of them of megabytes of zeros, that take little room."""
    name = str(rng.choice(sorted(members)))
    large = {name: members[name] + bytes(2**23)} if rng.random() < 0.5 else {some_array(rng, members): npy(np.zeros(2**20))}
    return packed((members | large).items(), zipfile.ZIP_DEFLATED)


def promising(rng, content, members):
    """An array whose own header promises terabytes."""
    name = some_array(rng, members)
    shape = [(10**12,), (10**6, 10**6), (2**62, 4), (-1,), (0, 10**15), (1,) * 60 + (10**9,)][rng.integers(6)]
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return packed((members | {name: buffer.getvalue() + bytes(64)}).items())


def overlapping(rng, content, members):
    """The sizes in the table of contents are larger than the file."""
    changed, place = bytearray(content), content.rfind(b"PK\x01\x02")
    size = int(rng.choice([2**20, 2**31, 2**32 - 2])).to_bytes(4, "little")
    changed[place + 20 : place + 28] = size + size
    return bytes(changed)


KINDS = {
    make.__name__.replace("_", " "): make
    for make in (
        bits_of_the_file, bits_of_the_header, bits_of_an_array, other_numbers, other_shape, other_type, member_twice, member_missing,
        members_swapped, member_more, header_entry, cut, with_a_hole, compressed, promising, overlapping
    )
}  # fmt: skip


def attempts(n: int, seed: int, folder: Path, names: tuple[str, ...] | None = None) -> Iterator[Attempt]:
    """n damaged files, stored models of every kind and version in turn, every kind of damage of each; memory is traced meanwhile."""
    names = names or tuple(sorted(path.name for path in stored_models.HERE.glob("*.soapkrr")))
    left = [mutants(stored_models.HERE / name, n, 1000 * seed + k) for k, name in enumerate(names)]
    wanted = {name: _predictions(stored_models.HERE / name) for name in names if name.startswith("2")}
    tracemalloc.start()
    try:
        for k in range(n):
            name = names[k % len(names)]
            damage, content = next(left[k % len(names)])
            yield Attempt(damage.rsplit(" ", 1)[0], f"{name}, {damage}", loaded(content, folder / "m.soapkrr", wanted.get(name)))
    finally:
        tracemalloc.stop()


def _predictions(path) -> dict:
    return stored_models.predictions(soapkrr.load(path), stored_models.structures()[:2])


def loaded(content: bytes, path: Path, wanted: dict | None):
    """A file with this content is refused, or predicts what is wanted; of version 1, which has no digests, nothing is."""

    def action():
        path.write_bytes(content)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            model = soapkrr.load(path)
        except InputError as error:
            if (taken := tracemalloc.get_traced_memory()[1] - before) > 3 * len(content) + SPARE:
                raise Wrong(f"{taken} bytes of memory for a file of {len(content)}") from error
            if path.name not in str(error):
                raise Wrong(f"an error that does not name the file: {error}") from error
            return REFUSED
        if wanted is not None and stored_models.predictions(model, stored_models.structures()[:2]) != wanted:
            raise Wrong("other numbers")
        return RIGHT

    return action
