"""``soapkrr dimer``: a saddle point from one structure, by few calls of a reference."""

from __future__ import annotations

import argparse

from soapkrr.cli.arguments import number, output
from soapkrr.cli.files import model_path, structure_path
from soapkrr.cli.growing import extended_xyz
from soapkrr.cli.relax import check_fmax
from soapkrr.cli.searches import (
    GOES_ON,
    asked_of,
    begin,
    beside,
    calculators,
    kept,
    one_structure,
    reference_arguments,
    search_arguments,
    warn_of_forces,
)
from soapkrr.cli.tables import Report
from soapkrr.cli.types import seed
from soapkrr.errors import InputError

DIMER = (
    "OUT holds the saddle with the reference's energy and forces, and the mode that leads over it (mode, of length 1). "
    f"{GOES_ON} They are in OUT.calls.xyz. The exit code is 1 when no saddle was reached."
)

#: Standard deviation of a random displacement, Å; the part of the way to another structure that is gone first.
RANDOM, PART = 0.1, 0.2


def dimer_arguments(sub) -> None:
    sub.add_argument("file", metavar="FILE", help="file of the structure at rest where the search begins; constraints are kept")
    reference_arguments(sub)
    output(sub, "OUT", "the saddle, extended XYZ", required=True)
    group = sub.add_argument_group("the first step, which says to which saddle (default: random, as --seed says)")
    group.add_argument(
        "--displace",
        type=displacement,
        action="append",
        metavar="I=X,Y,Z",
        help="move atom I, from 0, by this vector in Å; may be repeated",
    )
    group.add_argument("--towards", metavar="FILE2", help="a fifth of the way to this structure of the same atoms")
    number(group, "--seed", seed, 0, "of a random displacement of 0.1 Å")
    search_arguments(sub)


def displacement(text: str) -> tuple[int, list[float]]:
    """An atom and its way, Å."""
    atom, _, way = text.partition("=")
    try:
        found = int(atom), [float(x) for x in way.split(",")]
    except ValueError:
        found = -1, []
    if found[0] < 0 or len(found[1]) != 3:
        raise argparse.ArgumentTypeError(f"expected an atom and its displacement in Å, such as 12=0.2,0,0, received {text!r}")
    return found


def dimer(args) -> Report:
    from soapkrr.active.asking import force_of
    from soapkrr.active.dimer import SurrogateDimer
    from soapkrr.modelfile import write_whole

    out = structure_path(args.output, args.file, args.towards)
    check_fmax(args.fmax)
    saved = None if args.save_model is None else model_path(args.save_model, args.file, args.model)
    atoms = one_structure(args.file)
    way = _way(atoms, args)
    reference, prior, model = calculators(args)
    options = {"prior": prior, "model": model}
    SurrogateDimer(atoms, reference, way, **options)  # what cannot be is refused before a file is written
    calls = beside(out, "calls.xyz")
    begin(beside(out, "run.json"), calls, "dimer", asked_of(args, ("displace", "seed"), start=atoms, displaced=_displaced(atoms, way)))
    with kept(calls, beside(out, "run.json")):
        search = SurrogateDimer(atoms, reference, way, **options, records=calls)
        saddle = search.run(fmax=args.fmax, steps=args.steps)
    start, found = search.records.find(search.start), search.records.find(saddle.atoms)
    warn_of_forces({args.file: force_of(start)}, args.fmax)
    text = extended_xyz(_written(saddle, found))
    write_whole(out, lambda file: file.write(text.encode()))
    if saved is not None:
        saddle.model.save(saved)
    data = _data(saddle) | {"output": str(args.output), "calls_file": str(calls)}
    return Report(data, _told(data, args), code=0 if saddle.converged else 1)


def _way(atoms, args):
    """(n_atoms, 3) the first step, Å."""
    import numpy as np

    if args.displace is not None and args.towards is not None:
        raise InputError("`--displace` and `--towards` both say to which saddle; give one of them.")
    if args.towards is not None:
        other = one_structure(args.towards)
        if not np.array_equal(other.numbers, atoms.numbers):
            raise InputError(f"`--towards`: {args.towards} must have the atoms of {args.file} in the same order.")
        return PART * (other.positions - atoms.positions)
    if args.displace is None:
        return np.random.default_rng(args.seed).normal(scale=RANDOM, size=atoms.positions.shape)
    way = np.zeros_like(atoms.positions)
    for atom, vector in args.displace:
        if atom >= len(atoms):
            raise InputError(f"`--displace`: there is no atom {atom} in {args.file}, which has {len(atoms)}, counted from 0.")
        way[atom] += vector
    return way


def _displaced(atoms, way):
    moved = atoms.copy()
    moved.positions += way
    return moved


def _written(saddle, found):
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = saddle.atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=found.energy, forces=found.forces)
    atoms.set_array("mode", saddle.mode)
    atoms.info |= {"dimer_barrier": saddle.barrier, "dimer_curvature": saddle.curvature, "dimer_converged": saddle.converged}
    return atoms


def _data(saddle) -> dict:
    return {
        "energy_ev": saddle.energy,
        "barrier_ev": saddle.barrier,
        "fmax_ev_per_angstrom": saddle.force,
        "curvature_ev_per_angstrom2": saddle.curvature,
        "converged": saddle.converged,
        "calls": saddle.calls,
    }


def _told(data: dict, args) -> str:
    state = "a saddle" if data["converged"] else "no saddle yet"
    height, force, curvature = (f"{data[name]:.4f}" for name in ("barrier_ev", "fmax_ev_per_angstrom", "curvature_ev_per_angstrom2"))
    return (
        f"{args.output}: {state}, {height} eV above {args.file}; force {force} eV/Å, lowest curvature {curvature} eV/Å²; {data['calls']} "
        f"calls of {args.reference}"
    )
