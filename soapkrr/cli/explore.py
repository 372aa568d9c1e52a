"""``soapkrr explore``: molecular dynamics on the fly, by few calls of a reference."""

from __future__ import annotations

import math
from pathlib import Path

from soapkrr.cli.arguments import number, output
from soapkrr.cli.growing import TextFile, complete_records, drop_rest, extended_xyz
from soapkrr.cli.searches import GOES_ON, asked_of, begin, calculators, kept, one_structure, reference_arguments
from soapkrr.cli.tables import Report
from soapkrr.cli.types import count, fraction, positive_int, seed
from soapkrr.errors import InputError, require_positive

EXPLORED = (
    "OUT is a folder: calls.xyz (the calculations, labelled structures for a fit), trajectory.xyz, model.soapkrr, and state.json, where "
    f"the run is. {GOES_ON} With a larger --steps a finished run is made longer. The exit code is 1 when a calculation failed."
)

#: Thermostats: none, one with friction and random forces, one that scales velocities.
DYNAMICS = ["langevin", "bussi", "nve"]


def explore_arguments(sub) -> None:
    sub.add_argument("file", metavar="FILE", help="file of the structure where the dynamics begin; momenta and constraints are kept")
    reference_arguments(sub)
    output(sub, "OUT", "folder of the run", required=True)
    number(sub, "--temperature", float, 300.0, "of the thermostat, and of the velocities where FILE has none, K")
    number(sub, "--steps", positive_int, 1000, "of the dynamics, in all")
    number(sub, "--timestep", float, 1.0, "fs")
    number(sub, "--threshold", float, None, "force error at which the reference is asked, eV/Å (default: that of left-out forces of MODEL)")
    number(sub, "--rate", fraction, 0.05, "part of the structures where a force may be wrong by more than that")
    sub.add_argument("--dynamics", choices=DYNAMICS, default="langevin", help="thermostat; nve: none (default %(default)s)")
    number(sub, "--friction", float, 0.01, "of langevin, 1/fs; of bussi the inverse of its time")
    sub.add_argument("--committee", type=count, metavar="N", help="samples of the posterior whose spread takes the place of error bars")
    number(sub, "--every", positive_int, 1, "steps between two looks at error bars")
    number(sub, "--interval", positive_int, 10, "steps between two structures of the trajectory")
    number(sub, "--seed", seed, 0, "of velocities and thermostat")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    sub.add_argument("--quiet", action="store_true", help="no warnings on standard error")


def explore(args) -> Report:
    from soapkrr.active.on_the_fly import OnTheFly

    folder = Path(args.output)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`--output` {args.output} is a file; the output is a folder.")
    require_positive(temperature=args.temperature, timestep=args.timestep, friction=args.friction)
    atoms = one_structure(args.file)
    reference, prior, model = calculators(args)
    options = {"threshold": args.threshold, "rate": args.rate, "every": args.every, "committee": args.committee, "prior": prior}
    OnTheFly(model, reference, _dynamics(args), **options)  # what cannot be is refused before a file is written
    folder.mkdir(parents=True, exist_ok=True)
    names = ("temperature", "timestep", "threshold", "rate", "dynamics", "friction", "committee", "every", "seed")
    begin(folder / "run.json", folder / "calls.xyz", "explore", asked_of(args, names, structure=atoms))
    _heat(atoms, args)
    with kept(folder / "calls.xyz", folder / "run.json"), Trajectory(folder / "trajectory.xyz", args.interval) as trajectory:
        run = OnTheFly(model, reference, _dynamics(args), **options, folder=folder).attach(trajectory.look)
        run.run(atoms, args.steps)
    if run.model is not None:
        run.model.save(folder / "model.soapkrr")
    data = _data(run) | {"output": str(args.output)}
    return Report(data, _told(data, args), code=1 if any(call["failure"] for call in data["calls"]) else 0)


class Trajectory(TextFile):
    """Structures of the dynamics in extended XYZ, one every ``interval`` steps; those that are there are not written again."""

    def __init__(self, path: Path, interval: int):
        self.interval, self.last = interval, -1
        if path.exists():
            drop_rest(path, complete_records(path))
            self.last = _last_step(path)
        super().__init__(path, None)

    def look(self, step: int, atoms) -> None:
        """Write one that is due."""
        from ase.calculators.singlepoint import SinglePointCalculator

        if step % self.interval or step <= self.last:
            return
        self.last, there = step, atoms.copy()
        there.info = {"step": step}
        if atoms.calc is not None:
            there.calc = SinglePointCalculator(there, energy=atoms.get_potential_energy(), forces=atoms.get_forces(apply_constraint=False))
        self.add(extended_xyz(there))


def _last_step(path: Path) -> int:
    """Of a trajectory, −1 where it is empty."""
    from ase.io import read

    return int(read(path, index=-1).info.get("step", -1)) if path.stat().st_size else -1


def _heat(atoms, args) -> None:
    """Give atoms without velocities those of the temperature: Maxwell and Boltzmann's, momenta of variance m·k_B·T."""
    import numpy as np
    from ase import units

    if not atoms.get_momenta().any():
        width = np.sqrt(atoms.get_masses() * units.kB * args.temperature)
        atoms.set_momenta(width[:, None] * np.random.default_rng(args.seed).standard_normal((len(atoms), 3)))


def _dynamics(args):
    """Function of atoms that makes the dynamics."""
    import numpy as np
    from ase import units
    from ase.md.bussi import Bussi
    from ase.md.langevin import Langevin
    from ase.md.verlet import VelocityVerlet

    step, friction = args.timestep * units.fs, args.friction / units.fs

    def made(atoms):
        rng = np.random.default_rng(args.seed + 1)
        if args.dynamics == "nve":
            return VelocityVerlet(atoms, step)
        if args.dynamics == "bussi":
            return Bussi(atoms, step, temperature_K=args.temperature, taut=1 / friction, rng=rng)
        return Langevin(atoms, step, temperature_K=args.temperature, friction=friction, fixcm=False, rng=rng)

    return made


def _data(run) -> dict:
    import numpy as np

    calls = [
        {"step": c.step, "deviation_ev_per_angstrom": c.deviation, "error_ev_per_angstrom": c.error, "failure": c.failure}
        for c in run.calls
    ]
    errors = [c.error for c in run.calls if math.isfinite(c.error)]
    return {
        "steps": run.step,
        "n_calls": len(run.references),
        "calls": calls,
        "threshold_ev_per_angstrom": run.threshold,
        "largest_error_ev_per_angstrom": max(errors, default=None),
        "temperature_k": float(np.mean([look.temperature for look in run.looks])) if run.looks else None,
    }


def _told(data: dict, args) -> str:
    from soapkrr.display import text_table

    rows = [
        (str(c["step"]), f"{c['deviation_ev_per_angstrom']:.3f}", f"{c['error_ev_per_angstrom']:.3f}", c["failure"]) for c in data["calls"]
    ]
    table = text_table(("call at step", "doubt (eV/Å)", "error (eV/Å)", ""), rows, left=0)
    mean = "" if data["temperature_k"] is None else f", {data['temperature_k']:.0f} K on average"
    return f"{table}\n{args.output}: {data['steps']} steps{mean}, {data['n_calls']} calls of {args.reference}"
