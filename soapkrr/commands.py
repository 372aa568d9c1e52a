"""What the commands of the command line do: each takes parsed arguments and returns a `Report`.

Heavy modules are imported inside the functions, so that ``soapkrr --help`` is quick.
"""

from __future__ import annotations

import io
import math
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from soapkrr.errors import InputError

#: Suffixes of structure files: a model is never written to one.
STRUCTURE_SUFFIXES = {".xyz", ".extxyz", ".traj", ".cif", ".vasp", ".db", ".json", ".pdb"}

#: Rows of the error table: kind → (unit as printed, key of the mean absolute error, key of the root mean square error, decimals).
ROWS = {
    "energy": ("meV/atom", "energy_mae_mev_per_atom", "energy_rmse_mev_per_atom", 2),
    "forces": ("eV/Å", "forces_mae_ev_per_angstrom", "forces_rmse_ev_per_angstrom", 4),
    "stress": ("GPa", "stress_mae_gpa", "stress_rmse_gpa", 3),
}

UNCERTAINTY = {"all": True, "energy": ("energy",), "none": False}


@dataclass(frozen=True)
class Report:
    """What a command has to say: ``data`` for ``--json``, ``text`` otherwise, and the exit code."""

    data: dict
    text: str
    code: int = 0


def fit(args) -> Report:
    from soapkrr import DotProduct, SparseGP

    output = _model_path(args.output, args.file, args.test)
    frames = _read(args.file)
    test = _read(args.test) if args.test else None
    descriptor = _descriptor(args, frames)
    model = SparseGP(
        descriptor,
        DotProduct(zeta=args.zeta),
        n_sparse=args.n_sparse,
        noise={"energy": args.noise_energy, "forces": args.noise_forces, "stress": args.noise_stress},
        signal=args.signal,
        selection=args.selection,
        baseline=args.baseline,
        tolerance=args.tolerance,
        threads=args.threads,
    )
    _check(frames, args.file, descriptor, known=None)
    if test is not None:
        _check(test, args.test, descriptor, known={int(z) for atoms in frames for z in atoms.numbers})
    start = time.perf_counter()
    model.fit(frames, progress=not args.quiet)
    seconds, memory = time.perf_counter() - start, peak_memory_mb()
    model.save(output)
    # Standard deviations of every training force would cost more than the fit: energies only.
    train_errors = _errors(model, frames, "none" if args.uncertainty == "none" else "energy", not args.quiet)
    test_errors = None if test is None else _errors(model, test, args.uncertainty, not args.quiet)
    data = {
        **train_errors,
        "fit_seconds": seconds,
        "peak_memory_mb": memory,
        "test": test_errors,
        "model": str(args.output),
        "n_sparse": model.n_sparse_,
        "rank": model.rank_,
        "condition": model.condition_,
        "n_observations": model.n_observations_,
        "reference_energies": model.reference_energies_,
    }
    tables = [_table(f"train: {args.file}", train_errors)] + ([] if test is None else [_table(f"test: {args.test}", test_errors)])
    memory_text = "" if memory is None else f", peak memory {memory:.0f} MB"
    head = f"{args.output}: {_counts(model.n_sparse_)} sparse points, fitted in {seconds:.1f} s{memory_text}"
    return Report(data, "\n\n".join([head, *tables]))


def evaluate(args) -> Report:
    model = _load(args.model, args.threads)
    frames = _read(args.file)
    _check(frames, args.file, model.descriptor, known=_known(model))
    errors = _errors(model, frames, args.uncertainty, not args.quiet)
    return Report({**errors, "model": args.model, "file": args.file}, _table(f"{args.model} on {args.file}", errors))


def relax(args) -> Report:
    from soapkrr.parallel import serial_blas
    from soapkrr.progress import track

    output = _structure_path(args.output, args.file, args.model)
    if not (math.isfinite(args.fmax) and args.fmax > 0):
        raise InputError(f"`--fmax` must be a positive finite number in eV/Å, received {args.fmax}.")
    model = _load(args.model, args.threads)
    frames = _read(args.file)
    _check(frames, args.file, model.descriptor, known=_known(model), labelled=False)
    if args.cell:
        open_frames = [s for s, atoms in enumerate(frames) if not atoms.pbc.all()]
        if open_frames:
            raise InputError(f"{args.file}: frame {open_frames[0]} is not periodic in three directions, `--cell` cannot relax its cell.")
    numbered = track(enumerate(frames), len(frames), "relaxing", not args.quiet)
    with serial_blas(), warnings.catch_warnings():  # ASE's 3 × 3 matrices on two threads of a busy machine take 8 ms each
        warnings.filterwarnings("ignore", "logm result may be inaccurate")  # by 1e-12
        relaxed, rows = zip(*(_relax_one(model, atoms, s, args) for s, atoms in numbered), strict=True)
    _write_structures(output, relaxed)
    left = [row["frame"] for row in rows if not row["converged"]]
    data = {"structures": list(rows), "all_converged": not left, "output": str(args.output)}
    return Report(data, _relax_table(rows, args), code=1 if left else 0)


def _relax_one(model, atoms, index: int, args):
    """Relax one structure: (structure with results, row of the table)."""
    import numpy as np
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE

    atoms = atoms.copy()
    atoms.calc = model.calculator(uncertainty=False)
    target = FrechetCellFilter(atoms) if args.cell else atoms
    try:
        optimizer = {"bfgs": BFGS, "fire": FIRE}[args.optimizer](target, logfile=None)
        converged = bool(optimizer.run(fmax=args.fmax, steps=args.steps))
        force = float(np.linalg.norm(target.get_forces(), axis=1).max())
        p = model.predict(atoms, uncertainty="energy")
    except InputError as error:
        raise InputError(f"{args.file}: the relaxation of frame {index} failed: {error}") from error
    results = {"energy": float(p.energy[0]), "forces": p.forces[0]}
    if np.isfinite(p.stress[0]).all():
        results["stress"] = p.stress[0]
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info["energy_std"] = float(p.energy_std[0])
    row = {
        "frame": index,
        "formula": atoms.get_chemical_formula(),
        "n_atoms": len(atoms),
        "energy_ev": results["energy"],
        "energy_std_ev": float(p.energy_std[0]),
        "fmax_ev_per_angstrom": force,
        "steps": int(optimizer.nsteps),
        "converged": converged,
    }
    return atoms, row


def _relax_table(rows, args) -> str:
    width = max(7, *(len(row["formula"]) for row in rows))
    lines = [f"{'frame':>5}  {'formula':<{width}}  {'energy (eV)':>14}  {'± std (eV)':>10}  {'max force (eV/Å)':>16}  {'steps':>5}"]
    for row in rows:
        line = (
            f"{row['frame']:>5}  {row['formula']:<{width}}  {row['energy_ev']:>14.4f}  {row['energy_std_ev']:>10.4f}  "
            f"{row['fmax_ev_per_angstrom']:>16.4f}  {row['steps']:>5}"
        )
        lines.append(line if row["converged"] else f"{line}  not converged")
    left = sum(not row["converged"] for row in rows)
    state = f"{left} of {len(rows)} not converged in {args.steps} steps" if left else "all converged"
    return "\n".join([*lines, f"{args.output}: {len(rows)} structures, {state}"])


def info(args) -> Report:
    from soapkrr import io as model_io
    from soapkrr.regression.data import DEFAULT_NOISE

    model = model_io.load(args.model)
    header = model_io.read_header(args.model)
    noise = {**DEFAULT_NOISE, **(model.noise or {})}
    soap = model.descriptor
    data = {
        "model": args.model,
        "format_version": header["version"],
        "estimator": header["estimator"],
        "species": list(soap.species),
        "parameters": header["parameters"] | {"noise": noise},
        "n_sparse": model.n_sparse_,
        "rank": model.rank_,
        "condition": model.condition_,
        "n_observations": model.n_observations_,
        "reference_energies": model.reference_energies_,
        "size_mb": Path(args.model).stat().st_size / 1e6,
    }
    rows = {
        "model": f"{args.model}, {data['size_mb']:.1f} MB, {data['estimator']}, format {data['format_version']}",
        "species": ", ".join(soap.species),
        "descriptor": f"SOAP r_cut {soap.r_cut:g} Å, n_max {soap.n_max}, l_max {soap.l_max}, sigma {soap.sigma:g} Å, basis {soap.rbf}",
        "cutoff": repr(soap.cutoff),
        "radial scaling": repr(soap.scaling) if soap.scaling else "none",
        "kernel": repr(model.kernel),
        "sparse points": f"{_counts(model.n_sparse_)} ({model.selection})",
        "features": f"{model.rank_} (tolerance {model.tolerance:g})",
        "observations": ", ".join(f"{kind} {n}" for kind, n in model.n_observations_.items()),
        "noise": f"energy {noise['energy']:g} eV/atom, forces {noise['forces']:g} eV/Å, stress {noise['stress']:g} eV/Å³",
        "signal": f"{model.signal:g} eV",
        "reference energies": ", ".join(f"{symbol} {energy:.6f} eV" for symbol, energy in model.reference_energies_.items()),
        "condition number": f"{model.condition_:.1e}",
    }
    return Report(data, "\n".join(f"{name:<20}{value}" for name, value in rows.items()))


def _read(path: str):
    """Every structure of a file that ASE reads; ``name.xyz@:10`` picks some, as in ASE."""
    from ase.io import read

    from soapkrr.structures import Batch

    name, index = (path, ":") if Path(path).exists() or "@" not in path else path.rsplit("@", 1)
    if not Path(name).exists():
        raise InputError(f"there is no file {name}.")
    if Path(name).is_dir():
        raise InputError(f"{name} is a directory, not a file of structures.")
    try:
        frames = read(name, index=index)
    except Exception as error:  # ASE's readers raise whatever their parser trips over
        raise InputError(f"cannot read structures from {path}: {type(error).__name__}: {error}") from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise InputError(f"{path} holds no structures.")
    with _named(path):
        Batch.from_atoms(frames)
    return frames


@contextmanager
def _named(path: str):
    """Put the name of the file before messages that name a frame of it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check(frames, path: str, descriptor, known: set[int] | None, labelled: bool = True) -> None:
    """Everything that can be wrong with a file of structures, found before hours are spent; the message names file and frame."""
    from soapkrr.labels import read_labels
    from soapkrr.structures import Batch, split_by_atoms

    with _named(path):
        for first, group in split_by_atoms(frames, 4096):
            batch = Batch.from_atoms(group, first)
            _check_known(batch, first, known)
            descriptor.kinds(batch.numbers, first, batch.structure)
            batch.pairs(descriptor.r_cut, first)
        if labelled:
            read_labels(frames)


def _check_known(batch, first: int, known: set[int] | None) -> None:
    from soapkrr.structures import species_name

    for z, s in zip(batch.numbers, batch.structure, strict=True):
        if known is not None and int(z) not in known:
            names = [species_name(k) for k in sorted(known)]
            raise InputError(f"frame {first + s}: species {species_name(z)} is not in the training data, which has {names}.")


def _load(path: str, threads: int | None):
    from soapkrr import load

    model = load(path)
    return model.set_params(threads=threads)


def _known(model) -> set[int]:
    from ase.data import atomic_numbers

    return {atomic_numbers[symbol] for symbol in model.reference_energies_}


def _model_path(output: str, *inputs: str | None) -> Path:
    path = _output_path(output, *inputs)
    if path.suffix.lower() in STRUCTURE_SUFFIXES:
        raise InputError(f"`--output` {output}: {path.suffix} is a suffix of structure files; call the model, say, {path.stem}.soapkrr.")
    return path


def _structure_path(output: str, *inputs: str | None) -> Path:
    path = _output_path(output, *inputs)
    if path.suffix.lower() not in {".xyz", ".extxyz", ""}:
        raise InputError(f"`--output` {output}: extended XYZ is written, so the name must end in .xyz or .extxyz.")
    return path


def _output_path(output: str, *inputs: str | None) -> Path:
    """A path that can be written and is none of the inputs."""
    from soapkrr.io import check_writable

    path = check_writable(output)
    if any(name and Path(name).exists() and path.exists() and path.samefile(name) for name in inputs):
        raise InputError(f"`--output` {output} is an input file; choose another name.")
    return path


def _write_structures(path: Path, frames) -> None:
    from ase.io import write

    from soapkrr.io import write_whole

    text = io.StringIO()
    write(text, frames, format="extxyz")
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def _errors(model, frames, uncertainty: str, show: bool) -> dict:
    """Every key of the error table, None where there are no labels or no standard deviations."""
    from soapkrr.metrics import error_table
    from soapkrr.prediction import Prediction
    from soapkrr.progress import track
    from soapkrr.structures import split_by_atoms

    groups = list(split_by_atoms(frames, 1024))
    bar = track(groups, len(groups), "predicting", show)
    prediction = Prediction.concatenate([model.predict(group, uncertainty=UNCERTAINTY[uncertainty]) for _, group in bar])
    table = error_table(frames, prediction)
    keys = [key for kind, row in ROWS.items() for key in (row[1], row[2], f"{kind}_within_1_std", f"{kind}_within_2_std")]
    return {**{key: table.get(key) for key in keys}, "n_structures": len(frames), "n_atoms": sum(map(len, frames))}


def _table(title: str, errors: dict) -> str:
    """The error table as text."""
    lines = [
        f"{title} ({errors['n_structures']} structures, {errors['n_atoms']} atoms)",
        f"  {'':<17}{'MAE':>10}{'RMSE':>10}{'within 1 std':>15}{'within 2 std':>15}",
    ]
    for kind, (unit, mae, rmse, decimals) in ROWS.items():
        cells = [_cell(errors[key], 10, f".{decimals}f") for key in (mae, rmse)]
        cells += [_cell(errors[f"{kind}_within_{k}_std"], 15, ".1%") for k in (1, 2)]
        lines.append(f"  {kind:<7}{unit:<10}{''.join(cells)}")
    return "\n".join(lines)


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}{form}}"


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{symbol} {n}" for symbol, n in numbers.items())


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, 10⁶ bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _descriptor(args, frames):
    from soapkrr import SOAP, RadialScaling
    from soapkrr.descriptors.cutoff import Cosine, Polynomial, Smoothstep

    if args.cutoff == "poly" and args.cutoff_width is not None:
        raise InputError("`--cutoff-width` belongs to smoothstep and cosine; the polynomial cutoff takes `--cutoff-exponent`.")
    if args.cutoff != "poly" and args.cutoff_exponent is not None:
        raise InputError(f"`--cutoff-exponent` belongs to the polynomial cutoff; {args.cutoff} takes `--cutoff-width`.")
    given = {"width": args.cutoff_width, "m": args.cutoff_exponent}
    cutoff = {"smoothstep": Smoothstep, "cosine": Cosine, "poly": Polynomial}[args.cutoff](**_without_none(given))
    scaling = _without_none({"r0": args.scaling_r0, "m": args.scaling_m, "c": args.scaling_c})
    return SOAP(
        species=args.species if args.species is not None else sorted({int(z) for atoms in frames for z in atoms.numbers}),
        r_cut=args.r_cut,
        n_max=args.n_max,
        l_max=args.l_max,
        sigma=args.sigma,
        cutoff=cutoff,
        rbf=args.rbf,
        scaling=RadialScaling(**scaling) if scaling else None,
    )


def _without_none(options: dict) -> dict:
    return {name: value for name, value in options.items() if value is not None}
