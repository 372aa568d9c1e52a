"""Files that commands read and write: everything that can be wrong with them is found before hours are spent."""

from __future__ import annotations

import re
import zipfile
from contextlib import contextmanager
from pathlib import Path

from soapkrr.errors import InputError

#: Suffixes of structure files: a model is never written to one.
STRUCTURE_SUFFIXES = {".xyz", ".extxyz", ".traj", ".cif", ".vasp", ".db", ".json", ".pdb"}


def read_structures(path: str, all_usable: bool = True):
    """Every structure of a file that ASE reads; ``name.xyz@:10`` picks some, as in ASE. ``all_usable``: raise unless each is sound."""
    from ase.io import read

    from soapkrr.structures import Batch

    name, index = (path, ":") if Path(path).exists() or "@" not in path else path.rsplit("@", 1)
    if not Path(name).exists():
        raise InputError(f"there is no file {name}.")
    if Path(name).is_dir():
        raise InputError(f"{name} is a directory, not a file of structures.")
    if not Path(name).is_file():
        raise InputError(f"cannot read structures from {name}: it is a pipe or a device, not a regular file.")
    if is_model(name):
        raise InputError(f"cannot read structures from {name}: it is a model file.")
    _check_counts(name)
    try:
        frames = read(name, index=index)
    except Exception as error:  # ASE's readers raise whatever their parser trips over
        raise InputError(f"cannot read structures from {path}: {type(error).__name__}: {error}") from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise InputError(f"{path} holds no structures.")
    if all_usable:
        with named(path):
            Batch.from_atoms(frames)
    return frames


def _check_counts(path: str) -> None:
    """Raise where an (extended) XYZ file announces more atoms than it has bytes left, which readers would look for one by one."""
    if Path(path).suffix.lower() not in ("", ".xyz", ".extxyz"):
        return
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        while (first := file.readline(64).strip()).isdigit():
            if len(first) > 18 or int(first) > size - file.tell():
                raise InputError(f"cannot read structures from {path}: it announces {first.decode()} atoms, more than it has bytes left.")
            for _ in range(int(first) + 1):
                file.readline()


@contextmanager
def named(path: str):
    """Put the name of the file before messages that name a frame of it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}" if re.search(r"frame \d|structure", str(error)) else str(error)) from error


def check_structures(frames, path: str, descriptors, known: set[int] | None = None, first: int = 0) -> None:
    """Raise, naming file and frame, on structures that the descriptors cannot describe or with species that are not ``known``."""
    from soapkrr.structures import Batch, split_by_atoms

    with named(path):
        for start, group in split_by_atoms(frames, 4096):
            batch = Batch.from_atoms(group, first + start)
            _check_known(batch, known)
            for descriptor in descriptors:
                descriptor.indices_of(batch)
            batch.pairs(max(descriptor.r_cut for descriptor in descriptors))


def _check_known(batch, known: set[int] | None) -> None:
    from soapkrr.structures import species_name

    for z, frame in zip(batch.numbers, batch.frame, strict=True):
        if known is not None and int(z) not in known:
            names = [species_name(k) for k in sorted(known)]
            raise InputError(f"frame {frame}: species {species_name(z)} is not in the training data, which has {names}.")


def check_labels(frames, path: str, observations=None, noise=None, by: str | None = None) -> None:
    """Raise, naming the file, on labels that cannot be used (with ``noise``: as in a fit) and on a ``by`` that no structure has."""
    from soapkrr.labels import read_labels

    with named(path):
        read_labels(frames, observations, noise)
        if by is not None and not any(by in atoms.info for atoms in frames):
            there = sorted(set().union(*(atoms.info for atoms in frames)))
            raise InputError(f"`--by` {by} is in the `info` of no structure; there are {there}.")


def model_and_structures(args, all_usable: bool = True):
    """The potential MODEL and the structures FILE of a command; says so where the two are swapped."""
    if is_model(args.file) and not is_model(args.model):
        command = f"soapkrr {args.run.__name__} {args.file} {args.model}"
        raise InputError(f"MODEL and FILE are swapped: {args.file} is a model, {args.model} is not; it is `{command}`.")
    model = load_model(args.model, args.device, args.threads, args.memory_limit)
    return model, read_structures(args.file, all_usable)


def is_model(path: str) -> bool:
    """Whether a file is a zip that holds a model.json."""
    if not Path(path).is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "model.json" in archive.namelist()


def load_model(path: str, device: str = "cpu", threads: int | None = None, memory_limit: str | None = None):
    """A potential whose prior mean needs no calculator."""
    from soapkrr import load
    from soapkrr.estimators import Potential
    from soapkrr.modelfile import baseline_calculator_name

    name = baseline_calculator_name(path)
    if name is not None:
        raise InputError(
            f"{path} was fitted on top of a calculator ({name}), which files do not hold: load it in Python, "
            "`soapkrr.load(path, baseline_calculator=...)`."
        )
    model = load(path, device=device, threads=threads, memory_limit=memory_limit)
    if not isinstance(model, Potential):
        raise InputError(
            f"{path} is a {type(model).__name__}, not a potential: load it in Python, `soapkrr.load(path)`, and call `predict`."
        )
    return model


def known_species(model) -> set[int]:
    """Atomic numbers that the model was fitted to."""
    from ase.data import atomic_numbers

    return {atomic_numbers[symbol] for symbol in model.reference_energies_}


def model_path(output: str, *inputs: str | None) -> Path:
    """Where a model can be written."""
    path = _output_path(output, *inputs)
    if path.suffix.lower() in STRUCTURE_SUFFIXES:
        raise InputError(f"`--output` {output}: {path.suffix} is a suffix of structure files; call the model, say, {path.stem}.soapkrr.")
    return path


def structure_path(output: str, *inputs: str | None) -> Path:
    """Where structures can be written."""
    path = _output_path(output, *inputs)
    if path.suffix.lower() not in {".xyz", ".extxyz", ""}:
        raise InputError(f"`--output` {output}: extended XYZ is written, so the name must end in .xyz or .extxyz.")
    return path


def table_path(output: str, *inputs: str | None) -> Path:
    """Where a table or structures with predictions can be written."""
    path = _output_path(output, *inputs)
    if path.suffix.lower() not in {".csv", ".xyz", ".extxyz", ".db"}:
        raise InputError(f"`--output` {output}: the name must end in .csv, .xyz, .extxyz or .db.")
    return path


def _output_path(output: str, *inputs: str | None) -> Path:
    """A path that can be written and is none of the inputs."""
    from soapkrr.modelfile import check_writable

    path = check_writable(output)
    if any(name and Path(name).exists() and path.exists() and path.samefile(name) for name in inputs):
        raise InputError(f"`--output` {output} is an input file; choose another name.")
    return path


#: What `relax` and `predict` write beside a structure.
RESULTS_OF_RELAX = ("relax_frame", "relax_fmax", "relax_steps", "relax_converged", "relax_failed", "outside")

WRITTEN = ("energy_std", "forces_std_max", "row", "predict_failed", *RESULTS_OF_RELAX)


def without_labels(atoms, observations):
    """A copy without the labels that a model was fitted to, which belong to the structure as it was, and without earlier results."""
    atoms = atoms.copy()
    names = () if observations is None else (observations.energy, observations.forces, observations.stress, observations.virial)
    for name in (*WRITTEN, *names):
        atoms.info.pop(name, None)
        atoms.arrays.pop(name, None)
    return atoms


def put_results(atoms, prediction) -> None:
    """Give a structure the energy, forces and, of three-dimensional cells, stress of the first structure of a prediction as results."""
    import numpy as np
    from ase.calculators.singlepoint import SinglePointCalculator

    stress = {"stress": prediction.stress[0]} if np.isfinite(prediction.stress[0]).all() else {}
    atoms.calc = SinglePointCalculator(atoms, energy=float(prediction.energy[0]), forces=prediction.forces[0], **stress)
